"""Lines of text -> an n-gram language model with modified Kneser-Ney smoothing, as an ARPA file.

The estimate is that of KenLM's lmplz (Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation"; smoothing of
Chen & Goodman 1998), in memory instead of on disk. A k-gram is kept as the (k-1)-grams that it ends and begins with, its suffix and
its context, so that every step is arithmetic on whole arrays.

Letters in shapes: N words of the text with `<s>` and `</s>`, C n-grams of one order, k that order, V vocabulary.
"""

import gzip
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise

import numpy as np
import pyarrow
import pyarrow.compute

from hfasr.files import temporary_beside

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
_RESERVED = (UNKNOWN, BEGIN, END)
_BEGIN = _RESERVED.index(BEGIN)
# of lmplz, where counts of counts do not allow an estimate: for n-grams seen once, twice, and more often
_FALLBACK = (0.5, 1.0, 1.5)
KENLM_ORDERS = range(2, 7)  # that KenLM reads as its packages and flashlight-text build it
_LINES, _ROWS = 10_000, 500_000  # read, and written, at a time
_LEAST_LOG = -99.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NGram:
    """A back-off model: log P(w | context) is that of the longest n-gram there is, plus the back-offs of the contexts left out."""

    words: tuple[str, ...]
    """V: `<unk>`, `<s>`, `</s>`, then the words of the text in order of first appearance."""
    grams: tuple[np.ndarray, ...]
    """For each order from 1 its n-grams, int32 `(C, k)` places in `words`; sorted by last word, then by the one before it, and so on."""
    log_probs: tuple[np.ndarray, ...]
    """For each order the base-10 logarithms of its probabilities, float32 `(C,)`; that of `<s>`, which is never predicted, is 0."""
    backoffs: tuple[np.ndarray, ...]
    """For each order but the highest base-10 logarithms, float32 `(C,)`; 0 for n-grams that nothing follows."""
    discounts: tuple[tuple[float, float, float], ...]
    """For each order what is taken from the counts 1, 2, and 3 and above."""

    @property
    def order(self) -> int:
        """Words in the longest n-grams."""
        return len(self.grams)


@dataclass
class _Order:
    """All n-grams of one order, before pruning."""

    first: np.ndarray
    """int32 `(C,)`: their first words."""
    suffix: np.ndarray | None
    """int32 `(C,)`: the shorter n-gram without the first word."""
    context: np.ndarray
    """int32 `(C,)`: the shorter n-gram without the last word."""
    counts: np.ndarray
    """int64 `(C,)`: how often they are in the text."""


def estimate_ngram(lines: Iterable[str], order: int, *, prune: Sequence[int] = ()) -> NGram:
    """Estimate an interpolated n-gram model with modified Kneser-Ney smoothing.

    Equal to `lmplz --discount_fallback` but for rounding: an order whose counts allow no estimate of its discounts, as that of single
    characters, has 0.5, 1 and 1.5, with a warning. A line is a sentence, also an empty one. Takes up to 80 bytes of memory for
    each n-gram, and 50 for each word of the text.

    Args:
        lines: Sentences, words split by spaces; symbols of any unit are words here.
        order: Words in the longest n-grams, from 1.
        prune: For each order from 1 the largest count of the n-grams that are left out, not falling; the last is also that of higher
            orders. `(0, 0, 1)` leaves out trigrams and longer ones that were seen once.

    Raises:
        TypeError: `lines` is one string.
        ValueError: There are no words, no line is long enough for the order or one holds `<s>`, `</s>` or `<unk>`, `order` is below
            1, or `prune` is not as described.
    """
    if isinstance(lines, str):
        raise TypeError("expected sentences, found one string; give it in a list, or a file's lines")
    if order < 1:
        raise ValueError(f"the order is {order}, expected 1 or more words, such as 3")
    thresholds = _thresholds(prune, order)
    words, text = _read(lines)
    orders = _count(text, len(words), order)
    del text
    adjusted = _adjusted_counts(orders)
    discounts = _with_fallback([_discounts(some, level, orders) for level, some in enumerate(adjusted)])
    kept = [found.counts > threshold for found, threshold in zip(orders, thresholds, strict=True)]
    kept[0][: len(_RESERVED)] = True
    probabilities, gammas = _interpolate(orders, adjusted, discounts, kept)
    return NGram(
        tuple(words),
        *_without_pruned(orders, kept, probabilities, gammas),
        tuple((float(some[1]), float(some[2]), float(some[3])) for some in discounts),
    )


def write_arpa(path: str | os.PathLike, ngram: NGram) -> None:
    """Write a model in the ARPA format, which KenLM and SRILM read; gzipped where the name ends in `.gz`."""
    temporary = temporary_beside(path)
    try:
        with gzip.open(temporary, "wb", 6) if os.fspath(path).endswith(".gz") else open(temporary, "wb") as file:
            sizes = "".join(f"ngram {level}={len(grams)}\n" for level, grams in enumerate(ngram.grams, 1))
            file.write(f"\\data\\\n{sizes}".encode())
            vocabulary = pyarrow.array(ngram.words, pyarrow.string())
            for level, grams in enumerate(ngram.grams):
                file.write(f"\n\\{level + 1}-grams:\n".encode())
                for start in range(0, len(grams), _ROWS):
                    rows = slice(start, start + _ROWS)
                    names = [vocabulary.take(pyarrow.array(column)) for column in grams[rows].T]
                    fields = [_numbers(ngram.log_probs[level][rows]), pyarrow.compute.binary_join_element_wise(*names, " ")]
                    if level < len(ngram.backoffs):
                        fields.append(_numbers(ngram.backoffs[level][rows]))
                    lines = pyarrow.compute.binary_join_element_wise(*fields, "\t")
                    # the strings of an array lie one after the other in its last buffer
                    file.write(pyarrow.compute.binary_join_element_wise(lines, "", "\n").buffers()[-1])
            file.write(b"\n\\end\\\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _numbers(values: np.ndarray) -> pyarrow.Array:
    return pyarrow.array(values).cast(pyarrow.string())


def _thresholds(prune: Sequence[int], order: int) -> list[int]:
    given = list(prune)
    falls = any(later < earlier for earlier, later in pairwise(given))
    if len(given) > order or any(count < 0 for count in given) or falls:
        shown = " ".join(map(str, given))
        raise ValueError(f"prune is {shown}; give at most {order} counts for order {order}, from 0 and not falling, such as 0 0 1")
    given = given or [0]
    return given + given[-1:] * (order - len(given))


def _read(lines: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Number the words of a text.

    Returns:
        The words, and the text as their numbers, int32 `(N,)`: each line between `<s>` and `</s>`.
    """
    numbers: defaultdict[bytes, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    reserved = {numbers[word.encode()] for word in _RESERVED}
    parts, rest, done = [], iter(lines), 0
    while some := list(islice(rest, _LINES)):
        # bytes are split at ASCII's spaces only, as KenLM does; a no-break space is part of a word
        rows = [line.replace("\0", " ").encode().split() for line in some]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        found = np.fromiter(map(numbers.__getitem__, chain.from_iterable(rows)), np.int32, int(lengths.sum()))
        if b"<UNK>" in numbers or (found < len(reserved)).any():
            _refuse_reserved(rows)
        ends = np.cumsum(lengths + 2)
        text = np.zeros(ends[-1], np.int32)
        text[ends - 1], text[ends - lengths - 2] = _RESERVED.index(END), _BEGIN
        text[text == 0] = found
        parts.append(text)
        done += len(some)
    if len(numbers) == len(reserved):
        raise ValueError(f"the text has no words in {done} lines; give one sentence a line")
    return [word.decode() for word in numbers], np.concatenate(parts)


def _refuse_reserved(rows: list[list[bytes]]) -> None:
    refused = [word.encode() for word in (*_RESERVED, "<UNK>")]  # KenLM reads <UNK> as <unk>
    word, row = next((word, row) for row in rows for word in row if word in refused)
    raise ValueError(f"the text holds {word.decode()}, which the model needs for itself, in {b' '.join(row).decode()!r}; remove it")


def _count(text: np.ndarray, vocabulary: int, order: int) -> list[_Order]:
    """Find the n-grams of all orders in a text `(N,)`; `<s>` is only the first word of one."""
    size = np.bincount(text, minlength=vocabulary)
    size[_BEGIN] = 0
    orders = [_Order(np.arange(vocabulary, dtype=np.int32), None, np.zeros(vocabulary, np.int32), size)]
    rank = text.copy()  # of the n-gram that ends at each place, among those of its order
    places = np.flatnonzero(text != _BEGIN)
    for level in range(2, order + 1):
        places = places[text[places - (level - 2)] != _BEGIN]
        if not len(places):
            words = level - 3  # between <s> and </s>
            raise ValueError(f"the order is {order}, but no line has more than {words} words; give an order of at most {level - 1}")
        keys = rank[places].astype(np.int64) * vocabulary + text[places - (level - 1)]
        by_key = np.argsort(keys)
        keys = keys[by_key]
        new = np.concatenate([[True], keys[1:] != keys[:-1]])
        del keys
        starts = np.flatnonzero(new)
        one = places[by_key[starts]]
        counts = np.diff(starts, append=len(new))
        orders.append(_Order(text[one - (level - 1)], rank[one], rank[one - 1], counts))
        rank[places[by_key]] = np.cumsum(new, dtype=np.int32) - 1
    return orders


def _adjusted_counts(orders: list[_Order]) -> list[np.ndarray]:
    """Return how many different words are before each n-gram; how often it is seen for the highest order and after `<s>`."""
    adjusted = []
    for found, longer in pairwise(orders):
        before = np.bincount(longer.suffix, minlength=len(found.counts))
        adjusted.append(np.where(found.first == _BEGIN, found.counts, before))
    return [*adjusted, orders[-1].counts]


def _discounts(adjusted: np.ndarray, level: int, orders: list[_Order]) -> np.ndarray | None:
    """Return the discounts of adjusted counts 0, 1, 2, and 3 and above (Chen & Goodman 1998, equation 26); None without an estimate."""
    seen = np.bincount(np.minimum(adjusted, 5), minlength=6)
    if _is_last_read(level, orders):
        # lmplz enters the last n-gram that it reads of a lower order with its count, not the adjusted one
        seen[min(adjusted[-1], 5)] -= 1
        seen[min(orders[level].counts[-1], 5)] += 1
    if seen[1:4].all():
        ratio = seen[1] / (seen[1] + 2 * seen[2])
        found = np.array([0.0, *(count - (count + 1) * ratio * seen[count + 1] / seen[count] for count in (1, 2, 3))])
        if (found >= 0).all() and (found <= range(4)).all():
            return found
    return None


def _with_fallback(discounts: list[np.ndarray | None]) -> list[np.ndarray]:
    """Put lmplz's fallback where there is no estimate."""
    if missing := ", ".join(str(level) for level, found in enumerate(discounts, 1) if found is None):
        logger.warning(
            "the counts of n-grams of order %s allow no estimate of what to take from them; %g, %g and %g are taken. That is usual for "
            "characters and phonemes, which are few; of words, the text is small or repeats its lines",
            missing,
            *_FALLBACK,
        )
    return [np.array([0.0, *_FALLBACK]) if found is None else found for found in discounts]


def _is_last_read(level: int, orders: list[_Order]) -> bool:
    """Tell whether the last n-gram of a lower order is part of the last of the highest, where all are sorted from their ends."""
    return level < len(orders) - 1 and all(orders[shorter].first[-1] != _BEGIN for shorter in range(level))


def _interpolate(
    orders: list[_Order], adjusted: list[np.ndarray], discounts: list[np.ndarray], kept: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return for each order the probabilities `(C,)`, and for each but the highest what its n-grams, as contexts, leave to shorter ones.

    What is pruned keeps its share of the counts of its context, which goes to the shorter n-grams as well.
    """
    shorter = np.full(1, 1 / (np.count_nonzero(kept[0]) - 1))  # <s> is never predicted
    probabilities, gammas = [], []
    for found, counts, discount, stays in zip(orders, adjusted, discounts, kept, strict=True):
        contexts = len(shorter)
        taken = np.where(stays, discount[np.minimum(counts, 3)], counts)
        total = np.bincount(found.context, counts, contexts)
        left = np.bincount(found.context, taken, contexts)
        gamma = np.divide(left, total, out=np.ones(contexts), where=total > 0)
        lower = shorter if found.suffix is None else shorter[found.suffix]
        shorter = (counts - taken) / total[found.context] + gamma[found.context] * lower
        probabilities.append(shorter)
        gammas.append(gamma)
    probabilities[0][_BEGIN] = 1
    return probabilities, gammas[1:]


def _without_pruned(
    orders: list[_Order], kept: list[np.ndarray], probabilities: list[np.ndarray], gammas: list[np.ndarray]
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the n-grams, logarithms of probabilities, and logarithms of back-offs of all orders."""
    grams = [orders[0].first[:, None]]
    for found in orders[1:]:
        grams.append(np.column_stack([found.first, grams[-1][found.suffix]]))
    yield tuple(some[stays] for some, stays in zip(grams, kept, strict=True))
    yield tuple(_log(some[stays]) for some, stays in zip(probabilities, kept, strict=True))
    yield tuple(_log(some[stays]) for some, stays in zip(gammas, kept, strict=False))


def _log(values: np.ndarray) -> np.ndarray:
    """Return base-10 logarithms; rounding does not lift a probability above 1."""
    return np.log10(np.clip(values, 10**_LEAST_LOG, 1)).astype(np.float32)
