"""The CTC loss."""

import torch
from torch.nn import functional

from hfasr.training.batches.collator import PADDING


def ctc_loss_sum(logits: torch.Tensor, labels: torch.Tensor, frames: torch.Tensor, blank: int, *, zero_infinity: bool) -> torch.Tensor:
    """Return the CTC loss summed over the utterances, in float32 or better.

    Args:
        logits: `(B, T, V)`.
        labels: `(B, L)` padded with -100; a row without labels counts nothing.
        frames: Valid frames `(B,)`.
        blank: Id of the blank.
        zero_infinity: Count 0 for a row whose labels do not fit its frames.
    """
    log_probs = functional.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32)).transpose(0, 1)
    present = labels != PADDING
    counts = present.sum(-1)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's CTC is not deterministic and wants blank 0
        losses = functional.ctc_loss(
            log_probs,
            labels.where(present, 0),
            frames.to(counts.device),
            counts,
            blank=blank,
            reduction="none",
            zero_infinity=zero_infinity,
        )
    return losses.where(counts > 0, 0.0).sum()
