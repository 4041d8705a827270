"""A few tensor shapes for all batches, so that compiled code, memory and cuDNN's plans are used again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# 0.16 s are eight frames of 20 ms, and 0.005 s what the convolutions of wav2vec 2.0 need beyond them (400 samples seen, 320 stepped),
# so that the frames of every shape come in eights, as tensor cores like their matrices.
_STEP_SECONDS, _EXTRA_SECONDS = 0.16, 0.005

# A header gives a duration to a millisecond or so; a row that is decoded a little longer must fit all the same.
_SLACK_SECONDS = 0.01

# Lengths to choose among; with more, rows of many minutes would make the choice slow.
_MAX_CANDIDATES = 600


@dataclass(frozen=True)
class Shapes:
    """The sizes that training batches have.

    Args:
        lengths_seconds: Padded lengths `(K,)`, ascending.
        rows: Rows of a batch of each `(K,)`.
    """

    lengths_seconds: tuple[float, ...]
    rows: tuple[int, ...]

    def shape_of(self, longest_seconds: float, rows: int) -> tuple[int, float]:
        """Return the rows and the length in seconds to fill a batch up to: with silent rows, and silence at the end of each row.

        A batch that none holds, as after a header that gave far too short a duration, gets a shape of its own.

        Args:
            longest_seconds: Longest row of the batch.
            rows: How many it has.
        """
        for length, most in zip(self.lengths_seconds, self.rows, strict=True):
            if longest_seconds <= length and rows <= most:
                return most, length
        return rows, float(_length(_steps(longest_seconds)))

    def places(self, durations: np.ndarray) -> np.ndarray:
        """Return which length each of `durations` `(N,)` needs."""
        return np.searchsorted(self.lengths_seconds, np.minimum(durations + _SLACK_SECONDS, self.lengths_seconds[-1]))


def choose_shapes(durations: Sequence[float], max_batch_seconds: float, count: int) -> Shapes:
    """Choose the lengths that pad rows least, by dynamic programming, and the rows of each within the budget.

    Args:
        durations: Seconds of each row `(N,)`.
        max_batch_seconds: Largest rows x length; a single row may pass it by the 0.16 s to which lengths are rounded.
        count: Lengths to choose, at most; as many as there are in 0.16 s steps where those are fewer.
    """
    steps = _steps(np.asarray(durations) + _SLACK_SECONDS)
    coarse = max(1, math.ceil(int(steps.max()) / _MAX_CANDIDATES))
    candidates, held = np.unique(np.minimum(-(-steps // coarse) * coarse, steps.max()), return_counts=True)
    lengths = _length(candidates)
    before = np.concatenate([[0], np.cumsum(held)])
    # least[j] is the least padded seconds of the rows up to candidate j - 1; came[k][j] where the shape below ends
    least, came = np.full(len(lengths) + 1, np.inf), []
    least[0] = 0.0
    for _ in range(min(count, len(lengths))):
        padded = least[:, None] + (before[None, 1:] - before[:, None]) * lengths[None, :]
        padded[before[:, None] > before[None, 1:]] = np.inf
        came.append(np.argmin(padded, axis=0))
        least = np.concatenate([[np.inf], padded.min(axis=0)])
        least[0] = 0.0
    chosen, place = [], len(lengths)
    for step in reversed(came):
        if place == 0:
            break
        chosen.append(float(lengths[place - 1]))
        place = int(step[place - 1])
    chosen = tuple(reversed(chosen))
    return Shapes(chosen, rows_within(max_batch_seconds, chosen))


def rows_within(max_batch_seconds: float, lengths_seconds: Sequence[float]) -> tuple[int, ...]:
    """Return how many rows of each length stay within a budget, at least one."""
    return tuple(max(1, int(max_batch_seconds / length + 1e-9)) for length in lengths_seconds)


def _steps(seconds: np.ndarray | float) -> np.ndarray:
    """Return in which step of the lengths these seconds end."""
    return np.maximum(1, np.ceil((np.asarray(seconds) - _EXTRA_SECONDS) / _STEP_SECONDS - 1e-9)).astype(np.int64)


def _length(steps: np.ndarray) -> np.ndarray:
    return np.round(steps * _STEP_SECONDS + _EXTRA_SECONDS, 6)
