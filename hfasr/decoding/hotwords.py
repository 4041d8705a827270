"""Words that a recording is likely to hold, names above all: a bonus for every symbol of one, taken back where it goes on otherwise.

States are places in a trie of the spellings. A word counts from one word boundary to the next, the longest where several begin at
one place, so that `ann` gains nothing in `anna`. What a text gains does not depend on the path on which the search found it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase, Wav2Vec2PhonemeCTCTokenizer

from hfasr.decoding.words import Boundaries, lacking_symbols, spell
from hfasr.text.lexicon import entry_lines
from hfasr.text.targets import is_recorded, target_maker

# of the weights tried on planted names the least that found as many as any other (tests/benchmarks/beam.py)
HOTWORD_WEIGHT = 1.5
_MOST_NAMED = 10


@dataclass
class _Place:
    """Where in the trie a text is."""

    gain: float = 0.0
    """Of the symbols from the root to here."""
    children: dict[int, "_Place"] = field(default_factory=dict)
    word: float | None = None
    """What remains when the word that ends here is followed by a boundary; None where none ends."""
    breaks: tuple["_Place", float] | None = None
    """Where a text is that leaves the trie here, and what remains to it of the symbols so far."""


class Hotwords:
    """The bonus of hotwords in a text, symbol by symbol.

    Args:
        spellings: Label ids of each hotword, and its bonus for each of them as a natural logarithm. Several words have separators
            between them.
        where: Word boundaries of the vocabulary.
    """

    def __init__(self, spellings: Mapping[tuple[int, ...], float], where: Boundaries):
        self._where, self.start = where, _Place()
        # after a symbol that is not of a hotword only a boundary lets one begin
        self._outside = self.start if where.none else _Place()
        for labels, weight in spellings.items():
            place = self.start
            for label in labels:
                place = place.children.setdefault(label, _Place())
            place.word = weight * len(labels)
        # words that share their beginning gain there what the one with the largest bonus would
        for labels, weight in spellings.items():
            place = self.start
            for count, label in enumerate(labels, start=1):
                place = place.children[label]
                place.gain = max(place.gain, weight * count)
        for depth in range(1, max(map(len, spellings), default=0) + 1):
            for labels in spellings:
                if len(labels) >= depth:
                    self._add_break(labels[:depth])

    def step(self, place: _Place, label: int) -> tuple[_Place, float]:
        """Go on by one symbol; return the new state and what the bonus changes by."""
        after, kept = self._follow(place, label)
        return after, kept + after.gain - place.gain

    def finish(self, place: _Place) -> float:
        """Return what the bonus changes by when the text ends."""
        kept, here = 0.0, place
        while here.word is None and here.breaks is not None:
            here, more = here.breaks
            kept += more
        return kept + (here.word or 0.0) - place.gain

    def _follow(self, place: _Place, label: int) -> tuple[_Place, float]:
        """Return the next state, and what is certain of the bonus from then on."""
        kept, where = 0.0, self._where
        while True:
            if label in place.children:
                return place.children[label], kept
            ends = where.none or label in where.separators or label in where.starts
            if place.word is not None and ends:
                place, kept = self.start, kept + place.word
                if label in where.separators:
                    return self.start, kept
            elif place.breaks is not None:
                place, more = place.breaks
                kept += more
            elif place is not self.start and label in where.starts:
                place = self.start
            else:
                return (self.start if label in where.separators else self._outside), kept

    def _add_break(self, labels: tuple[int, ...]) -> None:
        """Find where a text is that had these symbols of a hotword and goes on otherwise; all shorter ones are known.

        It is read again from behind the longest hotword in it, or where there is none from behind its first symbol.
        """
        where, place = self._where, self.start
        here, kept, rest = self._outside, 0.0, labels[1:]
        for count, label in enumerate(labels):
            if place.word is not None and (where.none or label in where.separators or label in where.starts):
                here, kept, rest = self.start, place.word, labels[count:]
            place = place.children[label]
        if place.breaks is None:
            for label in rest:
                here, more = self._follow(here, label)
                kept += more
            place.breaks = (here, kept)


def load_hotwords(source: str | os.PathLike | Mapping[str, float] | Sequence[str], weight: float) -> dict[str, float]:
    """Read hotwords from a UTF-8 file of lines `word` or `word<TAB>weight`.

    Empty lines and lines that start with `#` are left out. A line may hold several words.

    Args:
        source: The file; or the words themselves, or a dict from word to weight.
        weight: Of words that have none of their own.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No word, or a weight that is not a number above 0, named by its line.
    """
    if isinstance(source, Mapping):
        entries = [(f"hotword {word!r}", word, value) for word, value in source.items()]
    elif isinstance(source, str | os.PathLike):
        entries = list(_lines(Path(source), weight))
    else:
        entries = [(f"hotword {word!r}", word, weight) for word in source]
    found = {}
    for place, word, value in entries:
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise ValueError(f"{place} has the weight {value!r}, expected a number above 0, such as {HOTWORD_WEIGHT:g}")
        if word.strip():
            found[" ".join(word.split())] = number
    if not found:
        name = source if isinstance(source, str | os.PathLike) else "the list"
        raise ValueError(f"{name} holds no hotword; give one word a line")
    return found


def spell_hotwords(hotwords: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, tuple[int, ...]]:
    """Spell hotwords in the symbols of a model, by the normalizer or phonemizer that made its targets.

    A model that does not say how they were made takes the words as they are, else in lower or in upper case.

    Returns:
        Label ids of each hotword.

    Raises:
        ValueError: The model lacks symbols of a hotword, or has phonemes and does not say of which voice; the words are named.
    """
    if not (words := list(hotwords)):
        return {}
    phonemes = isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer)
    if is_recorded(tokenizer) or phonemes:
        try:
            forms = [target_maker(tokenizer)(words)]
        except ValueError as error:
            raise ValueError(f"hotwords cannot be spelled in the symbols of the model: {error}") from None
    else:
        forms = [words, [word.lower() for word in words], [word.upper() for word in words]]
    spelled = [spell(form, tokenizer) for form in forms]
    found, problems = {}, []
    for place, word in enumerate(words):
        labels = next((form[place] for form in spelled if form[place]), None)
        if labels:
            found[word] = labels
        else:
            lacking = lacking_symbols([forms[0][place]], tokenizer)
            problems.append(f"{word} ({' '.join(lacking) or 'no symbol is left of it'})")
    if problems:
        more = f" and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
        named = ", ".join(problems[:_MOST_NAMED]) + more
        raise ValueError(
            f"the hotwords {named} cannot be spelled, for the model lacks the symbols in brackets; write those words otherwise or leave "
            "them out"
        )
    return found


def _lines(path: Path, weight: float) -> Iterator[tuple[str, str, str | float]]:
    if not path.is_file():
        raise FileNotFoundError(f"the hotwords {path} are not there; give a file of lines word or word<TAB>weight")
    for number, line in entry_lines(path):
        if line is None:
            raise ValueError(f"{path}, line {number} is not UTF-8; save the file in that encoding")
        word, tab, value = line.partition("\t")
        yield f"{path}, line {number}", word, value.strip() if tab else weight
