import io

import numpy as np
import pytest
import soundfile
from datasets import Dataset, DatasetDict, Value, concatenate_datasets, load_from_disk
from datasets.arrow_writer import ArrowWriter

from hfasr.audio import load_audio
from hfasr.corpora import common_voice
from hfasr.corpora.check import check_audio
from hfasr.corpora.filters import keep_durations, keep_rows
from hfasr.corpora.inspection.summary import describe
from hfasr.corpora.leaks import leaks, without_leaks
from hfasr.corpora.rows import Recording, column, decoded, plain, with_column
from hfasr.corpora.targets import add_target


def test_decoding_is_lazy_and_map_keeps_working(toy_release):
    corpus = common_voice(toy_release, splits=["train", "test"])
    row = corpus["train"][0]
    assert row["audio"]["array"].dtype == np.float32
    assert len(row["audio"]["array"]) / 16_000 == pytest.approx(row["duration"], abs=0.1)
    assert plain(corpus["train"])[0]["audio"]["bytes"] is None


def test_other_columns_are_read_without_the_audio(rows, tmp_path):
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


@pytest.mark.parametrize("call", [keep_durations, check_audio, keep_rows, leaks, without_leaks, lambda corpus: add_target(corpus, list)])
def test_a_single_split_is_refused(rows, call):
    with pytest.raises(TypeError, match=r"takes a DatasetDict of splits, found Dataset; give DatasetDict\(train=rows\)"):
        call(rows("a"))


def test_add_target_replaces(rows):
    corpus = add_target(DatasetDict(train=rows("а б", "в")), lambda texts: [text.upper() for text in texts])
    corpus = add_target(corpus, lambda texts: [text + "!" for text in texts])
    assert list(plain(corpus["train"])["target"]) == ["а б!", "в!"]


def test_describe(toy_release):
    found = describe(decoded(common_voice(toy_release, splits=["train"])))
    assert found["train"]["utterances"] == 24
    assert 0.5 / 60 < found["train"]["hours"] < 3 / 60


def test_a_column_is_added_without_copying_the_others(rows, tmp_path):
    stored = rows(*"абвгд")
    with ArrowWriter(path=str(tmp_path / "rows.arrow"), features=stored.features) as writer:
        writer.write_table(stored.data.table)
        writer.finalize()
    mapped = Dataset.from_file(str(tmp_path / "rows.arrow"))
    chosen = mapped.select([4, 0, 2]).select([2, 0, 0])  # в д д
    added = with_column(with_column(chosen, "n", [1, 2, 2], Value("int32")), "n", [7, 8, 8], Value("int64"))
    assert [(row["id"], row["n"]) for row in added] == [("u2", 7), ("u4", 8), ("u4", 8)]
    assert added.cache_files == mapped.cache_files
    assert added.features["n"] == Value("int64")
    both = concatenate_datasets([added, with_column(mapped, "n", range(5), Value("int64"))])
    assert [row["n"] for row in both] == [7, 8, 8, 0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="column 'n' has 2 values for 3 rows"):
        with_column(chosen, "n", [1, 2], Value("int32"))


def test_a_column_follows_the_selection_and_touches_no_audio(rows):
    corpus = decoded(rows(*"абвгд"))
    for chosen in (
        corpus,
        corpus.select(range(1, 4)),
        corpus.select([4, 0, 0]),
        corpus.select([3, 1, 2]).select([2, 1]),
        corpus.select([]),
    ):
        expected = plain(chosen)[:]
        assert column(chosen, "text").to_pylist() == expected["text"]
        assert column(chosen, "audio", "path").to_pylist() == [audio["path"] for audio in expected["audio"]]
    with pytest.raises(ValueError, match="no column 'words', found id, audio"):
        column(corpus, "words")
