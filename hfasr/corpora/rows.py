"""The rows of a corpus: schema, decoding on access, columns.

A row is `id, audio {path, bytes}, text, duration (s), speaker, gender, accent, source`. Loaders return them in a
`DatasetDict` whose audio column is a `Recording`: `row["audio"]["array"]` is the waveform at 16 kHz, decoded when it is
asked for, while other columns are read without touching the audio.
"""

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Audio, Dataset, DatasetDict, DatasetInfo, Features, Value
from datasets.features.features import register_feature
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable, concat_tables

from hfasr.audio import SAMPLING_RATE, load_audio, write_audio

# `Audio.encode_example` wants torchcodec even for encoded bytes: rows are built with its storage type, then cast.
ENCODED_AUDIO = {"bytes": Value("binary"), "path": Value("string")}

FEATURES = Features(
    {
        "id": Value("string"),
        "audio": ENCODED_AUDIO,
        "text": Value("string"),
        "duration": Value("float64"),
        "speaker": Value("string"),
        "gender": Value("string"),
        "accent": Value("string"),
        "source": Value("string"),
    }
)


@dataclass
class Recording(Audio):
    """The `datasets` feature of a decoded audio column: `{"path", "array": (samples,), "sampling_rate": 16000}`.

    `datasets.Audio` decodes through torchcodec, which needs FFmpeg on the system; this one through `load_audio`. It is stored
    as any audio column is; use `plain` before pushing rows to the Hub, so that others need not know it.
    """

    _type: str = field(default="Recording", init=False, repr=False)

    def decode_example(self, value: dict, token_per_repo_id: dict | None = None) -> dict:
        """Decode one stored `{"path", "bytes"}`."""
        return {"path": value["path"], "array": load_audio(value), "sampling_rate": SAMPLING_RATE}

    def encode_example(self, value: str | os.PathLike | bytes | np.ndarray | dict) -> dict:
        """Return what is stored, `{"bytes", "path"}`; `.map` calls it for audio that its function has read.

        Paths and bytes stay as they are. An array becomes a 16-bit WAV at 16 kHz, so a `map` that reads the audio, even
        without changing it, writes all of it into its cache; do such work on `plain` rows where that is too much.
        """
        if isinstance(value, str | os.PathLike):
            return {"bytes": None, "path": os.fspath(value)}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value), "path": None}
        path = value.get("path") if isinstance(value, dict) else None
        if isinstance(value, dict) and value.get("array") is None:
            if path is None and value.get("bytes") is None:
                raise TypeError(f"an audio dict needs 'array', 'bytes' or 'path' with a value, found keys {', '.join(value)}")
            return {"bytes": value.get("bytes"), "path": path}
        file = io.BytesIO()
        write_audio(file, load_audio(value), SAMPLING_RATE, format="WAV")
        return {"bytes": file.getvalue(), "path": path}

    def cast_storage(self, storage: pyarrow.Array) -> pyarrow.StructArray:
        """Store a column as `{"bytes", "path"}`; arrays, as a function given to `.map` returns them, are encoded first."""
        if pyarrow.types.is_struct(storage.type) and storage.type.get_field_index("array") >= 0:
            values = storage.to_numpy(zero_copy_only=False)
            storage = pyarrow.array([None if value is None else self.encode_example(value) for value in values], self.pa_type)
        return super().cast_storage(storage)


with warnings.catch_warnings(action="ignore"):  # it warns that it is experimental
    register_feature(Recording, "Recording")


def build_rows(records: list[dict]) -> Dataset:
    """Make a data set of records that hold every column of the schema."""
    return Dataset.from_list(records, features=FEATURES).cast_column("audio", Audio(decode=False))


def column(rows: Dataset, name: str, part: str | None = None) -> pyarrow.ChunkedArray:
    """Return a column as it is stored, in the order of the rows: fast, and audio is not decoded.

    Args:
        rows: One split; a selection of rows, as `select` and `filter` make it, is followed.
        name: Which column.
        part: Field of a struct column, such as "path" of "audio"; bytes beside it are not touched. For the bytes themselves
            there are `byte_lengths` and `iter_bytes`, which do not copy them.

    Raises:
        ValueError: There is no such column.
    """
    if name not in rows.column_names:
        raise ValueError(f"the rows have no column {name!r}, found {', '.join(rows.column_names)}")
    values = rows.data.column(name)
    if part is not None:
        values = pyarrow.compute.struct_field(values, part)
    return values if rows._indices is None else values.take(rows._indices.column(0))


def byte_lengths(rows: Dataset) -> np.ndarray:
    """Return how many bytes of audio each row holds `(rows,)`, -1 where it holds a path only; the bytes are not read."""
    lengths = pyarrow.compute.binary_length(pyarrow.compute.struct_field(rows.data.column("audio"), "bytes"))
    lengths = pyarrow.compute.fill_null(lengths, -1).to_numpy().astype(np.int64)
    return lengths if rows._indices is None else lengths[rows._indices.column(0).to_numpy()]


def iter_bytes(rows: Dataset, places: Iterable[int]) -> Iterator[memoryview]:
    """Yield the bytes of the audio of some rows, which hold them, without a copy."""
    chunks = pyarrow.compute.struct_field(rows.data.column("audio"), "bytes").chunks
    ends = np.cumsum([len(chunk) for chunk in chunks])
    indices = None if rows._indices is None else rows._indices.column(0).to_numpy()
    for place in places:
        below = int(place if indices is None else indices[place])
        number = int(np.searchsorted(ends, below, side="right"))
        yield memoryview(chunks[number][below - int(ends[number] - len(chunks[number]))].as_buffer())


def iter_values(rows: Dataset, name: str, chunk: int = 10_000) -> Iterator:
    """Yield the values of a column one by one; unlike a list of them, this takes little memory."""
    values = column(rows, name)
    for start in range(0, len(values), chunk):
        yield from values.slice(start, chunk).to_pylist()


def with_column(rows: Dataset, name: str, values: Sequence | np.ndarray | pyarrow.Array | pyarrow.ChunkedArray, feature: Value) -> Dataset:
    """Return the rows with a column added or replaced.

    Unlike `Dataset.add_column` this copies no other column, also where the rows are a selection: in a table of Parquet the
    audio is beside it. A row that is selected twice has one value, the later.

    Raises:
        ValueError: There are not as many values as rows.
    """
    rows = rows.remove_columns(name) if name in rows.column_names else rows
    features = Features({**rows.features, name: feature})
    kind = features.arrow_schema.field(name).type
    values = values.cast(kind) if isinstance(values, pyarrow.Array | pyarrow.ChunkedArray) else pyarrow.array(values, kind)
    if len(values) != len(rows):
        raise ValueError(f"column {name!r} has {len(values)} values for {len(rows)} rows")
    if rows._indices is not None:
        # the table below keeps all its rows: those that are not selected get no value
        places = np.full(rows.data.num_rows, -1)
        places[rows._indices.column(0).to_numpy()] = np.arange(len(rows))
        values = values.take(pyarrow.array(places, mask=places < 0))
    column = InMemoryTable(pyarrow.table({name: values}))
    return Dataset(
        concat_tables([rows.data, column], axis=1),
        info=DatasetInfo(features=features),
        split=rows.split,
        indices_table=rows._indices,
        fingerprint=generate_random_fingerprint(),
    )


def decoded(corpus: Dataset | DatasetDict) -> Dataset | DatasetDict:
    """Make `row["audio"]` decode to `{"path", "array": (samples,), "sampling_rate": 16000}`."""
    return corpus.cast_column("audio", Recording())


def plain(corpus: Dataset | DatasetDict) -> Dataset | DatasetDict:
    """Make `row["audio"]` the stored `{"path", "bytes"}`."""
    return corpus.cast_column("audio", Audio(decode=False))


def refuse_one_split(corpus: DatasetDict, function: str) -> None:
    """Raise TypeError when a function of whole corpora is given one split."""
    if not isinstance(corpus, dict):
        raise TypeError(f"{function} takes a DatasetDict of splits, found {type(corpus).__name__}; give DatasetDict(train=rows)")
