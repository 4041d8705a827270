"""The shards of a stream, dealt out to the processes: who reads what, in which order, and where it was."""

import copy
import logging
import threading

import numpy as np
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node

logger = logging.getLogger(__name__)


class Shards:
    """The rows of one process without end: each epoch all shards in a new order, dealt out to the processes in turn.

    The deal goes on over the end of an epoch, so processes stay together where shards do not divide evenly. With fewer
    shards than processes (row groups count as shards of Parquet files) every process reads all of them and keeps every
    `num_processes`-th row.

    Args:
        rows: The stream, the same on all processes.
        seed: Of the order.
        num_processes: Processes that share the rows.
        process_index: Which of them this is.
        position: What `position` returned where reading goes on; the beginning when None.
    """

    def __init__(self, rows: IterableDataset, seed: int, num_processes: int = 1, process_index: int = 0, position: dict | None = None):
        if rows.num_shards < num_processes:
            rows = rows.reshard()
        self.num_shards, self.seed = rows.num_shards, seed
        self.share = None
        if self.num_shards < num_processes:
            self.share = {"rank": process_index, "world_size": num_processes, "strategy": "examples"}
            logger.warning(
                "%d shards for %d processes: each reads all of them and keeps its share of the rows", self.num_shards, num_processes
            )
        self.stride = num_processes if self.share is None else 1
        position = position or {"place": process_index if self.share is None else 0, "rows": 0, "shard": None}
        self.place, self.rows_read, self._state = position["place"], position["rows"], position["shard"]
        self._rows, self._shard, self._iterator = rows, None, None

    @property
    def epoch(self) -> int:
        """Which epoch the next row is of, or the last one where a shard has no more."""
        return self.place // self.num_shards

    def position(self) -> dict:
        """Return, as JSON takes it, where reading goes on."""
        state = self._shard.state_dict() if self._iterator is not None else self._state
        return {"place": self.place, "rows": self.rows_read, "shard": state}

    def read(self, limit: int, stop: threading.Event) -> list[dict]:
        """Return the next rows, at most `limit`, of one epoch; fewer, or none, at its end or when told to stop."""
        rows, epoch = [], self.epoch
        while len(rows) < limit and self.epoch == epoch and not stop.is_set():
            if self._iterator is None:
                self._open()
            row = next(self._iterator, None)
            if row is not None:
                rows.append(row)
                continue
            self.close()
            self.place += self.stride
        self.rows_read = self.rows_read + len(rows) if self.epoch == epoch else 0
        return rows

    def close(self) -> None:
        """Let go of the shard in hand."""
        self._shard = self._iterator = self._state = None

    def _open(self) -> None:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_shards)
        shard = self._rows.shard(self.num_shards, int(order[self.place % self.num_shards]))
        if self.share is not None:
            shard = split_dataset_by_node(shard, **self.share)
        shard.set_epoch(self.epoch)  # for what draws at random in the stream itself, such as interleave_datasets
        if self._state is not None:
            shard.load_state_dict(copy.deepcopy(self._state))
        self._shard, self._iterator = shard, iter(shard)
