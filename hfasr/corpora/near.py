"""Texts that differ in a few characters, found without comparing all pairs."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

# A hash of a substring is sum(mixed(code point) * _BASE**place), modulo 2**64; an odd base has an inverse there.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)

# Of more texts than this that share a piece, only those that stand near in alphabetical order are compared.
_CROWD = 64

_PAIRS_AT_ONCE = 500_000


def near_pairs(texts: Sequence[str], others: Sequence[str] | None = None, *, similarity: float = 0.9) -> np.ndarray:
    """Find the pairs of texts within an edit distance of `1 - similarity` of the longer one's characters.

    A text cut in d + 1 pieces keeps one of them whole through d edits, not far from where it was (Pass-Join, Li et al. 2011,
    https://doi.org/10.14778/2078331.2078340). Pairs that share such a piece are then compared, so what is found is exact. What is
    not found: only pairs all of whose shared pieces stand in over 64 texts of one length and that lie far apart in the alphabet,
    as in corpora spoken from templates. Texts too short for one edit (under 10 characters at 0.9) pair only when equal.

    Args:
        texts: Texts; code points are compared as they are, so fold them before.
        others: Pair `texts` with these; with each other when None.
        similarity: Least `1 - edit distance / length of the longer text`, from 0.7 to 1; the lower, the slower.

    Returns:
        Places `(pairs, 2)` in `texts` and in `others`, sorted; each pair once, the smaller place first where both are of `texts`.

    Raises:
        ValueError: The similarity is out of range.
    """
    if not 0.7 <= similarity <= 1:
        raise ValueError(f"similarity {similarity} is not possible; give 0.7 to 1, such as 0.9")
    if others is None:
        table = _Table(texts, _alphabetical_ranks(texts))
        found = list(_joined(table, table, similarity, same=True))
    else:
        ranks = _alphabetical_ranks([*texts, *others])
        ours, theirs = _Table(texts, ranks[: len(texts)]), _Table(others, ranks[len(texts) :])
        found = list(_joined(ours, theirs, similarity))
        found += [pairs[:, ::-1] for pairs in _joined(theirs, ours, similarity, equal_lengths=False)]
    pairs = np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)
    pairs = np.sort(pairs, axis=1) if others is None else pairs
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _alphabetical_ranks(texts: Sequence[str]) -> np.ndarray:
    ranks = np.empty(len(texts), dtype=np.int64)
    ranks[np.array(sorted(range(len(texts)), key=texts.__getitem__), dtype=np.int64)] = np.arange(len(texts))
    return ranks


def _joined(short: "_Table", long: "_Table", similarity: float, *, same: bool = False, equal_lengths: bool = True) -> Iterator[np.ndarray]:
    """Yield pairs `(pairs, 2)` of a text of `short` and one of `long` that is longer, or as long."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    for length in long.lengths:
        edits = math.floor((1 - similarity) * length + 1e-9)
        short.forget_below(length - edits)
        if long is not short:
            long.forget_below(length)
        for shorter in range(length - edits, length + equal_lengths):
            if shorter not in short.lengths:
                continue
            ours, theirs = short.group(shorter), long.group(length)
            candidates = _candidates(ours, theirs, edits, same=same and shorter == length)
            for start in range(0, len(candidates), _PAIRS_AT_ONCE):
                first, second = np.divmod(candidates[start : start + _PAIRS_AT_ONCE], len(theirs.places))
                first, second = ours.places[first], theirs.places[second]
                distances = cpdist(short.texts[first], long.texts[second], scorer=Levenshtein.distance, score_cutoff=edits, dtype=np.int32)
                near = distances <= edits
                yield np.stack([first[near], second[near]], axis=1)


def _candidates(short: "_Group", long: "_Group", edits: int, *, same: bool) -> np.ndarray:
    """Return `place in short * texts in long + place in long` of the pairs that share a piece, each once and sorted."""
    found = [np.zeros(0, dtype=np.int64)]
    longer_by = long.length - short.length
    for number, (start, size) in enumerate(_pieces(short.length, edits + 1)):
        hashes, order = short.sorted_hashes(start, size)
        # the edits before the piece move it, and so must those behind it (Pass-Join, multi-match-aware selection)
        rest = edits - number
        lowest = max(0, start - number, start + longer_by - rest)
        highest = min(long.length - size, start + number, start + longer_by + rest)
        for moved in range(lowest, highest + 1):
            probes = long.hashes(moved, size)
            left = np.searchsorted(hashes, probes)
            hits = np.flatnonzero(hashes[np.minimum(left, len(hashes) - 1)] == probes)
            left, right = left[hits], np.searchsorted(hashes, probes[hits], side="right")
            left, right = _less_crowded(left, right, short.ranks[order], long.ranks[hits])
            counts = right - left
            theirs = np.repeat(hits, counts)
            ours = order[np.repeat(left - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())]
            keep = ours < theirs if same else slice(None)
            found.append(np.unique(ours[keep] * len(long.places) + theirs[keep]))
    return np.unique(np.concatenate(found))


def _pieces(length: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield start and size of the pieces of nearly equal size that a text is cut into."""
    bounds = [length * number // count for number in range(count + 1)]
    return ((start, end - start) for start, end in itertools.pairwise(bounds))


def _less_crowded(left: np.ndarray, right: np.ndarray, ranks: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Narrow each range of over `_CROWD` texts, sorted by rank, to those around the wanted rank."""
    crowded = np.flatnonzero(right - left > _CROWD)
    if not len(crowded):
        return left, right
    low, high = left[crowded].copy(), right[crowded].copy()
    while (open_ := low < high).any():
        middle = np.minimum((low + high) // 2, len(ranks) - 1)
        above = ranks[middle] < wanted[crowded]
        low, high = np.where(open_ & above, middle + 1, low), np.where(open_ & ~above, middle, high)
    left, right = left.copy(), right.copy()
    left[crowded] = np.maximum(left[crowded], low - _CROWD // 2)
    right[crowded] = np.minimum(right[crowded], low + _CROWD // 2)
    return left, right


class _Table:
    """Texts by length.

    Args:
        texts: All of them.
        ranks: Place of each in alphabetical order `(texts,)`.
    """

    def __init__(self, texts: Sequence[str], ranks: np.ndarray):
        self.texts = np.empty(len(texts), dtype=object)
        self.texts[:] = texts
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        # alphabetical within a length, so that texts of equal hash stand in alphabetical order too
        order = np.lexsort((ranks, lengths))
        found, starts = np.unique(lengths[order], return_index=True)
        self.lengths = dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}
        self.lengths.pop(0, None)
        self._ranks, self._groups = ranks, {}

    def group(self, length: int) -> "_Group":
        """Return the texts of one length."""
        if length not in self._groups:
            places = self.lengths[length]
            self._groups[length] = _Group(self.texts[places], places, self._ranks[places], length)
        return self._groups[length]

    def forget_below(self, length: int) -> None:
        """Free the hashes of texts that are too short to be near those still to come."""
        for old in [old for old in self._groups if old < length]:
            del self._groups[old]


class _Group:
    """The texts of one length, with a hash of every prefix."""

    def __init__(self, texts: np.ndarray, places: np.ndarray, ranks: np.ndarray, length: int):
        self.places, self.ranks, self.length = places, ranks, length
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).reshape(-1, length).T
        powers = np.cumprod(np.full(length, _BASE, dtype=np.uint64))
        self._prefixes = np.zeros((length + 1, len(places)), dtype=np.uint64)
        np.cumsum(_mixed(codes.astype(np.uint64)) * powers[:, None], axis=0, out=self._prefixes[1:])
        self._sorted = {}

    def hashes(self, start: int, size: int) -> np.ndarray:
        """Return the hash of one substring of each text `(texts,)`."""
        return (self._prefixes[start + size] - self._prefixes[start]) * np.uint64(pow(_INVERSE, start, 2**64))

    def sorted_hashes(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the hashes of one substring, sorted, and the text that each is of."""
        if (start, size) not in self._sorted:
            hashes = self.hashes(start, size)
            order = np.argsort(hashes, kind="stable")
            self._sorted[start, size] = hashes[order], order
        return self._sorted[start, size]


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread code points over 64 bits (the finalizer of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    return values ^ (values >> np.uint64(33))
