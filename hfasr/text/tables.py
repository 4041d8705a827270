"""Tables of languages: how one is written, as a linguist states it in `languages/<code>.toml`; `languages/README.md` explains the keys."""

import logging
import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("languages")
CHOICES = ("words", "keep", "drop", "error")
_SHARED = ("cyrillic", "latin")
_THREE_LETTERS = {"kaz": "kk", "kir": "ky", "rus": "ru", "tur": "tr", "uzb": "uz", "tat": "tt", "eng": "en", "cmn": "zh", "zho": "zh"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NumberTable:
    """How one language writes and reads numbers: the part `[numbers]` of a table.

    A *reading* is the name of a rule set of the library, "digits" (one digit after the other) or "unsure" (as `unreadable` says).
    Of several keys that fit, the longest counts.

    Args:
        choice: What becomes of digits: "words", "keep", "drop" (the text becomes empty) or "error".
        unreadable: The same choice, without "words", for a number whose reading the table does not know.
        library: The language's name in the package unicode-rbnf, empty when it does not know the language.
        reading: Of a number with nothing beside it.
        minus: Word for the sign before a number.
        thousands: Characters that stand between groups of three digits; a space means every kind of space.
        decimal: Characters that stand before a decimal fraction.
        fraction: Pattern with {whole} and {fraction} or {digits}; or one such pattern for each length of the fraction.
        fraction_reading: Of the numbers in `fraction`; empty: `reading`.
        year: Of four digits without a group mark, from 1100 to 2099; empty: `reading`.
        year_range: Of both years in 2010-2015; empty: each as if alone.
        before: Start of the words after any number -> reading; a space at its end says that the word ends there. "к … году" names the
            word before the number as well.
        year_before: The same for four digits, from 1000 to 2099.
        ordinal_dot: Reading of digits with a full stop before a word (5. sınıf); empty: the full stop says nothing.
        time: Pattern with {hour} and {minute} for 10:30; empty: the reading is not known.
        roman: True: II, XIX and their like, in capitals, are numbers without a sure reading; one letter stays a letter.
        longest: Longer numbers are read digit by digit.
        magnitudes: Starts of the words after which a sign before them cannot be read at its place ($5 million).
        unsure_after: Words after which a number takes a case that it does not show.
        gendered: Last digits, but 11 and 12, that before a word take its gender; `before` says where it is known.
        words_after: Words of up to four letters that may be tied to a number by a hyphen; other such letters have no sure reading.
        before_consonant: Endings that are sure only where the next word ends in a consonant.
        hyphen: Reading of a number tied by a hyphen to a word that is neither an ending nor a suffix; empty: `reading`.
        endings: Letters tied to a number that only say how it is read -> reading; "е год" names the start of the next word as well.
        suffixes: Letters tied to a number that are joined to its last word.
        signs: Sign before or after a number -> pattern with {}, or three of them: for one, few and many (Slavic).
        words: A number in digits -> its words, where the library is to be overruled; "2个" and "第2" say where.
        corrections: A piece of what the library says -> what it should say; `^` ties the piece to the beginning.
    """

    choice: str = "keep"
    unreadable: str = "drop"
    library: str = ""
    reading: str = "spellout-cardinal"
    minus: str = ""
    thousands: str = ""
    decimal: str = ""
    fraction: str | list[str] = ""
    fraction_reading: str = ""
    year: str = ""
    year_range: str = ""
    before: dict[str, str] = field(default_factory=dict)
    year_before: dict[str, str] = field(default_factory=dict)
    ordinal_dot: str = ""
    time: str = ""
    roman: bool = False
    longest: int = 15
    magnitudes: list[str] = field(default_factory=list)
    unsure_after: list[str] = field(default_factory=list)
    gendered: str = ""
    words_after: list[str] = field(default_factory=list)
    before_consonant: list[str] = field(default_factory=list)
    hyphen: str = ""
    endings: dict[str, str] = field(default_factory=dict)
    suffixes: list[str] = field(default_factory=list)
    signs: dict[str, str | list[str]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    corrections: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LanguageTable:
    """How one language is written.

    Args:
        name: English name.
        letters: Its lower-case alphabet; empty: any letter may occur.
        marks: Characters besides letters that belong to words and are kept wherever they stand.
        case: "lower"; "turkic" (I and ı, İ and i are pairs); or "keep".
        spaces: False for a script without spaces between words.
        full_width: Full-width forms become plain ones.
        brackets: Pairs whose contents are dropped with them.
        hyphen: What a hyphen between two letters becomes; "" joins them, " " splits them.
        apostrophe: What an apostrophe of any form between two letters becomes, likewise.
        apostrophe_after: Letter -> what an apostrophe after it becomes, also at the end of a word.
        replacements: Characters -> what is written instead, before everything else but brackets.
        one_letter_words: The only words of one letter that a single letter of the other script is mistyped for; empty: any.
        look_alikes: Letter of another script -> the letter of this language that it is mistyped for. Capitals apart.
        foreign_look_alikes: Letter of this script -> the foreign letter it is mistyped for inside a foreign word.
        numbers: See `NumberTable`.
    """

    name: str = ""
    letters: str = ""
    marks: str = ""
    case: str = "lower"
    spaces: bool = True
    full_width: bool = False
    brackets: list[str] = field(default_factory=list)
    hyphen: str = " "
    apostrophe: str = ""
    apostrophe_after: dict[str, str] = field(default_factory=dict)
    replacements: dict[str, str] = field(default_factory=dict)
    one_letter_words: str = ""
    look_alikes: dict[str, str] = field(default_factory=dict)
    foreign_look_alikes: dict[str, str] = field(default_factory=dict)
    numbers: NumberTable = field(default_factory=NumberTable)


def languages() -> list[str]:
    """List the codes that have a table of their own."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem not in _SHARED)


def load_table(language: str | Path) -> LanguageTable:
    """Load the table of a language, with the tables that it extends.

    Args:
        language: A code ("kk", "kk-KZ", "kaz"; one without a table gets "default", which is logged), or the path of a `.toml` file.

    Raises:
        FileNotFoundError: The `.toml` file does not exist.
        ValueError: A table has an unknown key or a wrong value; the message names file and key.
    """
    if str(language).endswith(".toml"):
        return _build(Path(language), ())
    if isinstance(language, os.PathLike) or "/" in language:
        if not Path(language).exists():
            raise FileNotFoundError(f"there is no table of a language at {language}; give a code or the path of a .toml file")
        raise ValueError(f"{language} is no table of a language; give a code or the path of a .toml file")
    code, *region = language.replace("_", "-").lower().split("-")
    code = _THREE_LETTERS.get(code, code)
    if code == "zh" and {"hk", "tw", "hant"} & set(region):
        _log_once(f"the table zh is for Mandarin in simplified characters; numbers in {language!r} are written as there")
    if code not in languages():
        _log_once(f"the language {language!r} has no table; default.toml is used, which knows neither its letters nor its numbers")
        code = "default"
    return _build(FOLDER / f"{code}.toml", ())


@cache
def _log_once(message: str) -> None:
    logger.warning(message)


def _build(path: Path, above: tuple[Path, ...]) -> LanguageTable:
    values = _read(path, above)
    numbers = NumberTable(**values.pop("numbers", {}))
    table = LanguageTable(**values, numbers=numbers)
    _check_values(path, table)
    return table


def _read(path: Path, above: tuple[Path, ...]) -> dict:
    """Read one file on top of the one it extends; tables within it are merged key by key, all else is replaced."""
    if path.resolve() in above:
        raise ValueError(f"{path} extends itself, by way of {', '.join(other.name for other in above)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no table of a language at {path}; codes with a table are {', '.join(languages())}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML in UTF-8: {error}") from None
    base = values.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise ValueError(f"{path}: key 'extends' must be a code or a .toml file in quotes, found {base!r}")
    _check_keys(path, values, LanguageTable, "")
    if base is None:
        return values
    if base.endswith(".toml"):
        base_path = path.parent / base
    elif (FOLDER / f"{base}.toml").is_file():
        base_path = FOLDER / f"{base}.toml"
    else:
        raise ValueError(f"{path}: key 'extends' names {base!r}, which has no table; use one of {', '.join(languages())}, or a .toml file")
    return _merged(_read(base_path, (*above, path.resolve())), values)


def _merged(base: dict, values: dict) -> dict:
    both = {key: _merged(base[key], value) for key, value in values.items() if isinstance(value, dict) and isinstance(base.get(key), dict)}
    return {**base, **values, **both}


def _check_keys(path: Path, values: dict, kind: type, prefix: str) -> None:
    known = {one.name: one.type for one in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{path}: unknown key '{prefix}{key}'; known are {', '.join(prefix + name for name in known)}")
        if known[key] is NumberTable:
            if not isinstance(value, dict):
                raise ValueError(f"{path}: key '{key}' must be a table, [{key}], found {value!r}")
            _check_keys(path, value, NumberTable, "numbers.")
        elif not _fits(value, known[key]):
            raise ValueError(f"{path}: key '{prefix}{key}' must be {_DESCRIBED[known[key]]}, found {value!r}")


_DESCRIBED = {
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    list[str]: "a list of texts in quotes",
    str | list[str]: "text or a list of texts in quotes",
    dict[str, str]: "a table of texts in quotes",
    dict[str, str | list[str]]: "a table of texts, or lists of texts, in quotes",
}


def _fits(value: object, kind: object) -> bool:
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind in (dict[str, str], dict[str, str | list[str]]):
        inner = str if kind == dict[str, str] else str | list[str]
        return isinstance(value, dict) and all(_fits(item, inner) for item in value.values())
    if kind == str | list[str]:
        return isinstance(value, str) or texts
    return texts if kind == list[str] else type(value) is kind


def _check_values(path: Path, table: LanguageTable) -> None:
    """Check what types do not say.

    Raises:
        ValueError: The message names file and key.
    """

    def check(fine: bool, key: str, value: object, expected: str) -> None:
        if not fine:
            raise ValueError(f"{path}: key '{key}' must be {expected}, found {value!r}")

    numbers = table.numbers
    check(table.case in ("lower", "turkic", "keep"), "case", table.case, "lower, turkic or keep")
    check(table.case == "keep" or table.letters == table.letters.lower(), "letters", table.letters, "lower-case letters")
    for pair in table.brackets:
        check(len(pair) == 2, "brackets", pair, "pairs such as ()")
    for key in ("look_alikes", "foreign_look_alikes", "apostrophe_after"):
        for one, other in getattr(table, key).items():
            check(len(one) == 1 and len(other) == 1, f"{key}.{one}", other, "one letter for one letter")
    check("" not in table.replacements, "replacements", "", "characters to replace, not nothing")
    check(numbers.choice in CHOICES, "numbers.choice", numbers.choice, f"one of {', '.join(CHOICES)}")
    check(numbers.unreadable in CHOICES[1:], "numbers.unreadable", numbers.unreadable, f"one of {', '.join(CHOICES[1:])}")
    check(numbers.choice != "words" or bool(numbers.library), "numbers.library", "", "a language of unicode-rbnf, because choice is words")
    for pattern in [numbers.fraction] if isinstance(numbers.fraction, str) else numbers.fraction:
        sound = not pattern or ("{whole}" in pattern and ("{fraction}" in pattern or "{digits}" in pattern))
        check(sound, "numbers.fraction", pattern, "a pattern with {whole} and {fraction} or {digits}")
        check(_formats(pattern, whole="", fraction="", digits=""), "numbers.fraction", pattern, "a pattern without other { }")
    check(_formats(numbers.time, hour="", minute=""), "numbers.time", numbers.time, "a pattern with {hour} and {minute} only")
    for sign, patterns in numbers.signs.items():
        forms = [patterns] if isinstance(patterns, str) else patterns
        sound = len(forms) in (1, 3) and all("{}" in form and _formats(form, "") for form in forms)
        check(sound, f"numbers.signs.{sign}", patterns, "a pattern with {}, or three")
    for number in numbers.words:
        check(bool(re.fullmatch(r"\D*[0-9]+\D*", number)), f"numbers.words.{number}", number, "a number in digits")


def _formats(pattern: str, *values: str, **named: str) -> bool:
    try:
        pattern.format(*values, **named)
    except (LookupError, ValueError, AttributeError):
        return False
    return True
