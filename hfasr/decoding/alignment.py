"""Log-probabilities and the labels that were said -> the most probable frames of each label.

Shapes: T output frames, V vocabulary, L labels.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from hfasr.decoding.greedy import collapse
from hfasr.decoding.hypothesis import Hypothesis, Token

STAR = -1
"""The label of a stretch that the text leaves out: any sounds, or none."""

# torchaudio's aligner takes about 2 bytes for each frame and label, this module's own one a few hundred MB at most
_WHOLE = 30_000_000
_CHECKPOINT_FRAMES = 4096
# sums are brought back to 0 this often, because float32 holds 7 digits
_LEVEL_FRAMES = 64
# what a frame of a star costs more than the best symbol there, so that silence around it and what the text does say stay outside
_STAR_COST = 0.1


def align_labels(log_probs: torch.Tensor | np.ndarray, labels: Sequence[int], *, blank: int) -> Hypothesis:
    """Find the most probable path of a CTC model that says given labels (Graves et al. 2006, restricted to one labelling).

    Short utterances go through `torchaudio.functional.forced_align`, whose memory grows with T x L. Longer ones, and those with a
    star, go through the same Viterbi search with checkpoints (Grice et al. 1997): the scores of all labels are kept for every
    4096th frame, and the path in between is found again from them, so that 3 h against 100,000 labels take under 1 GB. The path is the
    best of all in either way; no part of it is pruned.

    Args:
        log_probs: `(T, V)`, natural logarithms, on any device.
        labels: L ids in order, without blanks. STAR stands for what the text leaves out; it scores as the best symbol or blank of
            each frame, less a little, and may take no frame.
        blank: Id of the CTC blank.

    Returns:
        A token for each of the L labels in order, with the frames that the path gives it; between them are blanks. Its confidence is
        the mean probability of its label over these frames. A star has the id STAR, the confidence 0, and where nothing was left
        out no frame. The score is the logarithm of the path's probability.

    Raises:
        ValueError: `log_probs` is not two-dimensional or holds NaN, there are no labels, one is the blank or not below V, they need
            more frames than there are, or no path of theirs has a probability above 0.
    """
    log_probs = torch.as_tensor(log_probs)
    labels = [int(label) for label in labels]
    _check(log_probs, labels, blank)
    if STAR in labels or len(log_probs) * len(labels) > _WHOLE:
        tokens = _align_in_parts(log_probs.cpu().numpy(), labels, blank)
    else:
        from torchaudio.functional import forced_align

        ids = torch.tensor([labels], dtype=torch.int32, device=log_probs.device)
        path, _ = forced_align(log_probs.float()[None].contiguous(), ids, blank=blank)
        tokens = collapse(path[0].cpu().numpy(), blank)
    found = _scored(log_probs.cpu().numpy(), tokens, blank)
    if len(tokens) != len(labels) or not np.isfinite(found.score):
        raise ValueError("the model gives every path of these labels the probability 0; are some of its outputs switched off?")
    return found


def frames_needed(labels: Sequence[int]) -> int:
    """Return the fewest frames that CTC can say labels in: one for each but the stars, and a blank between two equal neighbours."""
    said = [label for label in labels if label != STAR]
    return len(said) + sum(first == second for first, second in pairwise(said))


def _check(log_probs: torch.Tensor, labels: list[int], blank: int) -> None:
    if log_probs.ndim != 2 or not 0 <= blank < log_probs.shape[-1]:
        raise ValueError(f"expected log_probs (T, V) with V above the blank id {blank}, found shape {tuple(log_probs.shape)}")
    if not labels:
        raise ValueError("there are no labels to align; give the text that was said")
    if (STAR, STAR) in pairwise(labels):
        raise ValueError("two stars follow each other; one stands for any stretch")
    for label in set(labels) - {STAR}:
        if label == blank or not 0 <= label < log_probs.shape[1]:
            what = "the blank" if label == blank else f"not among the {log_probs.shape[1]} outputs of the model"
            raise ValueError(f"label {label} is {what}; give ids of symbols, without blanks")
    if torch.isnan(log_probs).any():
        raise ValueError("log_probs hold NaN; is the model damaged, or half precision too small for it?")
    if (needed := frames_needed(labels)) > len(log_probs):
        raise ValueError(f"the text is too long for the audio: its {len(labels)} symbols need {needed} frames, there are {len(log_probs)}")


def _scored(log_probs: np.ndarray, tokens: list[Token], blank: int) -> Hypothesis:
    score, place, confidences = 0.0, 0, []
    for token in tokens:
        score += float(log_probs[place : token.start_frame, blank].sum(dtype=np.float64))
        place = max(place, token.end_frame)
        frames = log_probs[token.start_frame : token.end_frame]
        if token.id == STAR:
            score += float((frames.max(-1) - _STAR_COST).sum(dtype=np.float64)) if len(frames) else 0.0
            confidences.append(0.0)
        else:
            score += float(frames[:, token.id].sum(dtype=np.float64))
            confidences.append(float(np.exp(frames[:, token.id]).mean()))
    score += float(log_probs[place:, blank].sum(dtype=np.float64))
    return Hypothesis(tuple(tokens), score, tuple(confidences))


def _align_in_parts(log_probs: np.ndarray, labels: list[int], blank: int) -> list[Token]:
    trellis, frames = _Trellis(log_probs, labels, blank), len(log_probs)
    starts = range(0, frames, _CHECKPOINT_FRAMES)
    checkpoints, scores = [], trellis.first()
    for start in starts:
        checkpoints.append(scores)
        scores = trellis.forward(scores, start, min(start + _CHECKPOINT_FRAMES, frames))
    state, path = trellis.last(scores), np.empty(frames, np.int64)
    for start in reversed(starts):
        state = trellis.backward(checkpoints.pop(), start, state, path[start : start + _CHECKPOINT_FRAMES])
    # the path never goes back, so that a label's frames lie where its state would be sorted in
    states = 2 * np.arange(len(labels)) + 1
    firsts, ends = (np.searchsorted(path, states, side=side).tolist() for side in ("left", "right"))
    return [Token(label, first, end) for label, first, end in zip(labels, firsts, ends, strict=True)]


_Scores = tuple[np.ndarray, np.ndarray]
"""Logarithm of the best path to each blank, the j-th of which is before label j, `(L + 1,)`, and to each label `(L,)`."""


class _Trellis:
    """Best paths over frames and labels. Blank j is state 2j, label j is state 2j + 1."""

    def __init__(self, log_probs: np.ndarray, labels: list[int], blank: int):
        ids = np.array(labels)
        symbols, self._columns = np.unique(ids, return_inverse=True)
        self._log_probs = np.ascontiguousarray(log_probs[:, symbols], dtype=np.float32)
        self._blank = np.ascontiguousarray(log_probs[:, blank], dtype=np.float32)
        self._star_last, self._reach = ids[-1] == STAR, 1
        if symbols[0] == STAR:
            self._log_probs[:, 0] = log_probs.max(-1) - _STAR_COST
            self._reach = 2
        # added to a score, it closes the way between equal labels, which need a blank
        self._repeat = np.where(np.append(False, ids[1:] == ids[:-1]), -np.inf, 0).astype(np.float32)
        self._after_star = np.flatnonzero(ids[:-1] == STAR) + 1
        joined = self._after_star[self._after_star > 1]
        self._joined = joined[ids[joined] != ids[joined - 2]]

    def first(self) -> _Scores:
        """Return the scores before the first frame."""
        blanks, labels = (np.full(len(self._columns) + more, -np.inf, np.float32) for more in (1, 0))
        blanks[0] = 0
        return blanks, labels

    def last(self, scores: _Scores) -> int:
        """Return the best state to end in."""
        blanks, labels = scores
        ends = np.empty(len(blanks) + len(labels), np.float32)
        ends[::2], ends[1::2] = blanks, labels
        first = max(0, len(ends) - (4 if self._star_last else 2))
        return first + int(ends[first:].argmax())

    def forward(self, scores: _Scores, start: int, end: int) -> _Scores:
        """Return the scores after the frames from `start` to `end`, end exclusive."""
        blanks, labels = (values.copy() for values in scores)
        self._run(blanks, labels, 0, start, end, None)
        return blanks, labels

    def backward(self, scores: _Scores, start: int, state: int, path: np.ndarray) -> int:
        """Fill in the states of the frames from `start` on, `path` `(K,)`, whose last is `state`; return the state before them."""
        # no path comes from further away in these frames
        low = max(0, state // 2 - self._reach * len(path))
        high = min(len(self._columns), state // 2 + 1)
        back = np.zeros((len(path), 2 * (high - low) + 1), np.uint8)
        self._run(scores[0][low : high + 1].copy(), scores[1][low:high].copy(), low, start, start + len(path), back)
        for frame in reversed(range(len(path))):
            path[frame] = state
            state -= int(back[frame, state - 2 * low])
        return state

    def _run(self, blanks: np.ndarray, labels: np.ndarray, low: int, start: int, end: int, back: np.ndarray | None) -> None:
        """Go over frames in place, for the labels from `low` on; fill in how many states back each state came from."""
        high = low + len(labels)
        columns, repeat = self._columns[low:high], self._repeat[low + 1 : high]
        after = self._after_star[(self._after_star > low) & (self._after_star < high)] - low
        joined = self._joined[(self._joined > low + 1) & (self._joined < high)] - low
        best, emitted = np.empty_like(labels), np.empty_like(labels)
        for frame in range(start, end):
            best[0] = -np.inf
            np.add(labels[:-1], repeat, out=best[1:])
            if back is not None:
                ways = back[frame - start]
                ways[1::2] = np.where(blanks[:-1] > best, 1, 2)
                ways[2::2] = labels > blanks[1:]
            np.maximum(best, blanks[:-1], out=best)
            # over a star that takes no frame, from the blank and from the label before it
            for places, before, states in ((after, blanks[after - 1], 3), (joined, labels[joined - 2], 4)) if self._reach > 1 else ():
                if back is not None:
                    ways[2 * places[before > best[places]] + 1] = states
                best[places] = np.maximum(best[places], before)
            if back is not None:
                ways[1::2][labels >= best] = 0
            np.maximum(blanks[1:], labels, out=blanks[1:])
            np.maximum(labels, best, out=labels)
            labels += np.take(self._log_probs[frame], columns, out=emitted, mode="clip")
            blanks += self._blank[frame]
            if frame % _LEVEL_FRAMES == 0 and np.isfinite(level := max(blanks.max(), labels.max())):
                blanks -= level
                labels -= level
