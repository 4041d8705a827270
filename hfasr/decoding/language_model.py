"""N-gram models in a beam search: of the model's symbols, or of words spelled in them.

Both go along a text symbol by symbol: `step` returns the state behind a symbol and what the score changes by, `finish` what it
changes by at the end. Scores are natural logarithms, `alpha` x that of the n-gram model and `beta` for each of its units.
"""

import gzip
import logging
import math
import mmap
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase, Wav2Vec2PhonemeCTCTokenizer

from hfasr.decoding.words import boundaries, lacking_symbols, spell
from hfasr.extras import require
from hfasr.text.lexicon import entry_lines, load_lexicon
from hfasr.text.targets import is_recorded, target_maker

LN10 = math.log(10)
# instead of minus infinity, of which a sum may be no number
IMPOSSIBLE = -1e6
_UNKNOWN, _BAR = "<unk>", "|"
_MARKS = ("<s>", "</s>", _UNKNOWN)
_MOST_READINGS = 16
_MOST_NAMED = 20

logger = logging.getLogger(__name__)


class NGrams:
    """A KenLM model of an ARPA or binary file.

    Args:
        path: The file.
        names: What it is asked for by number: words of the model, or others, for which it takes `<unk>`. No name stands twice.
        words: Those of the model.

    Raises:
        ValueError: KenLM does not read it.
        ModuleNotFoundError: flashlight-text is not installed; the message says how to.
    """

    def __init__(self, path: str | os.PathLike, names: Sequence[str], words: Sequence[str]):
        require("flashlight", extra="lm")
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        self.path, self.words, self.unknown = path, words, len(names)
        self._dictionary = Dictionary([*names, _UNKNOWN])
        try:
            self.model = KenLM(os.fspath(path), self._dictionary)
        except RuntimeError as error:
            reason = str(error).partition("threw ")[2] or str(error)
            raise ValueError(f"{path} cannot be read as a language model: {reason}") from None

    def start(self) -> Any:
        """Return the state at the beginning of a sentence."""
        return self.model.start(False)

    def unigram(self, number: int) -> float:
        """Return the natural logarithm of a name's probability without a context."""
        return self.model.score(self.model.start(True), number)[1] * LN10


def lm_words(path: str | os.PathLike) -> list[str]:
    """Read the words of an ARPA file, plain or .gz, or of a KenLM binary, but for `<s>`, `</s>` and `<unk>`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is neither, or the binary was built without its words.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"the language model {path} is not there; give an ARPA file, as `hfasr lm` writes, or a KenLM binary")
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"mmap lm http://kheafield.com/code"):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # the last thing in the file, each ended by a zero
            first = data.rfind(b"<unk>\0")
            words = data[first:].decode("utf-8", "replace").split("\0")[:-1] if first >= 0 else []
    else:
        with gzip.open(path) if head.startswith(b"\x1f\x8b") else open(path, "rb") as file:
            lines = (line.strip() for line in file)
            if next(filter(None, lines), b"") != b"\\data\\":
                raise ValueError(f"{path} is not a language model: expected an ARPA file, which begins with \\data\\, or a KenLM binary")
            for _ in takewhile(lambda line: line != b"\\1-grams:", lines):
                pass
            rows = (line.split() for line in takewhile(lambda line: not line.startswith(b"\\"), lines) if line)
            words = [row[1].decode("utf-8", "replace") for row in rows if len(row) > 1]
    words = [word for word in words if word not in _MARKS]
    if not words:
        raise ValueError(f"{path} names no words; build the binary with its vocabulary, as build_binary does, or give the ARPA file")
    return words


def is_of_symbols(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the words of a language model are symbols of a tokenizer: characters, phonemes or pieces, the bar among them."""
    known = set(tokenizer.get_vocab()) | {_BAR}
    symbols = sum(word in known for word in words)
    # letters of another alphabet are symbols too, to be refused by name
    return 2 * symbols > len(words) or all(len(word) == 1 for word in words)


def symbol_names(tokenizer: PreTrainedTokenizerBase, size: int) -> list[str]:
    """Return what a language model of symbols calls each label, `|` for the space; a name that it cannot have for the blank and such."""
    names = [f"\x00{label}" for label in range(size)]
    where = boundaries(tokenizer)
    # the delimiter of words counts as special too
    special = {tokenizer.pad_token_id, *tokenizer.all_special_ids} - where.separators
    for symbol, label in tokenizer.get_vocab().items():
        if label not in special:
            names[label] = _BAR if label in where.separators else symbol
    return names


def check_symbols(ngrams: NGrams, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tell which symbols only the n-gram model or only the model has.

    Raises:
        ValueError: The n-gram model lacks more than half of the model's symbols.
    """
    known = set(ngrams.words)
    names = [name for name in symbol_names(tokenizer, ngrams.unknown) if not name.startswith("\x00")]
    lacking = [name for name in names if name not in known and name != _BAR]
    foreign = sorted(known.difference(names, [_BAR]))
    if 2 * len(lacking) > len(names):
        raise ValueError(
            f"the language model {ngrams.path} is of other symbols than the model: it lacks {_named(lacking)}, "
            f"and has {_named(foreign)}. Estimate one from targets of this model with `hfasr lm`"
        )
    if lacking:
        logger.warning("%s lacks symbols of the model, which will hardly be recognised: %s", ngrams.path, _named(lacking))
    if foreign:
        logger.warning("%s has symbols that the model lacks: %s", ngrams.path, _named(foreign))


class SymbolModel:
    """An n-gram model of the model's own symbols, with `|` for the space.

    A separator that the language model lacks is passed over; any other symbol that it lacks is its `<unk>`.

    Args:
        ngrams: For the names of `symbol_names`, in the order of the labels.
        tokenizer: Of the model.
        alpha, beta: Weight of the n-gram model, and bonus of each symbol.
    """

    def __init__(self, ngrams: NGrams, tokenizer: PreTrainedTokenizerBase, alpha: float, beta: float):
        self.ngrams, self._weight, self._beta = ngrams, alpha * LN10, beta
        self._passed = frozenset() if _BAR in ngrams.words else boundaries(tokenizer).separators

    @property
    def is_plain(self) -> bool:
        """Whether KenLM alone gives the same scores."""
        return not self._beta and not self._passed

    @property
    def start(self) -> Any:
        """The state at the beginning."""
        return self.ngrams.start()

    def step(self, state: Any, label: int) -> tuple[Any, float]:
        """Go on by one symbol; return the new state and what the score changes by."""
        if label in self._passed:
            return state, 0.0
        state, score = self.ngrams.model.score(state, label)
        return state, self._weight * score + self._beta

    def finish(self, state: Any) -> float:
        """Return what the score changes by at the end."""
        return self._weight * self.ngrams.model.finish(state)[1]


class Vocabulary:
    """Words and how they are spelled in labels, to be found by the beginning of a spelling.

    Args:
        spellings: Pairs of a word's number and its labels.
        texts: Of each word.
        scored_as: Number of each word in the n-gram model, that of `<unk>` where it has none.
        scores: Natural logarithm of each word's probability without a context.
    """

    def __init__(self, spellings: Sequence[tuple[int, tuple[int, ...]]], texts: list[str], scored_as: list[int], scores: np.ndarray):
        pairs = sorted(("".join(map(chr, labels)), number) for number, labels in spellings)
        self.texts, self.scored_as = texts, scored_as
        self._spellings = [spelling for spelling, _ in pairs]
        self._numbers = [number for _, number in pairs]
        self._scores = scores[self._numbers]
        self._known: dict[str, tuple[float | None, tuple[int, ...]]] = {}

    def find(self, beginning: str) -> tuple[float | None, tuple[int, ...]]:
        """Look up labels, as a string of characters.

        Returns:
            The best score of the words that begin so, None where there is none, and the numbers of those that are spelled so.
        """
        found = self._known.get(beginning)
        if found is None:
            low = bisect_left(self._spellings, beginning)
            high = bisect_left(self._spellings, beginning + chr(0x10FFFF), lo=low)
            whole = takewhile(lambda place: self._spellings[place] == beginning, range(low, high))
            numbers = tuple(dict.fromkeys(self._numbers[place] for place in whole))
            found = self._known[beginning] = (float(self._scores[low:high].max()) if high > low else None, numbers)
        return found


class _Reading(NamedTuple):
    """One way to read a text as words."""

    score: float
    context: Any
    """State of the n-gram model behind the last whole word."""
    begun: str
    """Labels of the word that has begun, as characters."""
    words: tuple
    """Those that are whole: what was before the last one, its number (None for one of an open vocabulary), its end in labels."""
    first: int
    """Where the word that has begun begins, in labels."""


class _State(NamedTuple):
    readings: tuple[_Reading, ...]
    score: float
    place: int


def build_vocabulary(
    ngrams: NGrams | None,
    lexicon: str | os.PathLike | Mapping[str, str] | None,
    tokenizer: PreTrainedTokenizerBase,
    further: Mapping[str, tuple[int, ...]],
) -> Vocabulary:
    """Spell the words that can be said.

    Args:
        ngrams: A model of words, or None.
        lexicon: For a model of phonemes a file of lines `word<TAB>phonemes` or a dict; for any other one a file of words, one a line, which
            are normalized as its targets were.
            None takes the words of `ngrams`, spelled by the tokenizer or by the voice of the model's phonemes.
        tokenizer: Of the model.
        further: Words that can be said too, and their labels.

    Raises:
        FileNotFoundError: There is no such lexicon.
        ValueError: Most words have symbols that the model lacks, or a model of phonemes says neither lexicon nor voice.
    """
    phonemes = isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer)
    if lexicon is None:
        texts = ngrams.words
        try:
            targets = target_maker(tokenizer)(texts) if phonemes else texts
        except ValueError as error:
            raise ValueError(f"{ngrams.path} has words, and no phonemes for them: {error}. Give a lexicon word<TAB>phonemes") from None
    elif phonemes:
        entries = load_lexicon(lexicon).entries
        texts, targets = list(entries), list(entries.values())
    else:
        texts = targets = _as_targets(list(lexicon) if isinstance(lexicon, Mapping) else _read_words(Path(lexicon)), tokenizer)
    spelled = spell(targets, tokenizer)
    if 2 * sum(labels is None for labels in spelled) > len(texts):
        lacking = lacking_symbols(targets, tokenizer)
        raise ValueError(
            f"most words of {lexicon or ngrams.path} have symbols that the model lacks: {_named(lacking)}, such as in "
            f"{_named([text for text, labels in zip(texts, spelled, strict=True) if labels is None][:3])}"
        )
    if unspelled := [text for text, labels in zip(texts, spelled, strict=True) if labels is None]:
        logger.warning("the model lacks symbols of %d of %d words, such as %s", len(unspelled), len(texts), _named(unspelled[:3]))
    spellings = [(number, labels) for number, labels in enumerate(spelled) if labels is not None]
    known = {(texts[number], labels) for number, labels in spellings}
    added = [(text, labels) for text, labels in further.items() if (text, labels) not in known]
    spellings += [(len(texts) + place, labels) for place, (_, labels) in enumerate(added)]
    texts = [*texts, *(text for text, _ in added)]
    if ngrams is None:
        return Vocabulary(spellings, texts, [0] * len(texts), np.zeros(len(texts)))
    numbers = {word: number for number, word in enumerate(ngrams.words)}
    scored_as = [numbers.get(text, ngrams.unknown) for text in texts]
    return Vocabulary(spellings, texts, scored_as, np.array([ngrams.unigram(number) for number in scored_as]))


def _as_targets(words: list[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return words as the targets of the model have them, if it says how those were made: lower case, numbers in words."""
    if not is_recorded(tokenizer):
        return words
    return list(dict.fromkeys(" ".join(target_maker(tokenizer)(words)).split()))


class WordModel:
    """Words of a lexicon, with an n-gram model of words or without one.

    A word that has begun has the score of the most probable word that begins so, until it is whole. Where the vocabulary has no
    boundary a word may end at every symbol; where words sound alike, each is a reading; the best 16 readings are kept.

    Args:
        vocabulary: What can be said.
        ngrams: The model of its words, or None.
        tokenizer: Of the model.
        alpha, beta: Weight of the n-gram model, and bonus of each word.
        open_vocabulary: Whether other words can be said too: with the probability of `<unk>`, and of their symbols drawn evenly.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        ngrams: NGrams | None,
        tokenizer: PreTrainedTokenizerBase,
        alpha: float,
        beta: float,
        open_vocabulary: bool,
    ):
        self.vocabulary, self.ngrams, self.alpha, self.beta, self.open_vocabulary = vocabulary, ngrams, alpha, beta, open_vocabulary
        self._where = boundaries(tokenizer)
        self._symbol = -math.log(len(tokenizer))
        self._unknown = 0.0 if ngrams is None else ngrams.unigram(ngrams.unknown)

    @property
    def start(self) -> _State:
        return _State((_Reading(0.0, None if self.ngrams is None else self.ngrams.start(), "", (), 0),), 0.0, 0)

    def step(self, state: _State, label: int) -> tuple[_State, float]:
        place, where, char = state.place, self._where, chr(label)
        readings = []
        for reading in state.readings:
            if label in where.separators or label in where.starts:
                readings += self._whole(reading, place) if reading.begun else [reading]
            else:
                readings.append(reading)
        if label not in where.separators:
            readings = [
                _Reading(reading.score, reading.context, reading.begun + char, reading.words, reading.first if reading.begun else place)
                for reading in readings
            ]
            if where.none:
                readings += [whole for reading in readings for whole in self._whole(reading, place + 1)]
        after = self._state(readings, place + 1)
        return after, after.score - state.score

    def finish(self, state: _State) -> float:
        best = self._best(state)
        return (IMPOSSIBLE if best is None else best.score) - state.score

    def read(self, labels: Sequence[int]) -> list[tuple[int | None, int, int]] | None:
        """Read labels as words: number, None for one of an open vocabulary, first and last label, end exclusive.

        Returns:
            None where the lexicon does not allow them.
        """
        state = self.start
        for label in labels:
            state, _ = self.step(state, label)
        best = self._best(state)
        if best is None:
            return None
        found, rest = [], best.words
        while rest:
            rest, number, first, last = rest
            found.append((number, first, last))
        return found[::-1]

    def _best(self, state: _State) -> _Reading | None:
        readings = [whole for reading in state.readings for whole in (self._whole(reading, state.place) if reading.begun else [reading])]
        if self.ngrams is not None:
            weight, finish = self.alpha * LN10, self.ngrams.model.finish
            readings = [_Reading(r.score + weight * finish(r.context)[1], r.context, "", r.words, r.first) for r in readings]
        return max(readings, key=lambda reading: reading.score, default=None)

    def _whole(self, reading: _Reading, end: int) -> list[_Reading]:
        """End the word that has begun: one reading for each word that is spelled so."""
        numbers = self.vocabulary.find(reading.begun)[1] or ((None,) if self.open_vocabulary else ())
        found = []
        for number in numbers:
            context, score = reading.context, reading.score + self.beta
            if number is None:
                score += self.alpha * self._symbol * len(reading.begun)
            if self.ngrams is not None:
                scored_as = self.ngrams.unknown if number is None else self.vocabulary.scored_as[number]
                context, gain = self.ngrams.model.score(context, scored_as)
                score += self.alpha * LN10 * gain
            found.append(_Reading(score, context, "", (reading.words, number, reading.first, end), end))
        return found

    def _state(self, readings: list[_Reading], place: int) -> _State:
        best: dict[tuple, tuple[float, _Reading]] = {}
        for reading in readings:
            score = reading.score
            if reading.begun:
                ahead = self.vocabulary.find(reading.begun)[0]
                if ahead is None and not self.open_vocabulary:
                    continue
                score += self.alpha * (self._unknown + self._symbol * len(reading.begun) if ahead is None else ahead) + self.beta
            key = (id(reading.context), reading.begun)
            if key not in best or score > best[key][0]:
                best[key] = (score, reading)
        kept = sorted(best.values(), key=lambda pair: -pair[0])[:_MOST_READINGS]
        return _State(tuple(reading for _, reading in kept), kept[0][0] if kept else IMPOSSIBLE, place)


def _read_words(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"the lexicon {path} is not there; give a file of words, one a line")
    words = {}
    for number, line in entry_lines(path):
        if line is None:
            raise ValueError(f"{path}, line {number} is not UTF-8; save the lexicon in that encoding")
        words[line.partition("\t")[0].strip()] = None
    if not words:
        raise ValueError(f"the lexicon {path} has no word; give one a line")
    return list(words)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return (" ".join(names[:_MOST_NAMED]) or "none") + more
