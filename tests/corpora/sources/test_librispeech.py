import shutil

import numpy as np
import pytest
import soundfile
from layouts import build_librispeech, clip, pack, write

from hfasr.corpora import librispeech
from hfasr.corpora.reading.table import NO_AUDIO, NO_TEXT, TWICE, problems_of
from hfasr.corpora.rows import plain

CLEAN = [
    ("103-1240-0000", "CHAPTER ONE", 0.25, "103", "F", "train-clean-100"),
    ("103-1240-0001", "THAT HAD ITS SOURCE", 0.5, "103", "F", "train-clean-100"),
    ("60-121082-0000", "I'LL TELL YOU", 0.75, "60", "M", "train-clean-100"),
]
OTHER = [("20-205-0000", "THE ART OF WAR", 1.0, "20", "F", "train-other-500")]
EXPECTED = {
    "train": CLEAN + OTHER,
    "dev_clean": [("84-121123-0000", "GO DO YOU HEAR", 1.25, "84", "F", "dev-clean")],
    "test_other": [("367-130732-0000", "LOBSTERS AND LOBSTERS", 1.5, "367", "F", "test-other")],
}
CHAPTER = "train-clean-100/103/1240"


@pytest.fixture
def corpus(tmp_path):
    return build_librispeech(tmp_path)


def rows_of(corpus):
    columns = ("id", "text", "duration", "speaker", "gender", "source")
    return {split: [tuple(row[column] for column in columns) for row in plain(rows)] for split, rows in corpus.items()}


def listed(rows):
    return sorted((problem["problem"], problem["name"]) for problem in problems_of(rows))


def test_folder_and_archives_give_the_published_rows(corpus):
    expected, _ = soundfile.read(corpus / CHAPTER / "103-1240-0001.flac", dtype="float32")
    for place in (corpus, corpus.parent, pack(corpus, "a.tar.gz"), pack(corpus, "b.zip")):
        found = librispeech(place)
        assert rows_of(found) == EXPECTED
        assert listed(found["train"]) == []
        audio = found["train"][1]["audio"]
        assert audio["sampling_rate"] == 16_000
        np.testing.assert_array_equal(audio["array"], expected)


def test_training_parts_and_splits_are_chosen(corpus):
    assert rows_of(librispeech(corpus, train=["train-clean-100"])) == EXPECTED | {"train": CLEAN}
    assert rows_of(librispeech(corpus, train="train-other-500", splits=["train"])) == {"train": OTHER}
    assert list(librispeech(corpus, splits=["test_other", "dev_clean"])) == ["test_other", "dev_clean"]
    assert list(librispeech(corpus, train=())) == ["dev_clean", "test_other"]
    with pytest.raises(ValueError, match=r"no training part 'dev-clean', found dev-clean, test-other, train-clean-100, train-other-500"):
        librispeech(corpus, train=["dev-clean"])
    with pytest.raises(ValueError, match=r"no split 'dev_other', found dev_clean, test_other, train"):
        librispeech(corpus, splits=["dev_other"])


def test_one_part_alone(corpus, tmp_path, monkeypatch):
    assert rows_of(librispeech(corpus / "dev-clean")) == {"dev_clean": EXPECTED["dev_clean"]}
    monkeypatch.chdir(corpus / "train-clean-100")
    assert rows_of(librispeech(".")) == {"train": CLEAN}
    shutil.rmtree(corpus / "dev-clean")
    assert set(librispeech(corpus)) == {"train", "test_other"}
    (tmp_path / "LibriSpeech" / "test-other").rename(tmp_path / "test-other")
    assert [row[4] for row in rows_of(librispeech(tmp_path / "test-other"))["test_other"]] == [None]  # SPEAKERS.TXT is elsewhere


def test_parts_as_they_were_downloaded(corpus, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for part in ("dev-clean", "train-clean-100", "train-other-500"):
        alone = tmp_path / part / "LibriSpeech"
        shutil.copytree(corpus / part, alone / part)
        shutil.copy(corpus / "SPEAKERS.TXT", alone)
        shutil.move(pack(alone, "x.tar.gz"), downloads / f"{part}.tar.gz")
    expected = {split: EXPECTED[split] for split in ("train", "dev_clean")}
    assert rows_of(librispeech(downloads)) == expected
    assert rows_of(librispeech(downloads / "dev-clean.tar.gz")) == {"dev_clean": EXPECTED["dev_clean"]}
    # some of them extracted beside the archives: no row comes twice
    shutil.copytree(corpus, downloads / "LibriSpeech")
    assert rows_of(librispeech(downloads)) == EXPECTED
    shutil.rmtree(downloads / "LibriSpeech")
    packed = pack(downloads, "downloads.tar")
    with pytest.raises(ValueError, match=r"downloads\.tar holds train-clean-100\.tar\.gz, an archive in an archive"):
        librispeech(packed)
    (downloads / "train-other-500.tar.gz").write_bytes((downloads / "train-other-500.tar.gz").read_bytes()[:-1500])
    with pytest.raises(ValueError, match=r"train-other-500\.tar\.gz: not a whole"):
        librispeech(downloads)
    assert rows_of(librispeech(downloads, splits=["dev_clean"])) == {"dev_clean": EXPECTED["dev_clean"]}  # only what is wanted is opened


def test_bom_line_ends_and_changes(corpus):
    path = corpus / CHAPTER / "103-1240.trans.txt"
    write(path, "\ufeff" + path.read_text().replace("\n", "\r\n"))
    assert rows_of(librispeech(corpus)) == EXPECTED
    write(path, "103-1240-0000 CHAPTER TWO\n103-1240-0001 SO\n")
    assert [row[1] for row in rows_of(librispeech(corpus))["train"]][:2] == ["CHAPTER TWO", "SO"]
    write(path, "103-1240-0000 CHAPTER\n103-1240-0001 CAFÉ\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"103-1240\.trans\.txt, line 2: not UTF-8"):
        librispeech(corpus)


def test_what_is_missing_is_listed_both_ways(corpus, caplog):
    (corpus / CHAPTER / "103-1240-0001.flac").unlink()
    clip(corpus / CHAPTER / "103-1240-0002.flac", 1)
    (corpus / "train-clean-100" / "60" / "121082" / "60-121082.trans.txt").unlink()
    with open(corpus / CHAPTER / "103-1240.trans.txt", "a", encoding="utf-8") as file:
        file.write("103-1240-0000 AGAIN\n")
    found = librispeech(corpus)
    assert listed(found["train"]) == sorted([
        (NO_AUDIO, "103-1240-0001"), (NO_TEXT, "train-clean-100/103/1240/103-1240-0002.flac"), (TWICE, "103-1240-0000"),
        (NO_TEXT, "train-clean-100/60/121082/60-121082-0000.flac"),
    ])  # fmt: skip
    assert "2 x audio without transcript" in caplog.text


def test_an_empty_part_is_named(corpus):
    shutil.rmtree(corpus / "test-other")
    (corpus / "test-other").mkdir()
    with pytest.raises(ValueError, match=r"test-other holds no <speaker>/<chapter>/<id>\.flac, found nothing; was its archive extracted"):
        librispeech(corpus)
    write(corpus / "test-other" / "367" / "130732" / "367-130732.trans.txt", "367-130732-0000 LOBSTERS\n")
    with pytest.raises(ValueError, match=r"test-other holds no <speaker>/<chapter>/<id>\.flac, found 367/; was its archive extracted"):
        librispeech(corpus)
    assert set(librispeech(corpus, splits=["train", "dev_clean"])) == {"train", "dev_clean"}


def test_libritts_is_not_librispeech(tmp_path):
    chapter = tmp_path / "LibriTTS" / "dev-clean" / "84" / "121123"
    clip(chapter / "84_121123_000000_000000.wav", 1, 24_000)
    write(chapter / "84_121123_000000_000000.normalized.txt", "Go!")
    with pytest.raises(ValueError, match=r"is not LibriSpeech: expected LibriSpeech/.*; found LibriTTS/"):
        librispeech(tmp_path)


def test_real_clips(shared, tmp_path):
    clips = sorted((shared / "data" / "librispeech").glob("*.flac"))
    if not clips:
        pytest.skip("no LibriSpeech clips there")
    for path in clips:
        speaker, chapter, _ = path.stem.split("-")
        write(tmp_path / "LibriSpeech" / "test-clean" / speaker / chapter / path.name, path.read_bytes())
        with open(tmp_path / "LibriSpeech" / "test-clean" / speaker / chapter / f"{speaker}-{chapter}.trans.txt", "a") as file:
            file.write(f"{path.stem} TEXT OF {path.stem}\n")
    rows = librispeech(tmp_path)["test_clean"]
    assert sorted(rows["id"]) == [path.stem for path in clips]
    for row in rows:
        info = soundfile.info(shared / "data" / "librispeech" / f"{row['id']}.flac")
        assert row["duration"] == info.frames / info.samplerate
        assert len(row["audio"]["array"]) == info.frames
