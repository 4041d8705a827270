"""Rows -> updates of so many batches of equal padded seconds each."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch.utils.data import Sampler

from hfasr.training.batches.shapes import Shapes, choose_shapes, rows_within

# Rows whose durations differ by less than this share change places from epoch to epoch. It costs about half of it in
# padding: 2 % over the durations of Common Voice Kyrgyz at a budget of 320 s.
_SPREAD = 0.04


def check_budget(durations: Sequence[float], max_batch_seconds: float, views: int = 1) -> None:
    """Raise ValueError when a row, `views` times, is longer than a batch may be; a duration that is not known yet (NaN) passes."""
    longest = max((seconds for seconds in durations if seconds == seconds), default=0.0)
    if views * longest > max_batch_seconds:
        times = f", {views} times over with consistency" if views > 1 else ""
        raise ValueError(
            f"max_batch_seconds is {max_batch_seconds:g} but the longest row lasts {longest:.1f} s{times}; "
            "raise the budget or filter with a smaller max_seconds"
        )


class DurationBatchSampler(Sampler[list[int]]):
    """Batches of at most `max_batch_seconds`, the padding included, for one of several processes.

    Rows are sorted by duration, rows of nearly equal duration change places at random, and the sequence is cut where
    rows x longest would pass the budget. Batches are drawn at random into updates of `batches_per_update`, so that an
    update sees short and long rows whatever the number of processes; inside an update they stand from long to short, and
    the processes take neighbours in one accumulation step. Every row comes once an epoch. The plan depends on the durations,
    the budget, `batches_per_update`, `batch_shapes`, seed and epoch, never on the processes: where they change, the run goes
    on with the same updates.

    Batches of equal padded seconds take about equal time, so that a step mixes lengths costs little: over the durations of
    Common Voice Kyrgyz, 2, 3 and 8 processes wait for the longest batch of a step 1.1, 1.6 and 2.6 % of the time at 80 s, and
    0.2, 0.4 and 0.7 % at 320 s (24 batches an update). A number of processes that does not divide `batches_per_update`
    leaves some without a batch in the last accumulation step: 16 batches on 3 processes waste 11 %.

    Each epoch has the same number of batches, a multiple of `batches_per_update`, because Trainer derives epoch and resume
    position from it. Where that takes notably more batches than the budget does, all are cut a little smaller; what is still
    missing comes from halving the batches of most rows, and a batch is left empty when there are not rows enough.

    Args:
        durations: Seconds of each row `(N,)`.
        max_batch_seconds: Largest rows x longest duration of a batch.
        batches_per_update: Of all processes together; as many as there are processes when None.
        num_processes: Processes that share each update. One beyond `batches_per_update` gets empty batches only.
        process_index: Which of them this sampler serves.
        seed: Of the order.
        batch_shapes: Padded lengths to round batches up to, so that few tensor shapes occur: `shapes` then holds them, and a
            batch is cut by its shape's length. 0 leaves each batch as long as its longest row.

    Raises:
        ValueError: There are no rows, a duration is not a positive number, or a row is longer than the budget.
    """

    def __init__(
        self,
        durations: Sequence[float],
        max_batch_seconds: float,
        *,
        batches_per_update: int | None = None,
        num_processes: int = 1,
        process_index: int = 0,
        seed: int = 0,
        batch_shapes: int = 0,
    ):
        durations = np.asarray(durations, dtype=np.float64)
        if len(durations) == 0:
            raise ValueError("there are no rows to train on")
        if not (np.isfinite(durations) & (durations > 0)).all():
            raise ValueError(f"row {int(np.argmin(np.nan_to_num(durations) > 0))} has no known duration; run check_audio first")
        check_budget(durations, max_batch_seconds)
        self.durations, self.max_batch_seconds = durations, max_batch_seconds
        self.batches_per_update = num_processes if batches_per_update is None else batches_per_update
        self.num_processes, self.process_index, self.seed, self.epoch = num_processes, process_index, seed, 0
        self.accumulation_steps = math.ceil(self.batches_per_update / num_processes)
        self.shapes: Shapes | None = choose_shapes(durations, max_batch_seconds, batch_shapes) if batch_shapes else None
        self._group = self.shapes.places(durations) if self.shapes else None
        self._sorted = np.argsort(durations, kind="stable")
        self._cut_seconds = max_batch_seconds
        self._batches = self._fit()

    def __len__(self) -> int:
        """Return the batches of one process in one epoch."""
        return self._batches // self.batches_per_update * self.accumulation_steps

    def summary(self) -> str:
        """Say how an epoch is cut."""
        updates, shapes = self._batches // self.batches_per_update, f", of {len(self.shapes.rows)} shapes" if self.shapes else ""
        return f"{updates} updates of {self.batches_per_update} batches, each of up to {self._cut_seconds:.1f} padded seconds{shapes}"

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        for update in self._plan(self.epoch):
            for first in range(0, self.accumulation_steps * self.num_processes, self.num_processes):
                place = first + self.process_index
                yield update[place].tolist() if place < len(update) else []

    def plan(self, epoch: int) -> list[list[list[int]]]:
        """Return, for each update of an epoch, the row numbers of its batches."""
        return [[batch.tolist() for batch in update] for update in self._plan(epoch)]

    def _plan(self, epoch: int) -> list[list[np.ndarray]]:
        draw = self._draw(epoch)
        for _ in range(8):
            batches = self._cut(self._shuffled(draw), self._cut_seconds)
            if len(batches) <= self._batches:
                break
        else:
            batches = self._cut(self._sorted, self._cut_seconds)
        batches = _halve(batches, self._batches)
        places = list(range(len(batches)))
        draw.shuffle(places)
        count = self.batches_per_update
        return [[batches[place] for place in sorted(places[first : first + count], reverse=True)] for first in range(0, len(places), count)]

    def _fit(self) -> int:
        """Return the batches of an epoch, and find the padded seconds to cut them by."""
        # how many batches an order needs varies a little: most of some epochs, the sorted order where one needs more
        few = len(self.durations) < 100_000
        orders = [self._sorted, *(self._shuffled(self._draw(epoch)) for epoch in range(0 if self.shapes else 8 if few else 1))]

        def needed(seconds: float) -> int:
            return max(len(self._cut(order, seconds)) for order in orders)

        most = needed(self.max_batch_seconds)
        most += 0 if few or self.shapes else most // 1000  # one order tells little about the next
        batches = math.ceil(most / self.batches_per_update) * self.batches_per_update
        if batches - most > batches / 100:
            # halving would make a few batches small and leave the others, on which their processes wait for these, as they are
            low, high = max(float(self.durations.max()), 0.97 * self.max_batch_seconds * most / batches), self.max_batch_seconds
            for _ in range(8):
                middle = (low + high) / 2
                low, high = (low, middle) if needed(middle) <= batches else (middle, high)
            self._cut_seconds = high
        if self.shapes is not None:
            self.shapes = replace(self.shapes, rows=rows_within(self._cut_seconds, self.shapes.lengths_seconds))
        return batches

    def _draw(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch))

    def _shuffled(self, draw: np.random.Generator) -> np.ndarray:
        if self._group is None:
            return shuffle_sorted(self.durations, draw)
        # all rows of one shape are padded to one length, so that any order among them costs the same
        order = draw.permutation(len(self.durations))
        return order[np.argsort(self._group[order], kind="stable")]

    def _cut(self, order: np.ndarray, seconds: float) -> list[np.ndarray]:
        if self.shapes is None:
            return _cut(order, self.durations, seconds)
        return _cut_to_shapes(order, self._group, rows_within(seconds, self.shapes.lengths_seconds))


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
    return [batch.tolist() for batch in _cut(order, durations, max_batch_seconds)]


def _cut(order: np.ndarray, durations: np.ndarray, max_batch_seconds: float) -> list[np.ndarray]:
    lengths, batches, first = durations[order], [], 0
    while first < len(order):
        # as many as would fit if no later row were longer
        some = lengths[first : first + max(1, int(max_batch_seconds / lengths[first]) + 1)]
        fits = np.maximum.accumulate(some) * np.arange(1, len(some) + 1) <= max_batch_seconds
        last = first + max(1, len(some) if fits.all() else int(np.argmin(fits)))
        batches.append(order[first:last])
        first = last
    return batches


def _cut_to_shapes(order: np.ndarray, group: np.ndarray, rows: Sequence[int]) -> list[np.ndarray]:
    """Cut places that are sorted by the shape they need into batches as large as their shapes.

    Rows that do not fill a batch of their shape go up to the next one, so that at most the last batch is not full.
    """
    needs, batches, first = group[order], [], 0
    while first < len(order):
        shape = int(needs[first])
        while needs[min(first + rows[shape], len(order)) - 1] > shape:
            shape += 1
        batches.append(order[first : first + rows[shape]])
        first += rows[shape]
    return batches


def _halve(batches: list[np.ndarray], number: int) -> list[np.ndarray]:
    """Bring batches to a number by halving those of most rows, the halves in the place of the whole; empty ones come first."""
    heap = [(-len(rows), (place,), rows) for place, rows in enumerate(batches)]
    heapq.heapify(heap)
    while len(heap) < number and heap[0][0] < -1:
        _, place, rows = heap[0]
        half = len(rows) // 2
        heapq.heapreplace(heap, (-half, (*place, 0), rows[:half]))
        heapq.heappush(heap, (half - len(rows), (*place, 1), rows[half:]))
    empty = [np.empty(0, dtype=np.int64)] * (number - len(heap))
    return empty + [rows for _, _, rows in sorted(heap, key=lambda entry: entry[1])]
