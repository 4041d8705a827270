import itertools
import logging
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import sentencepiece
from transformers import AutoProcessor, AutoTokenizer, Wav2Vec2CTCTokenizer, pipeline

from hfasr.decoding.greedy import decode_frames, labels_to_text
from hfasr.models.load import load_model
from hfasr.text import pieces
from hfasr.text.phonemize import Phonemizer
from hfasr.text.pieces import learn_pieces
from hfasr.text.vocabulary import (
    build_tokenizer,
    check_target_record,
    encode_targets,
    evaluated_as,
    missing_symbols,
    split_target,
    target_record,
)


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


TEXTS = ["ал келди", "ээй ээжж", "ки\u0438\u0306ин İstanbul ıŞık", "<a> b>c & Á", "𠮷野家 😀😀 ☃", "ал . келди , don't", "«Чоң-ата»"]


@pytest.mark.parametrize("unit", ["character", "sentencepiece"])
@pytest.mark.parametrize("targets", [TEXTS, ["你好世界", "世界世界界"]], ids=["words", "chinese"])
def test_round_trip_of_plain_text(unit, targets, tmp_path):
    """Through the saved tokenizer: labels joined as they are, and frames with repeats and blanks by Transformers' own decoding."""
    build_tokenizer(targets, unit, vocab_size=_most_pieces(targets) if unit == "sentencepiece" else None).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.unk_token_id) == (0, 1)
    assert ("|" in loaded.get_vocab()) == (unit == "character" and targets is TEXTS)
    assert len(loaded) == max(loaded.get_vocab().values()) + 1
    for target in targets:
        labels = loaded(target).input_ids
        assert 0 not in labels
        assert 1 not in labels
        assert unit == "sentencepiece" or len(labels) == len(target)
        assert labels_to_text(labels, loaded) == target
        frames = [frame for label in labels for frame in (label, label, 0)]
        assert loaded.decode(frames) == loaded.batch_decode([frames])[0] == target
        assert decode_frames(np.array([[*frames, -100]]), loaded, 0) == [target]


def _most_pieces(targets: list[str]) -> int:
    with pytest.raises(ValueError, match="at most") as error:
        build_tokenizer(targets, "sentencepiece", vocab_size=100_000)
    return int(re.search(r"at most (\d+)", str(error.value))[1])


def _lines(shared, unit: str = "character") -> list[str]:
    texts = (shared / "data/unispeech_ky/testSeqs_uniform_new_version.text").read_text("utf-8").splitlines()
    texts = [line.split("\t", 1)[1] for line in texts]
    return Phonemizer("ky")(texts) if unit == "phoneme" else [" ".join(text.split()) for text in texts]


def test_pieces_are_those_of_sentencepiece_itself(shared):
    targets = _lines(shared)
    words = Counter(word for target in targets for word in target.split())
    model = learn_pieces(words, 200, ("<pad>", "<unk>"))
    reversed_order = Counter(dict(reversed(words.items())))
    assert model == learn_pieces(reversed_order, 200, ("<pad>", "<unk>"))
    judge = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = build_tokenizer(iter(targets), "sentencepiece", vocab_size=200)
    assert tokenizer.get_vocab() == {judge.id_to_piece(place): place for place in range(200)}
    for target in [*targets, "", "x", "xyz ал wx", "  ал   келди "]:
        assert tokenizer(target).input_ids == judge.encode(target)
        assert labels_to_text(judge.encode(target), tokenizer) == judge.decode(judge.encode(target)).replace(" ⁇ ", "<unk>")


def test_long_corpora_are_learned_from_their_most_frequent_words(monkeypatch):
    words = Counter({f"{chr(0x4E00 + place)}б": place for place in range(1, 60)})
    monkeypatch.setattr(pieces, "_MOST_WORDS", 20)
    monkeypatch.setattr(pieces, "_MOST_CHARACTERS", 100)
    judge = sentencepiece.SentencePieceProcessor(model_proto=learn_pieces(words, 63, ("<pad>", "<unk>")))
    assert {chr(0x4E00 + place) for place in range(1, 60)} <= {judge.id_to_piece(place) for place in range(63)}


def test_a_wrong_number_of_pieces_is_told():
    with pytest.raises(ValueError, match="vocab_size 5 is too low: the 6 characters .* need at least 9"):
        build_tokenizer(["ал келди"], "sentencepiece", vocab_size=5)
    with pytest.raises(ValueError, match="vocab_size is for unit 'sentencepiece'"):
        build_tokenizer(["ал"], "character", vocab_size=5)


@pytest.mark.parametrize("base", ["quartznet-small", "wav2vec2-tiny"])
def test_pieces_work_in_a_checkpoint_and_in_the_pipeline(base, tmp_path):
    model, processor = load_model(base, build_tokenizer(["ал келди", "бала"], "sentencepiece", vocab_size=11))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    remote = {"trust_remote_code": True} if base == "quartznet-small" else {}
    processor = AutoProcessor.from_pretrained(tmp_path, **remote)
    waveform = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    logits = model.eval()(**processor(waveform, sampling_rate=16_000, return_tensors="pt")).logits
    expected = decode_frames(logits.argmax(-1).numpy(), processor.tokenizer, 0)[0]
    assert expected
    recognise = pipeline("automatic-speech-recognition", model=str(tmp_path), **remote)
    assert recognise(waveform)["text"].strip() == expected.strip()


@pytest.mark.parametrize("unit", ["phoneme", "character", "sentencepiece"])
def test_label_ids_equal_those_of_the_tokenizer(unit, shared, tmp_path):
    targets = _lines(shared, unit)
    build_tokenizer(targets, unit, min_count=20).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    strange = [
        "",
        " ",
        "a  b",
        " | a |",
        "| а |",
        "|",
        "а\tб",
        "\u00a0а",
        "а\u2028",
        "x <pad> а<unk>б",
        "<pad>",
        "а▁ ▁б",
        "😀 \u0306и",
        "а\u200cб",
    ]
    for rows in (targets, [*targets[:50], *strange], *([item] for item in strange), []):
        ids, offsets = encode_targets(loaded, iter(rows))
        assert (ids.dtype, len(offsets)) == (np.int32, len(rows) + 1)
        found = [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]
        assert found == [loaded(row).input_ids if row else [] for row in rows]


def test_a_space_in_text_without_word_bars():
    tokenizer = build_tokenizer(["世界", "app"], "character")
    assert len(tokenizer) == tokenizer.vocab_size == 6
    assert encode_targets(tokenizer, ["世 界", "世|界"]).ids.tolist() == [4, 1, 5, 4, 1, 5]


def test_label_ids_of_other_tokenizers(tmp_path):
    tokenizer = build_tokenizer(["а б"], "character")
    tokenizer.add_tokens(["аб"])
    assert encode_targets(tokenizer, ["аб а"]).ids.tolist() == tokenizer("аб а").input_ids
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "A": 2, "|": 3}')
    other = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), do_lower_case=True)
    assert encode_targets(other, ["a a", ""]).ids.tolist() == other("a a").input_ids == [2, 3, 2]


def test_symbols_that_cannot_be_kept_apart_are_refused():
    for unit, target, name in [
        ("character", "а|б", r"\|"),
        ("character", "x<pad>y", "<pad>"),
        ("sentencepiece", "x<unk>y", "<unk>"),
        ("sentencepiece", "а▁б", "▁"),
        ("phoneme", "a b<pad> c", "<pad>"),
    ]:
        with pytest.raises(ValueError, match=f"targets hold {name}"):
            build_tokenizer([target, "аб"], unit)
    with pytest.raises(ValueError, match=r"half a character, '\\ud83d'"):
        build_tokenizer(["а\ud83d"], "character")
    assert len(build_tokenizer(["<pa", "d>"], "character")) == 7  # only the whole name is taken


@pytest.mark.parametrize("unit", ["character", "sentencepiece"])
def test_rare_and_missing_characters(unit, caplog):
    targets = ["ал келди"] * 3 + ["ал щ"]
    with caplog.at_level(logging.WARNING, "hfasr"):
        tokenizer = build_tokenizer(targets, unit, min_count=2, vocab_size=10 if unit == "sentencepiece" else None)
    assert "щ (1)" in caplog.text
    assert missing_symbols(targets, tokenizer, unit) == {"щ": 1}
    assert missing_symbols(["аz z"], tokenizer, unit) == {"z": 2}
    labels = tokenizer("ал щ").input_ids
    assert labels[-1] == tokenizer.unk_token_id
    assert labels_to_text(labels, tokenizer) == "ал <unk>"
    assert missing_symbols(["а|"], build_tokenizer(["а б"], "character"), "character") == {"| (bar)": 1}
    assert missing_symbols(["а а"], build_tokenizer(["аб"], "character"), "character") == {"|": 1}


ENGLISH = " abcdefghijklmnopqrstuvwxyz'"


def test_an_alphabet_is_the_whole_vocabulary(tmp_path, caplog):
    """Outputs as those of the public English QuartzNet, blank first; label n of NeMo is id n + 1."""
    with caplog.at_level(logging.WARNING, "hfasr"):
        build_tokenizer(["don't", "café olé"], "character", alphabet=ENGLISH).save_pretrained(tmp_path)
    assert "é (2)" in caplog.text
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (len(loaded), loaded.vocab_size, loaded.pad_token_id) == (29, 29, 0)
    assert [loaded.get_vocab()[symbol] for symbol in "|az'"] == [1, 2, 27, 28]
    rows = ["don't go", "café olé", "", " ", "a<pad>b", "x  y", "<unk>"]
    ids, offsets = encode_targets(loaded, rows)
    found = [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]
    assert found == [loaded(row).input_ids if row else [] for row in rows]
    assert found[0] == [1 + ENGLISH.index(letter) for letter in "don't go"]
    assert labels_to_text(found[0], loaded) == loaded.decode([frame for label in found[0] for frame in (label, label, 0)]) == "don't go"
    assert missing_symbols(rows[:2], loaded, "character") == {"é": 2}


def test_a_wrong_alphabet_is_told():
    for options, message in [
        ({"alphabet": "aab"}, "give different characters"),
        ({"alphabet": "ab|"}, "no bar"),
        ({"alphabet": "ab", "min_count": 2}, "leave out min_count"),
        ({"alphabet": "xy"}, "no symbol of the alphabet 'xy'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_tokenizer(["ab"], "character", **options)
    with pytest.raises(ValueError, match="for unit 'character'"):
        build_tokenizer(["a b"], alphabet="ab")


def test_units_and_what_the_evaluation_counts():
    assert split_target(" ɑ l |  k", "phoneme") == ["ɑ", "l", "|", "k"]
    assert split_target("а б", "character") == ["а", "|", "б"]
    assert split_target("а б", "sentencepiece") == ["а", "б"]
    assert [evaluated_as(unit) for unit in ("phoneme", "character", "sentencepiece")] == ["phoneme", "character", "character"]


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
    phonemizer = Phonemizer("ky", lexicon={"ал": "a"})
    with_lexicon = target_record(["a b"], **phonemizer.record)
    check_target_record(with_lexicon, with_lexicon, same_rows=True)
    check_target_record(with_lexicon, record | {"espeak_version": with_lexicon["espeak_version"]}, same_rows=False)
    for one, two in [(with_lexicon, record), (record, with_lexicon), (with_lexicon, with_lexicon | {"lexicon_sha256": "0"})]:
        with pytest.raises(ValueError, match="lexicon_sha256"):
            check_target_record(one, two | {"espeak_version": one["espeak_version"]}, same_rows=True)


def test_the_tokenizer_loads_without_phonemizer(tmp_path):
    build_tokenizer(["a b"]).save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['phonemizer'] = None\n"
        f"from transformers import AutoTokenizer; print(AutoTokenizer.from_pretrained({str(tmp_path)!r})('a b').input_ids)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[2, 3]"
