"""Going on after an out-of-memory error: on one process in smaller pieces, on several from a checkpoint that one of them saved."""

import copy
import json
import logging
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import Trainer
from transformers.training_args import ParallelMode

from hfasr.files import temporary_beside, write_text
from hfasr.training.arguments import NEWEST, CTCTrainingArguments
from hfasr.training.batches.budget import free_memory, is_out_of_memory
from hfasr.training.batches.collator import PADDING
from hfasr.training.batches.inputs import LABEL_LENGTHS, LABELS, input_of
from hfasr.training.checkpoints import damage

logger = logging.getLogger(__name__)

# What a process exits with that others must be started again with: EX_TEMPFAIL of sysexits.h.
TRY_AGAIN = 75

Batch = Mapping[str, torch.Tensor | np.ndarray]


class RowTooLong(ValueError):
    """A row by itself does not fit the memory."""


class Pieces:
    """Run batches in pieces of at most `limit` padded seconds, and lower the limit when one does not fit the memory.

    The loss is a sum over labels divided by the label count of the whole update, so pieces add up to the gradient of the
    batch. An error in the middle of a backward leaves gradients that belong to nothing: all of the update's are dropped, and
    its earlier batches, whose inputs are kept for this, are run again. What differs from an update that fitted: masks and
    dropout are drawn anew, batch norm takes the statistics of each piece (and, of batches that were run again, once more),
    and the loss that is logged for earlier batches is that of their first run.

    Args:
        seconds_per_position: Of the audio tensor's second dimension.
        lowered: Told each new limit, when memory is free again and before anything is repeated; may raise.
        forget: Drops all gradients.
        limit: Padded seconds of a piece; infinite where nothing is known to be too much.
        agree: From the number of pieces of this process to the most of all, where all must run equally many: with split weights
            each forward is a meeting.
    """

    def __init__(
        self,
        seconds_per_position: float,
        lowered: Callable[[float], None],
        forget: Callable[[], None],
        limit: float = math.inf,
        agree: Callable[[int], int] | None = None,
    ):
        self.seconds_per_position, self.limit, self.updates_cut = seconds_per_position, limit, 0
        self._lowered, self._forget, self._agree = lowered, forget, agree
        self._done: list[Batch] = []
        self._cut = False

    def step(self, batch: Batch, run: Callable[[Batch, bool], torch.Tensor], *, ends_update: bool) -> torch.Tensor:
        """Return the loss of a batch, its gradient added to that of the update's earlier ones.

        Args:
            batch: Arrays and tensors whose first dimension is the rows.
            run: Does forward and backward of a piece and returns its loss; told whether the piece is the last of the batch.
            ends_update: Whether the optimiser steps after it.

        Raises:
            RowTooLong: A single row does not fit.
        """
        todo = [batch]
        while (loss := self._run(todo, run)) is None:
            self._forget()
            todo = [*self._done, batch]
        self._done.append(batch)
        if ends_update:
            self.updates_cut += self._cut
            self.start()
        return loss

    def start(self) -> None:
        """Begin an update."""
        self._done, self._cut = [], False

    def _run(self, batches: list[Batch], run: Callable[[Batch, bool], torch.Tensor]) -> torch.Tensor | None:
        """Return the loss of the last batch, or None when the memory was not enough."""
        for batch in batches:
            pieces = cut_rows(batch, self.limit / self._seconds_of_a_row(batch))
            self._cut = self._cut or len(pieces) > 1
            if self._agree is not None and self.limit < math.inf:
                pieces += [without_labels(batch)] * (self._agree(len(pieces)) - len(pieces))
            try:
                loss = sum(run(piece, place == len(pieces)) for place, piece in enumerate(pieces, 1))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error)
            else:
                continue
            self._lower(pieces[0], message)
            return None
        return loss

    def _seconds_of_a_row(self, batch: Batch) -> float:
        return input_of(batch).shape[1] * self.seconds_per_position

    def _lower(self, piece: Batch, message: str) -> None:
        free_memory()
        rows, seconds = len(piece[LABELS]), self._seconds_of_a_row(piece)
        if rows == 1:
            raise RowTooLong(
                f"a row of {seconds:.1f} s by itself does not fit the memory ({message.splitlines()[0]}); filter with a smaller "
                "max_seconds, or give --gradient_checkpointing"
            )
        self.limit = rows * seconds / 2
        logger.warning("a batch of %.0f padded seconds does not fit the memory; from now on at most %.0f", rows * seconds, self.limit)
        self._lowered(self.limit)


def cut_rows(batch: Batch, rows_at_most: float) -> list[Batch]:
    """Cut a batch into as few pieces of nearly equal size as have at most so many rows, one at least; padding stays as it is."""
    rows = len(batch[LABELS])
    if rows <= rows_at_most:
        return [batch]
    size = math.ceil(rows / math.ceil(rows / max(1, int(rows_at_most + 1e-9))))
    return [{name: value[first : first + size] for name, value in batch.items()} for first in range(0, rows, size)]


def without_labels(batch: Batch) -> Batch:
    """Return a batch's first row, counting nothing: what a process runs while others have pieces left."""
    row = {name: value[:1] for name, value in batch.items()}
    return {**row, LABELS: torch.full_like(row[LABELS], PADDING), LABEL_LENGTHS: np.zeros(1, np.int64)}


@contextmanager
def unsynchronised(trainer: Trainer, model: torch.nn.Module) -> Iterator[None]:
    """Keep the processes from sharing gradients: after all but the last piece of a batch, as between accumulation steps."""
    state = trainer.accelerator.gradient_state
    shares = state.sync_gradients
    state._set_sync_gradients(False)
    try:
        with trainer.accelerator.no_sync(model):
            yield
    finally:
        state._set_sync_gradients(shares)


def most_of_all(device: torch.device, count: int) -> int:
    """Return the largest of all processes' numbers."""
    most = torch.tensor(count, device=device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most)


def limit_path(output_dir: str | os.PathLike) -> Path:
    """Name the file of a run that holds its piece limit."""
    return Path(output_dir, "batch_limit.json")


def write_limit(output_dir: str | os.PathLike, seconds: float, device: str) -> None:
    """Keep a run's piece limit; the lowest counts."""
    limit_path(output_dir).parent.mkdir(parents=True, exist_ok=True)
    seconds = min(seconds, read_limit(output_dir, device))
    write_text(limit_path(output_dir), json.dumps({"seconds": seconds, "device": device}) + "\n")


def read_limit(output_dir: str | os.PathLike, device: str) -> float:
    """Return a run's piece limit, infinite where none is known, or only that of another kind of device."""
    path = limit_path(output_dir)
    if not path.is_file():
        return math.inf
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return float(found["seconds"]) if found["device"] == device else math.inf
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("%s is left aside, it is damaged: %s", path, error)
        return math.inf


def end_process(message: str, status: int) -> None:
    """Say why, and end at once.

    An ordinary exit waits for the gradients that this process has begun to share, and the others wait for it to share the rest.
    """
    logger.error(message)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def leave_for_restart(trainer: Trainer, limit: float, *, can_save: bool) -> None:
    """End this process, with status 75, and with it the run, so that all processes start again with smaller pieces.

    Args:
        trainer: In the middle of an update.
        limit: Padded seconds of a piece from then on.
        can_save: Whether this process holds all of a checkpoint; else the newest one there is has to do.
    """
    process = trainer.args.process_index
    folder = save_alone(trainer) if can_save else "the newest checkpoint"
    end_process(
        f"process {process} has no memory left in update {trainer.state.global_step + 1}, and the others wait for it: all must start "
        f"again. The same command with --resume_from_checkpoint goes on from {folder or 'the beginning'}, with at most {limit:.0f} padded "
        "seconds at a time; by itself with --max_restarts of accelerate launch or torchrun",
        TRY_AGAIN,
    )


def save_alone(trainer: Trainer) -> Path | None:
    """Save the checkpoint of the last finished update from one process, while the others wait for it in vain.

    All processes of DDP hold the same weights, optimiser and log; what each draws at random next is not saved. Nothing is
    written where there is a checkpoint of that update already, or no update was finished. The process must end afterwards.

    Returns:
        The folder of that checkpoint; None at the start of training.
    """
    update = trainer.state.global_step
    folder = Path(trainer.args.output_dir, f"checkpoint-{update}")
    if not update or _comes_whole(folder):
        return folder if update else None
    own = copy.copy(trainer.args)
    args = trainer.args = copy.copy(own)
    args.__class__ = type("AloneArguments", (type(own),), {**_ALONE, "__reduce__": lambda self: (copy.copy, (own,))})
    args.output_dir = str(temporary_beside(folder))
    torch.distributed.is_initialized = lambda: False  # for `save_pretrained`, which writes on the first process alone
    try:
        trainer._save_checkpoint(trainer.model, None)
        saved = Path(args.output_dir, folder.name)
        (saved / "rng_state.pth").unlink(missing_ok=True)
        if folder.exists() and damage(folder):  # of a process that was killed while it saved
            shutil.rmtree(folder)
        try:
            saved.replace(folder)
        except OSError:
            if not _comes_whole(folder):  # else another process had the same error
                raise
    finally:
        shutil.rmtree(args.output_dir, ignore_errors=True)
    return folder


# With these Trainer takes its process for the only one, and so saves everything and waits for nobody.
_ALONE = {
    "should_save": True, "world_size": 1, "process_index": 0, "local_process_index": 0, "parallel_mode": ParallelMode.NOT_PARALLEL,
}  # fmt: skip


def _comes_whole(folder: Path, seconds: float = 30.0) -> bool:
    """Tell whether a checkpoint is whole, or becomes so while another process writes the end of it."""
    end = time.monotonic() + seconds
    while folder.is_dir():
        if not damage(folder):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)
    return False


def note_launch(args: CTCTrainingArguments) -> None:
    """Write down, in the output folder, which launchers began training there."""
    _BEGUN.add(Path(args.output_dir).resolve())
    if _LAUNCHED in os.environ and args.local_process_index == 0:
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        write_text(_launch_path(args), json.dumps({"launcher": _launcher()}) + "\n")


def resume_after_restart(args: CTCTrainingArguments) -> bool:
    """Let a run that torchrun (or accelerate launch) started again, by --max_restarts, go on from its newest checkpoint.

    Only where a launcher of these processes has begun training in that folder: one that was refused, since the folder holds
    another run, must be refused again. All processes must call it. (The number of starts would not do: each of several machines
    counts its own.)

    Returns:
        Whether this is such a run; then `resume_from_checkpoint` is set.
    """
    if _LAUNCHED not in os.environ or Path(args.output_dir).resolve() in _BEGUN:
        return False
    path = _launch_path(args)
    ours = path.is_file() and json.loads(path.read_text(encoding="utf-8"))["launcher"] == _launcher()
    if torch.distributed.is_initialized():
        ours = bool(most_of_all(args.device, int(ours)))
    if ours and (not args.resume_from_checkpoint or any(Path(args.output_dir).glob("checkpoint-*"))):
        args.resume_from_checkpoint = NEWEST
    if ours:
        logger.info("started again by its launcher: going on with the run in %s", args.output_dir)
    return ours


# Set by torchrun, and so by accelerate launch where it starts several processes.
_LAUNCHED = "TORCHELASTIC_RUN_ID"
# Folders in which this process began to train: what it does there next is no restart.
_BEGUN: set[Path] = set()


def _launch_path(args: CTCTrainingArguments) -> Path:
    return Path(args.output_dir, f".launch-{socket.gethostname()}.json")


def _launcher() -> str:
    """Name the process that would start this one again, as no other is named."""
    parent = psutil.Process(os.getppid())
    return f"{parent.pid} {parent.create_time()}"
