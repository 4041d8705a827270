"""Decode every clip once, or look at its header, and set the bad ones aside."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import soundfile
from datasets import Dataset, DatasetDict, Value

from hfasr.audio import SAMPLING_RATE, audio_duration, try_audio
from hfasr.cache import cache_folder
from hfasr.corpora.rows import byte_lengths, column, decoded, iter_bytes, plain, refuse_one_split, with_column
from hfasr.files import temporary_beside, write_text
from hfasr.paths import archive_of

logger = logging.getLogger(__name__)

# Clips whose verdicts are written together: what a killed check must do again.
_PART = 16_384

# Of encoded bytes this much at each end tells clips apart; to read a corpus of Parquet shards whole would take minutes.
_ENDS_BYTES = 4096

_STORED = pyarrow.schema([("key", pyarrow.uint64()), ("seconds", pyarrow.float64()), ("reason", pyarrow.string())])


def check_audio(corpus: DatasetDict, num_workers: int | None = None, *, decode: bool = True) -> tuple[DatasetDict, list[dict]]:
    """Decode every clip once; keep the good rows and tell what is wrong with the others.

    Good rows get the decoded `duration`. The verdicts are kept in the cache, by path, size and time of change, so a clip is
    decoded again only when its file has changed; processes that start together wait for the first. A clip that failed for
    a reason that may pass, such as a read error or too little memory, is tried again the next time.

    Args:
        corpus: Rows with `audio`.
        num_workers: Decoding processes; the number of cores when None.
        decode: False for a corpus too large to decode beforehand: only rows whose file is missing, or whose duration is
            unknown and cannot be read from the header, are left out. Other bad clips are met, and left out, in training.

    Returns:
        The corpus without the bad rows, and one `{"split", "id", "path", "reason"}` for each of them.

    Raises:
        ValueError: A split has no good row.
        TypeError: `corpus` is a single data set.
    """
    refuse_one_split(corpus, "check_audio")
    num_workers = os.cpu_count() if num_workers is None else num_workers
    good, quarantined = DatasetDict(), []
    for split, rows in plain(corpus).items():
        seconds, reasons = _verdicts(rows, num_workers) if decode else _header_verdicts(rows, num_workers)
        bad = sorted(reasons)
        if bad:
            named = rows.select(bad)
            ids, paths = column(named, "id").to_pylist(), column(named, "audio", "path").to_pylist()
            quarantined += [
                {"split": split, "id": name, "path": path, "reason": reasons[place]}
                for place, name, path in zip(bad, ids, paths, strict=True)
            ]
        if bad and len(bad) == len(rows):
            raise ValueError(f"none of the {len(rows)} clips of split {split!r} can be used, for example {reasons[0]}")
        rows = with_column(rows, "duration", seconds, Value("float64"))
        good[split] = rows.select(np.delete(np.arange(len(rows)), bad)) if bad else rows
    if quarantined:
        logger.warning("%d clips cannot be used and are left out, for example %s", len(quarantined), quarantined[0]["reason"])
    return decoded(good), quarantined


def _verdicts(rows: Dataset, num_workers: int) -> tuple[np.ndarray, dict[int, str]]:
    """Return the decoded seconds of each row `(rows,)`, and by place the reason of each bad one."""
    from filelock import FileLock

    # rows of the same clip, as a mixed corpus repeats them, are decoded once
    keys, first, back = np.unique(_keys(rows), return_index=True, return_inverse=True)
    folder = cache_folder() / "checks"
    folder.mkdir(parents=True, exist_ok=True)
    name, asked, embedded = hashlib.sha256(keys.tobytes()).hexdigest()[:32], time.time(), byte_lengths(rows)[first] >= 0
    with FileLock(folder / f"{name}.lock"):
        seconds, reasons = _stored_verdicts(folder, keys)
        passing = _passing_verdicts(folder / f"{name}.passing.json", asked)
        for place in np.flatnonzero(np.isin(keys, list(passing))).tolist():
            seconds[place], reasons[place] = 0.0, passing[int(keys[place])]
        pending = np.flatnonzero(np.isnan(seconds))
        pending = pending[np.argsort(first[pending])]  # archives are read from front to back
        for places, found in _decoded_parts(rows, first[pending], num_workers):
            seconds[pending[places]] = [length for length, _, _ in found]
            reasons |= {int(pending[place]): reason for place, (_, reason, _) in zip(places, found, strict=True) if reason}
            # bytes are known by their ends only: a bad clip that was repaired in its middle must be seen
            lasting = [
                place for place, (_, reason, same) in zip(pending[places], found, strict=True) if same and not (reason and embedded[place])
            ]
            again = np.setdiff1d(pending[places], lasting).tolist()
            passing |= {int(keys[place]): reasons[place] for place in again if place in reasons}
            _store(folder, keys[lasting], seconds[lasting], [reasons.get(int(place), "") for place in lasting])
        if passing:
            write_text(folder / f"{name}.passing.json", json.dumps([time.time(), list(passing.items())]))
    bad = np.isin(back, list(reasons))
    return seconds[back], {int(place): reasons[int(back[place])] for place in np.flatnonzero(bad)}


def _passing_verdicts(path: Path, asked: float) -> dict[int, str]:
    """Return the reasons, by key, that may not hold the next time, if they were found while this process waited for them: processes
    of one run must keep the same rows."""
    if not path.is_file():
        return {}
    found_at, verdicts = json.loads(path.read_text(encoding="utf-8"))
    return dict(verdicts) if asked <= found_at <= time.time() else {}


def _keys(rows: Dataset) -> np.ndarray:
    """Return a number for each clip `(rows,)` that changes with its path, its bytes, and its file's size and time."""
    paths = column(rows, "audio", "path").to_pandas()
    codes, names = pandas.factorize(_files(paths))
    stats = np.array([_status(name) for name in names] + [(-2, 0)], dtype=np.int64)[codes]  # code -1, no path, takes the last
    lengths = byte_lengths(rows)
    held = np.flatnonzero(lengths >= 0)
    stats[held, 0] = -3
    stats[held, 1] = [_content_key(data) for data in iter_bytes(rows, held)]
    table = pandas.DataFrame({"path": paths, "size": stats[:, 0], "time": stats[:, 1]})
    version = int.from_bytes(hashlib.sha256(f"4 {soundfile.__libsndfile_version__}".encode()).digest()[:8], "little")
    return pandas.util.hash_pandas_object(table, index=False).to_numpy() ^ np.uint64(version)


def _files(paths: pandas.Series) -> pandas.Series:
    """Return the file on disk behind each path; most paths are files themselves, and are not looked at one by one."""
    inside = paths.str.contains("::|#t=", na=False)
    return paths.where(~inside, paths[inside].map(lambda path: str(archive_of(path)))) if inside.any() else paths


def _status(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _content_key(data: memoryview) -> int:
    digest = hashlib.blake2b(data[:_ENDS_BYTES], digest_size=8, key=len(data).to_bytes(8, "little"))
    digest.update(data[-_ENDS_BYTES:])
    return int.from_bytes(digest.digest(), "little", signed=True)


def _stored_verdicts(folder: Path, keys: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Look up sorted keys: seconds `(keys,)`, NaN where there is no verdict yet, and by place the reasons of bad clips."""
    seconds, reasons = np.full(len(keys), np.nan), {}
    for file in sorted(folder.glob("*.arrow")) if len(keys) else ():
        with pyarrow.memory_map(str(file)) as source:
            part = pyarrow.ipc.open_file(source).read_all()
            stored = part["key"].to_numpy()
            places = np.minimum(np.searchsorted(keys, stored), len(keys) - 1)
            known = np.flatnonzero(keys[places] == stored)
            seconds[places[known]] = part["seconds"].to_numpy()[known]
            bad = np.intersect1d(known, np.flatnonzero(part["reason"].combine_chunks().is_valid().to_numpy(zero_copy_only=False)))
            reasons |= dict(zip(places[bad].tolist(), part["reason"].take(pyarrow.array(bad)).to_pylist(), strict=True))
    return seconds, reasons


def _store(folder: Path, keys: np.ndarray, seconds: np.ndarray, reasons: list[str]) -> None:
    if not len(keys):
        return
    table = pyarrow.table([keys, seconds, pyarrow.array([reason or None for reason in reasons], pyarrow.string())], schema=_STORED)
    target = folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:32]}.arrow"
    temporary = temporary_beside(target)
    try:
        with pyarrow.ipc.new_file(str(temporary), _STORED) as writer:
            writer.write_table(table)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _decoded_parts(rows: Dataset, places: np.ndarray, num_workers: int) -> Iterator[tuple[np.ndarray, list[tuple[float, str, bool]]]]:
    """Decode the rows at some places; yield, part by part, which of them, and (seconds, reason, whether it will be the same)."""
    if not len(places):
        return
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    # a DataLoader, since it forks, sets one thread a worker and reports a worker's death
    clips = _Clips(rows, places)
    loader = DataLoader(clips, batch_size=16, num_workers=min(num_workers, len(places) // 64), collate_fn=list)
    start, found = 0, []
    with tqdm(total=len(places), desc="Checking audio", unit="clip", disable=len(places) < 256) as bar:
        for batch in loader:
            found += batch
            bar.update(len(batch))
            if len(found) >= _PART or start + len(found) == len(places):
                yield np.arange(start, start + len(found)), found
                start, found = start + len(found), []


class _Clips:
    def __init__(self, rows: Dataset, places: np.ndarray):
        self.rows, self.places = rows.select_columns("audio"), places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int) -> tuple[float, str, bool]:
        waveform, reason, lasting = try_audio(self.rows[int(self.places[item])]["audio"])
        return (0.0 if waveform is None else len(waveform) / SAMPLING_RATE), reason, lasting


def _header_verdicts(rows: Dataset, num_workers: int) -> tuple[np.ndarray, dict[int, str]]:
    """Return the seconds of each row `(rows,)`, and by place why one has none; only headers, and few of them, are read."""
    seconds = column(rows, "duration").to_numpy().astype(np.float64)
    paths = column(rows, "audio", "path").to_pandas()
    without_bytes = byte_lengths(rows) < 0
    codes, names = pandas.factorize(_files(paths))
    missing = np.array([not os.path.isfile(name) for name in names] + [False], dtype=bool)[codes] & without_bytes
    reasons = {int(place): f"{paths.iloc[place]}: no such audio file" for place in np.flatnonzero(missing)}
    unknown = np.flatnonzero(~(np.isfinite(seconds) & (seconds > 0)) & ~missing)
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for place, (length, reason) in zip(
            unknown, pool.map(_header_verdict, (rows[int(place)]["audio"] for place in unknown)), strict=True
        ):
            seconds[place] = length
            if reason:
                reasons[int(place)] = reason
    return seconds, reasons


def _header_verdict(audio: dict) -> tuple[float, str]:
    try:
        return audio_duration(audio), ""
    except Exception as error:  # whatever a damaged header leads to: one clip ends no run
        name = audio["path"] or "<bytes>"
        return 0.0, str(error) if name in str(error) else f"{name}: {type(error).__name__}: {error}"
