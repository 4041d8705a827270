"""Digits to words, by the CLDR rules in the package unicode-rbnf and the part `[numbers]` of a language's table."""

import re
from functools import lru_cache

from hfasr.text.tables import NumberTable

_SPACES = " \u00a0\u2009\u202f"
_SIGNS = "%‰°€$£¥₽₸₺₴₾"
# Powers, fractions and circled numbers: they hold a number, but no table says how they are read.
_OTHER_NUMERALS = (
    "²³¹¼½¾\u2070-\u2079\u2080-\u2089\u2150-\u215f\u2189\u2460-\u24ff\u2776-\u2793\u3220-\u3229\u3248-\u325f\u3280-\u3289\u32b1-\u32bf"
)
_LETTER = rf"[^\W\d_{_OTHER_NUMERALS}]"
NUMERAL = re.compile(rf"[\d{_OTHER_NUMERALS}]")
_SEVERAL = re.compile(r"\d+(?:\.\d+){2,}|\d+(?:/\d+){2,}|\d+(?::\d+)+")
# The library computes with floats, which are exact up to here.
_MOST_DIGITS = 15


class UnreadableNumber(ValueError):
    """The table does not say how a number is read."""


class NumberReader:
    """Replace the numbers of a text by words.

    Groups of thousands, decimal fractions, signs such as %, times and dates (each number by itself), ordinals and suffixes tied to
    digits follow the table; a leading zero, or more than 15 digits, is read digit by digit. What no rule covers is left to
    `NumberTable.unreadable`.

    Args:
        table: Of a language that unicode-rbnf knows.

    Raises:
        ValueError: unicode-rbnf does not know the language, or not a rule set that the table names.
    """

    def __init__(self, table: NumberTable):
        from unicode_rbnf import RbnfEngine

        if table.library not in RbnfEngine.get_supported_languages():
            raise ValueError(f"unicode-rbnf has no rules for the language {table.library!r} that the table names in numbers.library")
        self._table = table
        self._engine = RbnfEngine.for_language(table.library)
        readings = [table.reading, table.fraction_reading, table.year, table.hyphen, *table.year_before.values(), *table.endings.values()]
        if unknown := set(readings) - set(self._engine.rulesets) - {"", "digits", "unsure"}:
            raise ValueError(f"unicode-rbnf has no rule set {', '.join(sorted(unknown))} for {table.library!r}; it is named in [numbers]")
        self._endings = sorted(table.endings, key=len, reverse=True)
        self._corrections = [(_piece(wrong), right) for wrong, right in table.corrections.items()]
        self._pattern = _pattern(table)
        self._said = lru_cache(maxsize=100_000)(self._say)

    def replace(self, text: str, found: list[tuple[str, str]] | None = None) -> str:
        """Replace every number.

        Args:
            text: In any case; apostrophes are `'` and dashes `-`.
            found: Gets each number as written and as read.

        Raises:
            UnreadableNumber: A number has no sure reading and the table does not keep such.
        """

        def one(match: re.Match) -> str:
            try:
                words = self._read(match)
            except UnreadableNumber:
                if self._table.unreadable != "keep":
                    raise UnreadableNumber(match[0].strip()) from None
                return match[0]
            if found is not None:
                found.append((match[0].strip(), words))
            return f" {words} "

        return self._pattern.sub(one, text)

    def _read(self, match: re.Match) -> str:
        whole, fraction, more, tail = match["whole"], match["fraction"], match["more"], (match["tail"] or "").lower()
        if whole is None:
            raise UnreadableNumber(match[0])
        sign = match["before"] or match["after"]
        if more:
            if not _SEVERAL.fullmatch(match["number"]) or sign:
                raise UnreadableNumber(match[0])
            words = " ".join(self._said(str(int(part)), self._table.reading) for part in re.split(r"\D", match["number"]))
            return (words + tail if tail in self._table.suffixes else f"{words} {tail}").strip()
        digits = re.sub(r"\D", "", whole)
        reading, joined, rest = self._reading(match, tail, grouped=digits != whole, alone=not (fraction or sign))
        words = self._fraction(digits, fraction, match) if fraction else self._said(digits, reading)
        if sign:
            words = self._with_sign(words, sign, digits, fraction, match)
        if match["minus"]:
            words = f"{self._table.minus} {words}"
        return " ".join(self._corrected(words + joined).split() + rest.split())

    def _reading(self, match: re.Match, tail: str, *, grouped: bool, alone: bool) -> tuple[str, str, str]:
        """Decide how a number is read: reading, letters joined to its last word, words after it."""
        table = self._table
        for ending in self._endings if alone else ():
            if tail == ending or (tail.startswith(ending) and tail[len(ending) :] in table.suffixes):
                return table.endings[ending], tail[len(ending) :], ""
        year = int(match["whole"]) if alone and not grouped and len(match["whole"]) == 4 else 0
        plain = table.year if table.year and 1100 <= year <= 2099 else table.reading
        if tail in table.suffixes:
            return plain, tail, ""
        following = tail or match.string[match.end() :].lstrip(_SPACES)[:20].lower()
        for start, reading in table.year_before.items() if 1000 <= year <= 2099 else ():
            if following.startswith(start):
                return reading, "", tail
        if tail and match["link"] == "-" and table.hyphen and alone:
            return table.hyphen, "", tail
        return plain, "", tail

    def _say(self, digits: str, reading: str) -> str:
        if reading == "unsure":
            raise UnreadableNumber(digits)
        if reading == "digits" or (len(digits) > 1 and digits[0] == "0") or len(digits) > _MOST_DIGITS:
            return " ".join(self._said(str(int(digit)), self._table.reading) for digit in digits)
        number = int(digits)
        if reading == self._table.reading and str(number) in self._table.words:
            return self._table.words[str(number)]
        try:
            words = "".join(self._engine.iter_format_number(number, reading))
            # Where the rules for ordinals have a gap, the library falls back to the cardinal without a word.
            if "ordinal" in reading and words == "".join(self._engine.iter_format_number(number, self._table.reading)):
                raise UnreadableNumber(digits)
        except (LookupError, ArithmeticError, _library_error()):
            raise UnreadableNumber(digits) from None
        return self._corrected(words.replace("\u00ad", ""))

    def _corrected(self, words: str) -> str:
        for wrong, right in self._corrections:
            words = wrong.sub(right, words)
        return words

    def _fraction(self, whole: str, fraction: str, match: re.Match) -> str:
        table = self._table
        reading = table.fraction_reading or table.reading
        pattern = table.fraction
        if not isinstance(pattern, str):
            if len(fraction) > len(pattern):
                raise UnreadableNumber(match[0])
            pattern, value = pattern[len(fraction) - 1], self._said(str(int(fraction)), reading)
        else:
            rest = fraction.lstrip("0")
            value = " ".join(self._said(part, reading) for part in [*"0" * (len(fraction) - len(rest)), rest] if part)
        digits = " ".join(self._said(digit, reading) for digit in map(str, map(int, fraction)))
        return pattern.format(whole=self._said(whole, reading), fraction=value, digits=digits)

    def _with_sign(self, words: str, sign: str, digits: str, fraction: str | None, match: re.Match) -> str:
        forms = self._table.signs.get(sign)
        if forms is None or (match["before"] and match["after"]):
            raise UnreadableNumber(match[0])
        if isinstance(forms, str):
            return forms.format(words)
        return forms[1 if fraction or len(forms) == 1 else _slavic_plural(int(digits))].format(words)


def _piece(wrong: str) -> re.Pattern:
    return re.compile("^" + re.escape(wrong[1:]) if wrong.startswith("^") else re.escape(wrong))


def _pattern(table: NumberTable) -> re.Pattern:
    thousands = re.escape(table.thousands.replace(" ", _SPACES))
    grouped = rf"\d{{1,3}}(?:[{thousands}]\d{{3}})+(?!\d)|" if table.thousands else ""
    fraction = rf"(?:[{re.escape(table.decimal)}](?P<fraction>\d+))?" if table.decimal else "(?P<fraction>(?!))?"
    signs = "|".join(sorted(map(re.escape, {*_SIGNS, *table.signs}), key=len, reverse=True))
    return re.compile(
        rf"(?:(?P<before>{signs})[{_SPACES}]?)?(?P<minus>(?<![\w).,!?])-)?"
        rf"(?P<number>(?P<whole>{grouped}\d+){fraction}(?P<more>(?:[.,:/]\d+)*))(?:[{_SPACES}]?(?P<after>{signs}))?"
        rf"(?:(?P<link>[-']?)(?P<tail>{_LETTER}+))?|[{_OTHER_NUMERALS}]"
    )


def _slavic_plural(number: int) -> int:
    """CLDR's plural classes of Russian: 0 one, 1 few, 2 many."""
    if number % 10 == 1 and number % 100 != 11:
        return 0
    return 1 if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14) else 2


def _library_error() -> type[Exception]:
    from unicode_rbnf.engine import RbnfError

    return RbnfError
