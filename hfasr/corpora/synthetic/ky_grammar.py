"""Kyrgyz suffixes, by vowel harmony and assimilation, for the embedded corpus.

The rules are those of the school grammar. A pattern writes the letters that change in capitals:

| letter | becomes |
|---|---|
| `А` | а, е, о or ө after the last vowel (а after у) |
| `Ы` | ы, и, у or ү after the last vowel |
| `Л` | л after a vowel, й and р; т after a voiceless consonant; д after the others |
| `Н` | н after a vowel; т after a voiceless consonant; д after the others |
| `Д` `Г` `Б` | д г б, but т к п after a voiceless consonant |
| `(…)` | left out after a vowel |
| `[…]` | left out after a consonant |
"""

import re

_VOWELS = "аеёиоуыэюяөү"
_VOICELESS = "пткфсшщчхц"
_LOW = dict(zip(_VOWELS, "аеоеоааеааөө", strict=True))
_HIGH = dict(zip(_VOWELS, "ыиуиууыиуыүү", strict=True))
# й and a vowel after it are one letter
_IOTATED = {"йа": "я", "йо": "ё", "йу": "ю", "йе": "е"}
_VOICED = {"к": "г", "п": "б"}

_CASES = {"": "", "genitive": "НЫн", "dative": "ГА", "accusative": "НЫ", "locative": "ДА", "ablative": "ДАн"}
_CASES_AFTER_HIS = {"": "", "genitive": "нЫн", "dative": "нА", "accusative": "н", "locative": "ндА", "ablative": "нАн"}
OWNERS = {"1": "(Ы)м", "2": "(Ы)ң", "3": "[с]Ы", "1p": "(Ы)бЫз", "2p": "(Ы)ңЫз"}
_PAST = {"1": "м", "2": "ң", "2p": "ңЫз", "3": "", "1p": "к", "3p": ""}
_PRESENT = {"1": "мЫн", "2": "сЫң", "2p": "сЫз", "3": "т", "1p": "бЫз", "3p": "т"}


def suffix(stem: str, pattern: str) -> str:
    """Return the stem with a suffix, such as `suffix("көл", "ГА") == "көлгө"`. See the module for the pattern."""
    stem = stem.removesuffix("ь") if pattern else stem
    after_vowel = stem[-1] in _VOWELS
    # of the optional pieces keep the content of the kind that applies here and drop the other kind
    pattern = re.sub(r"\[(.*?)\]", r"\1" if after_vowel else "", pattern)
    pattern = re.sub(r"\((.*?)\)", "" if after_vowel else r"\1", pattern)
    word = stem
    for letter in pattern:
        word = _add(word, letter)
    return word


def _add(word: str, letter: str) -> str:
    last = word[-1]
    if letter in "АЫ":
        vowel = (_LOW if letter == "А" else _HIGH)[next(c for c in reversed(word.lower()) if c in _VOWELS)]
        if last in _VOICED and word[-2] in _VOWELS:
            return word[:-1] + _VOICED[last] + vowel
        joined = _IOTATED.get(last + vowel)
        return word[:-1] + joined if joined else word + vowel
    voiceless = last in _VOICELESS
    if letter in "ЛН":
        kept = last in _VOWELS or (letter == "Л" and last in "йр")
        return word + (letter.lower() if kept else "т" if voiceless else "д")
    if letter in "ДГБ":
        return word + ("ткп" if voiceless else "дгб")["ДГБ".index(letter)]
    return word + letter


def plural(noun: str) -> str:
    """Return the plural, such as `китептер`."""
    return {"бала": "балдар"}.get(noun) or suffix(noun, "ЛАр")


def inflect(noun: str, case: str = "", owner: str = "") -> str:
    """Return a noun with the ending of its owner (1, 2, 3, 1p, 2p or none) and of a case, such as `китебине`."""
    if not owner:
        return suffix(noun, _CASES[case])
    owned = suffix(noun, OWNERS[owner])
    if owner == "3":
        return suffix(owned, _CASES_AFTER_HIS[case])
    return suffix(owned, "А" if case == "dative" and owner in "12" else _CASES[case])


def past(verb: str, person: str = "3", *, negative: bool = False) -> str:
    """Return the simple past, such as `келдик` or `келбедик`."""
    verb = _together(verb, person)
    return suffix(suffix(verb, "БАдЫ" if negative else "ДЫ"), _PAST[person])


def present(verb: str, person: str = "3", *, negative: bool = False) -> str:
    """Return the present and future, such as `келебиз` or `келбейбиз`."""
    base = present_base(_together(verb, person), negative=negative)
    return suffix(base, "м" if person == "1" and base[-1] in _VOWELS else _PRESENT[person])


def present_base(verb: str, *, negative: bool = False) -> str:
    """Return the converb of the present: `келе`, `окуй`, `келбей`."""
    if negative:
        return suffix(verb, "БАй")
    return suffix(verb, "[й](А)")


def converb(verb: str) -> str:
    """Return the converb of what goes before or along: `келип`, `окуп`, `таап`."""
    irregular = {"тап": "таап", "жап": "жаап", "кап": "каап"}
    head, _, tail = verb.rpartition(" ")
    return f"{head} {irregular.get(tail) or suffix(tail, '(Ы)п')}".strip()


def verbal_noun(verb: str) -> str:
    """Return the name of the action: `келүү`, `баруу`, `иштөө`, `баштоо`."""
    long = {"а": "оо", "о": "оо", "е": "өө", "ө": "өө", "ы": "уу", "у": "уу", "и": "үү", "ү": "үү", "ю": "юу"}
    if verb == "же":
        return "жеш"
    base = verb if verb[-1] in _VOWELS else suffix(verb, "Ы")
    return base[:-1] + long[base[-1]]


def _together(verb: str, person: str) -> str:
    # alone among the persons, "they" has its own stem; verbs in ш already have it
    return suffix(verb, "(Ы)ш") if person == "3p" and not verb.endswith("ш") else verb
