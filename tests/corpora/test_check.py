import errno
import math
import os
import time

import numpy as np
import pytest
from datasets import DatasetDict, concatenate_datasets

from hfasr.audio import load_audio, write_audio
from hfasr.corpora import check
from hfasr.corpora.check import check_audio
from hfasr.corpora.rows import byte_lengths, column, iter_bytes, plain
from hfasr.paths import archive_path, segment_path


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))


@pytest.fixture
def decodings(monkeypatch) -> list:
    """What was decoded, in this process."""
    decoded = []

    def load(audio):
        decoded.append(audio["path"])
        return load_audio(audio)

    monkeypatch.setattr("hfasr.audio.load_audio", load)
    return decoded


def test_check_audio_reads_once_and_says_why(rows, tmp_path):
    write_audio(tmp_path / "good.wav", noise(1.5))
    write_audio(tmp_path / "silent.wav", 0 * noise(1.5))
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
            assert item["path"] in item["reason"]
    write_audio(tmp_path / "missing.wav", noise(1.5))  # a mended file is seen
    assert len(check_audio(corpus)[0]["train"]) == 2
    with pytest.raises(ValueError, match="none of the 1 clips of split 'test' can be used"):
        check_audio(DatasetDict(test=rows("a", paths=[str(tmp_path / "silent.wav")])))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError(), RuntimeError("bad header")])
def test_a_passing_failure_is_not_remembered(rows, tmp_path, monkeypatch, error):
    for name in ("0.wav", "1.wav"):
        write_audio(tmp_path / name, noise(0.5))
    corpus = DatasetDict(train=rows("a", "b", paths=[str(tmp_path / "0.wav"), str(tmp_path / "1.wav")]))

    def fail(audio):
        if audio["path"].endswith("1.wav"):
            raise error
        return load_audio(audio)

    with monkeypatch.context() as patch:
        patch.setattr("hfasr.audio.load_audio", fail)
        good, quarantined = check_audio(corpus, num_workers=0)
    assert list(plain(good["train"])["id"]) == ["u0"]
    assert "1.wav" in quarantined[0]["reason"]
    assert type(error).__name__ in quarantined[0]["reason"]
    good, quarantined = check_audio(corpus, num_workers=0)
    assert (len(good["train"]), quarantined) == (2, [])
    monkeypatch.setattr("hfasr.audio.load_audio", None)  # now they are remembered
    assert len(check_audio(corpus, num_workers=0)[0]["train"]) == 2


def test_only_what_is_new_or_changed_is_decoded(rows, tmp_path, decodings):
    paths = [str(tmp_path / f"{n}.wav") for n in range(6)]
    for n, path in enumerate(paths):
        write_audio(path, noise(0.5 + 0.1 * n))
    everything = rows(*"abcdef", paths=paths)
    check_audio(DatasetDict(train=everything.select(range(4))), num_workers=0)
    assert decodings == paths[:4]  # in the order of the rows
    write_audio(paths[1], noise(2.0))
    mixed = concatenate_datasets([everything.select([5, 1, 4, 0]), everything.select([1, 5])])
    good, _ = check_audio(DatasetDict(train=mixed), num_workers=0)
    assert decodings[4:] == [paths[5], paths[1], paths[4]]
    assert column(good["train"], "duration").to_pylist() == pytest.approx([1.0, 2.0, 0.9, 0.5, 2.0, 1.0])
    good["train"][0]  # audio still decodes


def test_a_stopped_check_goes_on_where_it_was(rows, tmp_path, decodings, monkeypatch):
    monkeypatch.setattr("hfasr.corpora.check._PART", 16)
    paths = [str(tmp_path / f"{n}.wav") for n in range(40)]
    for n, path in enumerate(paths):
        write_audio(path, noise(0.1, seed=n))
    corpus = DatasetDict(train=rows(*["а"] * 40, paths=paths))

    def stop(audio):
        if audio["path"] == paths[35]:
            raise KeyboardInterrupt
        return load_audio(audio)

    with monkeypatch.context() as patch:
        patch.setattr("hfasr.audio.load_audio", stop)
        with pytest.raises(KeyboardInterrupt):
            check_audio(corpus, num_workers=0)
    assert len(check_audio(corpus, num_workers=0)[0]["train"]) == 40
    assert decodings == paths[32:]


def test_verdicts_of_archive_members_segments_and_bytes(rows, tmp_path, decodings):
    write_audio(tmp_path / "a.wav", noise(2.0))
    whole, archive = (tmp_path / "a.wav").read_bytes(), tmp_path / "x.tar"
    archive.write_bytes(b"\0" * 512 + whole)
    member = archive_path(archive, "a.wav", 512, len(whole))
    paths = [segment_path(tmp_path / "a.wav", 0.5, 1.25), segment_path(tmp_path / "a.wav", 1.5), member, segment_path(member, 0, 0.25),
             segment_path(tmp_path / "a.wav", 5, 6), archive_path(tmp_path / "gone.tar", "a.wav", 0, 9)]  # fmt: skip
    audio = [{"path": path, "bytes": None} for path in paths] + [{"path": None, "bytes": whole}, {"path": "b.wav", "bytes": whole[:-10]}]
    corpus = DatasetDict(train=rows(*"abcdefgh", audio=audio))
    for _ in range(2):
        good, bad = check_audio(corpus, num_workers=0)
        assert column(good["train"], "duration").to_pylist() == [0.75, 0.5, 2.0, 0.25, 2.0]
        assert [item["id"] for item in bad] == ["u4", "u5", "u7"]
    assert decodings[8:] == ["b.wav"]  # a bad clip in the row is tried again: it is known by its ends only
    archive.write_bytes(b"\0" * 512 + whole)
    os.utime(archive, ns=(1, 1))
    check_audio(corpus, num_workers=0)
    assert sorted(decodings[9:]) == sorted([member, paths[3], "b.wav"])


def test_bytes_that_were_repaired_in_their_middle_are_seen(rows, tmp_path):
    write_audio(tmp_path / "a.flac", noise(2.0))
    whole = (tmp_path / "a.flac").read_bytes()
    torn = whole[: len(whole) // 2] + b"\0" * 2000 + whole[len(whole) // 2 + 2000 :]
    for data, kept in ((torn, 1), (whole, 2)):
        audio = [{"path": "a.flac", "bytes": whole}, {"path": "b.flac", "bytes": data}]
        assert len(check_audio(DatasetDict(train=rows("a", "b", audio=audio)), num_workers=0)[0]["train"]) == kept


def test_bytes_of_a_selection_are_measured_and_read_in_place(rows):
    audio = [{"path": str(n), "bytes": bytes([n]) * n if n % 2 else None} for n in range(8)]
    some = concatenate_datasets([rows(*"abcdefgh", audio=audio), rows(*"abcdefgh", audio=audio)]).select([15, 1, 4, 3, 11])
    assert byte_lengths(some).tolist() == [7, 1, -1, 3, 3]
    assert [bytes(data) for data in iter_bytes(some, [0, 3, 4])] == [b"\7" * 7, b"\3" * 3, b"\3" * 3]


def test_who_waited_takes_the_answer(rows, tmp_path, monkeypatch):
    """Processes of one run must keep the same rows, also after a read error that passes."""
    paths = [str(tmp_path / f"{n}.wav") for n in range(3)]
    for n, path in enumerate(paths):
        write_audio(path, noise(0.1, seed=n))
    corpus = DatasetDict(train=rows(*"abc", paths=paths))

    def fail(audio):
        if audio["path"] == paths[1]:
            raise OSError(5, "Input/output error")
        return load_audio(audio)

    asked = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("hfasr.audio.load_audio", fail)
        assert len(check_audio(corpus, num_workers=0)[0]["train"]) == 2
    with monkeypatch.context() as patch:
        now = time.time
        patch.setattr("hfasr.corpora.check.time.time", lambda: asked if not waited else now())  # one that asked at the same time
        waited = []
        stored = check._stored_verdicts
        patch.setattr(check, "_stored_verdicts", lambda *given: (waited.append(1), stored(*given))[1])
        assert len(check_audio(corpus, num_workers=0)[0]["train"]) == 2
    assert len(check_audio(corpus, num_workers=0)[0]["train"]) == 3


def test_without_decoding_only_headers_of_unknown_durations_are_read(rows, tmp_path, decodings):
    write_audio(tmp_path / "a.flac", noise(1.5))
    (tmp_path / "text.wav").write_text("Бул үн эмес.")
    good_path, text, gone = str(tmp_path / "a.flac"), str(tmp_path / "text.wav"), str(tmp_path / "gone.wav")
    paths = [good_path, good_path, text, text, gone, gone, segment_path(good_path, 1.0), None]
    durations = [9.0, math.nan, 3.0, math.nan, 2.0, math.nan, 0.0, math.nan]
    corpus = DatasetDict(train=rows(*"abcdefgh", paths=paths, duration=durations))
    good, bad = check_audio(corpus, decode=False)
    assert list(zip(column(good["train"], "id").to_pylist(), column(good["train"], "duration").to_pylist(), strict=True)) == [
        ("u0", 9.0), ("u1", 1.5), ("u2", 3.0), ("u6", 0.5)
    ]  # fmt: skip
    assert [(item["id"], item["path"]) for item in bad] == [("u3", text), ("u4", gone), ("u5", gone), ("u7", None)]
    assert "not audio" in bad[0]["reason"]
    assert "no such audio file" in bad[1]["reason"]
    assert not decodings
    with pytest.raises(ValueError, match="none of the 1 clips of split 'test' can be used, for example .*gone.wav: no such"):
        check_audio(DatasetDict(test=rows("a", paths=[gone])), decode=False)


def test_rows_of_bytes_alone(rows, tmp_path):
    write_audio(tmp_path / "a.wav", noise(0.5))
    corpus = DatasetDict(
        train=rows("а", "б", audio=[{"path": None, "bytes": (tmp_path / "a.wav").read_bytes()}] * 2, duration=[math.nan] * 2)
    )
    for decode in (True, False):
        assert column(check_audio(corpus, decode=decode)[0]["train"], "duration").to_pylist() == [0.5, 0.5]


def test_an_empty_split_stays(rows):
    for decode in (True, False):
        good, bad = check_audio(DatasetDict(test=rows("a").select([])), decode=decode)
        assert (len(good["test"]), bad) == (0, [])
