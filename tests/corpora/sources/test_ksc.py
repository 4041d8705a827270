import shutil

import numpy as np
import pytest
import soundfile
from layouts import KSC_HEADER, build_ksc, clip, pack, write

from hfasr.corpora import ksc
from hfasr.corpora.reading.table import NO_AUDIO, NO_TEXT, TWICE, problems_of
from hfasr.corpora.rows import plain


@pytest.fixture
def corpus(tmp_path):
    return build_ksc(tmp_path)


def rows_of(corpus):
    columns = ("id", "text", "duration", "speaker", "gender", "accent", "source")
    return {split: [tuple(row[column] for column in columns) for row in plain(rows)] for split, rows in corpus.items()}


def listed(rows):
    return [(problem["problem"], problem["name"]) for problem in problems_of(rows)]


EXPECTED = {
    "train": [
        ("5f318346ebd7f", "бірінші сөйлем", 0.25, "12793", None, None, "ksc"),
        ("5f591bb5a80c8", "екінші сөйлем", 0.5, "12794", None, None, "ksc"),
    ],
    "validation": [("5f1ba9feb3124", "үшінші сөйлем", 0.75, "20176", "F", "South", "ksc")],
    "test": [
        ("5f5af8479c85c", "төртінші сөйлем", 1.0, "15872", "F", "North", "ksc"),
        ("5efc5e726df42", "бесінші", 1.25, "20185", "M", "South", "ksc"),
    ],
}


def test_folder_and_archives_give_the_published_rows(corpus):
    whole = ksc(corpus)
    assert rows_of(whole) == EXPECTED
    assert listed(whole["train"]) == []
    expected, _ = soundfile.read(corpus / "Audios_flac" / "5f5af8479c85c.flac", dtype="float32")
    for place in (corpus, corpus.parent, pack(corpus, "a.tar.gz"), pack(corpus, "b.zip")):
        assert rows_of(ksc(place)) == EXPECTED
        audio = ksc(place)["test"][0]["audio"]
        assert audio["sampling_rate"] == 16_000
        np.testing.assert_array_equal(audio["array"], expected)


def test_the_older_release_has_wav(tmp_path):
    corpus = build_ksc(tmp_path, audio="Audios", ending=".wav")
    assert rows_of(ksc(corpus)) == EXPECTED
    (tmp_path / "mixed").mkdir()
    both = build_ksc(tmp_path / "mixed")
    clip(both / "Audios" / "5f318346ebd7f.wav", 9)
    assert rows_of(ksc(both)) == EXPECTED


def test_bom_line_ends_quotes_and_changes(corpus):
    rows = ("5f5af8479c85c 15872 F 63 North phone no", '5efc5e726df42 20185 M 21 South "tablet computer" no', "")
    write(corpus / "Meta" / "test.csv", "\ufeff" + "\r\n".join((KSC_HEADER, *rows)))
    write(corpus / "Transcriptions" / "5efc5e726df42.txt", "\ufeffбесінші\r\n")
    assert rows_of(ksc(corpus)) == EXPECTED
    write(corpus / "Transcriptions" / "5efc5e726df42.txt", "жаңа")
    assert rows_of(ksc(corpus))["test"][1][1] == "жаңа"
    write(corpus / "Meta" / "test.csv", f"{KSC_HEADER}\n5efc5e726df42 20185 M 21 South computer no\n")
    assert [row[0] for row in rows_of(ksc(corpus))["test"]] == ["5efc5e726df42"]


def test_what_is_missing_is_listed_both_ways(corpus, caplog):
    lines = ["bare 1", "5f318346ebd7f 12793", "5f318346ebd7f 12793", "short", "5f1ba9feb3124 20176", "../../5f591bb5a80c8 12794"]
    write(corpus / "Meta" / "train.csv", "\n".join(("uttID deviceID", *lines)))
    (corpus / "Transcriptions" / "5f1ba9feb3124.txt").unlink()
    (corpus / "Audios_flac" / "5f5af8479c85c.flac").unlink()
    clip(corpus / "Audios_flac" / "lone.flac", 1)
    write(corpus / "Transcriptions" / "alone.txt", "жалғыз")
    write(corpus / "Transcriptions" / "bare.txt", "бос")
    found = ksc(corpus)
    assert [row[0] for row in rows_of(found)["train"]] == ["bare", "5f318346ebd7f", "5f318346ebd7f", "5f591bb5a80c8"]
    assert sorted(listed(found["train"])) == sorted([
        ("row without the columns of its header", "Meta/train.csv, line 5"), (NO_AUDIO, "bare"), (TWICE, "5f318346ebd7f"),
        ("id of validation that also stands in train", "5f1ba9feb3124"), (NO_TEXT, "5f1ba9feb3124"), (NO_TEXT, "5f1ba9feb3124"),
        (NO_AUDIO, "5f5af8479c85c"), ("audio that no split lists", "Audios_flac/lone.flac"),
        ("transcript that no split lists", "Transcriptions/alone.txt"),
    ])  # fmt: skip
    assert "validation" not in found  # its only utterance has no transcript
    assert "2 x audio without transcript" in caplog.text


def remove(*names):
    def damage(corpus):
        for name in names:
            shutil.rmtree(corpus / name)

    return damage


def break_header(corpus):
    write(corpus / "Meta" / "train.csv", "uttID,deviceID\n5f318346ebd7f,12793\n")


def break_encoding(corpus):
    write(corpus / "Meta" / "dev.csv", f"{KSC_HEADER}\n5f1ba9feb3124 20176 F 18 Оңтүстік computer yes\n".encode("utf-16"))


def empty_audio(corpus):
    for file in (corpus / "Audios_flac").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("Audios_flac"), r"is KSC without any audio in Audios_flac or Audios, found Meta/, Transcriptions/; was the archive"),
        (empty_audio, r"is KSC without any audio in Audios_flac or Audios"),
        (remove("Transcriptions"), r"is KSC without any transcript in Transcriptions, found Audios_flac/, Meta/"),
        (remove("Meta"), r"is not KSC \(version 1\): expected .*Meta/\{train,dev,test\}\.csv.*; found Audios_flac/, Transcriptions/"),
        (break_header, r"Meta/train\.csv has no column 'uttID', found uttID,deviceID\. Its columns are separated by spaces"),
        (break_encoding, r"Meta/dev\.csv, line 1: UTF-16, not UTF-8"),
    ],
)
def test_a_half_extracted_or_broken_corpus_is_named(corpus, damage, message):
    damage(corpus)
    with pytest.raises(ValueError, match=message):
        ksc(corpus)


def test_a_table_that_is_not_there_is_listed(corpus):
    (corpus / "Meta" / "dev.csv").unlink()
    found = ksc(corpus)
    assert set(found) == {"train", "test"}
    assert ("split that is not there", "Meta/dev.csv") in listed(found["train"])
    with pytest.raises(ValueError, match=r"no split 'validation', found train, test"):
        ksc(corpus, splits=["validation"])
