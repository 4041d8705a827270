import copy
import io
import json
import math
import tarfile

import numpy as np
import pytest
from datasets import Audio, ClassLabel, Dataset, Features, IterableDataset, Value, load_dataset
from datasets.distributed import split_dataset_by_node

from hfasr.audio import load_audio, write_audio
from hfasr.corpora.reading.stream import add_stream_target, row_mapping, shard_columns, stream_rows
from hfasr.corpora.rows import ENCODED_AUDIO, FEATURES, build_rows, decoded


def flac(seconds: float, seed: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, round(16_000 * seconds))
    write_audio(file, noise.astype(np.float32), 16_000, format="FLAC")
    return file.getvalue()


@pytest.fixture(scope="module")
def records():
    return [
        {
            "id": f"ky_{n}", "audio": {"bytes": flac(0.2 + n / 100, n), "path": f"ky_{n}.flac"}, "text": f"сүйлөм {n}",
            "duration": 0.2 + n / 100, "speaker": f"s{n % 3}", "gender": "", "accent": "", "source": "radio",
        }
        for n in range(23)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shards(records, tmp_path_factory):
    """Parquet and tar shards of the same rows, unevenly split, and a second split."""
    folder = tmp_path_factory.mktemp("shards")
    rows = decoded(build_rows(records))
    for number, (first, last) in enumerate([(0, 4), (4, 15), (15, 23)]):
        rows.select(range(first, last)).to_parquet(folder / f"train-{number:05d}.parquet", batch_size=3)
        write_tar(folder / "tar" / f"train-{number:05d}.tar", records[first:last])
    rows.select(range(2)).to_parquet(folder / "test_clean-00000.parquet")
    rows.select(range(3)).to_parquet(folder / "test-00000.parquet")
    return folder


def write_tar(path, records, json_text=False):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for record in records:
            text = json.dumps({"sentence": record["text"], "speaker_id": record["speaker"]}) if json_text else record["text"]
            for extension, data in (("flac", record["audio"]["bytes"]), ("json" if json_text else "txt", text.encode())):
                member = tarfile.TarInfo(f"{record['id']}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_parquet_rows_are_the_rows(shards, records):
    rows = stream_rows(shards, split="train")
    assert rows.features == FEATURES
    assert rows.num_shards == 3
    assert list(rows) == records
    assert [row["id"] for row in stream_rows(shards, split="test")] == ["ky_0", "ky_1", "ky_2"]
    assert [row["id"] for row in stream_rows(shards / "train-*1.parquet")] == [f"ky_{n}" for n in range(4, 15)]


def test_tar_rows_are_the_rows(shards, records, tmp_path):
    rows = list(stream_rows(shards / "tar"))
    for row, record in zip(rows, records, strict=True):
        assert {"id": row["id"], "text": row["text"]} == {"id": record["id"], "text": record["text"]}
        assert row["audio"]["bytes"] == record["audio"]["bytes"]
        assert row["duration"] == pytest.approx(record["duration"])
        assert (load_audio(row["audio"]["path"]) == load_audio(record["audio"])).all()  # the path alone finds it too
    write_tar(tmp_path / "a.1.tgz", records[:2], json_text=True)
    found = list(stream_rows(tmp_path / "a.1.tgz"))
    assert [(row["text"], row["speaker"]) for row in found] == [(record["text"], record["speaker"]) for record in records[:2]]


def test_the_webdataset_builder_and_a_table_stream_too(shards, records):
    web = load_dataset("webdataset", data_files=str(shards / "tar" / "*.tar"), split="train", streaming=True)
    table = decoded(build_rows(records)).to_iterable_dataset(num_shards=4)
    for rows in (stream_rows(web), stream_rows(table)):
        assert [(row["id"], row["text"], row["audio"]["bytes"]) for row in rows] == [
            (record["id"], record["text"], record["audio"]["bytes"]) for record in records
        ]


def test_columns_of_other_names(records):
    """Of FLEURS and Common Voice on the Hub; a speaker's sex by number, the sentence's number as id."""
    found = Dataset.from_dict(
        {
            "id": [7, 7], "path": ["a.flac", "b.flac"], "audio": [records[0]["audio"], {"bytes": b"no audio", "path": "b.flac"}],
            "transcription": ["бир", "эки"], "raw_transcription": ["Бир.", "Эки."], "gender": [1, 0],
        },
        features=Features({"id": Value("int32"), "path": Value("string"), "audio": ENCODED_AUDIO, "transcription": Value("string"),
                           "raw_transcription": Value("string"), "gender": ClassLabel(names=["male", "female"])}),
    ).cast_column("audio", Audio())  # fmt: skip
    good, bad = stream_rows(found.to_iterable_dataset())
    assert (good["id"], good["text"], good["gender"], good["speaker"]) == ("a.flac", "бир", "female", None)
    assert good["duration"] == pytest.approx(0.2)
    assert math.isnan(bad["duration"])
    assert [row["text"] for row in stream_rows(found.to_iterable_dataset(), columns={"text": "raw_transcription"})] == ["Бир.", "Эки."]


def test_a_streamed_audio_folder_is_read(tmp_path, records):
    (tmp_path / "a.flac").write_bytes(records[3]["audio"]["bytes"])
    features = Features({"audio": ENCODED_AUDIO, "text": Value("string")})
    rows = Dataset.from_dict({"audio": [{"bytes": None, "path": f"file://{tmp_path}/a.flac"}], "text": ["бир"]}, features=features)
    (row,) = stream_rows(rows.to_iterable_dataset())
    assert row["audio"]["bytes"] == records[3]["audio"]["bytes"]
    assert row["duration"] == pytest.approx(records[3]["duration"])
    assert row["id"].endswith("a.flac")


def test_all_but_the_audio(shards, records, tmp_path):
    short = shard_columns(shards, split="train")
    empty = {"bytes": None, "path": None}
    assert list(short) == [record | {"audio": empty} for record in records]
    assert shard_columns(shards / "tar") is None
    features = Features({"audio": ENCODED_AUDIO, "sentence": Value("string"), "speaker": ClassLabel(names=["x", "y"])})
    rows = Dataset.from_dict(
        {"audio": [record["audio"] for record in records[:3]], "sentence": ["бир", None, "үч"], "speaker": [1, 0, None]}, features=features
    )
    rows.to_parquet(tmp_path / "a.parquet")
    for found in (shard_columns(tmp_path / "a.parquet"), list(stream_rows(tmp_path / "a.parquet"))):
        assert [(row["id"], row["text"], row["speaker"], row["gender"]) for row in found] == [
            ("ky_0.flac", "бир", "y", None), ("ky_1.flac", "", "x", None), ("ky_2.flac", "үч", None, None),
        ]  # fmt: skip
    assert all(math.isnan(row["duration"]) for row in shard_columns([tmp_path / "a.parquet"]))


def test_columns_that_are_not_there():
    with pytest.raises(ValueError, match="no column with the text, found audio, words"):
        row_mapping(Features({"audio": Audio(), "words": Value("string")}))
    with pytest.raises(ValueError, match="no audio column, found text"):
        row_mapping(Features({"text": Value("string")}))
    with pytest.raises(ValueError, match=r"several audio columns \(a, b\)"):
        row_mapping(Features({"a": Audio(), "b": Audio(), "text": Value("string")}))
    with pytest.raises(ValueError, match="no column 'raw', found audio, text"):
        row_mapping(Features({"audio": Audio(), "text": Value("string")}), {"text": "raw"})


def test_shards_that_are_not_there(shards, tmp_path):
    with pytest.raises(ValueError, match=r"no \.parquet or \.tar shards of split 'dev', found tar, test-00000\.parquet"):
        stream_rows(shards, split="dev")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        stream_rows(shards / "nowhere-*.parquet")
    with pytest.raises(ValueError, match=r"all \.parquet or all \.tar"):
        stream_rows([shards / "test-00000.parquet", shards / "tar" / "train-00000.tar"])
    with pytest.raises(TypeError, match="DatasetDict"):
        stream_rows(load_dataset("parquet", data_files=str(shards / "test-*.parquet")))
    data = (shards / "tar" / "train-00001.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cut\.tar: cannot be read to its end"):
        list(stream_rows(tmp_path / "cut.tar"))


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_any_place_can_be_gone_on_from(shards, records, kind):
    """What streamed training stands on: the state of `datasets`, with targets made in batches, whole and by halves."""
    rows = stream_rows(shards, split="train") if kind == "parquet" else stream_rows(shards / "tar")
    rows = add_stream_target(rows, lambda texts: [text.upper() for text in texts]).filter(lambda row: row["id"] != "ky_5")
    shard = rows.shard(3, 1)
    for view in (rows, shard, split_dataset_by_node(shard, rank=1, world_size=2, strategy="examples")):
        ids = [row["id"] for row in view]
        for place in range(1, len(ids) + 1):
            taken = iter(view)
            assert [next(taken)["id"] for _ in range(place)] == ids[:place]
            later = copy.deepcopy(view)
            later.load_state_dict(json.loads(json.dumps(view.state_dict())))
            assert [row["id"] for row in later] == ids[place:]
    assert next(iter(rows))["target"] == "СҮЙЛӨМ 0"
    assert isinstance(rows, IterableDataset)
