"""Transcript as given -> text with one spelling for what sounds alike; the rules of a language are in `languages/<code>.toml`."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

from hfasr.text.changes import NormalizationReport, Normalized
from hfasr.text.look_alikes import ROMAN_LETTERS, LookAlikes, roman_number
from hfasr.text.numbers import NUMERAL, NumberReader, UnreadableNumber
from hfasr.text.tables import CHOICES, LanguageTable, load_table

_APOSTROPHES = "’‘ʼ`´ʻ＇ʹ′ʾʿʽˈ‛᾽᾿ꞌ՚"
_DASHES = "‐‑‒–—―⁃﹘﹣－"
_MINUS = "−"  # always a minus before a number, where a hyphen may be anything
_SIGN_FORMS = dict(zip("￥￡￠﹪﹩％＄", "¥£¢%$%$", strict=True))
_INVISIBLE = "\u00ad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_ROMAN = "".join(map(chr, range(0x2160, 0x2180)))  # Ⅳ and its kin, which are letters written as one character
# The full-width comma parts numbers, unless all between them look like groups of thousands.
_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {"\u3000": " ", "，": " "}
_FULL_WIDTH_GROUPS = re.compile(r"(?<![\d，])\d{1,3}(?:，\d{3})+(?![\d，])")
_STRESS = "".join(map(chr, range(0x300, 0x370)))  # combining marks of Latin and Cyrillic, where NFC has no letter for them
_LETTER = r"[^\W\d_]"
_EMOTICON = re.compile(r"(?<!\S)[:;=]-?[()\[\]](?!\w)")
# Marks of Latin and Cyrillic, and forms of emoji; those of other scripts are part of their words.
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef"
_MARK = re.compile(f"[{_MARKS}]")
_MOST_WORDS = 200_000

Note = Callable[[str, str], None]


class Normalizer:
    """Normalize transcripts of one language.

    In order: Unicode NFC and full-width forms, bracketed remarks, the table's replacements, numbers, apostrophes and hyphens, everything
    else that is no letter, digit or combining mark, look-alikes of another script, case, spaces.

    Args:
        language: A code ("ky"; one without a table uses `default.toml`), or the path of a `.toml` table, see `languages/README.md`.
        numbers: What becomes of digits: "words", "keep", "drop" (the text becomes empty) or "error"; None leaves it to the table.

    Attributes:
        table: The language's rules.
        letters: Its alphabet, lower case; empty when not known.
        spaces: False for a script without spaces between words.
        fingerprint: Differs between normalizers that may give different texts.

    Raises:
        FileNotFoundError: The table does not exist.
        ValueError: The table is wrong, `numbers` is not known, or is "words" for a language whose numbers nobody knows how to read.

    Example:
        >>> Normalizer("ky")("Ал — келди! (күлкү)")
        'ал келди'
    """

    def __init__(self, language: str | Path, *, numbers: str | None = None):
        if numbers is not None and numbers not in CHOICES:
            raise ValueError(f"numbers {numbers!r} is not known; use one of {', '.join(CHOICES)}")
        self.language, self.table, self._numbers = language, load_table(language), numbers
        self.letters, self.spaces = frozenset(self.table.letters), self.table.spaces
        self.numbers = numbers or self.table.numbers.choice
        if self.numbers == "words" and not self.table.numbers.library:
            raise ValueError(
                f"numbers='words' is not possible for {str(language)!r}: no library reads its numbers. Use keep, drop or error, or a .toml "
                "table with [numbers] library"
            )
        self._look_alikes = LookAlikes(self.table) if self.table.look_alikes else None
        self._reader = self._number_reader() if self.numbers == "words" else None
        self._roman = re.compile(rf"\b[{''.join(ROMAN_LETTERS)}]{{2,}}\b" if self.table.numbers.roman else "(?!)")
        self._forms, self._kept, self._words = _forms(self.table), _Kept(self.table), _Words(self._word)
        self._special = _special(self.table)
        inner = {"<>": r"[^<>\s]+"}  # one word as a tag is; else they are signs
        pairs = "|".join(f"{re.escape(a)}{inner.get(a + b, f'[^{re.escape(a + b)}]*')}{re.escape(b)}" for a, b in self.table.brackets)
        self._brackets = re.compile(pairs) if pairs else None
        self._replaced = re.compile("|".join(map(_whole, sorted(self.table.replacements, key=len, reverse=True))) or "(?!)")
        before = "".join(map(re.escape, self.table.apostrophe_after))
        self._after = re.compile(f"(?<=[{before}])'(?!')" if before else "(?!)")
        self.fingerprint = hashlib.sha256(repr((self.table, self.numbers, _code())).encode()).hexdigest()[:16]

    @property
    def record(self) -> dict[str, str]:
        """How the targets are made, for `target_record`."""
        return {"normalizer": str(self.language)} | ({} if self._numbers is None else {"numbers": self._numbers})

    def _number_reader(self) -> NumberReader:
        def repair(word: str) -> str:
            return self._lower(word if self._look_alikes is None else self._look_alikes.own_form(word))

        try:
            return NumberReader(self.table.numbers, repair)
        except ValueError as error:
            raise ValueError(f"{self.language}: {error}") from None

    def __reduce__(self):
        return partial(Normalizer, self.language, numbers=self._numbers), ()

    def __call__(self, text: str | Iterable[str]) -> str | list[str]:
        """Normalize one text, or each of a list; a dropped one is empty.

        Raises:
            TypeError: An item is not a string (a missing transcript must be handled before).
            ValueError: A text has a number, where numbers are an error.
        """
        if isinstance(text, str):
            try:
                return self._normalize(text, None)
            except UnreadableNumber:
                return ""
        if not isinstance(text, Iterable) or isinstance(text, Mapping | bytes):
            raise TypeError(f"Normalizer takes a string or a list of strings, found {type(text).__name__} {text!r}")
        return [self(item) for item in text]

    def normalize(self, text: str) -> Normalized:
        """Normalize one text and say what was changed; raises as calling does."""
        if not isinstance(text, str):
            raise TypeError(f"normalize takes a string, found {type(text).__name__} {text!r}")
        changes: dict[str, Counter] = {}

        def note(rule: str, what: str) -> None:
            changes.setdefault(rule, Counter())[what] += 1

        try:
            return Normalized(self._normalize(text, note), changes)
        except UnreadableNumber as number:
            reason = f"number {str(number)!r} has no sure reading" if self.numbers == "words" else f"number {str(number)!r}"
            return Normalized("", {**changes, "dropped for a number": Counter([str(number)])}, reason)

    def _normalize(self, text: str, note: Note | None) -> str:
        if self._special.search(text):
            text = self._clean(text, note)
        elif not unicodedata.is_normalized("NFC", text):
            text = _composed(text, note)
        if note is not None:
            self._note_characters(text, note)
        words = text.translate(self._kept).split()
        if self._look_alikes is None:
            done = [unicodedata.normalize("NFC", self._lower(" ".join(words)))]
        else:
            done = list(map(self._words.__getitem__, words))
            if None in done:
                typed = [self._open_form(word) if other is None else word for word, other in zip(words, done, strict=True)]
                done = [self._lower(word) for word in self._look_alikes.settle(typed, done)]
        if note is not None:
            self._note_words(words, done, note)
        text = " ".join(done)
        return text if self.spaces else _UNSPACED.sub("", text)

    def _clean(self, text: str, note: Note | None) -> str:
        """Do what only a text with marks, digits or special forms needs."""
        if note is not None:
            for char in text:
                if char in _INVISIBLE:
                    note("invisible characters", f"U+{ord(char):04X}")
                elif self.table.full_width and char in _FULL_WIDTH:
                    note("full-width forms", f"{char} → {_FULL_WIDTH[char]}")
        if self.table.full_width and "，" in text:
            text = _FULL_WIDTH_GROUPS.sub(lambda match: match[0].replace("，", ","), text)
        text = re.sub(r"−(?!\d)|(?<=\w)−", "-", text.translate(self._forms))
        if not unicodedata.is_normalized("NFC", text):
            text = _composed(text, note)
        text = self._without_remarks(text, note)
        text = self._replaced.sub(partial(_substitute, self.table.replacements, "replacements", note), text)
        text = self._roman.sub(partial(self._roman_word, note), text)
        if (numeral := NUMERAL.search(text)) and self.numbers != "keep":
            text = self._without_numbers(text, numeral, note)
        if "'" in text:
            text = self._with_apostrophes(text, note)
        if "-" in text and self.table.hyphen != " ":
            text = re.sub(rf"(?<={_LETTER})-(?={_LETTER})", "\0", text).replace("-", " ").replace("\0", self.table.hyphen)
        return text

    def _without_remarks(self, text: str, note: Note | None) -> str:
        text = _EMOTICON.sub(" ", text) if self._brackets else text
        while self._brackets and self._brackets.search(text):  # the innermost first
            text = self._brackets.sub(partial(self._remark, note), text)
        return text

    def _remark(self, note: Note | None, match: re.Match) -> str:
        """Drop a remark; what is glued to a word, or only a number, loses its brackets."""
        around = match.string[match.start() - 1 : match.start()] + match.string[match.end() : match.end() + 1]
        inner = match[0][1:-1]
        glued = self.spaces and match[0][0] != "<" and re.search(_LETTER, around)
        if glued or (any(map(str.isdecimal, inner)) and not re.search(_LETTER, inner)):
            if note is not None:
                note("brackets", f"{match[0]} → {inner.strip()}")
            return inner if glued else re.sub(r"^\s*-", _MINUS, f" {inner} ")
        if note is not None:
            note("brackets", match[0])
        return " "

    def _roman_word(self, note: Note | None, match: re.Match) -> str:
        if not (roman := roman_number(match[0])):
            return match[0]
        if self.numbers == "error":
            raise ValueError(f"text {match.string!r} has the Roman numeral {match[0]!r}, and numbers are an error here")
        if self.numbers == "drop" or (self.numbers == "words" and self.table.numbers.unreadable != "keep"):
            if self.numbers == "words" and self.table.numbers.unreadable == "error":
                raise ValueError(f"text {match.string!r} has the Roman numeral {match[0]!r}, which has no sure reading")
            raise UnreadableNumber(match[0])
        if note is not None:
            note("Roman numerals", match[0])
        return roman if self.table.case == "keep" else roman.lower()

    def _without_numbers(self, text: str, numeral: re.Match, note: Note | None) -> str:
        digits = re.search(r"\d[\d.,:/]*\d|\S", text[numeral.start() :])[0]
        if self.numbers == "drop":
            raise UnreadableNumber(digits)
        if self.numbers == "error":
            raise ValueError(f"text {text!r} has the number {digits!r}, and numbers are an error here; use numbers='keep' or 'drop'")
        found = None if note is None else []
        try:
            text = self._reader.replace(text, found)
        except UnreadableNumber as number:
            if self.table.numbers.unreadable == "error":
                raise ValueError(f"text {text!r} has the number {str(number)!r}, which has no sure reading") from None
            raise
        for written, read in found or ():
            note("numbers", f"{written} → {read}")
        return text

    def _with_apostrophes(self, text: str, note: Note | None) -> str:
        if note is not None:
            for _ in range(text.count("'")):
                note("apostrophes", "'")
        text = re.sub("'{2,}", "'", text)
        if self.table.apostrophe_after:
            text = re.sub(r"(?<!\w)'(\w+)'(?!\w)", r" \1 ", text)  # a quoted word, whose end is no letter
            text = self._after.sub(lambda match: self.table.apostrophe_after[text[match.start() - 1]], text)
        text = re.sub(rf"(?<={_LETTER})'(?={_LETTER})", "\0", text)
        return text.replace("'", " ").replace("\0", self.table.apostrophe)

    def _word(self, word: str) -> str | None:
        """Normalize one word; None when its sentence has to decide."""
        word = self._open_form(word)
        if self._look_alikes.is_open(word):
            return None
        return self._lower(self._look_alikes.unmix(word))  # what fits in small letters only

    def _open_form(self, word: str) -> str:
        return word if self._look_alikes.is_open(word) else self._lower(self._look_alikes.unmix(word))

    def _lower(self, text: str) -> str:
        if self.table.case == "keep":
            return text
        text = text.replace("İ", "i")  # lower() would leave a combining dot behind the i
        if self.table.case == "turkic":
            text = text.replace("I", "ı")
        return text.lower()

    def _note_characters(self, text: str, note: Note) -> None:
        for char in text:
            kept = self._kept[ord(char)]
            if kept is None:
                note("stress marks" if unicodedata.category(char)[0] == "M" else "invisible characters", f"U+{ord(char):04X}")
            elif kept == " " and not char.isspace():
                note("punctuation", char)

    def _note_words(self, words: list[str], done: list[str], note: Note) -> None:
        for word, other in zip(words, done, strict=True) if self._look_alikes is not None else ():
            lower = self._lower(word)
            for typed, meant in zip(lower, other, strict=True) if lower != other else ():
                if typed != meant:
                    note("look-alikes", f"{typed} → {meant}")
        capitals = Counter(char for word in words for char in word if char.isupper())
        for char in capitals.elements() if self.table.case != "keep" else ():
            note("case", f"{char} → {self._lower(char)}")
        for char in "".join(done) if self.letters else ():
            if char not in self.letters and char not in self.table.marks and not char.isspace():
                note("left outside of the alphabet", char)

    def count(self, texts: Iterable[str], *, examples: int = 3) -> NormalizationReport:
        """Normalize texts one after the other and count what is changed.

        Args:
            texts: Read once and not kept.
            examples: How many texts before and after are kept for each rule.
        """
        report = NormalizationReport(str(self.language), examples)
        for text in texts:
            report.add(text, self.normalize(text))
        return report


class _Words(dict):
    """What has become of the words seen so far: most words of a corpus are a few thousand."""

    def __init__(self, normalize: Callable[[str], str | None]):
        self._normalize = normalize

    def __missing__(self, word: str) -> str | None:
        if len(self) >= _MOST_WORDS:
            self.clear()
        self[word] = done = self._normalize(word)
        return done


class _Kept(dict):
    """`str.translate` table: what belongs to words stays, stress marks and invisible characters go, all else becomes a space."""

    def __init__(self, table: LanguageTable):
        self._table = table
        own = table.letters + table.marks + table.apostrophe + table.hyphen + "".join(table.apostrophe_after.values())
        super().__init__({ord(char): char for char in own})
        super().update({ord(char): None for char in _INVISIBLE})

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        category = unicodedata.category(char)
        if category[0] == "M" and self._table.letters and _MARK.match(char):
            kept = None
        else:
            kept = char if category[0] in "LMN" else " "
        self[code] = kept
        return kept


def fold(text: str) -> str:
    """Fold a text of any language to what tells it from others, to find doubles.

    Case (of any language), punctuation, spaces, stress marks, full-width forms, ё for е, and look-alikes of Latin and Cyrillic in either
    direction make no difference; й and и, ö and o do. Since a capital H looks like Н and a small h like һ, these three fold to one letter.

    Returns:
        A string to compare, not to read: without spaces.
    """
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return text.translate(_FOLDED)


class _Folded(dict):
    _ALIKE = str.maketrans("асеорхукмтвнһіјѕԁԛԝәıёë", "aceopxykmtbhhijsdqwəiee")

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if code in range(0xFF00, 0xFFF0) or char in _ROMAN:
            char = unicodedata.normalize("NFKC", char)
        folded = char.replace("İ", "i").casefold().translate(self._ALIKE)
        kept = (one for one in folded if unicodedata.category(one)[0] in "LMN" and one not in _APOSTROPHES + _STRESS)
        self[code] = "".join(kept)
        return self[code]


_FOLDED = _Folded()
_HAN = "\u2e80-\u303f\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED = re.compile(rf"(?<=[{_HAN}])\s+|\s+(?=[{_HAN}])")


def _forms(table: LanguageTable) -> dict[int, str | None]:
    forms = {**dict.fromkeys(_APOSTROPHES, "'"), **dict.fromkeys(_DASHES, "-"), **dict.fromkeys(_INVISIBLE)}
    forms |= _SIGN_FORMS
    forms |= {char: unicodedata.normalize("NFKC", char) for char in _ROMAN}
    return str.maketrans(forms | (_FULL_WIDTH if table.full_width else {}))


def _whole(typed: str) -> str:
    """Match what is replaced; where it begins or ends with a letter, no letter may touch it there."""
    before = f"(?<!{_LETTER})" if typed[0].isalpha() and not _is_han(typed[0]) else ""
    after = f"(?!{_LETTER})" if (typed[-1].isalpha() or (typed[-1] == "." and before)) and not _is_han(typed[-1]) else ""
    return before + re.escape(typed) + after


def _is_han(char: str) -> bool:
    return re.match(f"[{_HAN}]", char) is not None


def _special(table: LanguageTable) -> re.Pattern:
    """Match one character that the fast path does not deal with."""
    characters = "'" + _APOSTROPHES + _INVISIBLE + _ROMAN + "".join(table.brackets) + "".join(word[0] for word in table.replacements)
    characters += _MINUS + "".join(_SIGN_FORMS)
    characters += "".join(_FULL_WIDTH) if table.full_width else ""
    characters += "-" + _DASHES if table.hyphen != " " else ""
    roman = f"|[{''.join(ROMAN_LETTERS)}]{{2}}" if table.numbers.roman else ""
    return re.compile(f"[{re.escape(characters)}]|{NUMERAL.pattern}{roman}")


@cache
def _code() -> tuple[str, ...]:
    """Identify this version of the rules: the files that hold them, and the library that reads numbers."""
    files = ("look_alikes.py", "normalize.py", "numbers.py", "tables.py")
    return version("unicode-rbnf"), *(hashlib.sha256(Path(__file__).with_name(name).read_bytes()).hexdigest() for name in files)


def _composed(text: str, note: Note | None) -> str:
    composed = unicodedata.normalize("NFC", text)
    if note is not None:
        for _ in range(max(1, len(text) - len(composed))):
            note("composed letters", "NFC")
    return composed


def _substitute(replacements: dict[str, str], rule: str, note: Note | None, match: re.Match) -> str:
    if note is not None:
        note(rule, f"{match[0]} → {replacements[match[0]].strip()}")
    return replacements[match[0]]
