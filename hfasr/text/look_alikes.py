"""Words typed with letters of two scripts, and which script was meant."""

import re

from hfasr.text.tables import LanguageTable

_SCRIPTS = {
    "latin": "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0259\u1e00-\u1eff",
    "cyrillic": "\u0400-\u052f\u1c80-\u1c8f\ua640-\ua69f",
}
# A Roman number, as far as its letters have doubles; no language here has a word of one of these letters.
_ROMAN = frozenset("IXix")
# With the Cyrillic letters that are typed for them.
ROMAN_LETTERS = {**dict(zip("IVXLCDM", "IVXLCDM", strict=True)), "І": "I", "Х": "X", "С": "C", "М": "M"}
_ROMAN_SMALL = re.compile("(?=..)X{0,3}(IX|IV|V?I{0,3})")
_ROMAN_YEAR = re.compile("(?=.{5})M{1,2}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
_TO_ROMAN = str.maketrans(ROMAN_LETTERS)


class LookAlikes:
    """Replace letters of the wrong script, word by word.

    A word of both scripts goes to the one that all its letters fit; where both fit, to the one with more of its letters, the language's
    own for a tie. Where none fits (`smsке`, a foreign word with an ending) it stays.

    A word wholly of the other script whose letters all have doubles (`a`, `cop`) is *open*; its sentence decides, in `settle`.

    Args:
        table: Its `look_alikes` say which script is its own.
    """

    def __init__(self, table: LanguageTable):
        cyrillic = any("\u0400" <= letter <= "\u052f" for letter in table.look_alikes.values())
        own, foreign = ("cyrillic", "latin") if cyrillic else ("latin", "cyrillic")
        self._own, self._foreign = (re.compile(f"[{_SCRIPTS[script]}]") for script in (own, foreign))
        self._one_letter_words = table.one_letter_words
        letters = {typed: meant for typed, meant in table.look_alikes.items() if meant.lower() in table.letters}
        self._to_own, self._to_foreign = str.maketrans(letters), str.maketrans(table.foreign_look_alikes)
        self._with_ending = re.compile(rf"[{_SCRIPTS[foreign]}]+[{_SCRIPTS[own]}]{{2,}}")

    def unmix(self, word: str) -> str:
        """Return a word in one script, or as it is where that is not sure or not needed."""
        own, foreign = self._own.findall(word), self._foreign.findall(word)
        if not own or not foreign:
            return word
        fits_own = all(ord(letter) in self._to_own for letter in foreign)
        fits_foreign = all(ord(letter) in self._to_foreign for letter in own) and not self._with_ending.fullmatch(word)
        if fits_own and fits_foreign:
            fits_own = len(own) >= len(foreign)
        if fits_own:
            return word.translate(self._to_own)
        return word.translate(self._to_foreign) if fits_foreign else word

    def own_form(self, word: str) -> str:
        """Return a word in the language's own script where all its letters fit, to look it up."""
        return word.translate(self._to_own) if all(ord(letter) in self._to_own for letter in self._foreign.findall(word)) else word

    def is_open(self, word: str) -> bool:
        """Say whether a word is of the other script only, and could as well be of the own one."""
        foreign = self._foreign.findall(word)
        return bool(foreign) and not self._own.search(word) and all(ord(letter) in self._to_own for letter in foreign)

    def settle(self, words: list[str], done: list[str | None]) -> list[str]:
        """Decide the open words of a sentence.

        One letter becomes the language's own if it may be a word of it (a capital without a small double only at the beginning, since
        `план B` is a name), unless the nearest words on both sides (of those that are not open) are foreign, or it may
        be a Roman number. A longer one stays, as a name or an acronym would (`IT`, `Expo`); only in a sentence that has look-alikes in
        other words it becomes the language's own, if it is not in capitals.

        Args:
            words: As typed; a word that is open only after `unmix` and in small letters is given so.
            done: The words with look-alikes replaced, in any case; None for the open ones.

        Returns:
            All words with look-alikes replaced, those that were open in the case as typed.
        """
        typist_mixes = any(
            other and self._foreign.search(word) and not self._foreign.search(other) for word, other in zip(words, done, strict=True)
        )
        settled = list(done)
        for place, word in enumerate(words):
            if done[place] is None and len(word) > 1 and typist_mixes and not word.isupper() and not roman_number(word.upper()):
                settled[place] = word.translate(self._to_own)
        known = [None if word is None else self._script(word) for word in settled]
        for place, word in enumerate(words):
            if settled[place] is None:
                near = {next(filter(None, known[place + 1 :]), None), next(filter(None, reversed(known[:place])), None)} - {None}
                stays = len(word) > 1 or word in _ROMAN or near == {"foreign"} or not self._may_be_a_word(word, first=place == 0)
                settled[place] = word if stays else word.translate(self._to_own)
        return settled

    def _may_be_a_word(self, letter: str, *, first: bool) -> bool:
        own = letter.translate(self._to_own)
        return (first or ord(letter.lower()) in self._to_own) and own.lower() in (self._one_letter_words or own.lower())

    def _script(self, word: str) -> str | None:
        if self._own.search(word):
            return "own"
        return "foreign" if self._foreign.search(word) else None


def roman_number(word: str) -> str:
    """Return a word of capitals in Latin letters if it is a Roman number of several letters: up to 39, or a year of five or more.

    >>> roman_number("ХІХ"), roman_number("MIX"), roman_number("MCMXC")
    ('XIX', '', 'MCMXC')
    """
    latin = word.translate(_TO_ROMAN)
    return latin if _ROMAN_SMALL.fullmatch(latin) or _ROMAN_YEAR.fullmatch(latin) else ""
