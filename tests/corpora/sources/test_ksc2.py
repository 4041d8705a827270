import logging

import numpy as np
import pytest
import soundfile
from layouts import build_ksc2, clip, pack, write

from hfasr.corpora import ksc2
from hfasr.corpora.check import check_audio
from hfasr.corpora.reading.table import BAD_TEXT, EMPTY_TEXT, NO_AUDIO, NO_TEXT, TWICE, problems_of
from hfasr.corpora.rows import plain


@pytest.fixture
def corpus(tmp_path):
    return build_ksc2(tmp_path)


def rows_of(corpus):
    return {
        split: [(row["id"], row["text"], row["duration"], row["source"], row["speaker"]) for row in plain(rows)]
        for split, rows in corpus.items()
    }


def listed(rows):
    return [(problem["problem"], problem["name"]) for problem in problems_of(rows)]


EXPECTED = {
    "train": [
        ("5f1a", "Бір сөз.", 0.25, "crowdsourced", None),
        ("radio_1_10", "Екі [музыка] сөз", 0.5, "radio", None),
        ("news_7", "Үшінші", 0.75, "tv_news", None),
    ],
    "validation": [("show_2", "Төртінші сөз", 1.0, "talkshow", None)],
    "test": [("5f1b", "Алтыншы", 1.5, "crowdsourced", None), ("pod_1", "Бесінші", 1.25, "podcasts", None)],
}


def test_folder_and_archives_give_the_published_rows(corpus, caplog):
    whole = ksc2(corpus)
    assert rows_of(whole) == EXPECTED
    assert listed(whole["train"]) == []
    audio = whole["train"][1]["audio"]
    expected, _ = soundfile.read(corpus / "Train" / "radio" / "radio_1_10.flac", dtype="float32")
    assert audio["sampling_rate"] == 16_000
    np.testing.assert_array_equal(audio["array"], expected)
    for place in (corpus.parent, *(pack(corpus, name) for name in ("a.tar.gz", "b.tar", "c.zip", "d.stored.zip"))):
        assert rows_of(ksc2(place)) == EXPECTED
        np.testing.assert_array_equal(ksc2(place)["train"][1]["audio"]["array"], expected)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_wanted_splits(corpus):
    assert list(ksc2(corpus, splits=["test"])) == ["test"]
    with pytest.raises(ValueError, match=r"no split 'dev', found train, validation, test"):
        ksc2(corpus, splits=["dev"])


def test_a_changed_transcript_is_seen(corpus):
    ksc2(corpus)
    write(corpus / "Dev" / "talkshow" / "show_2.txt", "﻿Жаңа\r\nсөйлем \r\n")
    clip(corpus / "Dev" / "talkshow" / "show_3.flac", 1)
    assert [row[1] for row in rows_of(ksc2(corpus))["validation"]] == ["Жаңа сөйлем"]
    write(corpus / "Dev" / "talkshow" / "show_3.txt", "үш")
    assert [row[1] for row in rows_of(ksc2(corpus))["validation"]] == ["Жаңа сөйлем", "үш"]


def test_what_is_missing_or_doubtful_is_listed(corpus, caplog):
    train = corpus / "Train"
    (train / "radio" / "radio_1_10.txt").unlink()
    (train / "tv_news" / "news_7.flac.flac").unlink()
    clip(train / "crowdsourced" / "5f1a.wav", 1)
    clip(train / "crowdsourced" / "again.FLAC", 2)
    write(train / "crowdsourced" / "again.TXT", "")
    write(train / "crowdsourced" / "._again.txt", b"\x00\x05\x16\x07")
    clip(train / "radio" / "again.flac", 2)
    write(train / "radio" / "again.txt", "тағы")
    write(train / "radio" / "README.txt", "about")
    clip(train / "radio" / "2020" / "deep.flac", 2)
    write(train / "radio" / "2020" / "deep.txt", "терең")
    clip(train / "radio" / "cyrillic.flac", 1)
    write(train / "radio" / "cyrillic.txt", "бір\nекі".encode("cp1251"))
    (train / "parliament").mkdir()
    (corpus / "Dev" / "interview").mkdir()
    (corpus / "Dev" / "talkshow" / "show_2.txt").unlink()
    corpus_ = ksc2(corpus)
    assert {(row[0], row[1], row[3]) for row in rows_of(corpus_)["train"]} == {
        ("5f1a", "Бір сөз.", "crowdsourced"), ("again", "", "crowdsourced"), ("again", "тағы", "radio"),
        ("deep", "терең", "radio"), ("news_7", "Үшінші", "tv_news"),
    }  # fmt: skip
    assert set(corpus_) == {"train", "test"}
    assert sorted(listed(corpus_["train"])) == sorted([
        (NO_TEXT, "Train/radio/radio_1_10.flac"), (NO_AUDIO, "news_7"), (TWICE, "again"), (BAD_TEXT, "cyrillic"), (EMPTY_TEXT, "again"),
        ("second file of an id", "Train/crowdsourced/5f1a.wav"), ("empty folder", "Train/parliament"), ("empty folder", "Dev/interview"),
        (NO_TEXT, "Dev/talkshow/show_2.flac"),
    ])  # fmt: skip
    bad = next(problem for problem in problems_of(corpus_["train"]) if problem["problem"] == BAD_TEXT)
    assert "cyrillic.txt, line 1: not UTF-8" in bad["reason"]
    assert "2 x empty folder" in caplog.text
    checked, quarantined = check_audio(ksc2(corpus, splits=["train"]))
    assert [row["id"] for row in quarantined] == ["news_7"]
    assert len(checked["train"]) == 4


def test_a_split_that_was_not_extracted_is_listed(corpus):
    for name in ("Dev/talkshow/show_2.txt", "Dev/talkshow/show_2.flac"):
        (corpus / name).unlink()
    (corpus / "Dev" / "talkshow").rmdir()
    (corpus / "Dev").rmdir()
    assert listed(ksc2(corpus)["test"]) == [("split that is not there", "Dev")]
    with pytest.raises(ValueError, match="no split 'validation', found train, test"):
        ksc2(corpus, splits=["validation"])
    for file in (corpus / "Test").rglob("*.flac"):
        file.unlink()
    with pytest.raises(ValueError, match=r"Test holds no audio, found crowdsourced/, podcasts/; was the archive extracted to its end\?"):
        ksc2(corpus)


def test_what_is_not_ksc2(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such corpus; give the folder or archive of KSC2"):
        ksc2(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected ISSAI_KSC2/\{Train,Dev,Test\}.*; found 5f1a\.flac, 5f1a\.txt"):
        ksc2(corpus / "Train" / "crowdsourced")


def test_the_parts_of_the_download_must_be_joined(corpus, tmp_path):
    whole = pack(corpus, "ISSAI_KSC2.tar.gz")
    (tmp_path / "download").mkdir()
    half = whole.stat().st_size // 2
    for name, data in (("aa", whole.read_bytes()[:half]), ("ab", whole.read_bytes()[half:])):
        (tmp_path / "download" / f"ISSAI_KSC2.tar.gz.part{name}").write_bytes(data)
    for place in (tmp_path / "download", tmp_path / "download" / "ISSAI_KSC2.tar.gz.partaa"):
        with pytest.raises(ValueError, match=r"join the parts \(cat '.*/ISSAI_KSC2\.tar\.gz'\.part\* > '.*/ISSAI_KSC2\.tar\.gz'\)"):
            ksc2(place)


@pytest.mark.parametrize("ending", ["flac", "txt"])
def test_half_an_extracted_release_is_told(corpus, ending):
    for path in corpus.rglob(f"*.{ending}"):
        path.unlink()
    with pytest.raises(ValueError, match=r"folders of KSC2 but no audio with its transcript .* extracted to its end"):
        ksc2(corpus)
