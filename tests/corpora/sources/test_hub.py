import copy
import io
import logging
import tarfile

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Audio, Dataset, DatasetDict, Features, IterableDatasetDict, Value
from datasets.exceptions import DatasetNotFoundError
from layouts import build_folder, build_hub, build_table, clip, write

from hfasr import corpora
from hfasr.audio import write_audio
from hfasr.cache import cache_folder
from hfasr.corpora.preparation.prepare import prepare
from hfasr.corpora.reading.source import load_corpus
from hfasr.corpora.rows import FEATURES, plain
from hfasr.corpora.sources import hub as hub_module
from hfasr.corpora.sources.hub import _explained, hub_columns


def facts(rows) -> list[tuple]:
    return [(row["id"], row["text"], row["duration"], row["gender"]) for row in plain(rows)]


def wav(n: int) -> bytes:
    file = io.BytesIO()
    write_audio(file, 0.1 * np.random.default_rng(n).standard_normal(4000 * n), 16_000, format="WAV")
    return file.getvalue()


TRAIN = [("/home/x/1.wav", "сөз 1", 0.25, "female"), ("/home/x/2.wav", "сөз 2", 0.5, "male"), ("/home/x/3.wav", "сөз 3", 0.75, "female")]


def test_parquet_shards_with_a_card(tmp_path):
    corpus = load_corpus(build_hub(tmp_path))
    assert list(corpus) == ["train", "validation", "test"]
    assert facts(corpus["train"]) == TRAIN
    assert corpus["train"].column_names == ["id", "audio", "text", "duration", "speaker", "gender", "accent", "source"]
    expected = 0.1 * np.random.default_rng(2).standard_normal(8_000)
    np.testing.assert_allclose(corpus["train"][1]["audio"]["array"], expected, atol=2 / 32768)
    again = load_corpus(tmp_path / "fleurs")
    assert again["train"]._fingerprint == corpus["train"]._fingerprint
    named = corpora.hub(tmp_path / "fleurs", "ky_kg", columns={"text": "raw_transcription"}, splits=["test"])
    assert facts(named["test"]) == [("/home/x/5.wav", "Сөз 5.", 1.25, "female")]
    assert list(corpora.hub(tmp_path / "fleurs", splits={"train": "test", "validation": "validation"})) == ["train", "validation"]
    shard = tmp_path / "fleurs" / "ky_kg" / "train-00000-of-00001.parquet"
    assert facts(load_corpus(shard)["train"]) == TRAIN


def test_the_audio_is_not_held_in_memory(tmp_path):
    corpus = corpora.hub(build_hub(tmp_path))
    (file,) = plain(corpus["train"]).cache_files
    before = pyarrow.total_allocated_bytes()
    big = pyarrow.compute.struct_field(corpus["train"].data.column("audio"), "bytes")
    assert pyarrow.total_allocated_bytes() == before
    assert sum(map(len, big.to_pylist())) > 40_000
    assert file["filename"].endswith(".arrow")


def test_streamed(tmp_path):
    folder = build_hub(tmp_path)
    stream = corpora.hub(folder, streaming=True)
    assert isinstance(stream, IterableDatasetDict)
    found = [(row["id"], row["text"], row["duration"], row["gender"]) for row in stream["train"]]
    assert found == TRAIN
    plain(corpora.hub(folder)).save_to_disk(str(tmp_path / "saved"))
    stream = corpora.hub(tmp_path / "saved", streaming=True, splits=["train"])
    assert [(row["id"], row["text"], row["duration"], row["gender"]) for row in stream["train"]] == TRAIN


def found_in(folder, data: bytes) -> bool:
    return any(data in file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("remote", [False, True])
def test_only_the_wanted_splits_are_prepared(tmp_path, monkeypatch, remote):
    folder = build_hub(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    name = "someone/fleurs" if remote else folder
    if remote:
        local = datasets.load_dataset_builder

        def redirected(path, *args, token=None, **rest):
            return local(str(folder) if path == name else path, *args, **rest)

        monkeypatch.setattr(datasets, "load_dataset_builder", redirected)
    held_out = corpora.hub(name, "ky_kg", splits={"validation": "validation", "final": "test"})
    assert list(held_out) == ["validation", "final"]
    assert facts(held_out["final"]) == [("/home/x/5.wav", "сөз 5", 1.25, "female")]
    assert [found_in(tmp_path / "cache", wav(n)[44:]) for n in (1, 2, 3, 4, 5)] == [False, False, False, True, True]
    with pytest.raises(ValueError, match="has no split 'dev', found train, validation, test"):
        corpora.hub(name, "ky_kg", splits={"validation": "dev"})
    stream = corpora.hub(name, "ky_kg", splits=["train"], streaming=True)
    assert [(row["id"], row["text"], row["duration"], row["gender"]) for row in stream["train"]] == TRAIN
    assert not found_in(tmp_path / "cache", wav(1)[44:])


def layouts(tmp_path) -> dict:
    """Build the same two splits in every local layout."""
    table = DatasetDict({split: rows for split, rows in plain(corpora.hub(build_hub(tmp_path))).items() if split != "test"})
    pushed = tmp_path / "pushed" / "data"
    pushed.mkdir(parents=True)
    for split, rows in table.items():
        for n in range(len(rows)):
            rows.select([n]).to_parquet(pushed / f"{split}-{n:05d}-of-{len(rows):05d}.parquet")
    prepare(table, tmp_path / "prepared", num_workers=1)
    table.save_to_disk(str(tmp_path / "disk"))
    return {
        "card": tmp_path / "fleurs", "file": tmp_path / "fleurs" / "ky_kg" / "train-00000-of-00001.parquet", "pushed": pushed.parent,
        "prepared": tmp_path / "prepared", "disk": tmp_path / "disk",
    }  # fmt: skip


def test_every_local_layout_streams(tmp_path):
    for layout, path in layouts(tmp_path).items():
        rows = corpora.hub(path, splits=["train"], streaming=True)["train"]
        assert rows.features == FEATURES, layout
        listed = list(rows)
        assert [(row["id"], row["text"], row["duration"], row["gender"]) for row in listed] == TRAIN, layout
        assert {row["speaker"] for row in listed} == {None}
        for place in (1, 2):
            taken = iter(rows)
            assert [next(taken)["id"] for _ in range(place)] == [row["id"] for row in listed[:place]]
            later = copy.deepcopy(rows)
            later.load_state_dict(rows.state_dict())
            assert list(later) == listed[place:], layout
        short = hub_columns(path)
        assert [(row["id"], row["text"], row["gender"]) for row in short] == [(name, text, gender) for name, text, _, gender in TRAIN]
        assert set(map(str, short["audio"])) == {"{'bytes': None, 'path': None}"}
        with pytest.raises(ValueError, match=r"has no split 'other', found train"):
            hub_columns(path, split="other")
    assert hub_columns("google/fleurs", "ky_kg", token="x", num_workers=1) is None


def test_tar_shards_stream(tmp_path):
    for place, name in enumerate(["train-00000.tar", "train-00001.tar", "dev_clean-00000.tar"]):
        with tarfile.open(tmp_path / name, "w") as archive:
            for extension, data in (("wav", wav(1 + place)), ("txt", b"x")):
                member = tarfile.TarInfo(f"u{place}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    assert [row["id"] for row in corpora.hub(tmp_path, splits=["train"], streaming=True)["train"]] == ["u0", "u1"]
    assert list(corpora.hub(tmp_path, streaming=True)) == ["train", "dev_clean"]
    assert hub_columns(tmp_path) is None
    with pytest.raises(ValueError, match="has no split 'test', found"):
        corpora.hub(tmp_path, splits=["test"], streaming=True)
    files = "".join(f"  - split: {split}\n    path: '{path}'\n" for split, path in (("train", "*1.tar"), ("test", "*0.tar")))
    write(tmp_path / "README.md", f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    assert [row["id"] for row in corpora.hub(tmp_path, splits=["train"], streaming=True)["train"]] == ["u1"]
    folder = tmp_path / "folders"
    for name, split in (("train-00000.tar", "train"), ("train-00001.tar", "dev")):
        (folder / split).mkdir(parents=True)
        (tmp_path / name).rename(folder / split / "0.tar")
    streams = corpora.hub(folder, streaming=True)
    assert {split: [row["id"] for row in rows] for split, rows in streams.items()} == {"train": ["u0"], "validation": ["u1"]}


def test_ids_are_kept(tmp_path, monkeypatch):
    folder = saved(tmp_path / "d", {"text": ["a", "b"]}, [{"bytes": wav(1), "path": None}, {"bytes": wav(2), "path": "b.wav"}])
    ids = plain(corpora.hub(folder)["train"])["id"][:]
    assert len(ids[0]) == 16
    assert ids[1] == "b.wav"
    monkeypatch.setattr(hub_module, "_read_digests", None)
    assert plain(corpora.hub(folder)["train"])["id"][:] == ids


def test_a_disk_that_does_not_answer_is_asked_again(tmp_path, monkeypatch):
    def fail(audio):
        raise error

    for error, expected in ((OSError(5, "Input/output error"), 0.25), (FileNotFoundError("gone"), np.nan)):
        with monkeypatch.context() as patched:
            patched.setattr(hub_module, "audio_duration", fail)
            folder = saved(tmp_path / type(error).__name__, {"text": ["a"]}, [{"bytes": wav(1), "path": "a.wav"}])
            np.testing.assert_equal(plain(corpora.hub(folder)["train"])["duration"][:], [np.nan])
        np.testing.assert_equal(plain(corpora.hub(folder)["train"])["duration"][:], [expected])


def saved(tmp_path, columns: dict, audio: list, split: str | None = None):
    features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}})
    rows = Dataset.from_dict({"audio": audio}, features=features).cast_column("audio", Audio())
    for name, values in columns.items():
        rows = rows.add_column(name, values)
    (rows if split is None else DatasetDict({split: rows})).save_to_disk(str(tmp_path))
    return tmp_path


def test_saved_to_disk(tmp_path, caplog):
    audio = [{"bytes": wav(1), "path": None}, {"bytes": b"no audio", "path": "b.wav"}, {"bytes": None, "path": str(tmp_path / "3.wav")}]
    clip(tmp_path / "3.wav", 3)
    folder = saved(tmp_path / "d", {"sentence": ["бир", "эки", None], "client_id": [1, 2, 3]}, audio, "dev")
    with caplog.at_level(logging.WARNING):
        rows = plain(load_corpus(folder)["validation"])
    assert rows["text"][:] == ["бир", "эки", None]
    assert rows["speaker"][:] == ["1", "2", "3"]
    assert rows["id"][1:] == ["b.wav", "3.wav"]
    assert len(rows["id"][0]) == 16
    np.testing.assert_equal(rows["duration"][:], [0.25, np.nan, 0.75])
    assert "validation: 1 x audio cannot be read, for example" in caplog.text
    caplog.clear()
    load_corpus(folder)
    assert "cannot be read" not in caplog.text  # the headers are read once
    assert list((cache_folder() / "durations").glob("*.part")) == []
    assert load_corpus(saved(tmp_path / "one", {"text": ["a", "b", "c"]}, audio)).keys() == {"train"}
    with pytest.raises(ValueError, match="written by save_to_disk and has no configurations"):
        corpora.hub(folder, "ky")


def test_a_changed_folder_is_seen(tmp_path):
    features = Features({"audio": Audio(), "text": Value("string")})
    stored = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, "text": Value("string")})

    def make(folder, *numbers: int) -> None:
        rows = [{"audio": {"bytes": wav(n), "path": f"{n}.wav"}, "text": str(n)} for n in numbers]
        folder.mkdir(exist_ok=True, parents=True)
        Dataset.from_list(rows, features=stored).cast(features).to_parquet(folder / "train-00000.parquet")

    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train-*\n---\n"
    for folder in (tmp_path / "a" / "p", tmp_path / "b" / "p"):
        make(folder, 1, 2)
        assert list(plain(load_corpus(folder)["train"])["duration"]) == [0.25, 0.5]
        write(folder / "README.md", card)
        assert list(plain(load_corpus(folder)["train"])["duration"]) == [0.25, 0.5]
    make(folder, 2, 3)
    assert list(plain(load_corpus(folder)["train"])["duration"]) == [0.5, 0.75]
    make(folder, 4)
    assert list(plain(load_corpus(folder)["train"])["duration"]) == [1.0]
    assert list(plain(load_corpus(tmp_path / "a" / "p")["train"])["duration"]) == [0.25, 0.5]


def test_what_prepare_writes(tmp_path):
    corpus = corpora.folder(build_folder(tmp_path))
    prepare(corpus, tmp_path / "shards", num_workers=1)
    again = load_corpus(tmp_path / "shards")
    assert list(again) == list(corpus)
    for split, rows in corpus.items():
        assert list(plain(again[split])["id"]) == list(plain(rows)["id"])
        assert list(plain(again[split])["text"]) == list(plain(rows)["text"])
        for row, other in zip(again[split], rows, strict=True):
            np.testing.assert_allclose(row["audio"]["array"], other["audio"]["array"], atol=2 / 32768)


def test_columns_that_are_not_found(tmp_path):
    folder = saved(tmp_path / "a", {"words": ["x"]}, [{"bytes": wav(1), "path": None}])
    with pytest.raises(ValueError, match=r"no column with the text, found audio, words; name it with columns="):
        corpora.hub(folder)
    assert plain(corpora.hub(folder, columns={"text": "words"})["train"])["text"][0] == "x"
    with pytest.raises(ValueError, match="there is no column 'wrods'"):
        corpora.hub(folder, columns={"text": "wrods"})
    with pytest.raises(ValueError, match="column 'audio' holds struct<.*where text was expected"):
        corpora.hub(folder, columns={"text": "audio"})
    with pytest.raises(ValueError, match="has no split 'dev', found train"):
        corpora.hub(folder, columns={"text": "words"}, splits=["dev"])
    with pytest.raises(ValueError, match="has no split 'dev', found train"):
        corpora.hub(folder, columns={"text": "words"}, splits={"validation": "dev"})


def test_wrong_input(tmp_path):
    with pytest.raises(ValueError, match="is not a Hugging Face data set: .* It looks like a table of audio files: use corpora.tabular"):
        corpora.hub(build_table(tmp_path))
    with pytest.raises(ValueError, match="It looks like a folder of audio with text files"):
        corpora.hub(build_folder(tmp_path))
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.wav"], "text": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet has no column that holds audio; use corpora\.tabular"):
        corpora.hub(tmp_path / "t.parquet")
    with pytest.raises(FileNotFoundError, match=r"\./gone: no such folder, and a data set's name on the Hub is like 'google/fleurs'"):
        corpora.hub("./gone")
    with pytest.raises(ValueError, match=r"fleurs has no configuration 'kk_kz'; .*ky_kg"):
        corpora.hub(build_hub(tmp_path), "kk_kz")
    write(tmp_path / "fleurs" / "ky_kg" / "train-00000-of-00001.parquet", b"PAR1 cut")
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet: not a whole Parquet file"):
        load_corpus(tmp_path / "fleurs", source="hub")


def test_the_hub_cannot_be_reached():
    with pytest.raises(ConnectionError) as caught:  # the tests run offline
        corpora.hub("google/fleurs", "ky_kg", token="hf_secret")
    assert str(caught.value).startswith("google/fleurs: the Hub cannot be reached, and the data set is not in the cache. Are you offline")
    assert "hf_secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub. Visit the page"),
            FileNotFoundError,
            "a/b is gated: accept its conditions",
        ),
        (
            DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."),
            FileNotFoundError,
            "no such data set on the Hub",
        ),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), ValueError, "try revision='refs/convert/parquet'"),
        (ImportError("To support encoding audio data, please install 'torchcodec'."), ValueError, "hf download --repo-type dataset a/b"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(error, kind, message):
    explained = _explained(error, "a/b", None, local=False)
    assert type(explained) is kind
    assert message in str(explained)
