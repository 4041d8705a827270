"""Edit distance between phoneme strings that asks how far apart two phonemes are, not only whether they differ.

Letters in shapes: N pairs, K distinct symbols, L longest reference and M longest hypothesis of a batch.
"""

import numpy as np

from hfasr.evaluation.edits import split_tokens
from hfasr.text.phonetic_features import FEATURES, feature_differences, is_known

_INDEL = len(FEATURES)
_BATCH = 512


def feature_edits(references: list[str], hypotheses: list[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Least cost of turning each hypothesis into its reference.

    A substitution costs the share of articulatory features in which the two phonemes differ, an insertion or a deletion 1: the
    `hamming_feature_edit_distance` of PanPhon. Costs are whole multiples of 1/24 and are added as integers.

    Args:
        references, hypotheses: phoneme strings, N each, as `check_pairs` returns them.

    Returns:
        costs float64 `(N,)`, reference lengths int64 `(N,)`, and the symbols without features, which cost 1 against any other.
    """
    sides = [[split_tokens(text, "phoneme") for text in texts] for texts in (references, hypotheses)]
    symbols = sorted({symbol for side in sides for tokens in side for symbol in tokens})
    number = {symbol: index for index, symbol in enumerate(symbols)}
    differences = feature_differences(symbols)

    costs = np.zeros(len(references), np.int64)
    # Pairs of like length share a batch, so that little of it is padding.
    pairs = [index for index in range(len(references)) if sides[0][index] != sides[1][index]]
    pairs.sort(key=lambda index: (len(sides[0][index]), len(sides[1][index])))
    for first in range(0, len(pairs), _BATCH):
        batch = pairs[first : first + _BATCH]
        numbered = [[[number[symbol] for symbol in side[index]] for index in batch] for side in sides]
        costs[batch] = _least_costs(*numbered, differences)
    lengths = np.fromiter(map(len, sides[0]), np.int64, len(references))
    return costs / _INDEL, lengths, tuple(symbol for symbol in symbols if not is_known(symbol))


def _least_costs(references: list[list[int]], hypotheses: list[list[int]], differences: np.ndarray) -> np.ndarray:
    """Wagner and Fischer's recurrence, one row of every pair at a time; costs int64 `(N,)` in features.

    Along a row, cost[j] = min(from_above[j], cost[j - 1] + indel). Less j * indel, that is a running minimum, which numpy has.
    """
    reference, reference_lengths = _pad(references)
    hypothesis, hypothesis_lengths = _pad(hypotheses)
    ramp = _INDEL * np.arange(len(hypothesis) + 1)[:, None]
    row = np.repeat(ramp, len(references), axis=1)
    finals = row[hypothesis_lengths, np.arange(len(references))]
    for place, symbols in enumerate(reference, start=1):
        above = row + _INDEL
        if len(hypothesis):
            np.minimum(above[1:], row[:-1] + differences[symbols, hypothesis], out=above[1:])
        row = np.minimum.accumulate(above - ramp, axis=0) + ramp
        ending = np.flatnonzero(reference_lengths == place)
        finals[ending] = row[hypothesis_lengths[ending], ending]
    return finals


def _pad(numbered: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as one array `(longest, N)`, ends filled with 0, and lengths `(N,)`."""
    lengths = np.fromiter(map(len, numbered), np.int64, len(numbered))
    padded = np.zeros((len(numbered), lengths.max()), np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = [number for numbers in numbered for number in numbers]
    return np.ascontiguousarray(padded.T), lengths
