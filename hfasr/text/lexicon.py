"""A pronunciation lexicon: words and their phonemes, from a file or a dict, and words of a text found in it."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from unicodedata import category, is_normalized, normalize

# What phonemizer replaces by a space: a point or comma within a number is not among it.
_MARKS = re.compile(r"(?:[;:!?¡¿—…\"«»“”(){}\[\]]|(?<![0-9])[.,]|[.,](?![0-9]))+")
# These belong to the word they stand in: Чоң-ата, don't, oʻzbek.
_WITHIN_WORDS = "-‐‑'’ʼ‘`´·_"
_SPOKEN_PUNCTUATION = "%‰&@#*/"
_MOST_PROBLEMS = 10
_ALTERNATE = re.compile(r"(?<=.)\(\d+\)$")  # word(2), as the CMU dictionary marks a further pronunciation

logger = logging.getLogger(__name__)


class Lexicon:
    """Words with one pronunciation each.

    Args:
        entries: From word to phonemes split by spaces. A word holds no whitespace.

    Raises:
        ValueError: No entry, or bad ones; up to ten are named.
    """

    def __init__(self, entries: Mapping[str, str]):
        problems = [f"{word!r}: {problem}" for word, phonemes in entries.items() if (problem := _problem(word, phonemes))]
        _refuse("the lexicon", problems)
        if not entries:
            raise ValueError("the lexicon has no entry; give lines word<TAB>phonemes")
        self._entries = {}
        for word, phonemes in sorted(entries.items(), key=lambda entry: bool(_ALTERNATE.search(entry[0]))):
            self._entries.setdefault(_ALTERNATE.sub("", _composed(word)), " ".join(phonemes.split()))

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> dict[str, str]:
        """Phonemes of each word, split by single spaces."""
        return dict(self._entries)

    @property
    def sha256(self) -> str:
        """Hash over the entries, whatever their order and the comments around them."""
        lines = sorted(f"{word}\t{phonemes}\n" for word, phonemes in self._entries.items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def find(self, word: str) -> str | None:
        """Return the phonemes of a word as written, else of its lower or upper case, also by the pairs I ı and İ i of Turkish.

        Returns:
            None when it has none of them.
        """
        word = _composed(word)
        turkish = word.replace("İ", "i").replace("I", "ı").lower(), word.replace("i", "İ").replace("ı", "I").upper()
        forms = (word, word.lower(), word.upper(), *turkish)
        return next((self._entries[form] for form in forms if form in self._entries), None)

    def pieces(self, line: str) -> list[tuple[str, str | None]]:
        """Split a line into its words and the signs between them.

        A word is looked up with the punctuation around it (`т.б.`) and then without.

        Returns:
            Pairs of text and phonemes, None where the lexicon has none. Joined, the texts are the line with spaces for its
            punctuation marks.
        """
        return [piece for token in line.split() for piece in self._parts(token)]

    def _parts(self, token: str) -> list[tuple[str, str | None]]:
        found = self.find(token)
        if found is not None or token.isalnum():
            return [(f" {token}", found)]
        parts = []
        for chunk in filter(None, _MARKS.split(token)):
            found = self.find(chunk)
            texts = [chunk] if found is not None else split_signs(chunk)
            parts += [(text if place else f" {text}", self.find(text)) for place, text in enumerate(texts)]
        return parts


def load_lexicon(source: str | os.PathLike | Mapping[str, str]) -> Lexicon:
    """Read a lexicon from a UTF-8 file of lines `word<TAB>phonemes`.

    Empty lines and lines that start with `#` are left out. Of several pronunciations the first is taken, and how many words
    have them is logged; `word(2)` is a further pronunciation of `word`.

    Args:
        source: The file, or the entries themselves.

    Raises:
        FileNotFoundError: No such file.
        TypeError: Neither a path nor a mapping.
        ValueError: Lines that are not UTF-8 or not an entry; they are named by number.
    """
    if isinstance(source, Mapping):
        return Lexicon(source)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"lexicon is a {type(source).__name__}, expected the path of a file word<TAB>phonemes, or a dict")
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"the lexicon {path} is not there; give a file of lines word<TAB>phonemes")
    entries, alternates, problems, several = {}, {}, [], set()
    for number, line in entry_lines(path):
        if line is None:
            problems.append(f"line {number} is not UTF-8")
            continue
        word, tab, phonemes = line.partition("\t")
        word = word.strip()
        problem = _problem(word, phonemes) if tab else "there is no tab"
        if problem:
            problems.append(f"line {number}: {problem} in {line[:60]!r}")
        elif _ALTERNATE.search(word):
            alternates.setdefault(_ALTERNATE.sub("", _composed(word)), phonemes)
        elif entries.setdefault(_composed(word), phonemes) != phonemes:
            several.add(word)
    _refuse(str(path), problems)
    several |= alternates.keys() & entries.keys()
    entries = {**alternates, **entries}
    if several:
        example = min(several)
        logger.warning("%s: %d words have several pronunciations, the first is taken, for example of %s", path, len(several), example)
    return Lexicon(entries)


def entry_lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Yield number, from 1, and text of the lines of a UTF-8 file, None for one that is not UTF-8; not those empty or beginning with #."""
    for number, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            yield number, None
            continue
        if line.strip() and not line.startswith("#"):
            yield number, line


def split_signs(chunk: str) -> list[str]:
    """Split text without whitespace into words and the signs around and between them; joined again they give the text.

    >>> split_signs("Чоң-ата/5%-")
    ['Чоң-ата', '/', '5', '%', '-']
    """
    core = chunk.strip(_WITHIN_WORDS)
    before, _, after = chunk.partition(core) if core else (chunk, "", "")
    parts, within = [before] if before else [], False
    for char in core:
        kind = category(char)
        sign = char not in _WITHIN_WORDS and char not in ".," and (kind[0] in "PS" or kind == "Cc")
        if within and not sign:
            parts[-1] += char
        else:
            parts.append(char)
        within = not sign
    return parts + [after] if after else parts


def is_spoken(text: str) -> bool:
    """Tell whether a reader says anything for a text: it has a letter, a digit, or a sign such as `%` or `+`."""
    return any(char.isalnum() or char in _SPOKEN_PUNCTUATION or category(char) in ("Sm", "Sc", "So") for char in text)


def _problem(word: str, phonemes: str) -> str:
    if not isinstance(word, str) or not isinstance(phonemes, str):
        return "word and phonemes must be strings"
    if not word or any(char.isspace() for char in word):
        return "there is no word, or one with a space in it"
    if not phonemes.split():
        return "there are no phonemes"
    if "\t" in phonemes.strip():
        return "there are more than two columns"
    return "a bar, which stands for the end of a word, is among the phonemes" if "|" in phonemes else ""


def _refuse(name: str, problems: list[str]) -> None:
    if problems:
        more = f" and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        shown = "; ".join(problems[:_MOST_PROBLEMS])
        raise ValueError(f"{name} has {len(problems)} bad entries, expected word<TAB>phonemes in UTF-8: {shown}{more}")


def _composed(word: str) -> str:
    return word if is_normalized("NFC", word) else normalize("NFC", word)
