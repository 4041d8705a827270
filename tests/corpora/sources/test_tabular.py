import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from layouts import TABLE_TEXT, build_hub, build_table, clip, pack, write, write_lines

from hfasr import corpora
from hfasr.corpora.reading.source import load_corpus
from hfasr.corpora.reading.table import problems_of
from hfasr.corpora.rows import plain


def facts(rows) -> list[tuple]:
    return [(row["id"], row["text"], row["duration"]) for row in plain(rows)]


def listed(rows) -> list[tuple[str, str]]:
    return [(problem["problem"], problem["name"]) for problem in problems_of(rows)]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_tables_and_archives(tmp_path, ending):
    folder = build_table(tmp_path, ending)
    expected = load_corpus(folder)
    assert list(expected) == ["train", "test"]
    assert [(row["id"], row["text"], row["speaker"], row["gender"]) for row in plain(expected["train"])] == [
        (f"c{n}", TABLE_TEXT.format(n), f"s{n}", "male") for n in (1, 2)
    ]
    assert plain(expected["test"])["duration"][0] == pytest.approx(0.75, abs=0.06)
    assert facts(load_corpus(folder / f"test{ending}")["test"]) == facts(expected["test"])
    assert facts(load_corpus({"validation": folder / f"test{ending}"})["validation"]) == facts(expected["test"])
    for archive in (pack(folder, "a.tar"), pack(folder, "b.tar.gz"), pack(folder, "c.zip")):
        packed = load_corpus(archive)
        for split, rows in expected.items():
            assert facts(packed[split]) == facts(rows)
            np.testing.assert_array_equal(packed[split][0]["audio"]["array"], rows[0]["audio"]["array"])


def table(tmp_path, text: str | bytes, name: str = "t.csv", clips: tuple[int, ...] = (1, 2)):
    for n in clips:
        clip(tmp_path / f"{n}.wav", n)
    write(tmp_path / name, text)
    return tmp_path / name


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_marks_and_line_ends(tmp_path, separator):
    text = (
        f"\ufeffPath{separator} Text {separator}Duration\r\n1.wav{separator}бир эки{separator}0.5\r\n\r\n2.wav{separator}үч{separator}\r\n"
    )
    rows = corpora.tabular(table(tmp_path, text))["train"]
    assert facts(rows) == [("1", "бир эки", 0.5), ("2", "үч", 0.5)]


def test_quotes(tmp_path):
    path = table(tmp_path, 'path,text\n1.wav,"бир, ""эки""\nүч"\n2.wav,төрт\n')
    assert facts(corpora.tabular(path)["train"]) == [("1", 'бир, "эки"\nүч', 0.25), ("2", "төрт", 0.5)]
    path = table(tmp_path, 'path\ttext\n1.wav\t"бир\n2.wav\tэ"ки"\n', "t.tsv")
    assert facts(corpora.tabular(path)["train"]) == [("1", '"бир', 0.25), ("2", 'э"ки"', 0.5)]
    path = table(tmp_path, 'path\ttext\n1.wav\t"бир ""эки"""\n', "t.tsv")
    assert facts(corpora.tabular(path, quotes=True)["train"]) == [("1", 'бир "эки"', 0.25)]
    path = table(tmp_path, 'path,text\n1.wav,ок\n2.wav,"never closed\n' + "x,y\n" * 40_000)
    with pytest.raises(ValueError, match=r"t\.csv, line 3: .*is a quote not closed\? Give quotes=False"):
        corpora.tabular(path)


def test_columns(tmp_path):
    path = table(tmp_path, "clip_no,words,who,ms,part\n1.wav,бир,a,100,train\n2.wav,эки,b,200,dev\n")
    with pytest.raises(ValueError, match=r"t\.csv has no column for the audio \(audio, .*found clip_no, words, who, ms, part; name it"):
        corpora.tabular(path)
    with pytest.raises(ValueError, match=r"no column for the text .*columns=\{'text': \.\.\.\}, or give header="):
        corpora.tabular(path, columns={"audio": "clip_no"})
    with pytest.raises(ValueError, match=r"t\.csv: there is no column 'word', found clip_no, words"):
        corpora.tabular(path, columns={"text": "word"})
    with pytest.raises(ValueError, match="columns names 'words', which no row has"):
        corpora.tabular(path, columns={"words": "text"})
    columns = {"audio": "clip_no", "text": "words", "speaker": "who", "duration_ms": "ms", "split": "part"}
    corpus = corpora.tabular(path, columns=columns)
    assert {split: (facts(rows), rows["speaker"][0]) for split, rows in corpus.items()} == {
        "train": ([("1", "бир", 0.1)], "a"), "validation": ([("2", "эки", 0.2)], "b"),
    }  # fmt: skip
    with pytest.raises(ValueError, match="column 'a' stands twice in a, a"):
        corpora.tabular(table(tmp_path, "a,a\n1,2\n"))


def test_segments(tmp_path):
    path = table(
        tmp_path,
        "path,text,start,end,id\n8.wav,бир,0,0.5,\n8.wav,эки,0.5,1.25,x\n8.wav,үч,1.5,,\n8.wav,жок,2,1,\n8.wav,жок,-1,1,\n",
        clips=(8,),
    )
    corpus = corpora.tabular(path)
    assert facts(corpus["train"]) == [("8-0-500", "бир", 0.5), ("x", "эки", 0.75), ("8-1500-", "үч", 0.5)]
    whole = 0.1 * np.random.default_rng(8).standard_normal(32_000)
    np.testing.assert_allclose(corpus["train"][1]["audio"]["array"], whole[8_000:20_000], atol=2 / 32768)
    assert listed(corpus["train"]) == [("segment that is not possible", "t.csv, line 5"), ("start that is not possible", "t.csv, line 6")]


def test_bad_rows_are_listed(tmp_path, caplog):
    path = table(tmp_path, "path,text,duration\n1.wav,бир,x\n2.wav\n,эки,1\n3.wav,үч,1\n2.wav,төрт,-3\n")
    rows = corpora.tabular(path)["train"]
    assert [fact[:2] for fact in facts(rows)] == [("1", "бир"), ("3", "үч"), ("2", "төрт")]
    assert sorted(listed(rows)) == [
        ("duration that is not possible", "t.csv, line 2"),
        ("duration that is not possible", "t.csv, line 6"),
        ("row that names no audio", "t.csv, line 4"),
        ("row without the columns of its header", "t.csv, line 3"),
        ("transcript without audio", "3"),
    ]
    assert "2 x duration that is not possible" in caplog.text


def test_wrong_input(tmp_path):
    bad = b"path,text\n1.wav," + "сок\n".encode("cp1251")
    with pytest.raises(ValueError, match=r"t\.csv, line 2: not UTF-8"):
        corpora.tabular(table(tmp_path, bad))
    with pytest.raises(ValueError, match=r"t\.csv, line 1: UTF-16, not UTF-8"):
        corpora.tabular(table(tmp_path, "path,text\n".encode("utf-16")))
    with pytest.raises(ValueError, match="has no column for the audio .*found an empty file"):
        corpora.tabular(table(tmp_path, ""))
    with pytest.raises(ValueError, match=r"t\.parquet: not a whole Parquet file"):
        corpora.tabular(table(tmp_path, b"PAR1", "t.parquet"))
    with pytest.raises(ValueError, match="none of its audio is here; the first is gone.wav"):
        corpora.tabular(table(tmp_path, "path,text\ngone.wav,x\n"))
    with pytest.raises(ValueError, match="column 'audio' holds the audio itself; use corpora.hub"):
        corpora.tabular(build_hub(tmp_path) / "ky_kg" / "train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="is not a table of audio files: no table"):
        corpora.tabular(tmp_path / "fleurs")


def test_another_machine(tmp_path):
    path = table(tmp_path / "a", "path,text\n/data/wavs/1.wav,бир\n/data/wavs/2.wav,эки\n")
    with pytest.raises(ValueError, match=r"the first is /data/wavs/1\.wav, all below /data/wavs\. If it is from another machine"):
        corpora.tabular(path)
    assert facts(corpora.tabular(path, audio_root=tmp_path / "a")["train"]) == [
        ("1", "бир", 0.25),
        ("2", "эки", 0.5),
    ]


def test_the_audio_folder_of_the_hub(tmp_path):
    for split, n in (("train", 1), ("test", 2)):
        clip(tmp_path / "f" / split / "data" / f"{n}.wav", n)
        write(tmp_path / "f" / split / "metadata.csv", f"file_name,transcription\ndata/{n}.wav,сөз {n}\n")
    corpus = load_corpus(tmp_path / "f")
    assert {split: facts(rows) for split, rows in corpus.items()} == {
        "train": [("1", "сөз 1", 0.25)],
        "test": [("2", "сөз 2", 0.5)],
    }
    (tmp_path / "f" / "test" / "data" / "2.wav").rename(tmp_path / "f" / "test" / "1.wav")
    write(tmp_path / "f" / "test" / "metadata.csv", "file_name,transcription\n1.wav,бир\n")
    assert {split: list(plain(rows)["id"]) for split, rows in load_corpus(tmp_path / "f").items()} == {"train": ["data/1"], "test": ["1"]}
    clip(tmp_path / "g" / "3.wav", 3)
    write_lines(
        tmp_path / "g" / "metadata.jsonl", [{"file_name": "3.wav", "text": "үч", "speaker_id": 5}, {"file_name": "3.wav", "text": None}]
    )
    corpus = load_corpus(tmp_path / "g")
    assert facts(corpus["train"]) == [("3", "үч", 0.75)]
    assert plain(corpus["train"])["speaker"][0] == "5"
    assert listed(corpus["train"]) == [("audio without transcript", "metadata.jsonl, line 2")]
    write(tmp_path / "g" / "metadata.jsonl", '{"file_name": "3.wav", "text": "үч"}\n{"file_name"\n')
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 2: not JSON"):
        load_corpus(tmp_path / "g")


def test_lj_speech(tmp_path):
    for n in (1, 2):
        clip(tmp_path / "LJSpeech-1.1" / "wavs" / f"LJ001-000{n}.wav", n)
    write(tmp_path / "LJSpeech-1.1" / "README", "LJ")
    write(tmp_path / "LJSpeech-1.1" / "metadata.csv", 'LJ001-0001|In 1465, "here"|In fourteen sixty-five, "here"\nLJ001-0002|two|two\n')
    with pytest.raises(ValueError, match=r"no column for the audio .*found LJ001-0001, In 1465, .*or give header="):
        corpora.tabular(tmp_path / "LJSpeech-1.1")
    corpus = corpora.tabular(tmp_path / "LJSpeech-1.1", header=["audio", "raw", "text"])
    assert facts(corpus["train"]) == [("LJ001-0001", 'In fourteen sixty-five, "here"', 0.25), ("LJ001-0002", "two", 0.5)]


def test_a_changed_table_is_seen(tmp_path):
    path = table(tmp_path, "path,text\n1.wav,бир\n")
    assert facts(corpora.tabular(path)["train"]) == [("1", "бир", 0.25)]
    write(path, "path,text\n1.wav,бир\n2.wav,эки\n")
    assert facts(corpora.tabular(path)["train"]) == [("1", "бир", 0.25), ("2", "эки", 0.5)]


def test_parquet_of_numbers(tmp_path):
    clip(tmp_path / "1.wav", 1)
    columns = {"path": ["1.wav", None], "text": ["бир", "эки"], "speaker_id": [7, 8], "duration": [0.25, None]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    rows = corpora.tabular(tmp_path / "t.parquet")["train"]
    assert facts(rows) == [("1", "бир", 0.25)]
    assert plain(rows)["speaker"][0] == "7"
    assert listed(rows) == [("row that names no audio", "t.parquet, row 2")]
