import errno
import io
import math

import numpy as np
import pytest
import soundfile
from datasets import DatasetDict, load_from_disk

from hfasr.audio import load_audio, write_audio
from hfasr.corpora import common_voice
from hfasr.corpora.rows import Recording, add_target, build_rows, check_audio, decoded, describe, keep_durations, plain, shared_sentences


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


def test_map_may_read_and_change_the_audio(toy_release):
    train = decoded(common_voice(toy_release, splits=["train"]))["train"].select(range(3))
    counted = train.map(lambda row: {"n": len(row["audio"]["array"])})
    assert list(counted["n"]) == [len(train[place]["audio"]["array"]) for place in range(3)]
    np.testing.assert_allclose(counted[1]["audio"]["array"], train[1]["audio"]["array"], atol=1 / 32768)
    assert counted[1]["audio"]["path"] == train[1]["audio"]["path"]

    def halve(row):
        return {"audio": row["audio"] | {"array": row["audio"]["array"] / 2}}

    def halve_all(rows):
        return {"audio": [halve({"audio": audio})["audio"] for audio in rows["audio"]]}

    for halved in (train.map(halve), train.map(halve_all, batched=True)):
        np.testing.assert_allclose(halved[2]["audio"]["array"], train[2]["audio"]["array"] / 2, atol=1 / 32768)
        assert plain(halved)[2]["audio"]["bytes"][:4] == b"RIFF"
    assert list(train.filter(lambda row: len(row["audio"]["array"]) > 0)["id"]) == list(train["id"])


def test_recording_stores_every_form_of_audio(tmp_path):
    noise = (0.1 * np.random.default_rng(0).standard_normal(8_000)).astype(np.float32)
    encode = Recording().encode_example
    assert encode("a.mp3") == encode({"path": "a.mp3", "bytes": None}) == {"bytes": None, "path": "a.mp3"}
    assert encode(tmp_path / "a.mp3")["path"] == str(tmp_path / "a.mp3")
    assert encode(b"x") == {"bytes": b"x", "path": None}
    assert encode({"path": "a.mp3", "bytes": b"x"}) == {"bytes": b"x", "path": "a.mp3"}
    stored = encode({"path": "a.mp3", "array": noise, "sampling_rate": 8_000})
    assert stored["path"] == "a.mp3"
    assert soundfile.info(io.BytesIO(stored["bytes"])).subtype == "PCM_16"
    assert len(load_audio(stored)) == 16_000
    np.testing.assert_allclose(load_audio(encode(noise)), noise, atol=1 / 32768)
    with pytest.raises(TypeError, match="'array', 'bytes' or 'path'"):
        encode({"path": None, "bytes": None})


@pytest.mark.parametrize("call", [keep_durations, check_audio, lambda corpus: add_target(corpus, list)])
def test_a_single_split_is_refused(call):
    with pytest.raises(TypeError, match=r"takes a DatasetDict of splits, found Dataset; give DatasetDict\(train=rows\)"):
        call(rows("a"))


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


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError(), RuntimeError("bad header")])
def test_a_passing_failure_is_not_remembered(tmp_path, monkeypatch, error):
    for name in ("0.wav", "1.wav"):
        write_audio(tmp_path / name, 0.1 * np.random.default_rng(0).standard_normal(8_000))
    corpus = DatasetDict(train=rows("a", "b", paths=[str(tmp_path / "0.wav"), str(tmp_path / "1.wav")]))

    def fail(audio):
        if audio["path"].endswith("1.wav"):
            raise error
        return load_audio(audio)

    with monkeypatch.context() as patch:
        patch.setattr("hfasr.corpora.rows.load_audio", fail)
        good, quarantined = check_audio(corpus, num_workers=0)
    assert list(plain(good["train"])["id"]) == ["u0"]
    assert "1.wav" in quarantined[0]["reason"]
    assert type(error).__name__ in quarantined[0]["reason"]
    good, quarantined = check_audio(corpus, num_workers=0)
    assert (len(good["train"]), quarantined) == (2, [])
    monkeypatch.setattr("hfasr.corpora.rows.load_audio", None)  # now they are remembered
    assert len(check_audio(corpus, num_workers=0)[0]["train"]) == 2


def test_shared_sentences_ignore_case_and_punctuation():
    corpus = DatasetDict(train=rows("Ал келди.", "Башка"), test=rows("ал — келди!", "Үчүнчү"))
    assert shared_sentences(corpus) == {"test": 1}


def test_describe(toy_release):
    found = describe(decoded(common_voice(toy_release, splits=["train"])))
    assert found["train"]["utterances"] == 24
    assert 0.5 / 60 < found["train"]["hours"] < 3 / 60
