"""Logits -> the best path: one label per frame, repeats joined, blanks dropped."""

from collections.abc import Sequence

import numpy as np
import torch

from hfasr.decoding.confidence import Confidence, as_confidence, frame_confidences, join
from hfasr.decoding.hypothesis import Hypothesis, Token

PADDING = -100


class GreedyDecoder:
    """Decode by the best path.

    Args:
        blank: Id of the CTC blank, `model.config.pad_token_id`.
        confidence: How sure the model is, or the name of a measure, `max`, `tsallis` or `gibbs`; None for no confidences.

    Raises:
        ValueError: There is no such measure.
    """

    def __init__(self, blank: int, confidence: str | Confidence | None = "tsallis"):
        self.blank = blank
        self.confidence = as_confidence(confidence)

    def decode(self, log_probs: torch.Tensor, lengths: Sequence[int] | torch.Tensor) -> list[list[Hypothesis]]:
        """Find the best path of every utterance.

        Labels and confidences are worked out on the device of `log_probs`: three numbers a frame are copied from it.

        Args:
            log_probs: `(B, T, V)`.
            lengths: Valid frames `(B,)`.

        Returns:
            One hypothesis for each utterance; its score is the log-probability of the path.

        Raises:
            ValueError: `log_probs` is not three-dimensional, or the blank is not below V.
        """
        check_shape(log_probs, self.blank)
        scores, ids = log_probs.max(-1)
        wanted = [ids.float(), scores.float()]  # float32 holds ids up to 16 million: one copy from the device for all
        if self.confidence is not None:
            wanted.append(frame_confidences(log_probs, self.confidence).float())
        found = torch.stack(wanted).cpu().numpy()
        return [[self._hypothesis(found[:, row, : int(length)])] for row, length in enumerate(lengths)]

    def _hypothesis(self, frames: np.ndarray) -> Hypothesis:
        tokens, confidences = tuple(collapse(frames[0].astype(np.int64), self.blank)), ()
        if self.confidence is not None:
            starts, ends = [token.start_frame for token in tokens], [token.end_frame for token in tokens]
            confidences = tuple(join(frames[2], starts, ends))
        return Hypothesis(tokens, float(frames[1].sum(dtype=np.float64)), confidences)


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
    check_shape(logits, blank)
    ids = logits.argmax(-1)
    if hasattr(ids, "cpu"):
        ids = ids.cpu().numpy()
    lengths = [ids.shape[1]] * len(ids) if lengths is None else [int(length) for length in lengths]
    return [collapse(row[:length], blank) for row, length in zip(ids, lengths, strict=True)]


def collapse(frame_ids: Sequence[int] | np.ndarray, blank: int) -> list[Token]:
    """Join repeated frame labels `(T,)` and drop the blank and padding (-100)."""
    ids = np.asarray(frame_ids, dtype=np.int64)
    if not len(ids):
        return []
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    runs = zip(ids[starts].tolist(), starts.tolist(), [*starts[1:].tolist(), len(ids)], strict=True)
    return [Token(label, start, end) for label, start, end in runs if label not in (blank, PADDING)]


def check_shape(scores, blank: int) -> None:
    """Refuse scores that are not `(B, T, V)` with the blank below V.

    Raises:
        ValueError: They are not.
    """
    if scores.ndim != 3 or not 0 <= blank < scores.shape[-1]:
        raise ValueError(f"expected logits (B, T, V) with V above the blank id {blank}, found shape {tuple(scores.shape)}")


def decode_frames(frame_ids: np.ndarray, tokenizer, blank: int) -> list[str]:
    """Turn frame labels `(B, T)`, padded with -100, into strings; frames of padding never become symbols."""
    return [labels_to_text([token.id for token in collapse(row, blank)], tokenizer) for row in frame_ids]


def labels_to_text(labels: Sequence[int], tokenizer) -> str:
    """Turn label ids, without blanks and not to be collapsed again, into the target's string."""
    labels = [int(label) for label in labels if label != PADDING]
    if not labels:  # Wav2Vec2PhonemeCTCTokenizer cannot decode an empty list
        return ""
    return tokenizer.decode(labels, group_tokens=False, skip_special_tokens=False)
