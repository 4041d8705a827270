"""Text -> phonemes, by a voice of the bundled espeak-ng through phonemizer, or a pronunciation lexicon before it."""

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from hfasr import espeak
from hfasr.text.lexicon import is_spoken, load_lexicon
from hfasr.text.normalize import Normalizer

WORD_BAR = "|"
# espeak writes "(en)" where it goes on in another language, and "(ky)" where it comes back
_FLAG = re.compile(r"\(.+?\)")
_MOST_NAMED = 10

_ONE_AT_A_TIME = threading.Lock()  # the library keeps its state in global variables


class Phonemes(NamedTuple):
    """Phonemes of texts, and which texts espeak-ng read in part by the rules of another language."""

    targets: list[str]
    switched: list[bool]


class Phonemizer:
    """Turn text into the phonemes of one espeak-ng voice, or of a lexicon with the voice for the words it lacks.

    Phonemes are espeak's symbols without stress, split by single spaces; words are split by a bar. Flags that espeak
    inserts where it changes the language inside a sentence are removed. For Kyrgyz this reproduces the targets of the
    UniSpeech paper (Wang et al. 2021, arXiv 2101.07597) symbol by symbol.

    A lexicon should be written in the voice's own symbols, else the model has to learn two alphabets at once. Its words are
    found as they are written, then in lower or upper case, without the punctuation around them; a hyphen or apostrophe inside belongs
    to the word. The other words sound as in the whole sentence, because espeak-ng joins and reduces words by their neighbours;
    where its words cannot be told apart from the lexicon's, each stretch between those is read on its own.

    Args:
        voice: espeak-ng language or voice, such as "ky", "kk", "en-us"; None takes words from the lexicon only.
        word_bars: Keep the ` | ` between words; False leaves only phonemes.
        lexicon: UTF-8 file of lines `word<TAB>phonemes`, or a dict.
        normalizer: Applied to the texts first; it mends look-alikes, which espeak-ng spells out letter by letter. None takes texts
            as they are, as the UniSpeech paper does.

    Raises:
        ValueError: espeak-ng has no such voice, the lexicon has bad lines, or neither is given.
        FileNotFoundError: There is no such lexicon.

    Example:
        >>> Phonemizer("ky")("Ал келди.")
        'ɑ l | k e l d[ i'
    """

    def __init__(
        self,
        voice: str | None,
        word_bars: bool = True,
        lexicon: str | os.PathLike | Mapping[str, str] | None = None,
        normalizer: Normalizer | None = None,
    ):
        self.voice, self.word_bars, self.normalizer = voice, word_bars, normalizer
        self.lexicon = None if lexicon is None else load_lexicon(lexicon)
        if voice is None and self.lexicon is None:
            raise ValueError("Phonemizer has neither a voice nor a lexicon; give one of them, or both")
        if voice is None:
            return
        espeak.check_voice(voice)
        if "+" in voice:
            raise ValueError(f"{voice!r} names a variant, which changes the sound and not the phonemes; give {voice.partition('+')[0]!r}")

    @property
    def espeak_version(self) -> str | None:
        """Version of the bundled espeak-ng, None without a voice; phonemes of some languages differ between versions."""
        return None if self.voice is None else espeak.version()

    @property
    def record(self) -> dict[str, str | None]:
        """How the phonemes are made, for `target_record`: voice, espeak-ng version and the hash of the lexicon."""
        lexicon = None if self.lexicon is None else self.lexicon.sha256
        made_by = {"voice": self.voice, "espeak_version": self.espeak_version, "lexicon_sha256": lexicon}
        return made_by | ({} if self.normalizer is None else self.normalizer.record)

    @property
    def fingerprint(self) -> str:
        """All that decides what a text becomes, for what is kept of it."""
        return f"phonemes 1 {self.record} {self.word_bars} {self.normalizer and self.normalizer.fingerprint}"

    def __call__(self, text: str | Iterable[str]) -> str | list[str]:
        """Phonemize one text, or a list in one batch.

        Returns:
            Phonemes `"ɑ l | k e l d[ i"` of the text, or a list of as many; a text without words gives "".

        Raises:
            TypeError: An item is not a string.
            ValueError: There is no voice, and the lexicon lacks words; up to ten are named.
        """
        if isinstance(text, str):
            return self.phonemize([text]).targets[0]
        return self.phonemize(text).targets

    def phonemize(self, texts: Iterable[str]) -> Phonemes:
        """Phonemize a list in one batch and tell which texts espeak-ng read in part as another language.

        Raises:
            TypeError, ValueError: As calling the object.
        """
        lines = self._lines(texts)
        targets, switched = [""] * len(lines), [False] * len(lines)
        pieces = [self.lexicon.pieces(line) for line in lines] if self.lexicon is not None else []
        if self.voice is None:
            _refuse_unknown([piece for row in pieces for piece in row])
        mixed = [place for place, row in enumerate(pieces) if any(phonemes is not None for _, phonemes in row)]
        self._add_mixed(lines, pieces, mixed, targets, switched)
        chosen = set(mixed)
        plain = [place for place, line in enumerate(lines) if place not in chosen and any(char.isalnum() for char in line)]
        for place, line in zip(plain, self._speak([lines[place] for place in plain]), strict=True):
            targets[place], switched[place] = self._join(_words(line)), _FLAG.search(line) is not None
        return Phonemes(targets, switched)

    def unknown_words(self, texts: Iterable[str]) -> Counter[str]:
        """Count the words of texts that the lexicon lacks, to see whether it fits a corpus.

        Raises:
            ValueError: There is no lexicon.
        """
        if self.lexicon is None:
            raise ValueError("unknown_words needs a lexicon; this Phonemizer has only a voice")
        return _unknown(piece for line in self._lines(texts) for piece in self.lexicon.pieces(line))

    def _add_mixed(self, lines: list[str], pieces: list, mixed: list[int], targets: list[str], switched: list[bool]) -> None:
        """Fill in the lines that hold a word of the lexicon, at the places `mixed`."""
        # a line whose words are all in the lexicon needs no voice
        spoken = [place for place in mixed if _unknown(pieces[place])]
        singles = sorted({text.strip() for place in spoken for text, _ in pieces[place] if is_spoken(text)})
        alone = dict(zip(singles, self._speak(singles), strict=True))
        counts = Counter({text: len(_words(line)) for text, line in alone.items()})
        in_sentence = dict(zip(spoken, self._speak([lines[place] for place in spoken]), strict=True))
        runs = {}
        for place in mixed:
            row = pieces[place]
            words = _words(in_sentence.get(place, ""))
            switched[place] = any(phonemes is None and _FLAG.search(alone.get(text.strip(), "")) for text, phonemes in row)
            if place in in_sentence and len(words) != sum(counts[text.strip()] for text, _ in row):
                runs[place] = _runs(row)
            else:
                targets[place] = self._join(_replaced(row, words, counts))
        read = iter(self._speak([text for row in runs.values() for text, phonemes in row if phonemes is None]))
        for place, row in runs.items():
            targets[place] = self._join(word for _, phonemes in row for word in ([phonemes] if phonemes else _words(next(read))))

    def _lines(self, texts: Iterable[str]) -> list[str]:
        """Return texts as one line each, because espeak reads line by line."""
        texts = list(texts)
        for item in texts:
            if not isinstance(item, str):
                raise TypeError(f"Phonemizer takes a string or a list of strings, found {type(item).__name__} {item!r}")
        return [" ".join(item.split()) for item in (self.normalizer(texts) if self.normalizer else texts)]

    def _speak(self, lines: list[str]) -> list[str]:
        """Return what espeak-ng makes of each line, with the language flags."""
        if not lines:
            return []
        with _ONE_AT_A_TIME:
            backend, separator = _backend(self.voice)
            return backend.phonemize(lines, separator, strip=False)

    def _join(self, words: Iterable[str]) -> str:
        return (f" {WORD_BAR} " if self.word_bars else " ").join(words)


def _words(line: str) -> list[str]:
    if "(" in line:
        line = _FLAG.sub("", line)
    words = [" ".join(word.split()) for word in line.split(WORD_BAR)]
    return [word for word in words if word]


def _unknown(pieces: Iterable[tuple[str, str | None]]) -> Counter[str]:
    return Counter(text.strip() for text, phonemes in pieces if phonemes is None and is_spoken(text))


def _refuse_unknown(pieces: list[tuple[str, str | None]]) -> None:
    if unknown := _unknown(pieces):
        names = ", ".join(word for word, _ in unknown.most_common(_MOST_NAMED))
        raise ValueError(f"the lexicon lacks {len(unknown)} words of the texts, such as {names}; add them, or give a voice that reads them")


def _replaced(row: list[tuple[str, str | None]], words: list[str], counts: dict[str, int]) -> list[str]:
    """Words that espeak made of a line, with those of the lexicon in their places."""
    result, start = [], 0
    for text, phonemes in row:
        end = start + counts[text.strip()]
        result += words[start:end] if phonemes is None else [phonemes]
        start = end
    return result


def _runs(row: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Join the neighbouring pieces that the lexicon lacks; espeak names a lone apostrophe, so signs nobody says go."""
    runs = []
    for text, phonemes in row:
        if phonemes is None and runs and runs[-1][1] is None:
            runs[-1] = (runs[-1][0] + text, None)
        else:
            runs.append((text, phonemes))
    return [(text, phonemes) for text, phonemes in runs if phonemes is not None or is_spoken(text)]


@lru_cache(maxsize=16)
def _backend(voice: str):
    """One backend per voice and process: each loads its own copy of the library."""
    from phonemizer.backend import EspeakBackend
    from phonemizer.backend.espeak.wrapper import EspeakWrapper
    from phonemizer.separator import Separator

    EspeakWrapper.set_library(espeak.library_path())
    EspeakWrapper.set_data_path(espeak.data_path())
    quiet = logging.getLogger("hfasr.phonemizer")
    quiet.setLevel(logging.ERROR)  # phonemizer counts switched words in a warning per batch
    if not EspeakBackend.is_supported_language(voice):  # "en" is a code of several voices, of which one has to be named
        near = [code for code in EspeakBackend.supported_languages() if code.partition("-")[0] == voice.partition("-")[0]]
        raise ValueError(f"phonemes of {voice!r} are not those of one voice; give {' or '.join(near) or 'another code'}")
    backend = EspeakBackend(voice, language_switch="keep-flags", with_stress=False, words_mismatch="ignore", logger=quiet)
    return backend, Separator(phone=" ", word=f" {WORD_BAR} ", syllable="")
