"""One shard of a prepared corpus: which it is, and how it is made.

A shard is named by a digest of all that decides its bytes, so equal names mean equal files, whoever made them.
"""

import hashlib
import io
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import soundfile

from hfasr.audio import SAMPLING_RATE, try_audio, write_audio
from hfasr.paths import archive_of

FORMAT_VERSION = 1

# Small row groups, so that a streaming reader holds few clips at once; the bytes bound those of hour-long recordings.
ROW_GROUP_ROWS = 100
ROW_GROUP_BYTES = 64 * 2**20

# The footer's key for what was found while the shard was made.
_FOOTER = b"hfasr"


@dataclass(frozen=True)
class Shard:
    """The order for one shard, small enough to be sent anywhere.

    Attributes:
        split: Its split.
        clips: How many rows it is made from.
        digest: Of its rows, their audio and the versions, as `digest_rows` returns it.
        rows: The Arrow file with its rows, written by `write_rows`.
        target: The Parquet file to make.
    """

    split: str
    clips: int
    digest: str
    rows: str
    target: str


def digest_rows(table: pyarrow.Table, split: str) -> str:
    """Return the digest of all that decides a shard's bytes, without decoding its audio.

    A file counts by its path below the rows' common folder, its size and its time of change, bytes by their hash, the
    `duration` not at all, since the decoded one is written.

    Args:
        table: The shard's rows, as `write_rows` takes them.
        split: Its split.
    """
    digest = hashlib.sha256(json.dumps([_versions(), split]).encode())
    digest.update(table.schema.serialize())
    for name in table.column_names:
        if name == "audio":
            values = _audio_states(table["audio"])
        elif name != "duration":
            values = table[name].to_pylist()
        else:
            continue
        digest.update(json.dumps([name, values], default=repr, ensure_ascii=False).encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def write_rows(table: pyarrow.Table, path: str | os.PathLike) -> None:
    """Write a shard's rows, audio still as it was found, for the worker that makes the shard."""
    with _naming(path), pyarrow.OSFile(os.fspath(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def make_shard(shard: Shard, advance: Callable[[int], None]) -> None:
    """Decode a shard's clips and write it, under a temporary name first.

    A clip that cannot be used is left out and told of in the footer, see `read_footer`.

    Args:
        shard: What to make. A shard that is already there is left as it is.
        advance: Called with a number of clips when they are done.

    Raises:
        ValueError: The clips are not those that the shard was named after.
        OSError: The shard cannot be written.
    """
    target = Path(shard.target)
    if target.is_file():
        return
    with pyarrow.memory_map(shard.rows) as rows:
        table = pyarrow.ipc.open_file(rows).read_all()
        if digest_rows(table, shard.split) != shard.digest:
            raise ValueError(
                f"{socket.gethostname()}: the clips of split {shard.split!r} near row {table['id'][0]} are not those found at the start. "
                "Did files change meanwhile? With Ray, do all nodes see the same files, and have the same packages? Then run it again"
            )
        temporary = target.with_name(f"{target.stem}.{socket.gethostname()}.{os.getpid()}.tmp")
        try:
            with _naming(temporary), open(temporary, "wb") as file:
                _write_shard(table, file, advance)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    Path(shard.rows).unlink(missing_ok=True)


@contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    """Add the file to an error that comes without, as that of a full disk does."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


def read_footer(path: str | os.PathLike) -> dict | None:
    """Return what a shard's footer tells, None for a file that is no whole shard.

    Returns:
        `{"clips", "seconds", "problems": [{"id", "path", "reason"}], "lasting"}`; `lasting` is False when a clip failed
        for a reason that may pass, such as a read error or too little memory.
    """
    try:
        metadata = pyarrow.parquet.read_metadata(path).metadata or {}
    except (pyarrow.ArrowInvalid, OSError):
        return None
    return json.loads(metadata[_FOOTER]) if _FOOTER in metadata else None


@lru_cache(maxsize=1)
def _versions() -> list[str]:
    from importlib.metadata import version

    packages = [f"{name} {version(name)}" for name in ("soundfile", "torch", "torchaudio", "numpy", "pyarrow")]
    return [f"format {FORMAT_VERSION}", f"libsndfile {soundfile.__libsndfile_version__}", *packages]


def _audio_states(column: pyarrow.ChunkedArray) -> list[tuple]:
    """Return (path below the common folder, size and time of the file or hash of the bytes) for each row."""
    paths, data = (pyarrow.compute.struct_field(column, name) for name in ("path", "bytes"))
    paths = paths.to_pylist()
    start, files, states = _common(paths), {}, []
    for path, value in zip(paths, data, strict=True):
        if value.is_valid:
            state = hashlib.blake2b(value.as_buffer()).hexdigest()
        else:
            # all but a few rows of an archive's or of a long recording's share the file
            file = path and (path if "::" not in path and "#" not in path else str(archive_of(path)))
            state = files[file] if file in files else files.setdefault(file, _file_state(file))
        states.append((path and path[start:], state))
    return states


def _common(paths: list[str | None]) -> int:
    """Return the length of the part that all paths share, up to and with a slash."""
    there = [path for path in paths if path]
    return os.path.commonprefix([min(there), max(there)]).rfind("/") + 1 if there else 0  # noqa: RUF071 (cut at a slash)


def _file_state(path: str | None) -> tuple[int, int] | None:
    try:
        status = os.stat(path) if path else None
    except (OSError, ValueError):
        return None
    return status and (status.st_size, status.st_mtime_ns)


def _write_shard(table: pyarrow.Table, file: io.BufferedWriter, advance: Callable[[int], None]) -> None:
    _use_one_thread()
    names = pyarrow.compute.struct_field(table["audio"], "path").to_pylist()
    start = _common(names)
    problems, seconds, lasting, kept = [], 0.0, True, _RowGroup()
    # no compression: FLAC cannot be made smaller, and the Hub then finds what it has of a former upload
    with pyarrow.parquet.ParquetWriter(file, table.schema, compression="NONE", use_dictionary=False, write_page_index=True) as writer:
        for place, name in enumerate(names):
            row = table["id"][place].as_py()
            waveform, reason, stays = try_audio(table["audio"][place].as_py())
            if reason:
                here = (name or "")[start:]
                problems.append({"id": row, "path": here, "reason": reason.replace(name, here) if name else reason})
                lasting = lasting and stays
            else:
                seconds += kept.add(place, row, waveform)
            if kept.full() or place == len(names) - 1:
                advance(place + 1 - kept.until)
                kept.write(table, writer)
                kept = _RowGroup(until=place + 1)
        found = {"clips": table.num_rows - len(problems), "seconds": seconds, "problems": problems, "lasting": lasting}
        writer.add_key_value_metadata({_FOOTER: json.dumps(found, ensure_ascii=False)})


class _RowGroup:
    """Clips collected for one row group; those of the rows before `until` are written."""

    def __init__(self, until: int = 0):
        self.until = until
        self.places, self.encoded, self.names, self.seconds, self.size = [], [], [], [], 0

    def add(self, place: int, row: str, waveform: np.ndarray) -> float:
        """Encode a clip and return its seconds."""
        file = io.BytesIO()
        write_audio(file, waveform, SAMPLING_RATE, format="FLAC")
        self.encoded.append(file.getvalue())
        self.size += len(self.encoded[-1])
        self.places.append(place)
        self.names.append(f"{row}.flac".replace("/", "_").replace("\\", "_"))
        self.seconds.append(len(waveform) / SAMPLING_RATE)
        return self.seconds[-1]

    def full(self) -> bool:
        return len(self.places) >= ROW_GROUP_ROWS or self.size >= ROW_GROUP_BYTES

    def write(self, table: pyarrow.Table, writer: pyarrow.parquet.ParquetWriter) -> None:
        if not self.places:
            return
        schema = table.schema
        others = table.drop_columns(["audio", "duration"]).take(self.places).combine_chunks()
        kind = schema.field("audio").type
        values = {"bytes": pyarrow.array(self.encoded, pyarrow.binary()), "path": pyarrow.array(self.names, pyarrow.string())}
        audio = pyarrow.StructArray.from_arrays([values[field.name] for field in kind], fields=list(kind))
        made = {"audio": audio, "duration": pyarrow.array(self.seconds, pyarrow.float64())}
        columns = [made[name] if name in made else others[name] for name in schema.names]
        writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema), row_group_size=len(self.places))


def _use_one_thread() -> None:
    """Resample with one thread: workers share the cores, and the sums come out the same wherever they run."""
    import torch

    torch.set_num_threads(1)
