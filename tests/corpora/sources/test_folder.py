import numpy as np
import pytest
from layouts import build_folder, build_ksc2, clip, pack, write

from hfasr import corpora
from hfasr.corpora.reading.source import load_corpus
from hfasr.corpora.reading.table import problems_of
from hfasr.corpora.rows import plain

IDS = {"train": ["anna/2", "anna/one/1", "bek/3"], "validation": ["4"], "test": ["5"]}


def listed(rows) -> list[tuple[str, str]]:
    return [(problem["problem"], problem["name"]) for problem in problems_of(rows)]


def test_folder_and_archives(tmp_path):
    folder = build_folder(tmp_path)
    expected = load_corpus(folder)
    assert {split: list(plain(rows)["id"]) for split, rows in expected.items()} == IDS
    assert list(expected) == ["train", "validation", "test"]
    assert list(plain(expected["train"])["text"]) == ["сөз 2", "сөз 1", "сөз 3"]
    assert list(plain(expected["train"])["source"]) == ["anna", "anna", "bek"]
    assert problems_of(expected["train"]) == []
    for split in expected.values():
        for row in split:
            seconds = int(row["text"].split()[1]) / 4
            assert row["duration"] == pytest.approx(seconds, abs=0.08)  # MP3 and Opus are padded
            assert len(row["audio"]["array"]) == pytest.approx(16_000 * row["duration"], abs=2)
    for archive in (pack(folder, "a.tar"), pack(folder, "b.tar.gz"), pack(folder, "c.zip")):
        packed = load_corpus(archive)
        for split, rows in expected.items():
            assert list(plain(packed[split])["id"]) == IDS[split]
            assert list(plain(packed[split])["duration"]) == list(plain(rows)["duration"])
            np.testing.assert_array_equal(packed[split][0]["audio"]["array"], rows[0]["audio"]["array"])


def test_speakers(tmp_path):
    folder = build_folder(tmp_path)
    assert list(plain(corpora.folder(folder)["train"])["speaker"]) == [None, None, None]
    assert list(plain(corpora.folder(folder, speaker="folder")["train"])["speaker"]) == ["anna", "one", "bek"]
    corpus = corpora.folder(folder, speaker=r"^(\w+)/")
    assert list(plain(corpus["train"])["speaker"]) == ["anna", "anna", "bek"]
    assert list(plain(corpus["test"])["speaker"]) == [None]
    assert listed(corpus["test"]) == [("id that does not tell its speaker", "4"), ("id that does not tell its speaker", "5")]
    assert list(plain(corpora.folder(folder, speaker="anna|bek")["train"])["speaker"]) == ["anna", "anna", "bek"]
    with pytest.raises(ValueError, match=r"speaker '\(' is neither 'folder' nor a regular expression"):
        corpora.folder(folder, speaker="(")


def test_without_splits(tmp_path):
    for place in ("x", "deep/er/and/deeper"):
        clip(tmp_path / "c" / place / "1.WAV", 1)
        write(tmp_path / "c" / place / "1.lab", "\ufeffбир\r\nэки\r\n")
    corpus = load_corpus(tmp_path / "c")
    assert list(corpus) == ["train"]
    assert list(plain(corpus["train"])["id"]) == ["deep/er/and/deeper/1", "x/1"]
    assert list(plain(corpus["train"])["text"]) == ["бир эки"] * 2


def test_what_is_missing_is_listed_both_ways(tmp_path, caplog):
    folder = build_folder(tmp_path)
    (folder / "TRAIN" / "anna" / "2.txt").unlink()
    (folder / "TRAIN" / "bek" / "3.mp3").unlink()
    write(folder / "TRAIN" / "bek" / "6.m4a", b"aac")
    write(folder / "TRAIN" / "bek" / "6.txt", "алты")
    clip(folder / "TRAIN" / "anna" / "one" / "1.flac", 1)
    clip(folder / "Outside" / "7.wav", 7)
    write(folder / "test" / "5.txt", "ок".encode("cp1251"))
    write(folder / "Valid" / "8.txt", "бош")
    clip(folder / "Valid" / "8.wav", 1)
    write(folder / "Valid" / "8.wav", b"RIFF")
    corpus = corpora.folder(folder)
    assert list(corpus) == ["train", "validation"]
    assert list(plain(corpus["train"])["id"]) == ["anna/one/1", "bek/3"]
    assert np.isnan(plain(corpus["train"])["duration"][1])
    assert sorted(listed(corpus["train"])) == [
        ("audio cannot be read", "8"),
        ("audio in a format that cannot be read", "TRAIN/bek/6.m4a"),
        ("audio outside of the folders of the splits", "Outside/7.wav"),
        ("audio without transcript", "TRAIN/anna/2.flac"),
        ("several recordings of one name", "TRAIN/anna/one/1"),
        ("transcript cannot be read", "5"),
        ("transcript without audio", "bek/3"),
    ]
    reasons = {problem["problem"]: problem["reason"] for problem in problems_of(corpus["train"])}
    assert "ffmpeg -i TRAIN/bek/6.m4a -ac 1 -ar 16000 TRAIN/bek/6.flac" in reasons["audio in a format that cannot be read"]
    assert "5.txt, line 1: not UTF-8" in reasons["transcript cannot be read"]
    assert "1 x audio without transcript" in caplog.text


def test_wrong_input(tmp_path):
    clip(tmp_path / "a" / "1.wav", 1)
    with pytest.raises(ValueError, match=r"no audio file with a text file of the same name beside it, expected .*; found 1\.wav"):
        corpora.folder(tmp_path / "a")
    with pytest.raises(ValueError, match="has no split 'other', found train, validation, test"):
        corpora.folder(build_folder(tmp_path), splits=["other"])
    with pytest.raises(FileNotFoundError, match="none: no such corpus"):
        corpora.folder(tmp_path / "none")
    assert len(corpora.folder(build_ksc2(tmp_path))["train"]) == 3  # a special case of it


def test_a_changed_transcript_is_seen(tmp_path):
    folder = build_folder(tmp_path)
    assert plain(load_corpus(folder)["test"])["text"][0] == "сөз 5"
    write(folder / "test" / "5.txt", "башка сөз")
    assert plain(load_corpus(folder)["test"])["text"][0] == "башка сөз"
    clip(folder / "test" / "6.wav", 6)
    write(folder / "test" / "6.txt", "жаңы")
    assert list(plain(load_corpus(folder)["test"])["id"]) == ["5", "6"]
