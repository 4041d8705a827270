"""A recording and the text that is said in it -> when each word and symbol is said.

Shapes: T output frames, V vocabulary, L labels.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from hfasr.audio import SAMPLING_RATE, iter_blocks
from hfasr.decoding.alignment import STAR, align_labels
from hfasr.decoding.hypothesis import Token
from hfasr.decoding.words import SEPARATORS, boundaries, lacking_symbols, plain_text
from hfasr.inference.boundaries import Spectrum, lag_seconds, place_boundaries
from hfasr.inference.engine import TorchEngine
from hfasr.inference.long.windows import long_log_probs
from hfasr.inference.transcript import Transcript, Unit
from hfasr.inference.units import symbols_of
from hfasr.text.phonemize import Phonemizer
from hfasr.text.targets import target_maker
from hfasr.text.vocabulary import encode_targets, split_target

LEFT_OUT = "*"
"""Stands in a text for a stretch of the recording that it leaves out."""

# Chinese is written without spaces: each character is a word
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\s\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
# read at once, so that words sound as among their neighbours
_MOST_WORDS = 100
_MOST_NAMED = 10
_Source = str | os.PathLike | bytes | bytearray | BinaryIO | np.ndarray | dict


@dataclass
class _Spelling:
    """A text as the labels of a model, and whose they are."""

    words: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    owners: list[int | None] = field(default_factory=list)
    """Of each label its word; None for a word boundary."""


class Aligner:
    """Find when the words of given texts are said, by a CTC model.

    The text is spelled as the targets of the model were: by the phonemizer or normalizer that its tokenizer records.

    Args:
        model: Checkpoint folder, Hub name or .nemo file, a pair of model and processor, or a `TorchEngine`.
        device: Such as "cpu", "cuda" or "cuda:1"; as for `TorchEngine`.
        unit, language, lexicon: How to spell for a model that is not hfasr's, and the lexicon of one that was trained with it; see
            `hfasr.text.targets.target_maker`.

    Attributes:
        symbols: What the model's symbols are: "phonemes", "characters" or "pieces".

    Raises:
        FileNotFoundError, OSError: There is no such model or lexicon.
        ValueError: As `TorchEngine` and `target_maker`.
    """

    def __init__(
        self,
        model,
        *,
        device: str | torch.device | None = None,
        unit: str | None = None,
        language: str | None = None,
        lexicon: str | os.PathLike | None = None,
    ):
        # another engine than TorchEngine has the same members
        self.engine = model if hasattr(model, "log_probs") else TorchEngine(model, device=device)
        self._tokenizer = self.engine.tokenizer
        self._to_target = target_maker(self._tokenizer, unit=unit, language=language, lexicon=lexicon)
        self._between = boundaries(self._tokenizer)
        self._phonemes = isinstance(self._to_target, Phonemizer)
        if self._phonemes:
            self._to_target.word_bars = True  # they tell the words apart, also for a model that does not say them
        self.symbols = "phonemes" if self._phonemes else symbols_of(self._tokenizer)
        self._ids = {symbol: index for symbol, index in self._tokenizer.get_vocab().items() if index != self.engine.blank}

    def __call__(self, audio: _Source, text: str) -> Transcript:
        """Align a recording of any length with the text that is said in it.

        Args:
            audio: What `load_audio` takes; a file is read in blocks.
            text: What is said, in lines or not. A word `*` stands for what the text leaves out there, if anything.

        Returns:
            The text; its words as they are written, each with its begin, end and confidence, but for those that the model does not
            say, such as a dash; and the model's symbols. A confidence is the mean probability of a symbol in the frames where the
            path has it, and of a word that of its symbols. Where a `*` was needed it is among the words, without a confidence.

        Raises:
            FileNotFoundError: The audio does not exist.
            AudioError: It is empty, cut short, or no audio.
            ValueError: The text is empty, cannot be read or spelled with the model's symbols, or is too long for the audio.
        """
        spelling, spectrum = self._spell(text), Spectrum()
        path = os.fspath(audio) if isinstance(audio, str | os.PathLike) else None
        # a silence may hide a whisper, so nothing is left out
        pieces = long_log_probs(self.engine, spectrum.listen(iter_blocks(audio)), pause_seconds=math.inf)
        # of thousands of symbols those of the text are kept, and beside them the best of all, for stars; on the
        # host, for those of hours may not fit a GPU
        kept = sorted({self.engine.blank, *spelling.labels} - {STAR})
        log_probs = torch.cat([torch.cat([piece[:, kept], piece.amax(-1, keepdim=True)], 1).cpu() for _, piece in pieces])
        duration = spectrum.samples / SAMPLING_RATE
        places = {label: place for place, label in enumerate(kept)} | {STAR: STAR}
        try:
            found = align_labels(log_probs, [places[label] for label in spelling.labels], blank=places[self.engine.blank])
        except ValueError as error:
            raise ValueError(f"{path or 'the recording'}, {duration:.2f} s: {error}") from None
        heard = [(owner, *said) for owner, *said in zip(spelling.owners, found.tokens, found.confidences, strict=True) if owner is not None]
        heard = [said for said in heard if said[1].start_frame < said[1].end_frame]  # a star may be empty
        times = self._seconds([token for _, token, _ in heard], spectrum, duration)
        symbols, words = [], {}
        for (owner, token, confidence), start, end in zip(heard, *times, strict=True):
            unit = Unit(LEFT_OUT, start, end)
            if token.id != STAR:
                unit = Unit(plain_text(self._tokenizer, (kept[token.id],)), start, end, confidence)
                symbols.append(unit)
            words.setdefault(owner, []).append(unit)
        joined = tuple(_joined(spelling.words[owner], units) for owner, units in words.items())
        return Transcript(" ".join(text.split()), path, duration, None, joined, tuple(symbols))

    def _seconds(self, tokens: list[Token], spectrum: Spectrum, duration: float) -> tuple[list[float], list[float]]:
        """Return where tokens begin and end."""
        grid, log_mel = self.engine.grid, spectrum.log_mel()
        frames = np.array([(token.start_frame, token.end_frame - 1) for token in tokens])
        firsts, lasts = ((grid.centre + frames * grid.stride) / grid.sampling_rate).T
        said = np.array([token.id != STAR for token in tokens])
        lag = lag_seconds(log_mel, ((firsts + lasts) / 2)[said])
        starts, ends = place_boundaries(log_mel, firsts - lag, lasts - lag)
        return np.minimum(starts, duration).tolist(), np.minimum(ends, duration).tolist()

    def _spell(self, text: str) -> _Spelling:
        if not isinstance(text, str):
            raise TypeError(f"expected the text as a string, found {type(text).__name__}")
        spelling, lacking, needing = _Spelling(), Counter(), {}
        for part in _parts(text):
            first = len(spelling.words)
            if part == LEFT_OUT:
                if not spelling.labels or spelling.labels[-1] != STAR:
                    spelling.words.append(part)
                    self._add(spelling, [STAR], [first])
                continue
            words = _WORD.findall(part)
            spelling.words += words
            symbols, owners = self._symbols(part, words)
            labels = [self._label(symbol) for symbol in symbols]
            for symbol, label, owner in zip(symbols, labels, owners, strict=True):
                if label is None and symbol not in SEPARATORS:
                    lacking[symbol] += 1
                    needing[words[owner]] = None
            owners = [None if owner is None else first + owner for owner in owners]
            kept = [place for place, label in enumerate(labels) if label is not None]
            self._add(spelling, [labels[place] for place in kept], [owners[place] for place in kept])
        if lacking:
            raise _unspelled(needing, [symbol for symbol, _ in lacking.most_common()])
        if all(label == STAR for label in spelling.labels):
            raise ValueError("the text has no word that can be said; give what is said in the recording")
        return spelling

    def _add(self, spelling: _Spelling, labels: list[int], owners: list[int | None]) -> None:
        """Add labels behind a word boundary, if the model has one; before a star, that may be empty, it stands when more follows."""
        before = len(spelling.labels) - (spelling.labels[-1:] == [STAR])
        if self._between.separators and labels and before and labels[0] != STAR:
            spelling.labels.insert(before, min(self._between.separators))
            spelling.owners.insert(before, None)
        spelling.labels += labels
        spelling.owners += owners

    def _label(self, symbol: str) -> int | None:
        """Return the id of a symbol, in the other case where the model only has that."""
        if symbol in SEPARATORS:
            return min(self._between.separators, default=None)
        return next((self._ids[form] for form in (symbol, symbol.upper(), symbol.lower()) if form in self._ids), None)

    def _symbols(self, part: str, words: list[str]) -> tuple[list[str], list[int | None]]:
        """Return the symbols of some words as they are read together, and of each the number of its word, None for a boundary."""
        together, *alone = self._to_target([part, *words])
        if not together and any(character.isalnum() for character in part):
            raise ValueError(f"nothing can be read of {part[:80]!r}; write its numbers in words")
        symbols, *rows = self._split([together, *alone], words)
        single, owners = [], []
        for number, row in enumerate(rows):
            if self._between.starts == frozenset() and single and row:
                single.append("|")
                owners.append(None)
            single += row
            owners += [number] * len(row)
        # a word may sound another way among others than alone, or become several
        return symbols, owners if symbols == single else _carried_over(symbols, single, owners)

    def _split(self, targets: list[str], words: list[str]) -> list[list[str]]:
        if not self._between.starts:
            return [split_target(target, "phoneme" if self._phonemes else "character") for target in targets]
        if lacking := lacking_symbols(targets, self._tokenizer):
            alone = [word for word, target in zip(words, targets[1:], strict=True) if lacking_symbols([target], self._tokenizer)]
            raise _unspelled(dict.fromkeys(alone or words), lacking)
        labels = encode_targets(self._tokenizer, targets)
        tokens = self._tokenizer.convert_ids_to_tokens(labels.ids.tolist())
        return [tokens[start:end] for start, end in zip(labels.offsets[:-1], labels.offsets[1:], strict=True)]


def align(
    audio: _Source,
    text: str,
    model,
    *,
    device: str | torch.device | None = None,
    unit: str | None = None,
    language: str | None = None,
    lexicon: str | os.PathLike | None = None,
) -> Transcript:
    """Find when each word and symbol of a text is said in a recording; for many recordings make an `Aligner` once.

    Args:
        audio: What `load_audio` takes, of any length.
        text: What is said; a word `*` stands for a stretch that the text leaves out.
        model, device, unit, language, lexicon: As `Aligner` takes them.

    Returns:
        What calling an `Aligner` returns: the text with `words` and `symbols`, each with begin, end and confidence.

    Raises:
        FileNotFoundError, OSError, ValueError: As `Aligner`, and calling it.
    """
    return Aligner(model, device=device, unit=unit, language=language, lexicon=lexicon)(audio, text)


def _parts(text: str) -> Iterator[str]:
    """Yield stretches of a text that are read at once: lines, split at stars and where they are long; and the stars."""
    for line in text.splitlines():
        start = end = count = 0
        for word in _WORD.finditer(line):
            if word[0] == LEFT_OUT or count == _MOST_WORDS:
                if count:
                    yield line[start:end]
                count, start = 0, word.end() if word[0] == LEFT_OUT else word.start()
            if word[0] == LEFT_OUT:
                yield LEFT_OUT
            else:
                count, end = count + 1, word.end()
        if count:
            yield line[start:end]


def _carried_over(symbols: list[str], single: list[str], owners: list[int | None]) -> list[int | None]:
    """Give symbols the owners of those that they are a variant of, by the fewest edits; an inserted one belongs to its neighbour."""
    found: list[int | None] = []
    for edit in Levenshtein.opcodes(single, symbols):
        for place in range(edit.dest_start, edit.dest_end):
            if symbols[place] in SEPARATORS:
                found.append(None)
            elif edit.tag == "insert":
                found.append(next((owner for owner in reversed(found) if owner is not None), 0))
            else:
                found.append(owners[edit.src_start + place - edit.dest_start])
    # a symbol in place of a boundary, and order, which a word's times stand on
    last = 0
    for place, owner in enumerate(found):
        if symbols[place] not in SEPARATORS:
            found[place] = last = last if owner is None else owner
    return found


def _unspelled(words: Iterable[str], symbols: list[str]) -> ValueError:
    told = [re.sub(r"^\W+|\W+$", "", word) or word for word in words]
    more = f" and {len(told) - _MOST_NAMED} more" if len(told) > _MOST_NAMED else ""
    return ValueError(
        f"the model cannot spell {', '.join(told[:_MOST_NAMED])}{more}: it has no output for {' '.join(symbols[:_MOST_NAMED])}; write "
        f"those words as the model's language spells them, or {LEFT_OUT} in their place"
    )


def _joined(text: str, units: list[Unit]) -> Unit:
    sure = [unit.confidence for unit in units if unit.confidence is not None]
    return Unit(text, units[0].start, units[-1].end, sum(sure) / len(sure) if sure else None)
