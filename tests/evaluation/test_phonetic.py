"""Phonetic feature error rate against the recurrence written out in plain Python, and against PanPhon's recorded distances."""

import random

import pytest

from hfasr.evaluation.metrics import phonetic_score
from hfasr.text.phonetic_features import FEATURES, feature_vector


def _distance(reference: list[str], hypothesis: list[str]) -> float:
    row = [float(place) for place in range(len(hypothesis) + 1)]
    for count, left in enumerate(reference, start=1):
        above, row = row, [float(count)]
        for place, right in enumerate(hypothesis, start=1):
            share = (feature_vector(left) != feature_vector(right)).mean() if left != right else 0.0
            row.append(min(above[place] + 1, row[-1] + 1, above[place - 1] + share))
    return row[-1]


def test_equals_the_recurrence_on_random_pairs():
    rng = random.Random(0)
    symbols = ["p", "b", "t[", "d[", "tS", "dZ", "ɑ", "ɑ:", "oe", "y", "ts", "ʁ", "N", "m"]
    texts = [[rng.choice(symbols) for _ in range(rng.choice([0, 1, 3, 10, 25]))] for _ in range(1400)]
    references, hypotheses = texts[:700], texts[700:]
    found = phonetic_score([" ".join(tokens) for tokens in references], [" | ".join(tokens) for tokens in hypotheses])
    expected = [_distance(left, right) for left, right in zip(references, hypotheses, strict=True)]
    assert found.utterance_errors.tolist() == pytest.approx(expected)
    assert found.utterance_lengths.tolist() == [len(tokens) for tokens in references]
    assert found.rate == pytest.approx(sum(expected) / sum(map(len, references)))
    assert found.unknown == ()


# panphon 0.22.2, Distance().hamming_feature_edit_distance of the two strings.
PANPHON = [
    ("k e l d i", "k i l t i", 2 / 24),
    ("s a l a m", "z a l a m", 1 / 24),
    ("t͡ʃ ɯ q s ɑ q", "ʃ ɯ k s ɑ", 27 / 24),
    ("ø z y n ø", "o z u n o", 3 / 24),
    ("ɡ y l d y ɾ", "k y l", 73 / 24),
    ("m aː", "n a b", 28 / 24),
    ("ʁ ɑ ɾ ŋ", "x ɑ l n", 12 / 24),
    ("f i ʃ", "v ɪ t͡s j", 30 / 24),
]


@pytest.mark.parametrize(("reference", "hypothesis", "distance"), PANPHON)
def test_equals_panphon(reference, hypothesis, distance):
    assert phonetic_score([reference], [hypothesis]).errors == pytest.approx(distance)


def test_unknown_symbols_cost_one_and_are_reported():
    found = phonetic_score(["☃ a", "☃"], ["☂ a", "☃"])
    assert (found.errors, found.unknown) == (1.0, ("☂", "☃"))


def test_never_more_than_the_phoneme_error_rate():
    assert phonetic_score(["t a"], ["d a"]).rate == 1 / len(FEATURES) / 2
