"""Row tables: Arrow on disk, made once per corpus, shared by all processes, made anew when the corpus changes."""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow
from datasets import Audio, Dataset
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock, Timeout

from hfasr.audio import audio_duration
from hfasr.cache import cache_folder
from hfasr.corpora.reading.tree import decode_text
from hfasr.corpora.rows import FEATURES
from hfasr.files import write_text
from hfasr.paths import archived, read_bytes, without_segment

logger = logging.getLogger(__name__)

# Goes up when the same corpus would give other rows.
_VERSION = 1
_CHUNK = 1000
_THREADS_PER_CORE = 4  # headers and transcripts are small reads, of which a network file system answers many at once

NO_AUDIO = "transcript without audio"
NO_TEXT = "audio without transcript"
EMPTY_TEXT = "empty transcript"
BAD_TEXT = "transcript cannot be read"
BAD_AUDIO = "audio cannot be read"
TWICE = "id stands twice"


@dataclass(slots=True)
class Entry:
    """What a source knows of a row before its files are read.

    Args:
        split: Which split it belongs to.
        id: Of the utterance.
        audio: Path, as `load_audio` takes it.
        text: Transcript; None when `text_file` holds it.
        text_file: Path, as `read_bytes` takes it.
        duration: Seconds; from the audio's header when None.
        speaker: Who speaks.
        gender: Of the speaker.
        accent: Of the speaker.
        source: Where within the corpus it is from.
    """

    split: str
    id: str
    audio: str
    text: str | None = None
    text_file: str | None = None
    duration: float | None = None
    speaker: str | None = None
    gender: str | None = None
    accent: str | None = None
    source: str | None = None


class Problems:
    """What is wrong in a corpus: each problem with what it is about, counted and listed."""

    def __init__(self):
        self._found: list[tuple[str, str, str, str]] = []

    def add(self, problem: str, name: str, reason: str = "", split: str = "") -> None:
        """Note a problem of a file, or of the row whose id is the name, in a split."""
        self._found.append((problem, name, reason, split))

    def __iter__(self) -> Iterator[dict[str, str]]:
        for problem, name, reason, split in self._found:
            yield {"problem": problem, "name": name, "reason": reason} | ({"split": split} if split else {})

    def counts(self) -> dict[str, int]:
        """Return how often each problem was met, most often first."""
        return dict(Counter(problem for problem, _, _, _ in self._found).most_common())


Build = Callable[[Problems], tuple[Iterator[Entry], dict[str, tuple[int, int]]]]


def open_table(source: str, path: str | os.PathLike, build: Build, *, options: dict, num_workers: int | None = None) -> dict[str, Dataset]:
    """Open the row table of a corpus, made first when there is none or the corpus has changed.

    The table is kept in `tables/` of the cache folder under its source, path and options, with the size and time of every
    file and folder that was read for it. Of processes that ask at once one makes it, the others wait on a file lock, however
    long it takes. The audio's own size and time are not looked at; a clip that comes or goes changes its folder's.

    Args:
        source: Name of the source.
        path: Of the corpus.
        build: Returns the entries, and a dict that holds what was read once they are through; called only when the table is made.
        options: What else decides the rows.
        num_workers: Threads that read headers and transcripts.

    Returns:
        The rows of each split, memory-mapped, `audio` as stored.

    Raises:
        ValueError: There are no rows.
    """
    key = json.dumps([_VERSION, source, os.path.abspath(path), options], sort_keys=True, default=str)
    folder = cache_folder() / "tables" / f"{source}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    asked = time.time()
    with _lock(folder, path):
        if not _is_fresh(folder, asked):
            _make(folder, source, path, build, num_workers)
        table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
        rows = {split: Dataset.from_file(str(folder / f"{number}.arrow")) for number, split in enumerate(table["splits"])}
    if table["problems"]:
        counted = ", ".join(f"{count} x {problem}" for problem, count in table["problems"].items())
        logger.warning("%s: %s; listed in %s", path, counted, folder / "problems.jsonl")
    return {split: split_rows.cast_column("audio", Audio(decode=False)) for split, split_rows in rows.items()}


def problems_of(rows: Dataset) -> list[dict[str, str]]:
    """Return what was wrong when the table of these rows was made: `{"problem", "name", "reason"}` of each, of a row with `split`."""
    for file in rows.cache_files:
        if (listed := Path(file["filename"]).parent / "problems.jsonl").is_file():
            return [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    return []


def _lock(folder: Path, path: str | os.PathLike) -> FileLock:
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=3)
        lock.release()
    except Timeout:
        logger.info("%s: another process makes its table; waiting for it", path)
    return lock


def _is_fresh(folder: Path, asked: float) -> bool:
    """Tell whether the files that a table was made of are as they were; not looked at again by those who waited for this answer."""
    try:
        if asked <= float((folder / "seen_at").read_text()) <= time.time():
            return True
        with pyarrow.memory_map(str(folder / "seen.arrow")) as file:
            for batch in pyarrow.ipc.open_stream(file):
                for path, size, changed in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    status = os.stat(path)
                    if status.st_mtime_ns != changed or (size >= 0 and status.st_size != size):
                        return False
        write_text(folder / "seen_at", str(time.time()))
        return True
    except OSError:  # no table yet, or a file is gone
        return False


def _make(folder: Path, source: str, path: str | os.PathLike, build: Build, num_workers: int | None) -> None:
    start = time.monotonic()
    part = Path(f"{folder}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed; the lock is ours
    part.mkdir()
    try:
        problems = Problems()
        entries, seen = build(problems)
        with _SeenFile(part / "seen.arrow") as seen_file:
            splits = _write_rows(part, entries, seen_file, problems, num_workers)
            seen_file.add(list(seen.items()))
        if not splits:
            found = ", ".join(f"{count} x {problem}" for problem, count in problems.counts().items())
            raise ValueError(f"{path} has no rows: {found or 'nothing to read was found'}")
        with open(part / "problems.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(problem, ensure_ascii=False) + "\n" for problem in problems)
        table = {"source": source, "path": str(path), "splits": splits, "problems": problems.counts()}
        (part / "table.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
        (part / "seen_at").write_text(str(time.time()))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    logger.info("%s: table of %d rows made in %.1f s", path, sum(splits.values()), time.monotonic() - start)


def _write_rows(folder: Path, entries: Iterable[Entry], seen: "_SeenFile", problems: Problems, num_workers: int | None) -> dict[str, int]:
    """Write a file for each split, in the order in which the splits come up; return their rows."""
    writers: dict[str, ArrowWriter] = {}
    hashes: dict[str, list[np.ndarray]] = {}
    for chunk in _completed(iter(entries), num_workers):
        seen.add([stamp for completed in chunk for stamp in completed.seen])
        for completed in chunk:
            for problem in completed.problems:
                problems.add(*problem, split=completed.entry.split)
        for split in dict.fromkeys(completed.entry.split for completed in chunk):
            rows = [completed.entry for completed in chunk if completed.entry.split == split and completed.entry.text is not None]
            if rows and split not in writers:
                writers[split] = ArrowWriter(features=FEATURES, path=str(folder / f"{len(writers)}.arrow"))
            if rows:
                writers[split].write_table(_arrow(rows))
                hashes.setdefault(split, []).append(np.array([hash(row.id) for row in rows]))
    for split, writer in writers.items():
        writer.finalize()
        _note_repeats(folder / f"{list(writers).index(split)}.arrow", split, np.concatenate(hashes[split]), problems)
    return {split: sum(map(len, hashes[split])) for split in writers}


def _arrow(entries: list[Entry]) -> pyarrow.Table:
    columns = {name: [getattr(entry, name) for entry in entries] for name in FEATURES if name != "audio"}
    columns["audio"] = [{"bytes": None, "path": entry.audio} for entry in entries]
    return pyarrow.table({name: columns[name] for name in FEATURES}, schema=FEATURES.arrow_schema)


def _note_repeats(file: Path, split: str, hashes: np.ndarray, problems: Problems) -> None:
    values, counts = np.unique(hashes, return_counts=True)
    if (twice := values[counts > 1]).size:
        ids = Dataset.from_file(str(file)).select(np.flatnonzero(np.isin(hashes, twice)))["id"]
        for name, count in Counter(ids).items():
            if count > 1:
                problems.add(TWICE, name, f"{count} times in {split}", split)


class _SeenFile:
    """Sizes and times of what was read, on disk: there may be millions."""

    _SCHEMA = pyarrow.schema([("path", pyarrow.string()), ("size", pyarrow.int64()), ("changed", pyarrow.int64())])

    def __init__(self, path: Path):
        self._file = pyarrow.OSFile(str(path), "wb")
        self._stream = pyarrow.ipc.new_stream(self._file, self._SCHEMA)

    def __enter__(self) -> "_SeenFile":
        return self

    def __exit__(self, *_) -> None:
        self._stream.close()
        self._file.close()

    def add(self, stamps: list[tuple[str, tuple[int, int]]]) -> None:
        columns = [[path for path, _ in stamps], [size for _, (size, _) in stamps], [changed for _, (_, changed) in stamps]]
        self._stream.write_batch(pyarrow.record_batch(columns, schema=self._SCHEMA))


@dataclass(slots=True)
class _Completed:
    entry: Entry
    seen: list[tuple[str, tuple[int, int]]]
    problems: list[tuple[str, str, str]]

    def try_again(self, path: str, error: Exception) -> None:
        """Have the table made anew the next time, when a file could not be read for a reason that may pass."""
        if isinstance(error, OSError):
            self.seen.append((path, (-2, -1)))  # which no file is like


def _completed(entries: Iterator[Entry], num_workers: int | None) -> Iterator[list[_Completed]]:
    """Read the files of entries, some chunks ahead, in order."""
    workers = num_workers or min(32, _THREADS_PER_CORE * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            while chunk := list(islice(entries, _CHUNK)):
                waiting.append(pool.submit(lambda chunk: [_complete(entry) for entry in chunk], chunk))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _complete(entry: Entry) -> _Completed:
    """Read a transcript from its file, and the duration from the audio's header; a row whose audio is missing or bad lasts NaN."""
    completed = _Completed(entry, [], [])
    if entry.text is None:
        _read_transcript(entry, completed)
    if entry.text is not None and not _is_text(entry.id + entry.text):
        entry.text = None
        completed.problems.append((BAD_TEXT, entry.id.encode(errors="replace").decode(), "half of a surrogate pair; save it as UTF-8"))
    try:
        if entry.duration is None:
            entry.duration = audio_duration(entry.audio)
        elif not archived(entry.audio) and not os.path.isfile(without_segment(entry.audio)):
            raise FileNotFoundError
    except FileNotFoundError:
        entry.duration = math.nan
        completed.problems.append((NO_AUDIO, entry.id, f"{entry.audio}: no such audio file"))
    except (ValueError, OSError) as error:
        entry.duration = math.nan
        completed.problems.append((BAD_AUDIO, entry.id, str(error)))
        completed.try_again(without_segment(entry.audio), error)
    return completed


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_transcript(entry: Entry, completed: _Completed) -> None:
    path = entry.text_file
    try:
        text = decode_text(read_bytes(path), path)
        if not archived(path):
            status = os.stat(path)
            completed.seen.append((path, (status.st_size, status.st_mtime_ns)))
        entry.text = " ".join(text.split("\n")).strip()
        if not entry.text:
            completed.problems.append((EMPTY_TEXT, entry.id, path))
    except FileNotFoundError:
        completed.problems.append((NO_TEXT, entry.id, f"{path}: no such transcript"))
    except (ValueError, OSError) as error:
        completed.problems.append((BAD_TEXT, entry.id, str(error)))
        completed.try_again(path, error)


assert {field.name for field in fields(Entry)} == {*FEATURES, "split", "text_file"}
