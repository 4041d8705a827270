"""Keep the rows that can be trained on."""

import logging
import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset, DatasetDict

from hfasr.corpora.rows import column, decoded, plain, refuse_one_split

logger = logging.getLogger(__name__)

_CODE_POINTS = 0x110000
_TEXTS_AT_ONCE = 65_536  # bounds the memory for their code points


def keep_durations(
    corpus: DatasetDict, min_seconds: float = 0.0, max_seconds: float = math.inf, splits: Collection[str] = ("train",)
) -> DatasetDict:
    """Keep the rows of `min_seconds` to `max_seconds` in some splits; what was dropped is logged.

    Args:
        corpus: Rows with `duration`; one of unknown duration (NaN) is kept for `check_audio` to judge.
        min_seconds: Shortest duration.
        max_seconds: Longest duration.
        splits: Which splits to filter. Only training by default: a test without its hard rows is another test.

    Raises:
        ValueError: The range is empty, or no row of a split lies in it.
        TypeError: `corpus` is a single data set.
    """
    refuse_one_split(corpus, "keep_durations")
    _check_range("durations", "seconds", "s", min_seconds, max_seconds)
    kept = DatasetDict()
    for split, rows in plain(corpus).items():
        if split not in splits:
            kept[split] = rows
            continue
        short, long = _outside(column(rows, "duration").to_numpy(), min_seconds, max_seconds)
        places = np.flatnonzero(~(short | long))
        if len(rows) and not len(places):
            raise ValueError(f"no row of split {split!r} lasts {min_seconds} to {max_seconds} s; its {len(rows)} rows are all outside")
        if len(places) < len(rows):
            logger.info(
                "%s: %d of %d rows dropped, outside %g to %g s", split, len(rows) - len(places), len(rows), min_seconds, max_seconds
            )
        kept[split] = rows.select(places) if len(places) < len(rows) else rows
    return decoded(kept)


def keep_rows(
    corpus: DatasetDict,
    *,
    min_seconds: float = 0.0,
    max_seconds: float = math.inf,
    min_characters_per_second: float = 0.0,
    max_characters_per_second: float = math.inf,
    alphabet: Iterable[str] | None = None,
    drop_empty: bool = True,
    splits: Collection[str] = ("train",),
) -> tuple[DatasetDict, list[dict]]:
    """Keep the rows of some splits that pass every filter, and tell why each of the others does not.

    Args:
        corpus: Rows with `text` and `duration`. A row of unknown duration (NaN) is judged by its text alone.
        min_seconds: Shortest duration.
        max_seconds: Longest duration.
        min_characters_per_second: Slowest speech, in characters of `text`, spaces between words included. Slower rows often
            hold more speech than their text.
        max_characters_per_second: Fastest speech; faster rows often lack the end of their audio.
        alphabet: Letters, of either case, such as those of a language's table. A row with any other letter, digit or combining
            mark is dropped; punctuation and spaces pass. Give digits with it where a normalizer spells them out later.
        drop_empty: Drop rows whose text holds neither letter nor digit.
        splits: Which splits to filter. Only training by default: a test without its hard rows is another test.

    Returns:
        The corpus without the dropped rows, and one `{"split", "id", "path", "reason"}` for each of them, by its first reason.

    Raises:
        ValueError: A range or the alphabet is empty, there is no such split, or no row of a split is left.
        TypeError: `corpus` is a single data set.
    """
    refuse_one_split(corpus, "keep_rows")
    _check_range("durations", "seconds", "s", min_seconds, max_seconds)
    _check_range("rates", "characters_per_second", "characters/s", min_characters_per_second, max_characters_per_second)
    if unknown := [split for split in splits if split not in corpus]:
        raise ValueError(f"keep_rows is to filter {', '.join(map(repr, unknown))}, but the splits are {', '.join(corpus)}; give splits=")
    symbols = None if alphabet is None else _Symbols(alphabet)
    seconds, rates = (min_seconds, max_seconds), (min_characters_per_second, max_characters_per_second)
    kept, dropped = DatasetDict(), []
    for split, rows in plain(corpus).items():
        kept[split] = rows
        if split in splits and len(rows):
            places, reasons, kinds = _judge(rows, seconds, rates, symbols, drop_empty)
            counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            if len(places) == len(rows):
                raise ValueError(f"no row of split {split!r} is left: of {len(rows)} rows are {counts}; widen the limits")
            dropped += _named(split, rows, places, reasons)
            if counts:
                logger.info("%s: %d of %d rows left out: %s", split, len(places), len(rows), counts)
                kept[split] = rows.select(np.delete(np.arange(len(rows)), places))
    return decoded(kept), dropped


def _judge(
    rows: Dataset, seconds: tuple[float, float], rates: tuple[float, float], symbols: "_Symbols | None", drop_empty: bool
) -> tuple[np.ndarray, list[str], Counter]:
    """Return the places of the rows to drop, the reason of each, and how many there are of each kind."""
    durations = column(rows, "duration").to_numpy()
    texts = pyarrow.compute.fill_null(column(rows, "text"), "")
    characters = pyarrow.compute.utf8_length(pyarrow.compute.utf8_trim_whitespace(texts)).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = characters / durations
    short, long = _outside(durations, *seconds)
    slow, fast = _outside(speed, *rates)
    tests = [  # in the order of which reason is told
        ("empty", _without_letters(texts) if drop_empty else np.zeros(len(rows), bool), lambda place: "the text is empty"),
        (f"shorter than {seconds[0]:g} s", short, lambda place: f"lasts {durations[place]:.2f} s, less than {seconds[0]:g} s"),
        (f"longer than {seconds[1]:g} s", long, lambda place: f"lasts {durations[place]:.2f} s, more than {seconds[1]:g} s"),
        (f"slower than {rates[0]:g} characters/s", slow, lambda place: f"{speed[place]:.1f} characters/s, less than {rates[0]:g}"),
        (f"faster than {rates[1]:g} characters/s", fast, lambda place: f"{speed[place]:.1f} characters/s, more than {rates[1]:g}"),
    ]
    if symbols is not None:
        tests.append(("outside the alphabet", symbols.foreign(texts), lambda place: symbols.reason(texts[int(place)].as_py())))
    first = np.full(len(rows), len(tests), dtype=np.int8)
    for number, (_, failed, _) in reversed(list(enumerate(tests))):
        first[failed] = number
    places = np.flatnonzero(first < len(tests))
    reasons = [tests[number][2](place) for place, number in zip(places, first[places], strict=True)]
    return places, reasons, Counter(tests[number][0] for number in first[places])


def _named(split: str, rows: Dataset, places: np.ndarray, reasons: list[str]) -> list[dict]:
    if not len(places):
        return []
    rows = rows.select(places)
    ids, paths = column(rows, "id").to_pylist(), column(rows, "audio", "path").to_pylist()
    return [{"split": split, "id": name, "path": path, "reason": why} for name, path, why in zip(ids, paths, reasons, strict=True)]


def _check_range(what: str, name: str, unit: str, low: float, high: float) -> None:
    if not 0 <= low < high:
        raise ValueError(f"{what} from {low} to {high} {unit} are an empty range; give 0 <= min_{name} < max_{name}")


def _outside(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Tell which values `(rows,)` are too low and which too high; NaN is neither."""
    return values < low, values > high


class _Symbols:
    """An alphabet, and which symbols of a text are not of it.

    Args:
        alphabet: Its letters.
    """

    def __init__(self, alphabet: Iterable[str]):
        letters = set(unicodedata.normalize("NFC", "".join(alphabet))) - {" "}
        if not letters:
            raise ValueError("the alphabet is empty; give its letters, such as alphabet='абв', or None for any")
        # a Turkish alphabet has both; its capital İ has a lower case of two code points in Python
        dotted = {"İ"} if {"ı", "i"} <= letters else set()
        self.letters = letters | {char for letter in letters for char in letter.lower() + letter.upper()} | dotted
        self._known = np.zeros(_CODE_POINTS, dtype=bool)
        self._foreign = np.zeros(_CODE_POINTS, dtype=bool)

    def foreign(self, texts: pyarrow.ChunkedArray) -> np.ndarray:
        """Tell which texts `(rows,)` hold a letter, digit or combining mark outside the alphabet."""
        return _any_of(pyarrow.compute.utf8_normalize(texts, "NFC"), self._is_foreign)

    def reason(self, text: str) -> str:
        """Name the symbols of a text that are not of the alphabet."""
        found = [char for char in dict.fromkeys(unicodedata.normalize("NFC", text)) if _spoken(char) and char not in self.letters]
        return "holds " + ", ".join(f"{char!r} (U+{ord(char):04X})" for char in found[:5]) + ", outside the alphabet"

    def _is_foreign(self, code_points: np.ndarray) -> np.ndarray:
        for code in np.flatnonzero(np.bincount(code_points, minlength=_CODE_POINTS).astype(bool) & ~self._known):
            self._known[code] = True
            self._foreign[code] = _spoken(chr(code)) and chr(code) not in self.letters
        return self._foreign[code_points]


def _spoken(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN"


def _without_letters(texts: pyarrow.ChunkedArray) -> np.ndarray:
    # most texts begin with a letter, which is seen faster than a regular expression looks
    doubtful = ~pyarrow.compute.utf8_is_alnum(pyarrow.compute.utf8_slice_codeunits(texts, 0, 1)).to_numpy()
    places = np.flatnonzero(doubtful)
    found = pyarrow.compute.match_substring_regex(texts.take(pyarrow.array(places)), r"[\p{L}\p{N}]").to_numpy()
    doubtful[places] = ~found
    return doubtful


def _any_of(texts: pyarrow.ChunkedArray, test) -> np.ndarray:
    """Tell for each text `(rows,)` whether `test`, from code points to booleans, is true of any of its code points."""
    found = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = texts.slice(start, _TEXTS_AT_ONCE)
        code_points = np.frombuffer("".join(part.to_pylist()).encode("utf-32-le"), dtype=np.uint32)
        ends = np.cumsum(pyarrow.compute.utf8_length(part).to_numpy())
        # which text a code point belongs to: the first whose end lies after it
        hits = np.searchsorted(ends, np.flatnonzero(test(code_points)), side="right")
        found.append(np.isin(np.arange(len(part)), hits))
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)
