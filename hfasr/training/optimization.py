"""Learning rates: by update, and by part of the model."""

import math


def tri_stage_scale(update: int, *, updates: int, shares: list[float], final: float) -> float:
    """Return the learning rate's factor: linear from 0.01 to 1, constant, exponential to `final` (fairseq's tri_stage)."""
    warm_up, hold = shares[0] * updates, (shares[0] + shares[1]) * updates
    if update < warm_up:
        return 0.01 + 0.99 * update / warm_up
    if update < hold:
        return 1.0
    return math.exp(math.log(final) * min(1.0, (update - hold) / max(1.0, updates - hold)))
