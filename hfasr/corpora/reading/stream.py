"""Rows as they come: sharded Parquet, tar shards, or any streamed data set, without a table of them.

A stream is a `datasets.IterableDataset` of rows in the schema of `rows.py`, their audio the stored `{"path", "bytes"}`.
"""

import glob
import hashlib
import json
import logging
import math
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from datasets import Audio, ClassLabel, Dataset, Features, IterableDataset, Value
from datasets.table import InMemoryTable

from hfasr.audio import audio_duration
from hfasr.corpora.reading.mapping import named_columns, row_mapping
from hfasr.corpora.rows import ENCODED_AUDIO, FEATURES, plain
from hfasr.paths import archive_path

logger = logging.getLogger(__name__)

TAR = (".tar", ".tar.gz", ".tgz")
_IN_SHARD = {"txt": "text", "text": "text", "transcript": "text", "json": "json"}
_BATCH = 64  # rows whose targets are made together


def stream_rows(
    source: IterableDataset | str | os.PathLike | list[str | os.PathLike],
    *,
    split: str | None = None,
    columns: dict[str, str] | None = None,
) -> IterableDataset:
    """Read rows in our schema, one after the other.

    Make splits before, not by `take` and `skip` of a stream: shards, not rows, are what processes share.

    Args:
        source: A streamed data set with an Audio column (`load_dataset(..., streaming=True)`); or Parquet files as
            `hfasr prepare` writes them, or tar shards with `<key>.flac` beside `<key>.txt` or `<key>.json` (a text and
            whatever else a row has): a file, a folder, a pattern such as "shards/train-*.parquet", or a list of files.
        split: Of a folder, the sub-folder or the beginning of the names to read.
        columns: Our name to the source's, such as `{"text": "raw_transcription"}`, where `row_mapping` would not find it.

    Returns:
        Rows without a target; `duration` comes from the header where the source has none, and is NaN where that cannot be
        read.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A folder without shards, shards of two kinds, or columns that are not to be found.
        TypeError: `source` is a table, or a dict of splits.
    """
    if isinstance(source, str | os.PathLike | list):
        files = _shards(source, split)
        if files[0].endswith(TAR):
            return IterableDataset.from_generator(_read_tars, features=FEATURES, gen_kwargs={"shards": files})
        source = IterableDataset.from_parquet(files)
    elif not isinstance(source, IterableDataset):
        raise TypeError(f"stream_rows takes one split as a datasets.IterableDataset, or files; found {type(source).__name__}")
    features = source.features or source._resolve_features().features
    mapping = row_mapping(features, columns)
    # the storage type, for `datasets` asks for torchcodec wherever it meets its own
    source = source.cast_column(mapping["audio"], ENCODED_AUDIO)
    classes = {name: features[name].names for name in mapping.values() if isinstance(features[name], ClassLabel)}
    surplus = [name for name in features if name not in FEATURES]
    return source.map(partial(_to_row, mapping=mapping, classes=classes), remove_columns=surplus, features=FEATURES)


def shard_columns(
    source: str | os.PathLike | list[str | os.PathLike], *, split: str | None = None, columns: dict[str, str] | None = None
) -> Dataset | None:
    """Read all but the audio of Parquet shards: to build a vocabulary, to look for leaks.

    Args:
        source: As `stream_rows` takes files.
        split: Of a folder.
        columns: As `stream_rows` takes them.

    Returns:
        Rows whose audio has neither bytes nor path, a text "" where there is none, with NaN where there is no column of durations; an
        id is the audio's path where there is no other, None where there is none either. None for tar shards.
    """
    files = _shards(source, split)
    if files[0].endswith(TAR):
        return None
    return rows_without_audio(map(_parquet_columns, files), columns)


def rows_without_audio(
    parts: Iterable[tuple[Callable[..., pyarrow.ChunkedArray], Features]], columns: dict[str, str] | None = None
) -> Dataset:
    """Make the rows of `shard_columns`.

    Args:
        parts: One after the other, what reads a column of a name, or a field of it, as `hfasr.corpora.rows.column` does; and the
            features.
        columns: As `stream_rows` takes them.
    """
    schema = FEATURES.arrow_schema
    tables = [pyarrow.table(_without_audio(read, features, row_mapping(features, columns)), schema=schema) for read, features in parts]
    return plain(Dataset(InMemoryTable(pyarrow.concat_tables(tables))))


def _without_audio(
    read: Callable[..., pyarrow.ChunkedArray], features: Features, mapping: dict[str, str]
) -> dict[str, pyarrow.ChunkedArray | pyarrow.Array]:
    found = {ours: as_texts(read(name), features[name], name) for ours, name in mapping.items() if ours not in ("audio", "duration")}
    n, kind = len(found["text"]), FEATURES.arrow_schema.field("audio").type
    found["text"] = pyarrow.compute.fill_null(found["text"], "")
    if isinstance(features[mapping["audio"]], Audio | dict):  # else bytes without a path
        found["id"] = pyarrow.compute.coalesce(found.get("id", pyarrow.nulls(n, pyarrow.string())), read(mapping["audio"], "path"))
    seconds = read(mapping["duration"]).cast(pyarrow.float64()) if "duration" in mapping else pyarrow.nulls(n, pyarrow.float64())
    found |= {"duration": pyarrow.compute.fill_null(seconds, math.nan)}
    found["audio"] = pyarrow.array([{"bytes": None, "path": None}], kind).take(pyarrow.array(np.zeros(n, np.int8)))
    return {name: found.get(name, pyarrow.nulls(n, pyarrow.string())) for name in FEATURES}


def _parquet_columns(file: str) -> tuple[Callable[..., pyarrow.ChunkedArray], Features]:
    shard = pyarrow.parquet.ParquetFile(file)

    def read(name: str, part: str | None = None) -> pyarrow.ChunkedArray:
        if part is None:
            return shard.read(columns=[name]).column(name)
        return pyarrow.compute.struct_field(shard.read(columns=[f"{name}.{part}"]).column(name), part)  # not the bytes beside it

    return read, Features.from_arrow_schema(shard.schema_arrow)


def as_texts(values: pyarrow.ChunkedArray, feature: object, name: str) -> pyarrow.ChunkedArray:
    """Return a column as strings, a class by its name.

    Raises:
        ValueError: It holds something else; the message gives its name.
    """
    if isinstance(feature, ClassLabel):
        names = pyarrow.array([*feature.names, None], pyarrow.string())
        places = pyarrow.compute.fill_null(values, len(feature.names))
        places = pyarrow.compute.if_else(pyarrow.compute.less(places, 0), len(feature.names), places)
        return pyarrow.chunked_array([names.take(places.combine_chunks())])
    if pyarrow.types.is_nested(values.type) or pyarrow.types.is_binary(values.type):
        raise ValueError(f"column {name!r} holds {values.type}, where text was expected; name another with columns=")
    return values.cast(pyarrow.string())


def add_stream_target(rows: IterableDataset, to_target: Callable[[list[str]], list[str]]) -> IterableDataset:
    """Add the column `target` as the rows come by.

    Args:
        rows: From `stream_rows`.
        to_target: A `Phonemizer`, a `Normalizer`, or any function from a list of texts to a list of targets, that gives the
            same each time, for a run that goes on from a checkpoint asks it again. Training calls it in a thread.
    """
    features = Features({**(rows.features or FEATURES), "target": Value("string")})
    return rows.map(partial(_to_targets, to_target=to_target), batched=True, batch_size=_BATCH, features=features)


def _to_targets(rows: dict[str, list], to_target: Callable[[list[str]], list[str]]) -> dict[str, list[str]]:
    return {"target": to_target([text or "" for text in rows["text"]])}


def _to_row(row: dict, mapping: dict[str, str], classes: dict[str, list[str]]) -> dict:
    """Build our row of a data set's."""
    found = {ours: row[name] for ours, name in mapping.items()}
    for ours, name in mapping.items():
        if name in classes and found[ours] is not None:
            found[ours] = classes[name][found[ours]] if found[ours] >= 0 else None
    return _row(_fetched(found.pop("audio")), found)


def _row(audio: dict | None, found: dict) -> dict:
    """Fill in what a source leaves out."""
    row = {name: None if found.get(name) is None else str(found[name]) for name in FEATURES if name not in ("audio", "duration")}
    row["text"] = row["text"] or ""
    audio = audio or {"bytes": None, "path": None}
    seconds = found.get("duration")
    if seconds is None or math.isnan(seconds):
        seconds = _header_seconds(audio)
    row["id"] = row["id"] or audio["path"] or hashlib.blake2b(audio["bytes"] or b"", digest_size=8).hexdigest()
    return row | {"audio": {"bytes": audio["bytes"], "path": audio["path"]}, "duration": float(seconds)}


def _header_seconds(audio: dict) -> float:
    try:
        return audio_duration(audio)
    except (ValueError, TypeError, OSError):  # the trainer leaves the row out and says why
        return math.nan


def _fetched(audio: dict | None) -> dict | None:
    """Read what a streamed audio folder only names: a file on the Hub or in another remote place."""
    if audio is None or audio["bytes"] is not None or "://" not in (audio["path"] or ""):
        return audio
    import fsspec

    with fsspec.open(audio["path"], "rb") as file:
        return {"bytes": file.read(), "path": audio["path"]}


def _read_tars(shards: list[str]) -> Iterator[dict]:
    """Yield the rows of tar shards, whose members of one name without extension stand together."""
    for shard in shards:
        key, parts = None, {}
        for name, member, data in _members(shard):
            stem, _, extension = name.rpartition(".")
            if stem != key and parts:
                yield _tar_row(shard, key, parts)
            if stem != key:
                key, parts = stem, {}
            parts[extension.lower()] = (member, data)
        if parts:
            yield _tar_row(shard, key, parts)


def _members(shard: str) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.isfile() and "." in os.path.basename(member.name):
                    yield member.name, member, archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{shard}: cannot be read to its end ({error}); copy or make it again") from error


def _tar_row(shard: str, key: str, parts: dict[str, tuple[tarfile.TarInfo, bytes]]) -> dict:
    audio, found = None, {"id": key}
    for extension, (member, data) in parts.items():
        kind = _IN_SHARD.get(extension)
        if kind is None:
            inside = archive_path(shard, member.name, member.offset_data, member.size)
            audio = {"bytes": data, "path": inside if shard.endswith(".tar") else f"{shard}::{member.name}"}
            continue
        try:
            text = data.decode("utf-8-sig").strip()
            found |= {"text": text} if kind == "text" else _known(json.loads(text))
        except ValueError as error:
            logger.warning("%s: %s is left out: %s", shard, member.name, error)
    return _row(audio, found)


def _known(record: dict) -> dict:
    """Return our columns of a webdataset's JSON record."""
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object was expected, found {type(record).__name__}")
    return {ours: record[name] for ours, name in named_columns(record).items()}


def _shards(source: str | os.PathLike | list, split: str | None) -> list[str]:
    """Return the shard files by name."""
    if isinstance(source, list):
        files = [os.fspath(path) for path in source]
    elif glob.has_magic(os.fspath(source)):
        files = glob.glob(os.fspath(source))
    elif Path(source).is_dir():
        files = _of_folder(Path(source), split)
    else:
        files = [os.fspath(source)]
    if not files:
        raise FileNotFoundError(f"{source}: no shards found")
    for path in files:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}: no such shard")
    kinds = {"tar" if path.endswith(TAR) else Path(path).suffix for path in files}
    if kinds not in ({"tar"}, {".parquet"}):
        raise ValueError(f"{source}: shards are all .parquet or all .tar, found {', '.join(sorted(kinds))}")
    return sorted(files)


def _of_folder(folder: Path, split: str | None) -> list[str]:
    inside = folder / split if split and (folder / split).is_dir() else folder
    shards = [path for path in inside.iterdir() if path.name.endswith((".parquet", *TAR))]
    if split and inside == folder:
        shards = [path for path in shards if re.match(rf"{re.escape(split)}[-.\d]", path.name)]
    if not shards:
        there = ", ".join(sorted(path.name for path in inside.iterdir())[:8]) or "nothing"
        of_split = f" of split {split!r}" if split else ""
        raise ValueError(f"{inside} holds no .parquet or .tar shards{of_split}, found {there}")
    return [str(path) for path in shards]
