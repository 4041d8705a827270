"""Inputs in any form -> batches that are ready for the network before it wants them.

Shapes: S samples.
"""

import logging
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.multiprocessing

from hfasr.audio import SAMPLING_RATE, audio_duration, load_audio
from hfasr.inference.engine import TorchEngine

logger = logging.getLogger(__name__)

Source = str | os.PathLike | bytes | bytearray | np.ndarray | dict

# below, processes cost more than they bring
_FILES_FOR_PROCESSES = 64
_HEADERS_AT_ONCE = 128
_SHARED_MEMORY_BYTES = 2**30
# batches that are read before they are wanted, beside one for each process
_AHEAD = 3
# of arrays and encoded audio in memory no more are taken at once
_POOL_BYTES = 2**30


@dataclass(frozen=True)
class Ready:
    """A batch for `engine.forward`."""

    places: list[int]
    """Of its rows among the inputs."""
    paths: list[str | None]
    seconds: list[float]
    batch: Any

    def halves(self) -> "tuple[Ready, Ready]":
        """Return the longer and the shorter half of two rows or more."""
        parts = slice(None, len(self.places) // 2), slice(len(self.places) // 2, None)
        first, second = (Ready(self.places[part], self.paths[part], self.seconds[part], self.batch.rows(part)) for part in parts)
        return first, second


@dataclass(frozen=True)
class Long:
    """A recording that is too long to be a row of a batch."""

    place: int
    source: Source
    seconds: float


@dataclass(frozen=True)
class Unreadable:
    """An input that is no audio that can be used."""

    place: int
    source: Source
    reason: str


@dataclass(frozen=True)
class Failed:
    """What the inputs raised where they should give the next one; comes behind all items."""

    error: Exception


def sorted_batches(seconds: dict[int, float], batch_seconds: float, *, equal: bool = False) -> list[list[int]]:
    """Sort utterances from long to short and cut them into batches.

    Args:
        seconds: Length of each utterance, by its place.
        batch_seconds: Largest rows x longest of a batch of more than one row.
        equal: Whether the rows of a batch must be of one length.

    Returns:
        The places of each batch.
    """
    batches: list[list[int]] = []
    for place in sorted(seconds, key=seconds.__getitem__, reverse=True):
        longest = seconds[batches[-1][0]] if batches else 0.0
        if batches and (len(batches[-1]) + 1) * longest <= batch_seconds and (seconds[place] == longest or not equal):
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


class Reader:
    """Reads inputs ahead of the network: decodes files, sorts by length, batches and prepares.

    Inputs are taken `pool` at a time, so that there may be any number of them; the headers of a pool are read while the one
    before is transcribed. Only the waveforms of a few batches are held.

    Args:
        engine: The network.
        batch_seconds: As for `sorted_batches`.
        longest_seconds: What is longer becomes a `Long`, unread.
        num_workers: Processes that decode; 0 decodes in a thread of this one, as is done where inputs are few or no files.
        pool: How many inputs are sorted together.
    """

    def __init__(self, engine: TorchEngine, *, batch_seconds: float, longest_seconds: float, num_workers: int, pool: int):
        self._engine, self._batch_seconds, self._longest = engine, batch_seconds, longest_seconds
        self._workers, self._pool = num_workers, pool

    def read(self, inputs: Iterable[Source]) -> Iterator[Ready | Long | Unreadable | Failed]:
        """Yield all inputs, each in one item, and at last what they raised, or a TypeError where one is none of `Source`.

        Raises:
            ValueError: A process that decodes was killed.
        """
        try:
            yield from self._read(inputs)
        except BrokenProcessPool:  # also of what is submitted after it
            raise ValueError(
                "a process that decodes audio was killed, perhaps for want of memory; give fewer num_workers (--num-workers), or 0"
            ) from None

    def _read(self, inputs: Iterable[Source]) -> Iterator[Ready | Long | Unreadable | Failed]:
        failed: list[Failed] = []
        pools = self._pools(inputs, failed)
        following = next(pools, [])
        processes = self._use_processes(following)
        ahead = _AHEAD + (self._workers if processes else 0)
        with _executor(self._workers if processes else 0) as decoding, _executor(0) as preparing:
            waiting: deque[Future] = deque()
            headers = _headers(following, decoding)
            while following:
                pool, pool_headers = following, headers
                # asked for before this pool's audio, so that the answers are there when it is done
                following = next(pools, [])
                headers = _headers(following, decoding)
                sources = dict(pool)
                seconds: dict[int, float] = {}
                for place, found in zip(sources, (found for future in pool_headers for found in future.result()), strict=True):
                    if isinstance(found, str):
                        yield Unreadable(place, sources[place], found)
                    elif found > self._longest:
                        yield Long(place, sources[place], found)
                    else:
                        seconds[place] = found
                for places in sorted_batches(seconds, self._batch_seconds):
                    batch = {place: sources[place] for place in places}
                    read = decoding.submit(_packed if processes else _waveforms, list(batch.values()))
                    waiting.append(preparing.submit(self._prepare, batch, read))
                    if len(waiting) > ahead:
                        yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        yield from failed

    def _pools(self, inputs: Iterable[Source], failed: list[Failed]) -> Iterator[list[tuple[int, Source]]]:
        pool, held = [], 0
        try:
            for place, source in enumerate(inputs):
                if not isinstance(source, Source):
                    raise TypeError(f"input {place} is {type(source).__name__}, expected a path, bytes, a NumPy array or an audio dict")
                pool.append((place, source))
                held += _bytes_of(source)
                if len(pool) == self._pool or held >= _POOL_BYTES:
                    yield pool
                    pool, held = [], 0
        except Exception as error:  # whatever it is, the inputs before it are good
            failed.append(Failed(error))
        if pool:
            yield pool

    def _use_processes(self, pool: list[tuple[int, Source]]) -> bool:
        files = all(isinstance(source, str | os.PathLike) for _, source in pool)
        if not (self._workers and files and len(pool) >= _FILES_FOR_PROCESSES):
            return False
        # as much again as all batches that are read ahead
        wanted = max(_SHARED_MEMORY_BYTES, 2 * (_AHEAD + self._workers) * self._batch_seconds * SAMPLING_RATE * 4)
        if (free := _shared_memory()) < wanted:
            logger.warning("/dev/shm has %d MB free, too little for processes that decode; one thread does it, slowly", free // 10**6)
            return False
        return True

    def _prepare(self, sources: dict[int, Source], read: Future) -> list[Ready | Long | Unreadable]:
        """Make batches of what was decoded, several where headers told other lengths than there are."""
        waveforms, items, seconds = {}, [], {}
        for (place, source), found in zip(sources.items(), _unpacked(read.result()), strict=True):
            if isinstance(found, str):
                items.append(Unreadable(place, source, found))
            elif (length := len(found) / SAMPLING_RATE) > self._longest:
                items.append(Long(place, source, length))
            else:
                waveforms[place], seconds[place] = found, length
        for places in sorted_batches(seconds, self._batch_seconds, equal=self._engine.equal_lengths):
            batch = self._engine.prepare([waveforms[place] for place in places])
            paths = [path_of(sources[place]) for place in places]
            items.append(Ready(places, paths, [seconds[place] for place in places], batch))
        return items


def _bytes_of(source: Source) -> int:
    """Return how much of an input is in memory, of which a path is nothing."""
    if isinstance(source, dict):
        source = source["array"] if source.get("array") is not None else source.get("bytes")
    if isinstance(source, bytes | bytearray):
        return len(source)
    return getattr(source, "nbytes", 0)


def path_of(source: Source) -> str | None:
    """Return the path of an input; None for bytes and arrays."""
    path = source.get("path") if isinstance(source, dict) else source
    return os.fspath(path) if isinstance(path, str | os.PathLike) else None


def why_unreadable(source: Source, error: Exception) -> str:
    """Say in one sentence, with the input's name, what is wrong with it."""
    if isinstance(error, (ValueError, OSError, TypeError)):
        return str(error)
    return f"{path_of(source) or type(source).__name__}: {type(error).__name__}: {error}"


def _headers(pool: list[tuple[int, Source]], decoding: Executor) -> list[Future]:
    # the arrays need no header, and would have to be sent to a process for it
    given = [max(source.shape, default=0) / SAMPLING_RATE if isinstance(source, np.ndarray) else source for _, source in pool]
    return [decoding.submit(_durations, given[at : at + _HEADERS_AT_ONCE]) for at in range(0, len(given), _HEADERS_AT_ONCE)]


def _durations(sources: list[Source | float]) -> list[float | str]:
    """Return seconds as the headers of files tell them, or what is wrong with a file."""
    found: list[float | str] = []
    for source in sources:
        try:
            found.append(source if isinstance(source, float) else audio_duration(source))
        except Exception as error:  # whatever a damaged header leads to
            found.append(why_unreadable(source, error))
    return found


def _waveforms(sources: list[Source]) -> list[np.ndarray | str]:
    found: list[np.ndarray | str] = []
    for source in sources:
        try:
            found.append(load_audio(source))
        except Exception as error:
            found.append(why_unreadable(source, error))
    return found


def _packed(sources: list[Source]) -> tuple[torch.Tensor, list[int | str]]:
    """Decode in a process; one tensor for all waveforms, which crosses to the other process in shared memory."""
    found = _waveforms(sources)
    waveforms = [waveform for waveform in found if not isinstance(waveform, str)]
    joined = torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *waveforms]))
    return joined, [each if isinstance(each, str) else len(each) for each in found]


def _unpacked(read: list[np.ndarray | str] | tuple[torch.Tensor, list[int | str]]) -> Iterator[np.ndarray | str]:
    if isinstance(read, list):
        yield from read
        return
    joined, lengths = read[0].numpy(), read[1]
    start = 0
    for length in lengths:
        if isinstance(length, str):
            yield length
        else:
            yield joined[start : start + length]
            start += length


@contextmanager
def _executor(processes: int) -> Iterator[Executor]:
    if processes:
        # a fork needs no guard around a user's script; it does nothing on a GPU, and torch runs in one thread, as in a DataLoader
        context = torch.multiprocessing.get_context("fork")
        executor: Executor = ProcessPoolExecutor(processes, context, initializer=_begin_worker, initargs=(os.getpid(),))
    else:
        executor = ThreadPoolExecutor(1)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, of which a killed one could not tell it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _shared_memory() -> int:
    """Return how many bytes processes can share; containers often have little."""
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
