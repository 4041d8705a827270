"""Rows and their order -> batches that are ready before they are wanted."""

import copy
import itertools
import signal
from collections.abc import Callable, Iterator

import torch
from accelerate.data_loader import DataLoaderShard
from torch.utils.data import DataLoader, Dataset, Sampler

from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.record import process_seed


def training_loader(
    rows: Dataset, sampler: Sampler, collate: Callable[[list[dict]], dict], args: CTCTrainingArguments, *, endless: bool
) -> DataLoaderShard:
    """Build the loader of a process's training batches, which stay on the host, pinned when training is on CUDA.

    Each worker holds `dataloader_prefetch_factor` (2) batches that are decoded, of at most `max_batch_seconds` x 64 kB each
    (waveforms; log-mel takes about half), and what it needs to decode one more.

    Args:
        rows: What the sampler's numbers are of.
        sampler: Batches of this process alone.
        collate: Rows to a batch.
        args: Workers, prefetching, pinning.
        endless: Whether the sampler's one iteration is the whole training, as that of a stream; others begin anew each epoch.
    """
    workers = args.dataloader_num_workers
    settings = {
        "collate_fn": collate,
        "num_workers": workers,
        "pin_memory": args.dataloader_pin_memory and args.device.type == "cuda",
        "prefetch_factor": args.dataloader_prefetch_factor if workers else None,
        "worker_init_fn": leave_signals,
        # a loader without its own draws from the generator of dropout each time it begins: a stream once more where it is resumed
        "generator": torch.Generator() if endless else None,
    }
    # Accelerate's loader, but our sampler serves one process already: its own sharding would shard it again.
    loader = DataLoaderShard(rows, batch_sampler=sampler, **settings)
    if workers and not endless:
        loader.base_dataloader = AheadLoader(rows, sampler, **settings)
    return loader


def leave_signals(worker: int) -> None:
    """Let a worker live through a stop that the whole process group is told of (Slurm, torchrun, Ctrl-C).

    DataLoader takes the end of a worker for an error, which would come before the checkpoint that the trainer saves on a signal.
    A worker whose trainer has ended, or has no more use for it, ends by itself.

    Args:
        worker: Its number.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def with_steady_workers(loader: DataLoaderShard) -> DataLoaderShard:
    """Return a loader of Accelerate's, its workers such that live through a signal to stop."""
    loader.base_dataloader.worker_init_fn = leave_signals
    return loader


class AheadLoader(DataLoader):
    """A DataLoader whose workers go on with the next epoch's first batches while the last of this one are trained on.

    Else each epoch would begin with a wait for the first batch, as long as a step or several: of a corpus of an hour, half the time.

    Args:
        rows: The data set.
        sampler: Batches of row numbers, in an order that follows from its `epoch`.
        settings: Of DataLoader, with one worker or more.
    """

    def __init__(self, rows: Dataset, sampler: Sampler, **settings):
        super().__init__(rows, batch_sampler=sampler, **settings)
        self._settings = settings
        self._batches: Iterator[dict] | None = None
        self._next_epoch: int | None = None

    def __iter__(self) -> Iterator[dict]:
        torch.empty((), dtype=torch.int64).random_()  # as DataLoader does each epoch: dropout draws the same with workers and without
        epoch = self.batch_sampler.epoch
        if self._batches is None or self._next_epoch != epoch:
            self.close()
            seed = process_seed(self.batch_sampler.seed, epoch, self.batch_sampler.process_index)
            settings = self._settings | {"generator": torch.Generator().manual_seed(seed)}
            self._batches = iter(DataLoader(self.dataset, batch_sampler=_FromEpoch(self.batch_sampler, epoch), **settings))
        self._next_epoch = None  # whoever stops in mid-epoch begins it anew
        for _ in range(len(self.batch_sampler)):
            yield next(self._batches)
        self._next_epoch = epoch + 1

    def close(self) -> None:
        """End the workers; the next iteration starts others."""
        self._batches = None


class _FromEpoch(Sampler[list[int]]):
    """The batches of one epoch after the other, without end."""

    def __init__(self, sampler: Sampler, epoch: int):
        self._sampler, self._epoch = copy.copy(sampler), epoch  # the epoch of the original stays that of the training

    def __iter__(self) -> Iterator[list[int]]:
        for epoch in itertools.count(self._epoch):
            self._sampler.set_epoch(epoch)
            yield from self._sampler
