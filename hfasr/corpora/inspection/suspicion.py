"""Which rows of a corpus to look at first, and why.

Each row gets a set of marks, kept as bits, and a score: the weights of its marks, and more the further its characters per
second are from those of the corpus. Letters in shapes: N rows of all splits, one after the other.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow
import pyarrow.compute as pc

from hfasr.corpora.inspection.symbols import Symbol, SymbolScan, mixed_words


@dataclass(frozen=True)
class Reason:
    """A mark that a row can have: what it is called, how much it weighs, and what to do about it."""

    title: str
    weight: float
    advice: str


REASONS = {
    "bad": Reason("Bad file", 8, "copy or download these files again; check_audio leaves them out of training"),
    "empty": Reason("No words", 8, "remove these rows"),
    "broken": Reason("Broken characters", 5, "the text was read with a wrong encoding; take it from its source again"),
    "leak": Reason("Also in training", 4, "scores on these rows are too good; leave them out of training"),
    "fast": Reason("Too much text", 3, "the recording was cut, or the text is of another clip; listen, and leave them out with keep_rows"),
    "slow": Reason("Too little text", 2, "part of what is said may be missing in the transcript; listen"),
    "duplicate": Reason("Duplicate", 2, "keep one of each; twice the same row has twice the weight"),
    "foreign": Reason("Letter outside alphabet", 2, "correct them, or add them to the table of the language"),
    "mixed": Reason("Two scripts in a word", 2, "usually a look-alike letter; the Normalizer replaces those it knows"),
    "repeated": Reason("Repetition", 2, "often a transcript made by a machine; listen"),
    "short": Reason("Very short", 2, "keep_durations leaves them out of training"),
    "long": Reason("Very long", 2, "cut them into sentences, or leave them out with keep_durations"),
    "unknown": Reason("Duration unknown", 2, "the file is missing or its header cannot be read; check_audio says which"),
    "near": Reason("Near duplicate", 1, "see whether one of the two is a correction of the other"),
    "rare": Reason("Rare symbol", 1, "likely a typing mistake, or a word of another language"),
    "invisible": Reason("Invisible character", 1, "the Normalizer removes what is no letter"),
    "brackets": Reason("Brackets", 1, "a remark is not said: the Normalizer drops it"),
    "digits": Reason("Digits", 0.5, "write numbers as they were said"),
}
SHORTEST_SECONDS = 0.3
LONGEST_SECONDS = 30.0
# Beyond this many robust standard deviations from the median of log(characters per second) a row is marked.
_FAR = 4.0
_LEAST_DEVIATION = 0.1  # of the logarithm: an even corpus has no outliers within a third of its median
_FEWEST_ROWS = 20  # to speak of what is usual
_SILENCE_SECONDS = 1.5  # around a short answer: no sign of missing text
_RARE_ROWS = 20
_RARE_SHARE = 0.001
_FOREIGN_SHARE = 0.01


@dataclass(frozen=True)
class Suspicion:
    """Marks and scores of all rows, in the order of the splits.

    Attributes:
        split_ends: Split -> place after its last row.
        duration: Seconds `(N,)`, NaN when unknown.
        characters: Length of each text `(N,)`.
        marks: Bits `(N,)` in the order of `REASONS`.
        score: `(N,)`; 0 for a row without a mark.
        usual: Characters per second between which a row is as usual; None in a corpus too small to tell.
        symbols: All symbols of the texts, the most frequent first.
        outside: Letters outside the alphabet, each with what it is.
        rare: Letters that hardly occur, where the alphabet is not known.
        notes: Place -> what is known about a row beyond its text, by reason.
    """

    split_ends: dict[str, int]
    duration: np.ndarray
    characters: np.ndarray
    marks: np.ndarray
    score: np.ndarray
    usual: tuple[float, float] | None
    symbols: list[Symbol]
    outside: dict[str, str]
    rare: frozenset[str]
    notes: dict[int, dict[str, str]] = field(repr=False)

    def counts(self) -> dict[str, int]:
        """Return how many rows have each mark."""
        return {name: int(np.count_nonzero(self.marks & bit)) for name, bit in BITS.items()}

    @cached_property
    def order(self) -> np.ndarray:
        """Places of all rows, the most suspicious first; equal ones in the order of the corpus."""
        return np.argsort(-self.score, kind="stable")

    def reasons(self, place: int, text: str, reason: str | None = None) -> list[str]:
        """Return in words why a row is suspicious, the weightiest first.

        Args:
            place: Its place among all rows.
            text: Its transcript.
            reason: Of all reasons tell only this one.
        """
        names = [name for name, bit in BITS.items() if self.marks[place] & bit and reason in (None, name)]
        names.sort(key=lambda name: -REASONS[name].weight)
        return [self._words(name, place, text) for name in names]

    def _words(self, name: str, place: int, text: str) -> str:
        if note := self.notes.get(place, {}).get(name):
            return note
        seconds = self.duration[place]
        match name:
            case "fast" | "slow":
                low, high = self.usual
                rate = self.characters[place] / seconds
                return f"{rate:.1f} characters per second, usual are {low:.0f} to {high:.0f}"
            case "short" | "long":
                return f"lasts {seconds:.2f} s" if seconds < 1 else f"lasts {seconds:.1f} s"
            case "foreign":
                found = [symbol for symbol in dict.fromkeys(text) if symbol in self.outside]
                return "outside the alphabet: " + _listed([f"{symbol} ({self.outside[symbol]})" for symbol in found])
            case "rare":
                return "rare: " + _listed([symbol for symbol in dict.fromkeys(text) if symbol in self.rare])
            case "mixed":
                return "two scripts in " + _listed(mixed_words(text))
            case "repeated":
                return "repeated: " + _listed([_times(found) for found in _REPETITION.finditer(text)])
            case "brackets":
                return "brackets: " + _listed(_BRACKETED.findall(text) or ["not closed"])
            case "digits":
                return "digits: " + _listed(_NUMBER.findall(text))
        return REASONS[name].title.lower()


BITS = {name: 1 << place for place, name in enumerate(REASONS)}

_REPETITION = re.compile(r"([^\W\d_])\1{3,}|\b(\w{2,})(?:\W+\2\b){2,}")
_BRACKETED = re.compile(r"[\[({<（【][^\])}>）】]*[\])}>）】]")
_NUMBER = re.compile(r"\d[\d.,:]*")


def assess(
    texts: Sequence[pyarrow.ChunkedArray],
    splits: Sequence[str],
    duration: np.ndarray,
    *,
    letters: Collection[str] = (),
    look_alikes: Mapping[str, str] | None = None,
    notes: Mapping[str, Mapping[int, str]] | None = None,
) -> Suspicion:
    """Mark and score all rows.

    Args:
        texts: Transcripts of each split.
        splits: Its name.
        duration: Seconds of all rows `(N,)`, NaN when unknown.
        letters: The alphabet in both cases; when empty, letters of a script that hardly occurs, and rare ones, stand out.
        look_alikes: Letter -> the one of the alphabet that it looks like.
        notes: Reason -> place -> words, for what the texts cannot tell: "bad", "leak", "duplicate", "near".
    """
    scan = SymbolScan()
    for column in texts:
        scan.add(column)
    symbols, found = scan.symbols(), scan.marks()
    characters = found.pop("lengths", np.zeros(0, np.int64))
    outside, rare = _unusual(symbols, len(duration), frozenset(letters), look_alikes or {})
    found["foreign"], found["rare"] = _holding(texts, outside), _holding(texts, rare)
    usual, deviation = _deviation(characters, duration)
    without_silence = np.maximum(duration - _SILENCE_SECONDS, duration / 10)
    found |= {"unknown": np.isnan(duration), "short": duration < SHORTEST_SECONDS, "long": duration > LONGEST_SECONDS}
    found["fast"] = deviation > _FAR
    # A text without words is told as that, and a repetition is why a text is too long.
    found["slow"] = (deviation < -_FAR) & ~found["empty"] & (usual is not None and characters < usual[0] * without_silence)
    by_row: dict[int, dict[str, str]] = {}
    for name, words in (notes or {}).items():
        found[name] = np.zeros(len(duration), bool)
        found[name][list(words)] = True
        for place, note in words.items():
            by_row.setdefault(place, {})[name] = note

    marks, score = np.zeros(len(duration), np.uint32), np.zeros(len(duration), np.float32)
    for name, rows in found.items():
        marks[rows] |= np.uint32(BITS[name])
        score[rows] += REASONS[name].weight
    far = found["fast"] | found["slow"]
    score[far] += np.minimum(np.abs(deviation[far]) - _FAR, 12) / 4
    ends = np.cumsum([len(column) for column in texts]).tolist()
    return Suspicion(
        split_ends=dict(zip(splits, ends, strict=True)),
        duration=duration,
        characters=characters,
        marks=marks,
        score=score,
        usual=usual,
        symbols=symbols,
        outside=outside,
        rare=frozenset(rare),
        notes=by_row,
    )


def _deviation(characters: np.ndarray, duration: np.ndarray) -> tuple[tuple[float, float] | None, np.ndarray]:
    """Return what is usual, and how far each row is from it in robust standard deviations of the logarithm; 0 if unknown."""
    deviation = np.zeros(len(duration))
    known = (characters > 0) & (duration > 0)
    if np.count_nonzero(known) < _FEWEST_ROWS:
        return None, deviation
    rates = np.log(characters[known] / duration[known])
    middle = np.median(rates)
    # 1.4826 makes the median absolute deviation that of a normal distribution
    spread = max(1.4826 * np.median(np.abs(rates - middle)), _LEAST_DEVIATION)
    deviation[known] = (rates - middle) / spread
    return (float(np.exp(middle - _FAR * spread)), float(np.exp(middle + _FAR * spread))), deviation


def _unusual(
    symbols: list[Symbol], rows: int, letters: frozenset[str], look_alikes: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return symbols outside the alphabet, and rare ones, each with what it is."""
    written = [symbol for symbol in symbols if symbol.kind in ("letter", "mark")]
    by_script: dict[str, int] = {}
    for symbol in written:
        by_script[symbol.script] = by_script.get(symbol.script, 0) + symbol.count
    total = sum(by_script.values())
    outside, rare = {}, {}
    for symbol in written:
        like = look_alikes.get(symbol.text) or look_alikes.get(symbol.text.lower())
        if letters:
            if symbol.text not in letters:
                outside[symbol.text] = f"{symbol.name}, looks like {like}" if like else symbol.name
        elif symbol.script and by_script[symbol.script] < _FOREIGN_SHARE * total:
            outside[symbol.text] = symbol.name
        elif symbol.rows <= min(_RARE_ROWS, _RARE_SHARE * rows) and symbol.script != "Han":
            rare[symbol.text] = symbol.name
    return outside, rare


def _holding(texts: Sequence[pyarrow.ChunkedArray], symbols: Mapping[str, str]) -> np.ndarray:
    if not symbols:
        return np.zeros(sum(map(len, texts)), bool)
    pattern = "[" + "".join(f"\\x{{{ord(symbol):x}}}" for symbol in symbols) + "]"
    return np.concatenate([pc.match_substring_regex(column, pattern).fill_null(False).to_numpy() for column in texts])


def _times(found: re.Match) -> str:
    unit = found[1] or found[2]
    return found[0] if found[1] else f"{unit} {found[0].count(unit)} times"


def _listed(found: Sequence[str], most: int = 4, longest: int = 60) -> str:
    shown = [item if len(item) <= longest else item[:longest] + "…" for item in found[:most]]
    return ", ".join(shown) + (f" and {len(found) - most} more" if len(found) > most else "")
