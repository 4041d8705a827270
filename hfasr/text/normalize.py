"""Transcript as given -> text with one spelling for what sounds alike: the table of languages is `LANGUAGES`."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

_CYRILLIC_FOR_LATIN = str.maketrans("aceopxyhikmtb", "асеорхуһікмтв")

# One form for the many apostrophes and dashes that keyboards produce.
_UNIFIED = str.maketrans({**dict.fromkeys("’‘ʼ`´ʻ＇", "'"), **dict.fromkeys("‐‑‒–—―−﹣－", "-"), "\u00ad": "", "\ufeff": "", "\u200b": ""})

_BRACKETED = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>|\{[^}]*\}")


@dataclass(frozen=True)
class Language:
    """How one language is written.

    Args:
        letters: Its lower-case alphabet; a look-alike is replaced only by a letter of it.
        look_alikes: `str.translate` table from Latin letters to the Cyrillic ones they are mistyped for, applied
            inside words that hold a Cyrillic letter.
        keep: Marks that belong to words, such as the apostrophe in English; kept between two letters only.
        spaces: False for scripts written without spaces between words.
    """

    letters: str = ""
    look_alikes: dict[int, str] = field(default_factory=dict)
    keep: str = ""
    spaces: bool = True


_RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"

LANGUAGES = {
    "ky": Language(letters=_RUSSIAN + "ңөү", look_alikes=_CYRILLIC_FOR_LATIN),
    "kk": Language(letters=_RUSSIAN + "әғқңөұүһі", look_alikes=_CYRILLIC_FOR_LATIN),
    "ru": Language(letters=_RUSSIAN, look_alikes=_CYRILLIC_FOR_LATIN),
    "en": Language(letters="abcdefghijklmnopqrstuvwxyz", keep="'"),
    "zh": Language(spaces=False),
    "default": Language(keep="'"),
}


class Normalizer:
    """Normalize transcripts of one language.

    In order: Unicode NFC (NFKC for Chinese, which folds full-width forms), bracketed remarks dropped, apostrophes and
    dashes unified, lower case, Latin look-alikes inside Cyrillic words replaced, everything that is neither letter,
    digit nor combining mark turned into a space, runs of spaces joined (removed for Chinese, between two CJK characters).

    Args:
        language: A key of `LANGUAGES`; any other language uses the row "default".

    Example:
        >>> Normalizer("ky")("Ал — келди! (күлкү)")
        'ал келди'
    """

    def __init__(self, language: str):
        self.language = language
        self._rules = LANGUAGES.get(language, LANGUAGES["default"])

    def __call__(self, text: str | Iterable[str]) -> str | list[str]:
        """Normalize one text, or each of a list.

        Raises:
            TypeError: An item is not a string (a missing transcript must be handled before).
        """
        if not isinstance(text, str):
            if not isinstance(text, Iterable):
                raise TypeError(f"Normalizer takes a string or a list of strings, found {type(text).__name__} {text!r}")
            return [self(item) for item in text]
        text = unicodedata.normalize("NFC" if self._rules.spaces else "NFKC", text)
        text = _BRACKETED.sub(" ", text).translate(_UNIFIED).lower()
        if self._rules.look_alikes:
            text = " ".join(self._unmix(word) for word in text.split())
        text = "".join(char if self._belongs(text, place) else " " for place, char in enumerate(text))
        if not self._rules.spaces:
            text = re.sub(r"(?<=[\u2e80-\u9fff\U00020000-\U0003ffff])\s+(?=[\u2e80-\u9fff\U00020000-\U0003ffff])", "", text)
        return " ".join(text.split())

    def _unmix(self, word: str) -> str:
        if not any("\u0400" <= char <= "\u052f" for char in word):
            return word
        return "".join(replaced if (replaced := char.translate(self._rules.look_alikes)) in self._rules.letters else char for char in word)

    def _belongs(self, text: str, place: int) -> bool:
        char = text[place]
        if char in self._rules.keep:
            return 0 < place < len(text) - 1 and text[place - 1].isalpha() and text[place + 1].isalpha()
        return unicodedata.category(char)[0] in "LMN"
