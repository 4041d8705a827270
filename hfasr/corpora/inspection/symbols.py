"""The symbols of many texts at once: counts, scripts, and what is odd about each text.

Texts are taken by the chunk as one array of code points, so that 600,000 rows take seconds. Letters in shapes: R rows of a
chunk, C characters in it, K symbols seen so far.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow

from hfasr.text.tables import load_table

CHUNK_ROWS = 4096
_EXAMPLES = 3

_LETTER, _MARK, _DIGIT, _SPACE, _PUNCTUATION, _BRACKET, _INVISIBLE, _BROKEN = range(8)
KINDS = ("letter", "mark", "digit", "space", "punctuation", "bracket", "invisible", "broken")
_NO_SCRIPT = {"", "Modifier", "Combining", "Double-struck", "Mathematical", "Superscript", "Subscript", "Feminine", "Masculine", "Micro"}
# scripts without spaces between words: another script beside them is no mistake
_EAST_ASIAN = {"Han", "Hiragana", "Katakana", "Bopomofo", "Hangul"}
_SCRIPT_NAMES = {"Cjk": "Han", "Ideographic": "Han", "Kangxi": "Han"}
_BRACKETS = "()[]{}<>（）［］｛｝＜＞【】〔〕"
_REPEATED_LETTERS = 4
_REPEATED_WORDS = 3
_PLACE_WEIGHTS = np.random.default_rng(0).integers(1, 2**63, 64, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True)
class Symbol:
    """A character of the texts.

    Attributes:
        text: The character.
        name: Its Unicode name.
        script: "Cyrillic", "Latin", "Han", …; empty for what all scripts share.
        kind: One of `KINDS`.
        count: How often it occurs.
        rows: In how many rows.
        places: The first of these rows, by their place among all texts.
    """

    text: str
    name: str
    script: str
    kind: str
    count: int
    rows: int
    places: tuple[int, ...]


class SymbolScan:
    """Go through texts by the chunk; count symbols and mark rows.

    After `add` of all texts, `marks` has for each row a boolean: "empty" (neither letter nor digit), "mixed" (a word of two
    scripts), "repeated" (a letter four times or a word three times in a row), "digits", "brackets", "invisible" and "broken"
    (characters without a meaning, such as U+FFFD); "lengths" has the characters,
    without spaces around the text.
    """

    def __init__(self):
        self._index = np.full(0x110000, -1, np.int32)  # code point -> symbol
        self._codes: list[int] = []
        self._kinds = np.empty(0, np.int8)
        self._scripts = np.empty(0, np.int64)  # one bit each, 0 for letters that may stand in any word
        self._script_bits: dict[str, int] = {}
        self._counts = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int64)
        self._places: list[list[int]] = []
        self._chunks: list[dict[str, np.ndarray]] = []
        self._seen_rows = 0

    def add(self, texts: pyarrow.ChunkedArray) -> None:
        """Scan a column of texts; a missing text counts as an empty one."""
        for batch in pyarrow.table({"text": texts}).to_batches(max_chunksize=CHUNK_ROWS):
            self._add_chunk([text or "" for text in batch.column(0).to_pylist()])

    def marks(self) -> dict[str, np.ndarray]:
        """Return for each mark a boolean per row, and "lengths" in characters."""
        names = self._chunks[0] if self._chunks else {}
        return {name: np.concatenate([chunk[name] for chunk in self._chunks]) for name in names}

    def symbols(self) -> list[Symbol]:
        """Return all symbols, the most frequent first."""
        order = np.lexsort((self._codes, -self._counts))
        return [
            Symbol(
                text=chr(self._codes[index]),
                name=_name(chr(self._codes[index])),
                script=script_of(chr(self._codes[index])),
                kind=KINDS[self._kinds[index]],
                count=int(self._counts[index]),
                rows=int(self._rows[index]),
                places=tuple(self._places[index]),
            )
            for index in order
        ]

    def _add_chunk(self, texts: Sequence[str]) -> None:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
        row = np.repeat(np.arange(len(texts)), lengths)
        symbol = self._symbols_of(codes)
        seen = np.zeros((len(texts), len(self._codes)), bool)
        seen[row, symbol] = True
        self._counts += np.bincount(symbol, minlength=len(self._codes))
        self._keep_places(seen)
        self._rows += seen.sum(axis=0)
        kinds = self._kinds[symbol]
        marks = {
            name: seen[:, self._kinds == kind].any(axis=1)
            for name, kind in (("digits", _DIGIT), ("brackets", _BRACKET), ("invisible", _INVISIBLE), ("broken", _BROKEN))
        }
        marks |= _word_marks(codes, row, kinds, self._scripts[symbol], len(texts))
        self._chunks.append(marks | {"lengths": np.fromiter((len(text.strip()) for text in texts), np.int64, len(texts))})
        self._seen_rows += len(texts)

    def _symbols_of(self, codes: np.ndarray) -> np.ndarray:
        symbol = self._index[codes]
        if (symbol < 0).any():
            new = np.unique(codes[symbol < 0]).tolist()
            self._index[new] = np.arange(len(self._codes), len(self._codes) + len(new))
            self._codes += new
            self._kinds = np.concatenate([self._kinds, np.array([_kind(chr(code)) for code in new], np.int8)])
            self._scripts = np.concatenate([self._scripts, np.array([self._script_bit(chr(code)) for code in new], np.int64)])
            self._counts = np.concatenate([self._counts, np.zeros(len(new), np.int64)])
            self._rows = np.concatenate([self._rows, np.zeros(len(new), np.int64)])
            self._places += [[] for _ in new]
            symbol = self._index[codes]
        return symbol

    def _keep_places(self, seen: np.ndarray) -> None:
        wanting = np.flatnonzero(self._rows < _EXAMPLES)
        for symbol in wanting[seen[:, wanting].any(axis=0)].tolist():
            free = _EXAMPLES - len(self._places[symbol])
            self._places[symbol] += (np.flatnonzero(seen[:, symbol])[:free] + self._seen_rows).tolist()

    def _script_bit(self, character: str) -> int:
        script = script_of(character)
        if not script or script in _EAST_ASIAN:
            return 0
        # no text has anything near 60 scripts; the last bit stands for all beyond
        return self._script_bits.setdefault(script, 1 << min(len(self._script_bits), 60))


def script_of(character: str) -> str:
    """Return the script of a letter by its Unicode name, empty for what several scripts share.

    >>> script_of("ө"), script_of("7")
    ('Cyrillic', '')
    """
    if unicodedata.category(character)[0] != "L":
        return ""
    words = unicodedata.name(character, "").replace("FULLWIDTH ", "").replace("HALFWIDTH ", "").split(" ")
    script = words[0].partition("-")[0].capitalize()
    return "" if script in _NO_SCRIPT else _SCRIPT_NAMES.get(script, script)


def alphabet_of(language: str | None) -> tuple[frozenset[str], dict[str, str]]:
    """Return the letters of a language, of both cases, and for look-alikes of them the letter that is meant; empty when not known."""
    if language is None:
        return frozenset(), {}
    table = load_table(language)
    if not table.letters:
        return frozenset(), {}
    capitals = {letter.upper() for letter in table.letters} | ({"İ", "I"} if table.case == "turkic" else set())
    return frozenset(table.letters + table.marks) | capitals, dict(table.look_alikes)


def unused_letters(symbols: Iterable[Symbol], language: str | None) -> list[str]:
    """Return the letters of a language that do not occur in either case, in the order of its alphabet."""
    if language is None:
        return []
    table = load_table(language)
    capitals = str.maketrans("İI", "iı") if table.case == "turkic" else {}
    used = {symbol.text.translate(capitals).lower() for symbol in symbols}
    return [letter for letter in table.letters if letter not in used]


def mixed_words(text: str) -> list[str]:
    """Return the words of a text that hold letters of two scripts."""
    separated = "".join(character if unicodedata.category(character)[0] in "LM" else " " for character in text)
    return [word for word in separated.split() if len({script_of(letter) for letter in word} - _EAST_ASIAN - {""}) > 1]


def _word_marks(codes: np.ndarray, row: np.ndarray, kinds: np.ndarray, scripts: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Return the marks that depend on the order of characters; `codes`, `row`, `kinds` and `scripts` are (C,)."""
    marks = {name: np.zeros(count, bool) for name in ("mixed", "repeated")}
    spoken = kinds <= _DIGIT
    marks["empty"] = np.bincount(row[spoken], minlength=count) == 0
    in_word = np.flatnonzero(kinds <= _MARK)
    if len(in_word) == 0:
        return marks
    codes, row, scripts, position = codes[in_word], row[in_word], scripts[in_word], in_word
    follows = np.zeros(len(in_word), bool)
    follows[1:] = (np.diff(position) == 1) & (np.diff(row) == 0)
    starts = np.flatnonzero(~follows)
    word_row = row[starts]
    together = np.bitwise_or.reduceat(scripts, starts)
    marks["mixed"][word_row[(together & (together - 1)) != 0]] = True

    same = np.zeros(len(codes), bool)
    same[1:] = follows[1:] & (np.diff(codes.astype(np.int64)) == 0)
    marks["repeated"][row[_runs(same, _REPEATED_LETTERS)]] = True
    # a word's number: its letters weighted by their place, modulo 2**64; words of one number are taken for the same
    sizes = np.diff(np.append(starts, len(codes)))
    place = np.arange(len(codes)) - np.repeat(starts, sizes)
    numbers = np.add.reduceat(codes.astype(np.uint64) * _PLACE_WEIGHTS[place % len(_PLACE_WEIGHTS)], starts)
    same = np.zeros(len(numbers), bool)
    # one letter alone is a word in scripts without spaces between words, and in spelling
    same[1:] = (numbers[1:] == numbers[:-1]) & (word_row[1:] == word_row[:-1]) & (sizes[1:] > 1)
    marks["repeated"][word_row[_runs(same, _REPEATED_WORDS)]] = True
    return marks


def _runs(same: np.ndarray, length: int) -> np.ndarray:
    """Return places that end a run of `length` equal ones; `same` tells of each whether it equals the one before."""
    run = same.copy()
    for step in range(1, length - 1):
        run[step:] &= same[:-step]
        run[:step] = False
    return np.flatnonzero(run)


def _kind(character: str) -> int:
    category = unicodedata.category(character)
    if character == "\ufffd" or category in ("Co", "Cn", "Cs"):
        return _BROKEN
    if character in _BRACKETS:
        return _BRACKET
    if category == "Lm" and not script_of(character):
        return _PUNCTUATION  # apostrophes, mostly
    if category[0] == "Z" or character in "\t\n\r":
        return _SPACE
    return {"L": _LETTER, "M": _MARK, "N": _DIGIT, "C": _INVISIBLE}.get(category[0], _PUNCTUATION)


def _name(character: str) -> str:
    if name := unicodedata.name(character, ""):
        return name.lower()
    return f"{'control character' if unicodedata.category(character) == 'Cc' else 'not a character'} U+{ord(character):04X}"
