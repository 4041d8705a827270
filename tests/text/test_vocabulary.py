import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from hfasr.decoding.greedy import labels_to_text
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer, check_target_record, missing_symbols, target_record


def test_round_trip_of_the_papers_phonemes(shared, tmp_path):
    texts = (shared / "data/unispeech_ky/testSeqs_uniform_new_version.text").read_text("utf-8").splitlines()
    targets = Phonemizer("ky")([line.split("\t", 1)[1] for line in texts])
    tokenizer = build_tokenizer(targets, "phoneme")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.pad_token_id == 0
    assert len(loaded) == max(loaded.get_vocab().values()) + 1
    for target in targets:
        labels = loaded(target).input_ids
        assert len(labels) == len(target.split())
        assert labels_to_text(labels, loaded) == target


@pytest.mark.parametrize("targets", [["ал келди", "ээй"], ["你好世界", "世界"]])
def test_round_trip_of_characters(targets, tmp_path):
    build_tokenizer(targets, "character").save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for target in targets:
        labels = loaded(target).input_ids
        assert len(labels) == len(target)
        assert labels_to_text(labels, loaded) == target


def test_ids_depend_on_the_symbols_alone():
    assert build_tokenizer(["b a", "c"]).get_vocab() == build_tokenizer(["c", "a b a"]).get_vocab()


def test_rare_and_missing_symbols():
    tokenizer = build_tokenizer(["a a b", "a"], min_count=2)
    assert tokenizer("a b").input_ids == [tokenizer.get_vocab()["a"], tokenizer.unk_token_id]
    assert missing_symbols(["a x", "x y"], tokenizer, "phoneme") == {"x": 2, "y": 1}
    with pytest.raises(ValueError, match="no symbol"):
        build_tokenizer(["", ""])
    with pytest.raises(ValueError, match="<pad>"):
        build_tokenizer(["a <pad>"])
    with pytest.raises(ValueError, match="syllable"):
        build_tokenizer(["a"], "syllable")


def test_the_record_survives_and_refuses_other_targets(tmp_path):
    record = target_record(["a b"], voice="ky", espeak_version="1.52.0")
    build_tokenizer(["a b"], record=record).save_pretrained(tmp_path)
    stored = AutoTokenizer.from_pretrained(tmp_path).init_kwargs["hfasr"]
    check_target_record(stored, record, same_rows=True)
    check_target_record(None, record, same_rows=True)
    other = target_record(["a c"], voice="ky", espeak_version="1.52.0")
    check_target_record(stored, other, same_rows=False)
    with pytest.raises(ValueError, match="targets_sha256"):
        check_target_record(stored, other, same_rows=True)
    with pytest.raises(ValueError, match=r"espeak_version '1\.52\.0'.*'1\.51'"):
        check_target_record(stored, {**record, "espeak_version": "1.51"}, same_rows=False)


def test_the_tokenizer_loads_without_phonemizer(tmp_path):
    build_tokenizer(["a b"]).save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['phonemizer'] = None\n"
        f"from transformers import AutoTokenizer; print(AutoTokenizer.from_pretrained({str(tmp_path)!r})('a b').input_ids)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[2, 3]"
