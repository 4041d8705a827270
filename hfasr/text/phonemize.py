"""Text -> phonemes, by a voice of the bundled espeak-ng through phonemizer."""

import logging
from collections.abc import Iterable
from functools import lru_cache

from hfasr import espeak

WORD_BAR = "|"


class Phonemizer:
    """Turn text into the phonemes of one espeak-ng voice.

    Phonemes are espeak's symbols without stress, split by single spaces; words are split by a bar. Flags that espeak
    inserts where it changes the language inside a sentence are removed. For Kyrgyz this reproduces the targets of the
    UniSpeech paper (Wang et al. 2021, arXiv 2101.07597) symbol by symbol.

    Args:
        voice: espeak-ng language or voice, such as "ky", "kk", "en-us".
        word_bars: Keep the ` | ` between words; False leaves only phonemes.

    Raises:
        ValueError: espeak-ng has no such voice.

    Example:
        >>> Phonemizer("ky")("Ал келди.")
        'ɑ l | k e l d[ i'
    """

    def __init__(self, voice: str, word_bars: bool = True):
        self.voice, self.word_bars = voice, word_bars
        espeak.check_voice(voice)
        if "+" in voice:
            raise ValueError(f"{voice!r} names a variant, which changes the sound and not the phonemes; give {voice.partition('+')[0]!r}")

    @property
    def espeak_version(self) -> str:
        """Version of the bundled espeak-ng; phonemes of some languages differ between versions."""
        return espeak.version()

    def __call__(self, text: str | Iterable[str]) -> str | list[str]:
        """Phonemize one text, or a list in one batch.

        Returns:
            Phonemes `"ɑ l | k e l d[ i"` of the text, or a list of as many; a text without words gives "".

        Raises:
            TypeError: An item is not a string.
        """
        if isinstance(text, str):
            return self([text])[0]
        texts = list(text)
        for item in texts:
            if not isinstance(item, str):
                raise TypeError(f"Phonemizer takes a string or a list of strings, found {type(item).__name__} {item!r}")
        # espeak reads line by line, and phonemizer drops empty lines: keep one line a text, in place.
        lines = [" ".join(item.split()) for item in texts]
        spoken = [place for place, line in enumerate(lines) if any(char.isalnum() for char in line)]
        phonemes = [""] * len(lines)
        backend, separator = _backend(self.voice)
        for place, line in zip(spoken, backend.phonemize([lines[place] for place in spoken], separator, strip=False), strict=True):
            phonemes[place] = self._words(line)
        return phonemes

    def _words(self, line: str) -> str:
        words = [" ".join(word.split()) for word in line.split(WORD_BAR)]
        return (f" {WORD_BAR} " if self.word_bars else " ").join(word for word in words if word)


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
    backend = EspeakBackend(voice, language_switch="remove-flags", with_stress=False, words_mismatch="ignore", logger=quiet)
    return backend, Separator(phone=" ", word=f" {WORD_BAR} ", syllable="")
