"""A stream of rows -> batches of equal padded seconds, with the exact place to go on from.

Shards are dealt out to the processes, a process reads its rows in windows, and a window is shuffled, sorted by duration and
cut into batches. The place in the data is that of a window's first row and the number of its batches that were trained on:
everything else follows from the seed, so a window is read again and planned again after a stop, and nothing is lost or
repeated.
"""

import copy
import gc
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from datasets import Audio, IterableDataset
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback

from hfasr.audio import audio_duration
from hfasr.corpora.rows import ENCODED_AUDIO
from hfasr.text.vocabulary import encode_targets
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.fitting import misfits
from hfasr.training.batches.sampler import cut_batches, shuffle_sorted
from hfasr.training.batches.shards import Shards

logger = logging.getLogger(__name__)

_NEEDED = ("id", "audio", "duration", "target")

# A process that meets no row to train on stops looking after this many windows, or after this many times all shards.
_BARREN_WINDOWS, _BARREN_EPOCHS = 10, 16


def check_stream(rows: IterableDataset, args: CTCTrainingArguments) -> None:
    """Raise ValueError for what a stream lacks, or what only a table can do."""
    if args.max_steps <= 0:
        raise ValueError("a stream does not tell its length; give --max_steps, the number of updates")
    if args.batch_shapes:
        raise ValueError(f"batch_shapes is {args.batch_shapes}, but a stream does not tell the durations to choose them by; give 0")
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if getattr(args, name) == "epoch":
            raise ValueError(f"{name} is 'epoch', but a stream's epoch ends at another update on each process; give 'steps'")
    if rows.column_names is not None:
        _check_columns(rows.column_names)
    if getattr(rows, "_distributed", None) is not None:
        raise ValueError("the stream was split by split_dataset_by_node; leave that out, the trainer gives each process its part")
    if _buffered(rows._ex_iterable):
        raise ValueError(
            "the stream was shuffled by .shuffle(), which loses the rows in its buffer when training is resumed; leave that out, "
            "shards and windows are shuffled in training"
        )


def _buffered(part) -> bool:
    """Tell whether a part of a stream keeps rows in a shuffle buffer; `datasets` has no public word for it."""
    if type(part).__name__ == "BufferShuffledExamplesIterable":
        return True
    return any(_buffered(inner) for inner in [*getattr(part, "ex_iterables", ()), *filter(None, [getattr(part, "ex_iterable", None)])])


def _check_columns(names: list[str]) -> None:
    if missing := [name for name in _NEEDED if name not in names]:
        raise ValueError(f"a streamed row has no {missing[0]!r}, found {', '.join(names)}; make rows by stream_rows and add_stream_target")


@dataclass(frozen=True)
class Window:
    """Some thousand rows in batches, and where they began."""

    start: dict
    epoch: float  # passes over the data before it
    batches: list[list[dict]]


class StreamBatchSampler(Sampler[list[dict]]):
    """Batches of at most `max_batch_seconds`, the padding included, from a stream; the rows themselves, audio encoded.

    A thread reads the next window while one is trained on, so about two are in memory. Every row comes once an epoch,
    where it can be trained on; the others are listed in the quarantine file, once.

    Args:
        rows: Rows with `id`, `audio`, `duration` and `target`.
        model: The model that is trained; it tells how many frames a row has.
        processor: Feature extractor and tokenizer.
        args: The run's numbers.
        quarantine: JSON lines file to add the rows to that are left out.
        state: What `state` returned where training goes on.

    Raises:
        ValueError: The state is of a run with other numbers.
    """

    def __init__(
        self, rows: IterableDataset, model, processor, args: CTCTrainingArguments, quarantine: str | os.PathLike, state: dict | None = None
    ):
        if isinstance((rows.features or {}).get("audio"), Audio):
            rows = rows.cast_column("audio", ENCODED_AUDIO)  # `datasets` would decode it, with torchcodec
        self.args, self._seed = args, args.data_seed if args.data_seed is not None else args.seed
        self._shards = Shards(rows, self._seed, args.world_size, args.process_index, state and state["position"])
        self._settings = {
            "processes": args.world_size,
            "shards": self._shards.num_shards,
            "seed": self._seed,
            "stream_window": args.stream_window,
            "max_batch_seconds": args.max_batch_seconds,
        }
        _check_settings(state, self._settings)
        self._number = state["window"] if state else 0
        self._skip = state["batches"] if state else 0
        updates = args.max_steps - (state["updates"] if state else 0)
        self._batches = max(0, updates) * args.gradient_accumulation_steps
        # a tokenizer serves one thread at a time, and evaluation decodes with the trainer's
        self._model, self._processor, self._tokenizer = model, processor, copy.deepcopy(processor.tokenizer)
        self._quarantine = _Quarantine(quarantine)
        self._barren: tuple[int, int, str] = (0, self._shards.place, "")
        self._started: deque[tuple[int, dict, float]] = deque()  # of each window: the number of its first batch, start, epoch
        self._reader: _Ahead | None = None
        self.consumed = 0

    def __iter__(self) -> Iterator[list[dict]]:
        if not self._batches:  # a run that had ended is resumed
            return
        self._reader = reader = _Ahead(self._read_window)
        emitted = -self._skip
        try:
            while emitted < self._batches:
                window = reader.take()
                self._started.append((emitted, window.start, window.epoch))
                while window.batches and emitted < self._batches:
                    batch = window.batches.pop(0)
                    emitted += 1
                    if emitted > 0:
                        yield batch
        finally:
            self.close()

    def consume(self, batches: int) -> float:
        """Take note that this many batches were trained on since the start; return the passes over the data so far."""
        self.consumed = batches
        while len(self._started) > 1 and self._started[1][0] <= batches:
            self._started.popleft()
        return self._started[0][2]

    def state(self, updates: int) -> dict:
        """Return, as JSON takes it, where training goes on after the batches that were consumed.

        Args:
            updates: Of the model so far.
        """
        first, start, _ = self._started[0]
        return {**self._settings, "updates": updates, **start, "batches": self.consumed - first}

    def close(self) -> None:
        """End the reading thread."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            self._shards.close()
            gc.collect()  # Arrow's threads end with their reader; alive at Python's exit they abort the process (apache/arrow#45214)

    def _read_window(self, stop: threading.Event) -> Window:
        """Read the next window and plan it."""
        shards, number = self._shards, self._number
        start, epoch = {"window": number, "position": shards.position()}, shards.epoch
        passes = shards.place / shards.num_shards
        limit = self.args.stream_window
        if shards.rows_read == 0:  # so that other rows meet in a window each epoch
            limit = int(np.random.default_rng((self._seed, epoch, 1)).integers(max(1, limit // 2), limit + 1))
        rows = shards.read(limit, stop)
        self._number += 1
        kept = self._usable(rows)
        self._check_barren(len(rows), bool(kept))
        return Window(start, passes, self._plan(kept, epoch, number))

    def _plan(self, rows: list[dict], epoch: int, number: int) -> list[list[dict]]:
        if not rows:
            return []
        draw = np.random.default_rng((self._seed, self.args.process_index, number))
        draw.shuffle(rows)
        durations = np.array([row["duration"] for row in rows])
        batches = cut_batches(shuffle_sorted(durations, draw), durations, self.args.batch_seconds)
        draw.shuffle(batches)
        needed = [{name: row[name] for name in ("id", "audio", "labels")} | {"epoch": epoch} for row in rows]
        return [[needed[place] for place in batch] for batch in batches]

    def _usable(self, rows: list[dict]) -> list[dict]:
        """Add `labels`; leave out the rows that cannot be trained on, and list them."""
        if not rows:
            return []
        _check_columns(list(rows[0]))
        labels = encode_targets(self._tokenizer, [row["target"] or "" for row in rows])
        seconds = np.array([row["duration"] if row["duration"] is not None else np.nan for row in rows])
        reasons = misfits(labels, np.nan_to_num(seconds), self._model, self._processor)
        kept, bad = [], []
        for place, (row, one) in enumerate(zip(rows, seconds.tolist(), strict=True)):
            reason = reasons.get(place)
            if not one > 0:
                reason = _unreadable(row["audio"])
            elif one > self.args.batch_seconds:
                reason = f"lasts {one:.1f} s, more than max_batch_seconds {self.args.batch_seconds:g}"
            if reason:
                bad.append((row, reason))
            else:
                kept.append({**row, "labels": labels.ids[labels.offsets[place] : labels.offsets[place + 1]].tolist()})
        self._quarantine.add(bad)
        if bad:
            self._barren = (*self._barren[:2], bad[0][1])
        return kept

    def _check_barren(self, rows: int, found: bool) -> None:
        """Stop looking for rows where there seem to be none."""
        if found:
            self._barren = (0, self._shards.place, "")
            return
        count, place, reason = self._barren
        self._barren = (count + rows, place, reason)
        epochs = 2 if self._shards.stride == 1 else _BARREN_EPOCHS
        looked_everywhere = self._shards.place - place >= epochs * self._shards.num_shards
        if count + rows >= _BARREN_WINDOWS * self.args.stream_window or (count + rows and looked_everywhere):
            raise ValueError(f"none of {count + rows} streamed rows, one after the other, can be trained on, for example: {reason}")
        if looked_everywhere:
            raise ValueError(f"the stream has no rows for process {self.args.process_index} of {self.args.world_size}")


def _unreadable(audio: dict | None) -> str:
    """Say why a row has no duration."""
    try:
        return f"the duration is not known, by its header it is {audio_duration(audio or {}):.2f} s; make rows by stream_rows"
    except (ValueError, TypeError, OSError) as error:
        return str(error)


def _check_settings(state: dict | None, now: dict) -> None:
    for name, value in now.items():
        if state and state[name] != value:
            raise ValueError(
                f"the checkpoint's stream was read with {name} {state[name]}, this run has {value}; it decides which rows come next. "
                "Resume with the same"
            )


class _Ahead:
    """One result of a function ahead of its use, made in a thread.

    Args:
        make: Called again and again, one call at a time, with an event that tells it to hurry to an end.
    """

    def __init__(self, make: Callable[[threading.Event], Window]):
        self._make, self._stop = make, threading.Event()
        self._start()

    def take(self) -> Window:
        """Return the next result, or raise what the function raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        result = self._result
        self._start()
        return result

    def close(self) -> None:
        """Wait until the thread has ended; one that hangs in a network is left behind."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _start(self) -> None:
        self._result = self._error = None
        self._thread = threading.Thread(target=self._run, name="hfasr-stream", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._make(self._stop)
        except BaseException as error:  # whatever it is belongs to who takes the result
            self._error = error


class _Quarantine:
    """The file of rows left out: each once, whichever epoch and process meets it."""

    def __init__(self, path: str | os.PathLike):
        self._path, self._end, self._known = path, 0, set()

    def add(self, rows: list[tuple[dict, str]]) -> None:
        """Add rows and their reasons, of those that are not there yet."""
        if not rows:
            return
        self._update()
        new = [(row, reason) for row, reason in rows if row["id"] not in self._known]
        if not new:
            return
        logger.warning("%d rows are left out, for example %s: %s", len(new), new[0][0]["id"], new[0][1])
        with open(self._path, "a", encoding="utf-8") as file:
            for row, reason in new:
                line = {"split": "train", "id": row["id"], "path": (row["audio"] or {}).get("path"), "reason": reason}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._known.update(row["id"] for row, _ in new)

    def _update(self) -> None:
        """Learn what others added since."""
        if not os.path.exists(self._path):
            return
        with open(self._path, "rb") as file:
            if file.seek(0, os.SEEK_END) < self._end:
                self._end = 0
            file.seek(self._end)
            lines = file.read().rpartition(b"\n")[0]
        self._end += len(lines) + bool(lines)
        self._known.update(json.loads(line)["id"] for line in lines.splitlines())


class EncodedRows(Dataset):
    """What a DataLoader asks for a row that the sampler gave it: the row."""

    def __getitem__(self, row: dict) -> dict:
        return row


class FollowStream(TrainerCallback):
    """Tell the sampler how far training is, and Trainer which epoch that is."""

    def __init__(self):
        self.sampler: StreamBatchSampler | None = None
        self._first = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self._first = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        state.epoch = self.sampler.consume((state.global_step - self._first) * args.gradient_accumulation_steps)
