"""Write a corpus as sharded Parquet with 16 kHz FLAC, on one machine or on a Ray cluster.

`datasets.load_dataset(folder)` reads the result, whole or streamed, without any code of ours:

    README.md                                         dataset card, which names the splits
    train/train-00000-of-00012-5f0c1d2e3a4b5c6d.parquet
    quarantine.jsonl                                  the clips that cannot be used, if there are any

The number in the middle of a name is the shard's place, the last part a digest of all that decides its bytes. Unfinished work is kept
in `.prepare/` and put in place when all shards are there; a second run makes only what is missing.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow
from datasets import Audio, Dataset, DatasetDict, Features, Value

from hfasr.audio import SAMPLING_RATE
from hfasr.corpora.preparation.published import Shards, footer_of, is_finished, published, refuse_other_columns, shard_name, summarise
from hfasr.corpora.preparation.shards import Shard, digest_rows, make_shard, write_rows
from hfasr.corpora.preparation.workers import run_in_processes, run_on_ray
from hfasr.corpora.rows import FEATURES, column, plain, refuse_one_split
from hfasr.paths import archive_of

logger = logging.getLogger(__name__)

# 16 kHz FLAC of speech takes about 18 kB a second: 130 MB a shard.
SHARD_SECONDS = 7200.0

# What a row of unknown duration counts for in planning; usual for read sentences.
_GUESSED_SECONDS = 5.0

_WORK = ".prepare"


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        folder: Where the shards are.
        utterances: How many each split of the folder has.
        hours: How long they last.
        made: How many shards this run made.
        kept: How many of the corpus's were there already.
        quarantined: How many clips cannot be used; they are listed in `quarantine.jsonl`.
        clips_per_second: Of this run; NaN when it made no shard.
        nodes: With Ray, how many shards each node made, by its id.
    """

    folder: Path
    utterances: dict[str, int]
    hours: dict[str, float]
    made: int
    kept: int
    quarantined: int
    clips_per_second: float
    nodes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Planned:
    """A shard of the plan: rows `start` to `stop` of a split, what they are, and the shard's own part of the file's name."""

    split: str
    start: int
    stop: int
    content: str
    digest: str


def prepare(
    corpus: DatasetDict,
    folder: str | os.PathLike,
    *,
    num_workers: int | None = None,
    ray_address: str | None = None,
    shard_seconds: float = SHARD_SECONDS,
    replace: bool = False,
) -> Prepared:
    """Write a corpus as sharded Parquet with 16 kHz mono 16-bit FLAC.

    The columns are those of the rows, with `audio` (`{"bytes", "path"}`, an `Audio` feature for stock users) encoded anew and
    `duration` as decoded. A clip that cannot be used, such as a damaged or a silent one, is left out and listed in
    `quarantine.jsonl`. The same rows, files and packages give the same bytes, whatever the number and kind of workers.

    A run that was interrupted goes on where it was. When rows have changed, the shards they are in are made anew and their former
    versions removed at the end; splits that are in the folder but not in this corpus stay as they are.

    In a script, call it below `if __name__ == "__main__":`, since the workers import the script.

    Args:
        corpus: Rows as loaders return them.
        folder: Where to write; it may hold an earlier state of the corpus.
        num_workers: Processes on this machine, each taking a core; the number of cores when None.
        ray_address: Make the shards on a Ray cluster instead: "auto", "host:port", "ray://host:port", or "local" to start one here.
            Its nodes need the same packages and must see the same folder and the same audio files, under the same paths.
            Rows that hold their audio as bytes are copied into `folder` until they are done.
        shard_seconds: Most seconds of audio in a shard, by the rows' `duration`.
        replace: Also write where the folder holds the shards of a split with none in common with this one, and remove those.

    Raises:
        ValueError: A wrong option or split name, splits whose columns do not fit together, the folder holds another corpus or is
            being written by another run, no clip of a split can be used, or workers die.
        ModuleNotFoundError: Ray is wanted and not installed.
        OSError: The folder cannot be written, or the disk is full; finished shards are kept.
        TypeError: `corpus` is not a DatasetDict of rows on disk.
    """
    _check(corpus, num_workers, ray_address, shard_seconds)
    folder = Path(folder).expanduser().absolute()
    _refuse_folder(corpus, folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the shards")
    with _work_folder(folder) as work:
        corpus = plain(corpus)
        schema, there = _schema(corpus), published(folder)
        plan = [shard for split, rows in corpus.items() for shard in _plan(split, rows, schema, shard_seconds)]
        _refuse_another_corpus(folder, plan, there, replace)
        refuse_other_columns(schema, {split: shards for split, shards in there.items() if split not in corpus})
        finished = {digest for shards in there.values() for digest, path in shards.items() if is_finished(path)}
        finished |= _finished_before(work)
        missing = [shard for shard in plan if shard.digest not in finished]
        start = time.perf_counter()
        nodes = _make(corpus, schema, missing, work, num_workers, ray_address)
        rate = sum(shard.stop - shard.start for shard in missing) / (time.perf_counter() - start) if missing else float("nan")
        _refuse_empty_splits(plan, there, work)
        _publish(folder, work, plan, there)
        contents = summarise(folder)
    speed = f", {rate:.0f} clips per second" if missing else ""
    message = "%s: %d utterances, %.2f hours; %d shards made, %d were there already%s"
    made, kept = len(missing), len(plan) - len(missing)
    logger.info(message, folder, sum(contents.utterances.values()), sum(contents.hours.values()), made, kept, speed)
    return Prepared(folder, contents.utterances, contents.hours, made, kept, contents.quarantined, rate, nodes)


def _check(corpus: DatasetDict, num_workers: int | None, ray_address: str | None, shard_seconds: float) -> None:
    refuse_one_split(corpus, "prepare")
    for split, rows in corpus.items():
        if not isinstance(rows, Dataset):
            raise TypeError(f"prepare needs rows on disk, split {split!r} is a {type(rows).__name__}; load it without streaming")
        if not re.fullmatch(r"\w+(\.\w+)*", split):
            raise ValueError(f"split {split!r} cannot be a split's name in `datasets`; use letters, digits, _ and . as in dev_ios")
        for name in ("id", "audio", "text"):
            if name not in rows.column_names:
                raise ValueError(f"split {split!r} has no column {name!r}, found {', '.join(rows.column_names)}")
    if not any(len(rows) for rows in corpus.values()):
        raise ValueError("the corpus has no rows")
    if not 0 < shard_seconds < float("inf"):
        raise ValueError(f"shard_seconds={shard_seconds} is not possible; give the seconds of audio in a shard, such as {SHARD_SECONDS:g}")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers={num_workers} is not possible; give 1 or more")
    if num_workers is not None and ray_address is not None:
        raise ValueError("num_workers and ray_address exclude each other: the cluster's CPUs decide how many workers Ray starts")


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """Make the folder of unfinished work, held by one process at a time; finished shards stay in it when the run fails."""
    from filelock import FileLock, Timeout

    work = folder / _WORK
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another run is writing to {folder}; wait until it ends, or give another folder") from None
    try:
        _remove_leftovers(work)
        yield work
    finally:
        _remove_leftovers(work)
        if not any(work.glob("*.parquet")):
            shutil.rmtree(work, ignore_errors=True)
        lock.release()


def _remove_leftovers(work: Path) -> None:
    for path in (*work.glob("*.tmp"), *work.glob("*.arrow")):
        path.unlink(missing_ok=True)


def _plan(split: str, rows: Dataset, schema: pyarrow.Schema, shard_seconds: float) -> list[_Planned]:
    """Divide a split into shards and digest them, without decoding."""
    if not len(rows):
        logger.warning("split %s has no rows and is left out", split)
        return []
    ranges = _ranges(_planned_seconds(rows), shard_seconds)
    arrow = rows.with_format("arrow")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # for file systems that answer slowly
        contents = list(threads.map(lambda place: digest_rows(_table(arrow, schema, *place), split), ranges))
    plan, seen = [], {}
    for (start, stop), content in zip(ranges, contents, strict=True):
        # a corpus that holds the same rows several times, as `mix` makes it, may hold the same shard several times
        copy = seen[content] = seen.get(content, -1) + 1
        digest = f"{(int(content, 16) + copy) % 2**64:016x}"
        plan.append(_Planned(split, start, stop, content, digest))
    return plan


def _planned_seconds(rows: Dataset) -> np.ndarray:
    if "duration" not in rows.column_names:
        return np.full(len(rows), _GUESSED_SECONDS)
    column = rows.select_columns("duration").with_format("arrow")[:]["duration"]
    seconds = column.cast(pyarrow.float64()).to_numpy().astype(np.float64)
    return np.where((seconds > 0) & (seconds < np.inf), seconds, _GUESSED_SECONDS)


def _ranges(seconds: np.ndarray, shard_seconds: float) -> list[tuple[int, int]]:
    """Cut consecutive rows, at least one each, so that no more than `shard_seconds` come together."""
    ends, start, ranges = np.cumsum(seconds), 0, []
    while start < len(ends):
        before = ends[start - 1] if start else 0.0
        stop = max(int(np.searchsorted(ends, before + shard_seconds + 1e-6, side="right")), start + 1)
        ranges.append((start, stop))
        start = stop
    return ranges


def _schema(corpus: DatasetDict) -> pyarrow.Schema:
    """Return the schema of all shards: `datasets` wants one for all splits, and reads from its metadata that `audio` is to be decoded.

    Raises:
        ValueError: Two splits disagree on what a column holds.
    """
    features: dict = {}
    for split, rows in corpus.items():
        for name, feature in rows.features.items() if len(rows) else ():
            if features.setdefault(name, feature) != feature:
                raise ValueError(f"column {name!r} of split {split!r} holds {feature}, that of another split {features[name]}; cast one")
    features |= {"audio": Audio(sampling_rate=SAMPLING_RATE), "duration": Value("float64")}
    names = [name for name in FEATURES if name in features] + [name for name in features if name not in FEATURES]
    return Features({name: features[name] for name in names}).arrow_schema


def _table(arrow: Dataset, schema: pyarrow.Schema, start: int, stop: int) -> pyarrow.Table:
    """Return rows `start` to `stop` in the shards' columns, with absolute paths; their audio is still as it was found."""
    table = arrow[start:stop]
    for name in set(schema.names) - set(table.column_names):  # that of another split, or the duration
        table = table.append_column(name, pyarrow.nulls(len(table), schema.field(name).type))
    table = table.select(schema.names).cast(schema).combine_chunks()
    audio = table["audio"].combine_chunks()
    paths = [path and os.path.join(os.getcwd(), path) for path in audio.field("path").to_pylist()]
    fields = {"bytes": audio.field("bytes"), "path": pyarrow.array(paths, pyarrow.string())}
    audio = pyarrow.StructArray.from_arrays([fields[field.name] for field in audio.type], fields=list(audio.type))
    return table.set_column(table.column_names.index("audio"), schema.field("audio"), audio)


def _refuse_folder(corpus: DatasetDict, folder: Path) -> None:
    for rows in corpus.values():
        path = column(rows, "audio", "path")[0].as_py() if len(rows) else None
        if path is not None and os.path.isabs(path) and archive_of(path).is_relative_to(folder.resolve()):
            raise ValueError(f"{folder} holds the corpus itself ({path}); give a folder beside it, or a new one, for the shards")
    ours = {shard for shards in published(folder).values() for shard in shards.values()}
    if foreign := [shard for split in corpus for shard in sorted((folder / split).glob("*.parquet")) if shard not in ours]:
        raise ValueError(f"{foreign[0]} is not a shard of hfasr prepare and would be read together with them; give another folder")


def _refuse_another_corpus(folder: Path, plan: list[_Planned], there: Shards, replace: bool) -> None:
    planned: dict[str, set[str]] = {}
    for shard in plan:
        planned.setdefault(shard.split, set()).add(shard.digest)
    for split, digests in planned.items():
        old = there.get(split, {})
        if old and not replace and not digests & old.keys():
            raise ValueError(
                f"{folder / split} holds {len(old)} shards of which this corpus shares none: it has changed or is another, "
                "or shard_seconds or package versions are others. Give another folder, or replace=True (--replace) to have them replaced"
            )


def _finished_before(work: Path) -> set[str]:
    """Return the digests of shards that an interrupted run left; others of its are removed."""
    finished = set()
    for path in work.glob("*.parquet"):
        if is_finished(path):
            finished.add(path.stem.rpartition("-")[2])
        else:
            path.unlink()
    return finished


def _unpublished(work: Path, shard: _Planned) -> Path:
    return work / f"{shard.split}-{shard.digest}.parquet"


def _make(
    corpus: DatasetDict, schema: pyarrow.Schema, missing: list[_Planned], work: Path, num_workers: int | None, ray_address: str | None
) -> dict[str, int]:
    """Make the missing shards; return how many each Ray node made."""
    from tqdm.auto import tqdm

    if not missing:
        return {}
    orders = _orders(corpus, schema, missing, work)
    clips = sum(shard.stop - shard.start for shard in missing)
    with tqdm(total=clips, desc="Preparing", unit="clip", disable=clips < 256) as bar:
        if ray_address is not None:
            return run_on_ray(make_shard, list(orders), ray_address, work, bar.update)
        run_in_processes(make_shard, orders, min(num_workers or os.cpu_count() or 1, len(missing)), bar.update)
    return {}


def _orders(corpus: DatasetDict, schema: pyarrow.Schema, missing: list[_Planned], work: Path) -> Iterator[Shard]:
    """Write each shard's rows when its turn comes, and say what to make of them."""
    arrow = {split: rows.with_format("arrow") for split, rows in corpus.items()}
    for shard in missing:
        path, target = work / f"{shard.split}-{shard.digest}.arrow", _unpublished(work, shard)
        write_rows(_table(arrow[shard.split], schema, shard.start, shard.stop), path)
        yield Shard(shard.split, shard.stop - shard.start, shard.content, str(path), str(target))


def _refuse_empty_splits(plan: list[_Planned], there: Shards, work: Path) -> None:
    for split in dict.fromkeys(shard.split for shard in plan):
        footers = [footer_of(_where(shard, there, work)) for shard in plan if shard.split == split]
        if not any(footer["clips"] for footer in footers):
            problems = [problem for footer in footers for problem in footer["problems"]]
            raise ValueError(f"none of the {len(problems)} clips of split {split!r} can be used, for example {problems[0]['reason']}")


def _where(shard: _Planned, there: Shards, work: Path) -> Path:
    new = _unpublished(work, shard)
    return new if new.is_file() else there[shard.split][shard.digest]


def _publish(folder: Path, work: Path, plan: list[_Planned], there: Shards) -> None:
    """Put the shards in place under their numbers, and remove those of an earlier state of the splits."""
    for split in dict.fromkeys(shard.split for shard in plan):
        shards = [shard for shard in plan if shard.split == split]
        (folder / split).mkdir(exist_ok=True)
        targets = set()
        for number, shard in enumerate(shards):
            target = folder / split / shard_name(split, number, len(shards), shard.digest)
            if (path := _where(shard, there, work)) != target:
                path.replace(target)
            targets.add(target)
        stale = [path for path in there.get(split, {}).values() if path not in targets and path.is_file()]
        for path in stale:
            path.unlink()
        if stale:
            logger.info("%s: removed %d shards of an earlier state of the corpus", split, len(stale))
    for path in work.glob("*.parquet"):
        path.unlink()
