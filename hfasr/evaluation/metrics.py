"""Error rates of references and hypotheses, with edit counts per utterance and confidence intervals.

The classes `WER`, `CER`, `PER` and `PFER` stand in `evaluate_metrics`, because `import evaluate` takes seconds.
Letters in shapes: N utterances.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hfasr.evaluation.edits import align, check_pairs, confusions, count_errors, count_hits, count_tokens, pack_pairs
from hfasr.evaluation.groups import group_places, known_seconds
from hfasr.evaluation.phonetic import feature_edits

__all__ = [
    "PhoneticScore",
    "Score",
    "align",
    "confidence_interval",
    "confusions",
    "error_rate",
    "evaluate_predictions",
    "phonetic_score",
    "score",
]
RATE_NAMES = {"word": "wer", "character": "cer", "phoneme": "per"}
_SECOND_UNITS = {"word": "character", "character": "word"}


@dataclass(frozen=True)
class Score:
    """Error rate of a set of utterances and the evidence for it.

    `rate` is `errors / reference_length`, errors being substitutions + deletions + insertions, so it can exceed 1. An utterance
    with an empty reference adds its insertions to the errors and nothing to the length. Where every reference is empty the rate
    is the number of insertions, as in jiwer: 0.0 if nothing was said and nothing recognised.
    """

    rate: float
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    errors: int
    reference_length: int
    utterance_errors: np.ndarray = field(repr=False, compare=False)
    """Edits of each utterance, int64 `(N,)`."""
    utterance_lengths: np.ndarray = field(repr=False, compare=False)
    """Reference tokens of each utterance, int64 `(N,)`."""


def score(references: Iterable[str], hypotheses: Iterable[str], unit: str = "word") -> Score:
    """Count the edits between references and hypotheses; equal to jiwer in the rate and in each count.

    Args:
        references, hypotheses: N texts each.
        unit: "word", split at any whitespace (jiwer splits at spaces only: a single tab or no-break space joins its words);
            "character", Unicode code points of the stripped text, inner spaces included; "phoneme", symbols between whitespace
            and word bars `|`, the bars not counted (as in the UniSpeech protocol).

    Raises:
        TypeError: a bare string instead of a list, or an element that is not a string.
        ValueError: no utterances, different counts, or an unknown unit.

    >>> score(["k e l d[ i", "ɑ l"], ["k i l d[ i", "ɑ l e"], unit="phoneme")
    Score(rate=0.2857142857142857, hits=6, substitutions=1, deletions=0, insertions=1, errors=2, reference_length=7)
    """
    packed_references, packed_hypotheses = pack_pairs(*check_pairs(references, hypotheses, unit), unit)
    utterance_errors = count_errors(packed_references, packed_hypotheses)
    utterance_lengths = count_tokens(packed_references)
    errors, length = int(utterance_errors.sum()), int(utterance_lengths.sum())
    hits = int(count_hits(packed_references, packed_hypotheses, utterance_errors).sum())
    insertions = errors - length + hits
    deletions = insertions + length - int(count_tokens(packed_hypotheses).sum())
    return Score(
        rate=_divide(errors, length),
        hits=hits,
        substitutions=errors - deletions - insertions,
        deletions=deletions,
        insertions=insertions,
        errors=errors,
        reference_length=length,
        utterance_errors=utterance_errors,
        utterance_lengths=utterance_lengths,
    )


def error_rate(references: Iterable[str], hypotheses: Iterable[str], unit: str = "word") -> float:
    """The `rate` of `score` alone, in half the time.

    Raises:
        TypeError, ValueError: as `score`.
    """
    packed_references, packed_hypotheses = pack_pairs(*check_pairs(references, hypotheses, unit), unit)
    errors = count_errors(packed_references, packed_hypotheses)
    return _divide(int(errors.sum()), int(count_tokens(packed_references).sum()))


@dataclass(frozen=True)
class PhoneticScore:
    """Phonetic feature error rate of a set of utterances and the evidence for it; empty references as in `Score`."""

    rate: float
    errors: float
    reference_length: int
    unknown: tuple[str, ...]
    """Symbols without articulatory features; they cost 1 against any other."""
    utterance_errors: np.ndarray = field(repr=False, compare=False)
    """Cost of each utterance, float64 `(N,)`."""
    utterance_lengths: np.ndarray = field(repr=False, compare=False)
    """Reference phonemes of each utterance, int64 `(N,)`."""


def phonetic_score(references: Iterable[str], hypotheses: Iterable[str]) -> PhoneticScore:
    """Phonetic feature error rate (PFER): the phoneme error rate with near misses counted in part.

    PFER = least sum of costs / reference phonemes, where a substitution costs the share of the 24 articulatory features in which
    the phonemes differ (1/24 for d and t) and an insertion or a deletion 1. This is PanPhon's `hamming_feature_edit_distance`
    (Mortensen et al. 2016) over the number of reference phonemes, the measure of Taguchi et al. 2023, "Universal Automatic
    Phonetic Transcription into the International Phonetic Alphabet".

    Args:
        references, hypotheses: N phoneme strings each, in IPA or espeak-ng's mnemonics; word bars are not counted.

    Raises:
        TypeError, ValueError: as `score`.
    """
    references, hypotheses = check_pairs(references, hypotheses, "phoneme")
    utterance_errors, utterance_lengths, unknown = feature_edits(references, hypotheses)
    errors, length = float(utterance_errors.sum()), int(utterance_lengths.sum())
    return PhoneticScore(_divide(errors, length), errors, length, unknown, utterance_errors, utterance_lengths)


def confidence_interval(score: Score | PhoneticScore, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the rate over utterances (Bisani and Ney 2004, "Bootstrap estimates for confidence
    intervals in ASR performance evaluation").

    Utterances are drawn as if independent: where few speakers say many of them, the truth is wider.

    Args:
        level: share of resampled rates inside the interval, above 0 and below 1.
        resamples: number of sets drawn, each as large as the scored one.

    Raises:
        ValueError: a level or a number of resamples out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a share above 0 and below 1, such as 0.95")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1")
    return _interval(score.utterance_errors, score.utterance_lengths, level, resamples, seed)


def resample(counts: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Sum counts over utterances drawn with replacement, as many as there are, the same ones for every kind of count.

    Args:
        counts: K kinds of counts `(K, N)`.
        resamples: B sets to draw.

    Returns:
        float64 `(B, K)`.
    """
    kinds, utterances = counts.shape
    random = np.random.default_rng(seed)
    sums = np.empty((resamples, kinds))
    # At most some 4 million drawn indices at a time, whatever the number of utterances.
    block = max(1, 4_000_000 // utterances)
    for first in range(0, resamples, block):
        drawn = random.integers(utterances, size=(min(block, resamples - first), utterances))
        for kind in range(kinds):
            sums[first : first + len(drawn), kind] = counts[kind].take(drawn).sum(axis=1)
    return sums


def resampled_rates(errors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Divide sums of errors by sums of lengths, both `(B,)`; without any length the rate is the number of errors, as in `Score`."""
    return np.where(lengths > 0, errors / np.maximum(lengths, 1), errors)


def _interval(errors: np.ndarray, lengths: np.ndarray, level: float, resamples: int, seed: int) -> tuple[float, float]:
    rates = resampled_rates(*resample(np.stack([errors, lengths]), resamples, seed).T)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def evaluate_predictions(utterances: Iterable[dict], unit: str) -> dict[str, dict]:
    """Results of each split, as `results.json` holds them.

    Args:
        utterances: rows with `split`, `reference`, `hypothesis` and, if known, `duration` in seconds.
        unit: "phoneme" gives per and pfer; "character" gives cer and, where the references have spaces, wer, because text
            without them (Chinese) has no words to count; "word" gives wer and cer. The edit counts are those of the first. A
            model of sentencepieces recognises plain text, so it is evaluated by characters.

    Returns:
        By split, in order of appearance: each rate, its 95 % interval as `<rate>_ci95`, hits, substitutions, deletions,
        insertions, reference_length, utterances and seconds; and `groups`, rates with intervals, utterances and seconds of each group
        of `group_places`.

    Raises:
        KeyError: a row without one of the first three.
        TypeError, ValueError: as `score`.
    """
    splits: dict[str, list[dict]] = {}
    for utterance in utterances:
        splits.setdefault(utterance["split"], []).append(utterance)
    return {name: _evaluate_split(rows, unit) for name, rows in splits.items()}


def split_rates(rows: list[dict], unit: str) -> dict[str, Score | PhoneticScore]:
    """Score the rows of one split by each rate that its unit has, as told in `evaluate_predictions`."""
    references, hypotheses = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
    rates = {RATE_NAMES[unit]: score(references, hypotheses, unit)}
    if unit == "phoneme":
        rates["pfer"] = phonetic_score(references, hypotheses)
    elif unit == "word" or any(" " in reference.strip() for reference in references):
        second = _SECOND_UNITS[unit]
        rates[RATE_NAMES[second]] = score(references, hypotheses, second)
    return rates


def main_split(splits: Iterable[str]) -> str:
    """Return the split that stands for the model: the first one to test on, such as "test" or "test_clean", else the first."""
    splits = list(splits)
    return next((split for split in splits if split.startswith("test")), splits[0])


def _evaluate_split(rows: list[dict], unit: str) -> dict:
    rates = split_rates(rows, unit)
    first, everywhere = rates[RATE_NAMES[unit]], np.arange(len(rows))
    counts = {name: getattr(first, name) for name in ("hits", "substitutions", "deletions", "insertions", "reference_length")}
    groups = {
        column: {name: _rates_at(rates, places, rows) for name, places in members.items()} for column, members in group_places(rows).items()
    }
    return _rates_at(rates, everywhere, rows) | counts | {"groups": groups}


def _rates_at(rates: Mapping[str, Score | PhoneticScore], places: np.ndarray, rows: list[dict]) -> dict:
    """Rates and intervals of some rows of a split, and how many and how long they are."""
    results = {}
    for name, rate in rates.items():
        errors, lengths = rate.utterance_errors[places], rate.utterance_lengths[places]
        results[name] = _divide(errors.sum().item(), lengths.sum().item())
        results[f"{name}_ci95"] = list(_interval(errors, lengths, 0.95, 1000, 0))
    seconds = round(sum(known_seconds(rows[place]) for place in places.tolist()), 3)
    return results | {"utterances": len(places), "seconds": seconds}


def _divide(errors: float, length: int) -> float:
    return errors / length if length else float(errors)
