"""Digits to words, by the CLDR rules in the package unicode-rbnf and the part `[numbers]` of a language's table."""

import re
from collections.abc import Callable
from functools import lru_cache
from unicodedata import category

from hfasr.text.tables import NumberTable

_SPACES = " \u00a0\u2009\u202f"
_SIGNS = "%‰°€$£¥₽₸₺₴₾"
# Powers, fractions and circled numbers: they hold a number, but no table says how they are read.
_OTHER_NUMERALS = (
    "²³¹¼½¾\u2070-\u2079\u2080-\u2089\u2150-\u215f\u2189\u2460-\u24ff\u2776-\u2793\u3220-\u3229\u3248-\u325f\u3280-\u3289\u32b1-\u32bf"
)
# A Han character after digits is a word of its own, never an ending.
_LETTER = rf"[^\W\d_{_OTHER_NUMERALS}\u2e80-\u9fff\uf900-\ufaff]"
NUMERAL = re.compile(rf"[\d{_OTHER_NUMERALS}]")
# Minutes below ten are said with a zero or without, and hours with a zero before them likewise.
_TIME = re.compile(r"(1?\d|2[0-4]):([1-5]\d)")
_GROUPS = re.compile(r"\d+(?:[\s-]\d+){2,}")
_YEAR = "(?:1\\d|20)\\d\\d"
_YEAR_BEFORE, _YEAR_AFTER = re.compile(rf"(?<!\d){_YEAR} ?- ?$"), re.compile(rf" ?- ?{_YEAR}(?!\d)")
_WORD_BEFORE = re.compile(rf"({_LETTER}+)[{_SPACES}]+$")
_TYPED_SYMBOLS = "#*@\\^&_"
_LONGEST_ENDING = 4
# The library computes with floats, which are exact up to here.
_MOST_DIGITS = 15


class UnreadableNumber(ValueError):
    """The table does not say how a number is read."""


class NumberReader:
    """Replace the numbers of a text by words.

    Groups of thousands, decimal fractions, signs such as %, times, ordinals and suffixes tied to digits follow the table; a leading
    zero, or more than 15 digits, is read digit by digit. What no rule covers is left to `NumberTable.unreadable`: dates, telephone
    numbers, letters of unknown meaning at the digits, symbols that the table does not know.

    Args:
        table: Of a language that unicode-rbnf knows.
        repair: Word -> the same in small letters and one script, as the table writes endings and words.

    Raises:
        ValueError: unicode-rbnf does not know the language, or not a rule set that the table names.
    """

    def __init__(self, table: NumberTable, repair: Callable[[str], str] = str.lower):
        from unicode_rbnf import RbnfEngine

        if table.library not in RbnfEngine.get_supported_languages():
            raise ValueError(f"unicode-rbnf has no rules for the language {table.library!r} that the table names in numbers.library")
        self._table, self._repair = table, lru_cache(maxsize=100_000)(repair)
        self._engine = RbnfEngine.for_language(table.library)
        for key, reading in _readings(table):
            if reading not in {*self._engine.rulesets, "", "digits", "unsure"}:
                raise ValueError(f"unicode-rbnf has no rule set {reading} for {table.library!r}; it is named in [numbers] {key}")
        self._endings = sorted(table.endings, key=len, reverse=True)
        self._year_before = _longest_first({**table.year_before, **table.before})
        self._before = _longest_first(table.before)
        self._words = _words_in_context(table)
        self._last_of_cardinals = {self._cardinal(number).split()[-1] for number in (1000, 2000, 5000, 10**6, 2 * 10**6, 5 * 10**6)}
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

        doubtful = [found.span() for found in _GROUPS.finditer(text) if not _are_several(found[0])]

        def one(match: re.Match) -> str:
            try:
                if any(start <= match.start("number") < end for start, end in doubtful):
                    raise UnreadableNumber(match[0])
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
        whole, fraction, tail = match["whole"], match["fraction"], self._repair(match["tail"] or "")
        if whole is None or self._is_doubtful(match):
            raise UnreadableNumber(match[0])
        if match["more"]:
            return self._time(match, tail)
        sign, digits = match["before"] or match["after"], re.sub(r"\D", "", whole)
        following = self._following(match, tail)
        if not (tail or sign or fraction) and (words := self._in_context(match, digits, following)):
            return words
        reading, joined, rest = self._reading(match, tail, following, grouped=digits != whole, alone=not (fraction or sign))
        words = self._fraction(digits, fraction, match) if fraction else self._said(digits, reading)
        if sign:
            if following.startswith(tuple(self._table.magnitudes)):
                raise UnreadableNumber(match[0])
            words = self._with_sign(words, sign, digits, fraction, match)
        if match["minus"]:
            words = f"{self._table.minus} {words}"
        return " ".join(self._corrected(words + joined).split() + rest.split())

    def _following(self, match: re.Match, tail: str) -> str:
        """The words tied to a number and after it, with single spaces and as the table writes them."""
        after = match.string[match.end() : match.end() + 40]
        return tail + (" " if tail and after[:1].isspace() else "") + " ".join(map(self._repair, after.split()))

    def _in_context(self, match: re.Match, digits: str, following: str) -> str:
        for before, number, after, words in self._words:
            if number == digits and match.string[: match.start()].endswith(before) and following.startswith(after):
                return words
        return ""

    def _time(self, match: re.Match, tail: str) -> str:
        time = _TIME.fullmatch(match["number"])
        if not time or not self._table.time or match["before"] or match["after"] or (tail and tail not in self._table.suffixes):
            raise UnreadableNumber(match[0])
        hour, minute = (self._said(part, self._table.reading) for part in time.groups())
        return self._corrected(self._table.time.format(hour=hour, minute=minute) + tail)

    def _is_doubtful(self, match: re.Match) -> bool:
        """Tell whether what stands around a number, or its own punctuation, leaves its meaning open."""
        before, after = match.string[: match.start()], match.string[match.end() :]
        if re.match(_LETTER, before[-1:]) or self._is_symbol(before[::-1]) or self._is_symbol(after):
            return True
        if match["before"] and before.endswith(("-", "−")) and not before[-2:-1].strip():
            return True  # -$5
        if not match["minus"] and re.search("[\u3040-\u9fff][-−]$", before):
            return True  # 零-5
        if match["minus"] == "-" and before[-1:].isspace() and re.search(rf"(?:[\w.%)\]]|[{_SIGNS}])\s+$", before):
            return True  # COVID -19, 5 -7
        return self._is_doubtful_group(match, before, after) or self._is_doubtful_fraction(match)

    def _is_symbol(self, text: str) -> bool:
        if not text or text[0] in _TYPED_SYMBOLS or category(text[0]) == "So":
            return bool(text)
        near = text.lstrip(_SPACES)[:1]
        return bool(near) and near not in self._table.signs and near != "−" and category(near) in ("Sm", "Sc")

    def _is_doubtful_group(self, match: re.Match, before: str, after: str) -> bool:
        first, *rest = re.split(r"\D", match["whole"])
        if not rest:
            return False
        if first[0] == "0" or re.search(rf"\d[{_SPACES}]$", before) or re.match(rf"[{_SPACES}]\d", after):
            return True
        return " " in match["whole"] and len(first) == 3 and not any(group[0] == "0" for group in rest)  # 100 200 300

    def _is_doubtful_fraction(self, match: re.Match) -> bool:
        fraction, whole = match["fraction"] or "", match["whole"]
        if len(fraction) != 3 or whole == "0":
            return False
        return fraction == "000" or match.string[match.start("fraction") - 1] == ","  # 10,000

    def _reading(self, match: re.Match, tail: str, following: str, *, grouped: bool, alone: bool) -> tuple[str, str, str]:
        """Decide how a number is read: reading, letters joined to its last word, words after it."""
        table, link, rest = self._table, match["link"], match["tail"] or ""
        if alone and tail and (found := self._ordinal(tail, following)):
            return found
        if match["dot"]:
            return table.ordinal_dot, "", ""
        year = int(match["whole"]) if alone and not grouped and len(match["whole"]) == 4 else 0
        plain = table.year if table.year and 1100 <= year <= 2099 else table.reading
        if year and table.year_range and self._is_range(match):
            return table.year_range, "", rest
        if tail in table.suffixes:
            return plain, tail, ""
        word = _WORD_BEFORE.search(match.string[: match.start()][-40:])
        word = self._repair(word[1]) if word else ""
        is_year = 1000 <= year <= 2099
        reading = _looked_up(self._year_before if is_year else self._before, word, following) if alone else ""
        if not reading and tail:
            is_word = len(tail) > _LONGEST_ENDING or tail in table.words_after or (len(tail) == 1 and rest.isupper())  # 5-А
            if link != "-" or not is_word:
                raise UnreadableNumber(match[0])
            reading = table.hyphen if alone else ""
        reading = reading or plain
        if reading == plain and (word in table.unsure_after or (alone and self._has_gender(match["whole"], reading, following))):
            raise UnreadableNumber(match[0])
        return reading, "", rest

    def _ordinal(self, tail: str, following: str) -> tuple[str, str, str] | None:
        table, after = self._table, following[len(tail) :].lstrip()
        for ending in self._endings:
            letters, _, start = ending.partition(" ")
            if not tail.startswith(letters) or not after.startswith(start):
                continue
            joined = tail[len(letters) :]
            if not joined or (joined in table.suffixes and not start):
                sure = letters not in table.before_consonant or _ends_in_consonant(after)
                return table.endings[ending] if sure else "unsure", joined, ""
        return None

    def _is_range(self, match: re.Match) -> bool:
        before, after = match.string[: match.start("whole")], match.string[match.end("whole") :]
        return bool(_YEAR_BEFORE.search(before) or _YEAR_AFTER.match(after))

    def _has_gender(self, whole: str, reading: str, following: str) -> bool:
        if whole[-1] not in self._table.gendered or whole[-2:-1] == "1" or not following[:1].isalpha():
            return False
        return not _looked_up(self._before, "", following)

    def _say(self, digits: str, reading: str) -> str:
        if reading == "unsure":
            raise UnreadableNumber(digits)
        if reading == "digits" or (len(digits) > 1 and digits[0] == "0") or len(digits) > min(_MOST_DIGITS, self._table.longest):
            return " ".join(self._said(str(int(digit)), self._table.reading) for digit in digits)
        number = int(digits)
        if reading == self._table.reading and str(number) in self._table.words:
            return self._table.words[str(number)]
        try:
            words = "".join(self._engine.iter_format_number(number, reading))
            # Where the rules for ordinals have a gap, the library falls back to the cardinal without a word.
            if "ordinal" in reading and (words == self._cardinal(number) or words.split()[-1] in self._last_of_cardinals):
                raise UnreadableNumber(digits)
        except (LookupError, ArithmeticError, _library_error()):
            raise UnreadableNumber(digits) from None
        return self._corrected(words.replace("\u00ad", ""))

    def _cardinal(self, number: int) -> str:
        return "".join(self._engine.iter_format_number(number, self._table.reading))

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


def _readings(table: NumberTable) -> list[tuple[str, str]]:
    """List the readings that a table names, each with its key."""
    keys = ("reading", "fraction_reading", "year", "year_range", "hyphen", "ordinal_dot")
    parts = ("before", "year_before", "endings")
    named = [(f"{part}.{key}", reading) for part in parts for key, reading in getattr(table, part).items()]
    return [(key, getattr(table, key)) for key in keys] + named


def _longest_first(readings: dict[str, str]) -> list[tuple[str, str, str]]:
    split = [(*key.rpartition("…"), reading) for key, reading in readings.items()]
    ordered = sorted(split, key=lambda one: len(one[0] + one[2].rstrip()), reverse=True)
    return [(before.strip(), after.lstrip(), reading) for before, _, after, reading in ordered]


def _looked_up(readings: list[tuple[str, str, str]], word: str, following: str) -> str:
    following = re.sub(r"\W+", " ", following + " ")
    for before, start, reading in readings:
        if before in ("", word) and following.startswith(start):
            return reading
    return ""


def _words_in_context(table: NumberTable) -> list[tuple[str, str, str, str]]:
    parts = [(*re.fullmatch(r"(\D*)(\d+)(\D*)", key).groups(), words) for key, words in table.words.items() if not key.isdecimal()]
    return sorted(parts, key=lambda part: (part[0] == "", -len(part[2])))


def _are_several(text: str) -> bool:
    """Tell whether groups of digits are numbers one after the other, or one number, rather than a telephone number or a date."""
    groups = re.split(r"[\s-]", text)
    if "-" in text:
        return False
    lengths = {len(group) for group in groups}
    return len(groups) < 4 or len(lengths) == 1 or (len(groups[0]) < 3 and {len(group) for group in groups[1:]} == {3})


def _ends_in_consonant(text: str) -> bool:
    word = re.match(rf"{_LETTER}+", text)
    return bool(word) and word[0][-1] in "бвгджзклмнпрстфхцчшщ"


def _piece(wrong: str) -> re.Pattern:
    return re.compile("^" + re.escape(wrong[1:]) if wrong.startswith("^") else re.escape(wrong))


def _pattern(table: NumberTable) -> re.Pattern:
    thousands = re.escape(table.thousands.replace(" ", _SPACES))
    grouped = rf"\d{{1,3}}(?:[{thousands}]\d{{3}})+(?!\d)|" if table.thousands else ""
    fraction = rf"(?:[{re.escape(table.decimal)}](?P<fraction>\d+))?" if table.decimal else "(?P<fraction>(?!))?"
    signs = "|".join(sorted(map(re.escape, {*_SIGNS, *table.signs}), key=len, reverse=True))
    dot = rf"(?P<dot>\.(?=[{_SPACES}]{_LETTER}))|" if table.ordinal_dot else "(?P<dot>(?!))|"
    return re.compile(
        rf"(?:(?P<before>{signs})[{_SPACES}]?)?(?P<minus>(?<![^\s(\[{{«\"„“';:。；：、])[-−])?"
        rf"(?P<number>(?P<whole>{grouped}\d+){fraction}(?P<more>(?:[.,:/]\d+)*))(?:[{_SPACES}]?(?P<after>{signs}))?"
        rf"(?:{dot}(?P<link>[-']?)(?P<tail>{_LETTER}+))?|[{_OTHER_NUMERALS}]"
    )


def _slavic_plural(number: int) -> int:
    """CLDR's plural classes of Russian: 0 one, 1 few, 2 many."""
    if number % 10 == 1 and number % 100 != 11:
        return 0
    return 1 if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14) else 2


def _library_error() -> type[Exception]:
    from unicode_rbnf.engine import RbnfError

    return RbnfError
