"""Tokens and minimum edits of many (reference, hypothesis) pairs at once, on rapidfuzz.

Letters in shapes: N pairs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein
from rapidfuzz.process import cpdist

UNITS = ("word", "character", "phoneme")
WORD_BAR = "|"
_PRIVATE_USE = range(0xE000, 0xF900)
# Small enough for the arrays of a block to stay in the processor's cache.
_BLOCK_LINES = 2048
_WIDE_SPACES = np.array([0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000], np.uint16)
# A code can be dropped between two pairs, because codes are only compared within a pair.
_MOST_CODES = 1_000_000


def split_tokens(text: str, unit: str) -> list[str]:
    """Tokens that are counted in `text`.

    Args:
        unit: "word", split at whitespace; "character", Unicode code points of the stripped text, inner spaces included, as
            jiwer counts them; "phoneme", symbols between whitespace and word bars, and a bar is never counted.

    Raises:
        ValueError: another unit.
    """
    if unit == "word":
        return text.split()
    if unit == "character":
        return list(text.strip())
    if unit == "phoneme":
        return text.replace(WORD_BAR, " ").split()
    raise ValueError(f"unit is {unit!r}, expected one of {', '.join(UNITS)}")


def check_pairs(references: Iterable[str], hypotheses: Iterable[str], unit: str) -> tuple[list[str], list[str]]:
    """Both arguments as lists, checked.

    Raises:
        TypeError: a bare string instead of a list, or an element that is not a string.
        ValueError: no pairs, different counts, or an unknown unit.
    """
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}, expected one of {', '.join(UNITS)}")
    lists = []
    for name, lines in (("references", references), ("hypotheses", hypotheses)):
        if isinstance(lines, str | bytes):
            raise TypeError(f"{name} is one {type(lines).__name__}, expected a list of strings: pass [{lines[:40]!r}]")
        lines = list(lines)
        wrong = [kind for kind in set(map(type, lines)) if not issubclass(kind, str)]
        if wrong:
            index = next(i for i, line in enumerate(lines) if not isinstance(line, str))
            raise TypeError(f"{name}[{index}] is {lines[index]!r} ({type(lines[index]).__name__}), expected a string")
        lists.append(lines)
    if len(lists[0]) != len(lists[1]):
        raise ValueError(f"{len(lists[0])} references but {len(lists[1])} hypotheses, expected one hypothesis for each reference")
    if not lists[0]:
        raise ValueError("references and hypotheses are empty lists, expected at least one utterance")
    return lists[0], lists[1]


class _Codes(dict):
    """Token -> one code point, given out in order of appearance."""

    def __missing__(self, token: str) -> str:
        code = self[token] = chr(256 + len(self))
        return code


def _pack_by_dict(references: list[str], hypotheses: list[str], unit: str) -> tuple[list[str], list[str]]:
    codes = _Codes()
    packed = ([], [])
    for pair in zip(references, hypotheses, strict=True):
        if len(codes) > _MOST_CODES:
            codes.clear()
        for side, text in zip(packed, pair, strict=True):
            side.append("".join([codes[token] for token in split_tokens(text, unit)]))
    return packed


def _is_separator(units: np.ndarray) -> np.ndarray:
    """Mask of the UTF-16 code units at which `str.split` splits, and of the word bar."""
    separator = (units == ord(WORD_BAR)) | (units == 0x20) | (units == 0xA0) | (units == 0x85)
    separator |= (units - np.uint16(0x09)) <= 0x0D - 0x09
    separator |= (units - np.uint16(0x1C)) <= 0x1F - 0x1C
    if units.max() >= 0x1680:
        separator |= np.isin(units, _WIDE_SPACES)
    return separator


class _LongSymbols:
    """Private-use code points for symbols of two to four UTF-16 units, given out in order of appearance.

    Keys are the units packed into one uint64. They are found through a hash without collisions: a multiplier is drawn until
    no two known keys share a slot, so that one comparison tells known from new.
    """

    def __init__(self):
        self._known = np.empty(0, np.uint64)
        self._multiplier = np.uint64(1)
        self._slots = np.zeros(1 << 16, np.uint64)
        self._codes = np.zeros(1 << 16, np.uint16)

    def __call__(self, keys: np.ndarray) -> np.ndarray | None:
        """Code points of `keys`, both `(K,)`; None when there are too many different keys for the scheme."""
        slots = self._hash(keys)
        unknown = self._slots.take(slots) != keys
        if unknown.any():
            if not self._learn(np.unique(keys[unknown])):
                return None
            slots = self._hash(keys)
        return self._codes.take(slots)

    def _hash(self, keys: np.ndarray) -> np.ndarray:
        return ((keys * self._multiplier) >> np.uint64(48)).astype(np.intp)

    def _learn(self, fresh: np.ndarray) -> bool:
        self._known = np.concatenate([self._known, fresh])
        if len(self._known) > 500:
            return False
        random = np.random.default_rng(0)
        slots = self._hash(self._known)
        while len(set(slots.tolist())) < len(slots):
            self._multiplier = random.integers(1 << 63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            slots = self._hash(self._known)
        self._slots[:] = 0
        self._slots[slots] = self._known
        self._codes[slots] = _PRIVATE_USE.start + np.arange(len(slots))
        return True


def _pack_by_array(lines: list[str]) -> list[str] | None:
    """Phoneme strings with each symbol replaced by one code point of the basic plane, six times as fast as `_pack_by_dict`.

    Symbols of one UTF-16 unit stay themselves; longer ones get private-use code points.

    Returns:
        One string per line, or None where this scheme does not fit: symbols of more than four units, NUL or private-use characters,
        line feeds, lone surrogates, or more than 500 different long symbols.
    """
    long_symbols = _LongSymbols()
    packed = []
    for first in range(0, len(lines), _BLOCK_LINES):
        block = lines[first : first + _BLOCK_LINES]
        try:
            # Closing separators let every symbol be read to its fifth unit without a bounds check.
            encoded = ("\n" + "\n".join(block) + "\n    ").encode("utf-16-le")
        except UnicodeEncodeError:
            return None
        units = np.frombuffer(bytearray(encoded), np.dtype("<u2"))
        line_feed = units == ord("\n")
        private = (units - np.uint16(_PRIVATE_USE.start)) < len(_PRIVATE_USE)
        if np.count_nonzero(line_feed) != len(block) + 1 or (private | (units == 0)).any():
            return None

        inside = ~_is_separator(units)
        start = np.zeros_like(inside)
        np.logical_and(~inside[:-1], inside[1:], out=start[1:])
        long_starts = np.flatnonzero(start[:-1] & inside[1:])
        keys = _read_symbols(units * inside, long_starts)
        codes = None if keys is None else long_symbols(keys)
        if codes is None:
            return None
        units[long_starts] = codes
        # numpy.compress takes a fifth of the time of indexing with the mask.
        kept = np.compress(start | line_feed, units).tobytes().decode("utf-16-le")
        packed += kept[1:-1].split("\n")
    return packed


def _read_symbols(units: np.ndarray, starts: np.ndarray) -> np.ndarray | None:
    """Symbols of two to four units as uint64, first unit lowest; None if one is longer.

    Args:
        units: UTF-16 units, separators set to 0.
    """
    four_units = np.ndarray(len(units) - 3, "<u8", units, strides=(2,))
    keys = four_units.take(starts)
    third = (keys >> np.uint64(32)) & np.uint64(0xFFFF)
    fourth = keys >> np.uint64(48)
    if (units.take(starts[(third > 0) & (fourth > 0)] + 4) > 0).any():
        return None
    keys = np.where(third > 0, keys, keys & np.uint64(0xFFFFFFFF))
    return keys


def pack_pairs(references: list[str], hypotheses: list[str], unit: str) -> tuple[list[str], list[str]]:
    """Checked pairs as strings in which each token is one code point, so that rapidfuzz compares them in C++.

    Codes agree within a pair; between pairs they may not.
    """
    # A NUL is what `count_hits` marks with.
    if unit == "character" and not any("\0" in text for text in references):
        return [text.strip() for text in references], [text.strip() for text in hypotheses]
    if unit == "phoneme":
        packed = _pack_by_array(references + hypotheses)
        if packed is not None:
            return packed[: len(references)], packed[len(references) :]
    return _pack_by_dict(references, hypotheses, unit)


def count_errors(references: list[str], hypotheses: list[str]) -> np.ndarray:
    """Least number of edits `(N,)` between packed pairs."""
    return _compare(Levenshtein.distance, references, hypotheses)


def count_tokens(packed: list[str]) -> np.ndarray:
    """Number of tokens `(N,)` of packed strings."""
    return np.fromiter(map(len, packed), np.int64, len(packed))


def count_hits(references: list[str], hypotheses: list[str], errors: np.ndarray) -> np.ndarray:
    """Equal tokens `(N,)` in the alignment that rapidfuzz, and so jiwer, chooses among those with the fewest edits.

    With n and m tokens, d edits, h hits and i insertions, h = n - d + i. So h is at least n - d + max(0, m - n) = max(n, m) - d,
    and it is at most the longest common subsequence. Where the two bounds meet, no alignment has to be made.

    Args:
        errors: `count_errors` of the same pairs.
    """
    hits = np.maximum(count_tokens(references), count_tokens(hypotheses)) - errors
    most = _compare(LCSseq.similarity, references, hypotheses)
    for index in np.flatnonzero(most > hits).tolist():
        reference, hypothesis = references[index], hypotheses[index]
        # Applied to a hypothesis of NULs, the edits leave only the hits of the reference: no Python object per edit.
        applied = Levenshtein.editops(reference, hypothesis).apply(reference, "\0" * len(hypothesis))
        hits[index] = len(hypothesis) - applied.count("\0")
    return hits


def _compare(scorer, references: list[str], hypotheses: list[str]) -> np.ndarray:
    # Threads cost more than they bring below some thousand pairs.
    workers = -1 if len(references) > 5_000 else 1
    return cpdist(references, hypotheses, scorer=scorer, dtype=np.int64, workers=workers)


def align_tokens(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Pairs of reference and hypothesis token along the alignment with the fewest edits; None marks an insertion or a deletion.

    >>> align_tokens(["k", "e", "l"], ["k", "i", "l", "e"])
    [('k', 'k'), ('e', 'i'), ('l', 'l'), (None, 'e')]
    """
    pairs = []
    for tag, i1, i2, j1, j2 in Levenshtein.opcodes(reference, hypothesis):
        if tag == "delete":
            pairs += [(token, None) for token in reference[i1:i2]]
        elif tag == "insert":
            pairs += [(None, token) for token in hypothesis[j1:j2]]
        else:
            pairs += zip(reference[i1:i2], hypothesis[j1:j2], strict=True)
    return pairs


def align(reference: str, hypothesis: str, unit: str = "word") -> list[tuple[str | None, str | None]]:
    """`align_tokens` over the tokens of two texts."""
    return align_tokens(split_tokens(reference, unit), split_tokens(hypothesis, unit))


def confusions(references: Iterable[str], hypotheses: Iterable[str], unit: str = "word") -> Counter[tuple[str | None, str | None]]:
    """How often each reference token was recognised as each hypothesis token, hits included.

    Returns:
        Counts by (reference token, hypothesis token); None on the left is an insertion, on the right a deletion.

    Raises:
        TypeError, ValueError: as in `check_pairs`.
    """
    counts = Counter()
    for reference, hypothesis in zip(*check_pairs(references, hypotheses, unit), strict=True):
        counts.update(align(reference, hypothesis, unit))
    return counts
