"""Logits -> the best path: one label per frame, repeats joined, blanks dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

PADDING = -100


@dataclass(frozen=True)
class Token:
    """One recognised symbol: its id and the frames it holds, end exclusive."""

    id: int
    start_frame: int
    end_frame: int


def best_path(logits, lengths=None, *, blank: int) -> list[list[Token]]:
    """Decode the most probable label of every frame (Graves et al. 2006, best path decoding).

    Args:
        logits: Scores `(B, T, V)`, torch or NumPy; log-probabilities do as well.
        lengths: Valid frames `(B,)`; all T when None.
        blank: Id of the CTC blank, `model.config.pad_token_id`.

    Returns:
        For each utterance its tokens in order.

    Raises:
        ValueError: `logits` is not three-dimensional, or `blank` is not below V.
    """
    if logits.ndim != 3 or not 0 <= blank < logits.shape[-1]:
        raise ValueError(f"expected logits (B, T, V) with V above the blank id {blank}, found shape {tuple(logits.shape)}")
    ids = logits.argmax(-1)
    if hasattr(ids, "cpu"):
        ids = ids.cpu().numpy()
    lengths = [ids.shape[1]] * len(ids) if lengths is None else [int(length) for length in lengths]
    return [collapse(row[:length], blank) for row, length in zip(ids, lengths, strict=True)]


def collapse(frame_ids: Sequence[int] | np.ndarray, blank: int) -> list[Token]:
    """Join repeated frame labels `(T,)` and drop the blank and padding (-100)."""
    tokens, start = [], 0
    for label, frames in groupby(int(label) for label in frame_ids):
        end = start + sum(1 for _ in frames)
        if label not in (blank, PADDING):
            tokens.append(Token(label, start, end))
        start = end
    return tokens


def decode_frames(frame_ids: np.ndarray, tokenizer, blank: int) -> list[str]:
    """Turn frame labels `(B, T)`, padded with -100, into strings; frames of padding never become symbols."""
    return [labels_to_text([token.id for token in collapse(row, blank)], tokenizer) for row in frame_ids]


def labels_to_text(labels: Sequence[int], tokenizer) -> str:
    """Turn label ids, without blanks and not to be collapsed again, into the target's string."""
    labels = [int(label) for label in labels if label != PADDING]
    if not labels:  # Wav2Vec2PhonemeCTCTokenizer cannot decode an empty list
        return ""
    return tokenizer.decode(labels, group_tokens=False, skip_special_tokens=False)
