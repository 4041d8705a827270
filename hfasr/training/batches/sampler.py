"""Rows -> batches of equal padded seconds."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Rows whose durations differ by less than this share change places from epoch to epoch. It costs about half of it in
# padding: 2 % over the durations of Common Voice Kyrgyz at a budget of 320 s.
_SPREAD = 0.04


def check_budget(durations: Sequence[float], max_batch_seconds: float) -> None:
    """Raise ValueError when a row is longer than a batch may be; a duration that is not known yet (NaN) passes."""
    longest = max((seconds for seconds in durations if seconds == seconds), default=0.0)
    if longest > max_batch_seconds:
        raise ValueError(
            f"max_batch_seconds is {max_batch_seconds:g} but the longest row lasts {longest:.1f} s; "
            "raise the budget or filter with a smaller max_seconds"
        )


class DurationBatchSampler(Sampler[list[int]]):
    """Batches of at most `max_batch_seconds`, the padding included, for one of several processes.

    Rows are sorted by duration, rows of nearly equal duration change places at random, and the sequence is cut where
    rows x longest would pass the budget. Every row comes once an epoch. Each epoch has the same number of batches, the
    same on every process, because Trainer derives epoch and resume position from it: the longest batches are halved
    until the number is right, and a batch is left empty when there are not rows enough. The batches that the processes
    take in one step are neighbours in length. The order depends on seed and epoch alone.

    Args:
        durations: Seconds of each row `(N,)`.
        max_batch_seconds: Largest rows x longest duration of a batch.
        num_processes: Processes that share each epoch.
        process_index: Which of them this sampler serves.
        seed: Of the order.

    Raises:
        ValueError: There are no rows, a duration is not a positive number, or a row is longer than the budget.
    """

    def __init__(
        self, durations: Sequence[float], max_batch_seconds: float, *, num_processes: int = 1, process_index: int = 0, seed: int = 0
    ):
        durations = np.asarray(durations, dtype=np.float64)
        if len(durations) == 0:
            raise ValueError("there are no rows to train on")
        if not (np.isfinite(durations) & (durations > 0)).all():
            raise ValueError(f"row {int(np.argmin(np.nan_to_num(durations) > 0))} has no known duration; run check_audio first")
        check_budget(durations, max_batch_seconds)
        self.durations, self.max_batch_seconds = durations, max_batch_seconds
        self.num_processes, self.process_index, self.seed, self.epoch = num_processes, process_index, seed, 0
        self._sorted = np.argsort(durations, kind="stable")
        # how many batches an epoch's order needs varies a little: most of some epochs, the sorted order where one needs more
        needed = [len(self._cut(self._sorted)), *(len(self._cut(shuffle_sorted(durations, self._draw(epoch)))) for epoch in range(8))]
        self._batches = math.ceil(max(needed) / num_processes) * num_processes

    def __len__(self) -> int:
        """Return the batches of one process in one epoch."""
        return self._batches // self.num_processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.plan(self.epoch):
            yield step[self.process_index]

    def plan(self, epoch: int) -> list[list[list[int]]]:
        """Return, for each step of an epoch, the row numbers of every process's batch."""
        draw = self._draw(epoch)
        batches = self._cut(shuffle_sorted(self.durations, draw))
        if len(batches) > self._batches:
            batches = self._cut(self._sorted)
        while len(batches) < self._batches:
            largest = max(range(len(batches)), key=lambda place: len(batches[place]))
            rows = batches[largest]
            if len(rows) == 1:
                batches += [[]] * (self._batches - len(batches))
            else:
                batches[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        steps = [batches[first : first + self.num_processes] for first in range(0, len(batches), self.num_processes)]
        for step in steps:
            draw.shuffle(step)
        draw.shuffle(steps)
        return steps

    def _draw(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch))

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        return cut_batches(order, self.durations, self.max_batch_seconds)


def shuffle_sorted(durations: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return the places of `durations` `(N,)` from short to long, those within `_SPREAD` of each other in random order."""
    order = np.argsort(durations, kind="stable")
    lengths = durations[order]
    # where windows begin is drawn too, so that rows near an edge meet both neighbours
    first, edge = 0, lengths[0] * (1 + _SPREAD * draw.random())
    while first < len(order):
        last = max(first + 1, int(np.searchsorted(lengths, edge, side="right")))
        draw.shuffle(order[first:last])
        if last < len(order):
            edge = lengths[last] * (1 + _SPREAD)
        first = last
    return order


def cut_batches(order: np.ndarray, durations: np.ndarray, max_batch_seconds: float) -> list[list[int]]:
    """Cut a sequence of places in `durations` into batches whose rows x longest stay within the budget."""
    lengths, batches, first = durations[order], [], 0
    while first < len(order):
        # as many as would fit if no later row were longer
        some = lengths[first : first + max(1, int(max_batch_seconds / lengths[first]) + 1)]
        fits = np.maximum.accumulate(some) * np.arange(1, len(some) + 1) <= max_batch_seconds
        last = first + max(1, len(some) if fits.all() else int(np.argmin(fits)))
        batches.append(order[first:last].tolist())
        first = last
    return batches
