"""What evaluation does with rows: their order, the label ids of their frames, and the error rate of those."""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import EvalPrediction

from hfasr.corpora.rows import column, plain
from hfasr.decoding.greedy import decode_frames, labels_to_text
from hfasr.evaluation.metrics import RATE_NAMES, error_rate
from hfasr.models.speed.padding import to_device
from hfasr.training.batches.collator import PADDING
from hfasr.training.batches.fitting import labelled


def by_duration(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, list[int]]:
    """Sort rows for evaluation, longest first, so that batches of a fixed number of rows pad little.

    Args:
        rows: Rows with `duration` and `target`.
        tokenizer: Gives the label ids.

    Returns:
        The rows with `labels`, and the place that each had before.
    """
    order = np.argsort(-column(rows, "duration").to_numpy(), kind="stable")
    return labelled(plain(rows).select(order), tokenizer)[0], order.tolist()


def in_order(values: Sequence[str], order: Sequence[int]) -> list[str]:
    """Return values of rows that `by_duration` has sorted, in the order that they had before."""
    return [value for _, value in sorted(zip(order, values, strict=True), key=lambda pair: pair[0])]


def frame_labels(logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Return the likeliest label id of every frame `(B, T)`, with -100 past each row's end.

    Args:
        logits: `(B, T, V)`.
        frames: Valid frames `(B,)`, on any device.
    """
    ids = logits.argmax(-1)
    past_end = torch.arange(ids.shape[1], device=ids.device) >= to_device(frames, ids.device)[:, None]
    return ids.masked_fill(past_end, PADDING)


def frame_error_rate(prediction: EvalPrediction, *, tokenizer: PreTrainedTokenizerBase, blank: int, unit: str) -> dict[str, float]:
    """Score frame labels `(N, T)` against label ids `(N, L)`: `{"per": ...}` or `{"cer": ...}`, by unit.

    Characters that have no symbol, and so no id, are left out of the references; the score after training, of texts, counts them.
    """
    hypotheses = decode_frames(prediction.predictions, tokenizer, blank)
    references = [labels_to_text(row, tokenizer) for row in prediction.label_ids]
    return {RATE_NAMES[unit]: error_rate(references, hypotheses, unit)}
