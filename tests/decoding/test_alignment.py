"""Alignments against the enumeration of all paths, and the two searches against each other."""

from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch

from hfasr.decoding import alignment
from hfasr.decoding.alignment import STAR, align_labels, frames_needed
from hfasr.decoding.hypothesis import Token

BLANK = 1


def random_log_probs(rng: np.random.Generator, frames: int, symbols: int = 4, sharp: float = 2.0) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal((frames, symbols)).astype(np.float32) * sharp).log_softmax(-1)


def best_by_enumeration(log_probs: torch.Tensor, labels: list[int]) -> tuple[float, list[tuple[int, int]]]:
    """Score every path of states and return the best one's score and its frames of each label, (0, 0) for none."""
    scores = log_probs.double().numpy()
    star = scores.max(-1) - alignment._STAR_COST
    best, found = -np.inf, []
    for path in product(range(2 * len(labels) + 1), repeat=len(scores)):
        if any(later < earlier for earlier, later in pairwise(path)):
            continue
        said = [state // 2 for state, _ in groupby(path) if state % 2]
        if [label for place, label in enumerate(labels) if place in said or label != STAR] != [labels[place] for place in said]:
            continue
        # what a CTC path of these states would be collapsed to, stars by their place
        symbols = [BLANK if state % 2 == 0 else labels[state // 2] if labels[state // 2] != STAR else 100 + state for state in path]
        if [symbol for symbol, _ in groupby(symbols) if symbol != BLANK] != [
            labels[place] if labels[place] != STAR else 101 + 2 * place for place in said
        ]:
            continue
        score = sum(
            scores[frame, BLANK] if state % 2 == 0 else star[frame] if labels[state // 2] == STAR else scores[frame, labels[state // 2]]
            for frame, state in enumerate(path)
        )
        if score > best:
            best = score
            held = [[frame for frame, state in enumerate(path) if state == 2 * place + 1] for place in range(len(labels))]
            found = [(frames[0], frames[-1] + 1) if frames else (0, 0) for frames in held]
    return best, found


def assert_is_a_path(tokens: tuple[Token, ...], frames: int) -> None:
    said = [token for token in tokens if token.id != STAR or token.start_frame < token.end_frame]
    assert all(0 <= token.start_frame < token.end_frame <= frames for token in said)
    for one, other in pairwise(said):
        assert other.start_frame >= one.end_frame + (one.id == other.id)


CASES = [[0], [0, 2], [0, 0], [2, 0, 2], [3, 3, 0], [STAR], [STAR, 0], [0, STAR], [0, STAR, 0], [0, STAR, 2], [STAR, 2, STAR], [2, 2, STAR]]


@pytest.mark.parametrize("labels", CASES, ids=str)
@pytest.mark.parametrize("own", [False, True], ids=["torchaudio", "checkpoints"])
def test_equals_the_enumeration_of_all_paths(labels, own, monkeypatch):
    if own:
        monkeypatch.setattr(alignment, "_WHOLE", 0)
        monkeypatch.setattr(alignment, "_CHECKPOINT_FRAMES", 2)
        monkeypatch.setattr(alignment, "_LEVEL_FRAMES", 2)
    rng = np.random.default_rng(len(labels))
    for frames in range(max(1, frames_needed(labels)), 6):
        for sharp in (0.5, 4.0):
            log_probs = random_log_probs(rng, frames, sharp=sharp)
            score, places = best_by_enumeration(log_probs, labels)
            found = align_labels(log_probs, labels, blank=BLANK)
            assert found.score == pytest.approx(score, abs=1e-4)
            assert [token.id for token in found.tokens] == labels
            held = [(token.start_frame, token.end_frame) for token in found.tokens]
            assert_is_a_path(found.tokens, frames)
            if STAR not in labels:  # a star's ends may be anywhere between equally good frames
                assert held == places
            for token, confidence in zip(found.tokens, found.confidences, strict=True):
                probabilities = log_probs[token.start_frame : token.end_frame, token.id].exp() if token.id != STAR else torch.zeros(1)
                assert confidence == pytest.approx(probabilities.mean().item(), abs=1e-6)


def test_checkpoints_find_the_path_of_torchaudio(monkeypatch):
    rng = np.random.default_rng(0)
    log_probs = random_log_probs(rng, 900, symbols=30, sharp=1.0)
    labels = [label for label in rng.integers(0, 30, 260).tolist() if label != BLANK]
    whole = align_labels(log_probs, labels, blank=BLANK)
    monkeypatch.setattr(alignment, "_WHOLE", 0)
    monkeypatch.setattr(alignment, "_CHECKPOINT_FRAMES", 64)
    parts = align_labels(log_probs, labels, blank=BLANK)
    assert parts.tokens == whole.tokens
    assert parts.score == pytest.approx(whole.score, rel=1e-6)


def spoken(rng: np.random.Generator, labels: list[int], symbols: int) -> torch.Tensor:
    """Log-probabilities of a model that is fairly sure of `labels`, each for two frames of seven."""
    log_probs = rng.standard_normal((7 * len(labels), symbols)).astype(np.float32)
    log_probs[:, BLANK] += 6
    for place, label in enumerate(labels):
        log_probs[7 * place + 3 : 7 * place + 5, label] += 14
    return torch.from_numpy(log_probs).log_softmax(-1)


def test_a_star_takes_what_the_text_leaves_out_and_nothing_where_it_leaves_nothing_out():
    rng = np.random.default_rng(0)
    labels = [label for label in rng.integers(0, 30, 80).tolist() if label != BLANK]
    log_probs = spoken(rng, labels, 30)
    found = align_labels(log_probs, [*labels[:20], STAR, *labels[40:60], STAR, *labels[60:]], blank=BLANK).tokens
    assert [token.start_frame for token in found if token.id != STAR] == [7 * place + 3 for place in (*range(20), *range(40, len(labels)))]
    first, second = (token for token in found if token.id == STAR)
    assert first.start_frame in range(20 * 7 - 2, 20 * 7 + 4)
    assert first.end_frame in range(40 * 7 - 2, 40 * 7 + 4)
    assert second.start_frame == second.end_frame


@pytest.mark.parametrize("own", [False, True], ids=["torchaudio", "checkpoints"])
def test_outputs_that_are_switched_off(own, monkeypatch):
    monkeypatch.setattr(alignment, "_WHOLE", 0 if own else 1000)
    log_probs = random_log_probs(np.random.default_rng(0), 6)
    log_probs[:, 3] = -torch.inf
    assert [token.id for token in align_labels(log_probs, [0, 2], blank=BLANK).tokens] == [0, 2]
    with pytest.raises(ValueError, match="every path of these labels the probability 0"):
        align_labels(log_probs, [0, 3], blank=BLANK)


@pytest.mark.parametrize(
    ("log_probs", "labels", "message"),
    [
        (torch.zeros(1, 3, 4), [0], r"expected log_probs \(T, V\) with V above the blank id 1, found shape \(1, 3, 4\)"),
        (torch.zeros(3, 4), [], "no labels to align"),
        (torch.zeros(3, 4), [0, BLANK], "label 1 is the blank"),
        (torch.zeros(3, 4), [4], "label 4 is not among the 4 outputs"),
        (torch.zeros(3, 4), [0, STAR, STAR], "two stars follow each other"),
        (torch.full((3, 4), torch.nan), [0], "hold NaN"),
        (torch.zeros(3, 4), [0, 0, 2], "its 3 symbols need 4 frames, there are 3"),
    ],
)
def test_what_cannot_be_aligned_is_said(log_probs, labels, message):
    with pytest.raises(ValueError, match=message):
        align_labels(log_probs, labels, blank=BLANK)
