import math

import numpy as np
import pytest
from datasets import DatasetDict, load_from_disk

from hfasr.audio import write_audio
from hfasr.corpora import common_voice
from hfasr.corpora.rows import add_target, build_rows, check_audio, decoded, describe, keep_durations, plain, shared_sentences


def rows(*texts: str, durations=None, paths=None):
    blank = {"speaker": "s", "gender": None, "accent": None, "source": "toy"}
    return build_rows(
        [
            {
                "id": f"u{n}", "audio": {"path": paths[n] if paths else f"/nowhere/{n}.wav", "bytes": None}, "text": text,
                "duration": durations[n] if durations else 1.0, **blank,
            }
            for n, text in enumerate(texts)
        ]
    )  # fmt: skip


def test_decoding_is_lazy_and_map_keeps_working(toy_release):
    corpus = common_voice(toy_release, splits=["train", "test"])
    row = corpus["train"][0]
    assert row["audio"]["array"].dtype == np.float32
    assert len(row["audio"]["array"]) / 16_000 == pytest.approx(row["duration"], abs=0.1)
    assert plain(corpus["train"])[0]["audio"]["bytes"] is None


def test_other_columns_are_read_without_the_audio(tmp_path):
    for name in ("0.mp3", "1.mp3"):
        (tmp_path / name).write_text("no audio at all")
    corpus = decoded(DatasetDict(train=rows("а", "бб", paths=[str(tmp_path / "0.mp3"), str(tmp_path / "1.mp3")])))
    assert list(corpus["train"]["text"]) == ["а", "бб"]
    assert corpus["train"].filter(lambda text: len(text) > 1, input_columns="text")["id"][:] == ["u1"]
    longer = corpus["train"].map(lambda row: {"text": row["text"] + "!"})
    assert list(longer["text"]) == ["а!", "бб!"]
    with pytest.raises(ValueError, match=r"0\.mp3"):
        longer[0]
    longer.save_to_disk(tmp_path / "saved")
    assert list(load_from_disk(tmp_path / "saved")["text"]) == ["а!", "бб!"]


def test_keep_durations(caplog):
    corpus = DatasetDict(train=rows("a", "b", "c", "d", durations=[0.2, 1.0, 30.0, math.nan]), test=rows("e", durations=[40.0]))
    kept = keep_durations(corpus, 0.5, 20)
    assert list(kept["train"]["id"]) == ["u1", "u3"]
    assert len(kept["test"]) == 1
    with pytest.raises(ValueError, match="'train' lasts 40"):
        keep_durations(DatasetDict(train=rows("a")), 40, 50)
    with pytest.raises(ValueError, match="empty range"):
        keep_durations(corpus, 5, 2)


def test_add_target_replaces():
    corpus = add_target(DatasetDict(train=rows("а б", "в")), lambda texts: [text.upper() for text in texts])
    corpus = add_target(corpus, lambda texts: [text + "!" for text in texts])
    assert list(plain(corpus["train"])["target"]) == ["а б!", "в!"]


def test_check_audio_reads_once_and_says_why(tmp_path, caplog):
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000)
    write_audio(tmp_path / "good.wav", noise)
    write_audio(tmp_path / "silent.wav", 0 * noise)
    (tmp_path / "text.mp3").write_text("Бул үн эмес. " * 99)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:9000])
    names = ["good.wav", "silent.wav", "text.mp3", "cut.wav", "missing.wav"]
    corpus = DatasetDict(train=rows(*"abcde", paths=[str(tmp_path / name) for name in names]))
    for _ in range(2):
        good, quarantined = check_audio(corpus)
        assert list(plain(good["train"])["id"]) == ["u0"]
        assert plain(good["train"])["duration"][0] == 1.5
        assert [(item["split"], item["id"]) for item in quarantined] == [("train", f"u{n}") for n in range(1, 5)]
        for item, reason in zip(quarantined, ("silent", "not audio", "cut short", "no such"), strict=True):
            assert reason in item["reason"]
    write_audio(tmp_path / "missing.wav", noise)  # a mended file is seen
    assert len(check_audio(corpus)[0]["train"]) == 2
    with pytest.raises(ValueError, match="none of the 1 clips of split 'test' can be used"):
        check_audio(DatasetDict(test=rows("a", paths=[str(tmp_path / "silent.wav")])))


def test_shared_sentences_ignore_case_and_punctuation():
    corpus = DatasetDict(train=rows("Ал келди.", "Башка"), test=rows("ал — келди!", "Үчүнчү"))
    assert shared_sentences(corpus) == {"test": 1}


def test_describe(toy_release):
    found = describe(decoded(common_voice(toy_release, splits=["train"])))
    assert found["train"]["utterances"] == 24
    assert 0.5 / 60 < found["train"]["hours"] < 3 / 60
