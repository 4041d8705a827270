import shutil

import numpy as np
import pytest
import soundfile
from layouts import build_aishell, clip, pack, write

from hfasr.corpora import aishell
from hfasr.corpora.reading.table import NO_AUDIO, NO_TEXT, TWICE, problems_of
from hfasr.corpora.rows import plain

TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"


def rows_of(corpus):
    columns = ("id", "text", "duration", "speaker", "gender", "source")
    return {split: [tuple(row[column] for column in columns) for row in plain(rows)] for split, rows in corpus.items()}


def listed(rows):
    return sorted((problem["problem"], problem["name"]) for problem in problems_of(rows))


EXPECTED = {
    "train": [
        ("BAC009S0002W0122", "而 对 楼市 成交 抑制 作用 最 大 的 限 购", 0.25, "S0002", "F", "aishell"),
        ("BAC009S0002W0123", "也 成为 地方 政府 的 眼中 钉", 0.5, "S0002", "F", "aishell"),
        ("BAC009S0003W0121", "各地 政府 便 纷纷 跟进", 0.75, "S0003", "F", "aishell"),
    ],
    "validation": [("BAC009S0724W0121", "广州 市 房地产", 1.0, "S0724", "M", "aishell")],
    "test": [("BAC009S0764W0121", "甚至 出现 交易 几乎 停滞 的 情况", 1.25, "S0764", "F", "aishell")],
}
WITHOUT_GENDER = {split: [(*row[:4], None, row[5]) for row in rows] for split, rows in EXPECTED.items()}


def test_folder_and_archives_give_the_published_rows(tmp_path):
    corpus = build_aishell(tmp_path / "download")
    expected, _ = soundfile.read(corpus / "wav" / "train" / "S0002" / "BAC009S0002W0123.wav", dtype="float32")
    both = pack(corpus.parent, "all.tar")
    for place, rows in (
        (corpus, EXPECTED), (corpus.parent, EXPECTED), (tmp_path, EXPECTED), (both, EXPECTED),
        (pack(corpus, "data_aishell.tgz"), WITHOUT_GENDER), (pack(corpus, "a.stored.zip"), WITHOUT_GENDER),
    ):  # fmt: skip
        found = aishell(place)
        assert rows_of(found) == rows
        assert listed(found["train"]) == []
        audio = found["train"][1]["audio"]
        assert audio["sampling_rate"] == 16_000
        np.testing.assert_array_equal(audio["array"], expected)


def test_gender_is_left_out_without_its_file(tmp_path):
    corpus = build_aishell(tmp_path)
    assert rows_of(aishell(corpus)) == EXPECTED
    shutil.rmtree(tmp_path / "resource_aishell")
    assert rows_of(aishell(corpus)) == WITHOUT_GENDER


@pytest.mark.parametrize("packed", [("S0002", "S0003", "S0724", "S0764"), ("S0003",), ("S0724",)])
def test_speakers_that_were_not_extracted_are_read_in_place(tmp_path, packed):
    corpus = build_aishell(tmp_path / "download", packed)
    before = sorted(tmp_path.rglob("*"))
    found = aishell(corpus)
    assert rows_of(found) == EXPECTED
    assert listed(found["train"]) == []
    assert len(found["validation"][0]["audio"]["array"]) == 16_000
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match=r"an archive in an archive, .*Extract the outer one \(tar -xf '.*data_aishell\.tgz'\) and give"):
        aishell(pack(corpus, "data_aishell.tgz"))


def test_an_archive_of_a_speaker_that_is_cut_short_is_named(tmp_path):
    corpus = build_aishell(tmp_path, ("S0003",))
    archive = corpus / "wav" / "S0003.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"S0003\.tar\.gz: not a whole"):
        aishell(corpus)


def test_bom_line_ends_and_changes(tmp_path):
    corpus = build_aishell(tmp_path)
    text = (corpus / TRANSCRIPT).read_text(encoding="utf-8")
    write(corpus / TRANSCRIPT, "\ufeff" + text.replace("\n", " \r\n") + "\r\n")
    assert rows_of(aishell(corpus)) == EXPECTED
    write(corpus / TRANSCRIPT, text.replace("广州 市 房地产", "北京 市"))
    assert rows_of(aishell(corpus))["validation"][0][1] == "北京 市"
    write(corpus / TRANSCRIPT, text.encode("gb18030"))
    with pytest.raises(ValueError, match=r"aishell_transcript_v0\.8\.txt, line 1: not UTF-8"):
        aishell(corpus)


def test_what_is_missing_is_listed_both_ways(tmp_path, caplog):
    corpus = build_aishell(tmp_path)
    (corpus / "wav" / "train" / "S0002" / "BAC009S0002W0123.wav").unlink()
    clip(corpus / "wav" / "train" / "S0003" / "BAC009S0003W0999.wav", 1)
    write(corpus / "wav" / "train" / "S0003" / "._BAC009S0003W0121.wav", b"\x00")
    shutil.rmtree(corpus / "wav" / "test")
    with open(corpus / TRANSCRIPT, "a", encoding="utf-8") as file:
        file.write("BAC009S0764W0122 没有\nBAC009S0724W0121 广州 市 房地产\nBAC009S0003W0121 别 的\n")
    found = aishell(corpus)
    assert set(found) == {"train", "validation"}
    assert [row[0] for row in rows_of(found)["train"]] == [row[0] for row in EXPECTED["train"]]
    assert listed(found["train"]) == sorted([
        (NO_AUDIO, "BAC009S0002W0123"), (NO_TEXT, "wav/train/S0003/BAC009S0003W0999.wav"), ("split that is not there", "wav/test"),
        ("speaker without audio", "S0764"), (TWICE, "BAC009S0003W0121"), (TWICE, "BAC009S0724W0121"),
    ])  # fmt: skip
    assert "1 x transcript without audio" in caplog.text
    assert next(item["reason"] for item in problems_of(found["train"]) if item["name"] == "S0764") == "2 transcripts"


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("wav", r"has neither \{train,dev,test\}/<speaker>/ nor <speaker>\.tar\.gz, found nothing; was data_aishell\.tgz extracted"),
        ("transcript", r"is not AISHELL-1: expected .*aishell_transcript_v0\.8\.txt; found wav/"),
    ],
)
def test_a_half_extracted_corpus_is_named(tmp_path, lost, message):
    corpus = build_aishell(tmp_path)
    shutil.rmtree(corpus / lost)
    with pytest.raises(ValueError, match=message):
        aishell(corpus)
