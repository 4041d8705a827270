"""Rows -> batches of equal padded seconds -> tensors."""

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import PreTrainedModel

from hfasr.audio import SAMPLING_RATE, load_audio, long_enough
from hfasr.models.load import input_lengths, output_lengths
from hfasr.text.vocabulary import Labels

logger = logging.getLogger(__name__)

PADDING = -100

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


def misfits(labels: Labels, durations: np.ndarray, model: PreTrainedModel, processor) -> dict[int, str]:
    """Say why CTC cannot train on some rows, by their places: no labels, more labels than frames, or a blank among the labels.

    A label that repeats the one before it needs a blank between, so L labels with R repeats need L + R frames (Graves et
    al. 2006).

    Args:
        labels: Label ids of the rows.
        durations: Seconds of each row `(N,)`.
        model: Tells the frames of its logits.
        processor: Its feature extractor tells the length of the input.
    """
    samples = torch.from_numpy(np.rint(np.asarray(durations) * SAMPLING_RATE).astype(np.int64))
    frames = output_lengths(model, input_lengths(processor, samples)).numpy()
    starts, ends = labels.offsets[:-1], labels.offsets[1:]
    again = np.zeros(len(labels.ids) + 1, np.int64)
    again[1:-1] = labels.ids[1:] == labels.ids[:-1]
    again[starts] = 0  # the first label of a row follows none
    repeats = np.concatenate([[0], np.cumsum(again[:-1])])
    counts = ends - starts
    needed = counts + repeats[ends] - repeats[starts]
    reasons = {}
    blanks = np.concatenate([[0], np.cumsum(labels.ids == model.config.pad_token_id)])
    unknown = blanks[ends] - blanks[starts]
    for place in np.flatnonzero((counts == 0) | (needed > frames) | (unknown > 0)).tolist():
        if not counts[place]:
            reasons[place] = "the target is empty"
        elif unknown[place]:
            reasons[place] = f"the target holds characters without a symbol ({unknown[place]})"
        else:
            reasons[place] = f"{counts[place]} labels need {needed[place]} frames, the audio has {frames[place]}"
    return reasons


class CTCCollator:
    """Decode and pad rows, in the data-loader workers.

    A clip that cannot be read becomes a second of silence without labels, which counts nothing in the loss, and a line in
    the quarantine file; the batch keeps its rows. An empty list gives one such row. A batch of which no clip can be read is
    an error: then it is the disk.

    Args:
        processor: Feature extractor and tokenizer.
        quarantine: JSON lines file to add unreadable clips to; None only logs them.
    """

    def __init__(self, processor, quarantine: str | os.PathLike | None = None):
        self.feature_extractor, self.quarantine = processor.feature_extractor, quarantine
        self._reported: set[str] = set()

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Build a batch.

        Args:
            rows: `id`, `audio` and `labels` (a list of ids) of each.

        Returns:
            `input_values (B, S)` or `input_features (B, F, M)`, `attention_mask` where the model takes one, `labels (B, L)`
            padded with -100, `input_lengths (B,)` in samples or mel frames.

        Raises:
            OSError: None of four or more clips can be read.
        """
        rows = rows or [{"id": "", "audio": None, "labels": []}]
        loaded = [self._load(row) for row in rows]
        if len(rows) >= 4 and all(waveform is None for waveform in loaded):
            raise OSError(
                f"none of the {len(rows)} clips of a batch can be read, such as {rows[0]['audio']['path']}; is the corpus still there?"
            )
        labels = [[] if waveform is None else row["labels"] for row, waveform in zip(rows, loaded, strict=True)]
        waveforms = [np.zeros(SAMPLING_RATE, np.float32) if waveform is None else long_enough(waveform) for waveform in loaded]
        batch = dict(self.feature_extractor(waveforms, sampling_rate=SAMPLING_RATE, padding=True, return_tensors="pt"))
        if "attention_mask" in batch:
            batch["input_lengths"] = batch["attention_mask"].sum(-1)
        else:
            batch["input_lengths"] = torch.tensor([len(waveform) for waveform in waveforms])
        width = max(1, max(map(len, labels)))
        batch["labels"] = torch.tensor([row + [PADDING] * (width - len(row)) for row in map(list, labels)], dtype=torch.int64)
        return batch

    def _load(self, row: dict) -> np.ndarray | None:
        if row["audio"] is None:
            return None
        try:
            return load_audio(row["audio"])
        except (ValueError, OSError) as error:
            self._report(row["id"], row["audio"]["path"], str(error))
            return None

    def _report(self, row_id: str, path: str, reason: str) -> None:
        if row_id in self._reported:
            return
        self._reported.add(row_id)
        logger.warning("clip %s left out: %s", row_id, reason)
        if self.quarantine is not None:
            line = json.dumps({"split": "", "id": row_id, "path": path, "reason": reason}, ensure_ascii=False)
            with open(self.quarantine, "a", encoding="utf-8") as file:  # one short append per line, whole on any worker count
                file.write(line + "\n")
