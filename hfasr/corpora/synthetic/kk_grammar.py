"""Kazakh suffixes, by vowel harmony and assimilation, for the embedded corpus.

The rules are those of the school grammar. A pattern writes the letters that change in capitals. `А` is а or е and `Ы` is ы or і,
as the stem is back or front; the others go by the last letter of the stem:

| letter | of | after a vowel | м н ң | л | р й у и ю | з ж | the others |
|---|---|---|---|---|---|---|---|
| `Л` | plural | л | д | д | л | д | т |
| `Н` | genitive | н | н | д | д | д | т |
| `В` | accusative | н | д | д | д | д | т |
| `Д` | locative, past | д | д | д | д | д | т |
| `З` | ablative | д | н | д | д | д | т |
| `М` | negation, question, "we" | м | б | м | м | б | п |
| `П` | instrumental, "I" | м | м | м | м | б | п |
| `Г` | dative, perfect | ғ or г | ғ or г | ғ or г | ғ or г | ғ or г | қ or к |

`К` is қ or к; `(…)` is left out after a vowel and `[…]` after a consonant, and й, у, и and ю count as consonants.
"""

import re

_VOWELS = "аәеёоөұүыіэя"
_BACK, _FRONT = "аоұыя", "әеёөүіэ"
_CLASSES = (_VOWELS, "мнң", "л", "рйуию", "зж")
_ASSIMILATED = {"Л": "лддлдт", "Н": "нндддт", "В": "нддддт", "Д": "дддддт", "З": "дндддт", "М": "мбммбп", "П": "ммммбп", "Г": "гггггк"}
_BACK_FORMS = {"А": "а", "Ы": "ы", "К": "қ", "г": "ғ", "к": "қ"}
_FRONT_FORMS = {"А": "е", "Ы": "і", "К": "к", "г": "г", "к": "к"}
_VOICED = {"к": "г", "қ": "ғ", "п": "б"}
# two letters that meet and are written otherwise
_JOINED = {"йа": "я", "йу": "ю", "иу": "ию", "иа": "ия", "ый": "и", "ій": "и", "ыу": "у", "іу": "у"}
# stems that lose or gain a sound before any suffix
_STEMS = {"съезд": "съез", "подъезд": "подъез", "журналист": "журналис", "объект": "объекті"}
# a high vowel drops before a vowel
_SHORTENED = {
    "ауыз": "ауз", "мұрын": "мұрн", "мойын": "мойн", "ерін": "ерн", "қарын": "қарн", "дауыс": "даус", "халық": "халқ", "орын": "орн",
    "әріп": "әрп", "бөрік": "бөрк", "көрік": "көрк",
}  # fmt: skip
_IS_FRONT = {"тарих": False, "такси": True}

_CASES = {"": "", "genitive": "НЫң", "dative": "ГА", "accusative": "ВЫ", "locative": "ДА", "ablative": "ЗАн", "instrumental": "Пен"}
_CASES_AFTER_HIS = {**_CASES, "genitive": "нЫң", "dative": "нА", "accusative": "н", "locative": "ндА", "ablative": "нАн"}
OWNERS = {"1": "(Ы)м", "2": "(Ы)ң", "3": "[с]Ы", "1p": "(Ы)мЫз", "2p": "(Ы)ңЫз", "3p": "[с]Ы"}
_PAST = {"1": "м", "2": "ң", "2p": "ңЫз", "3": "", "1p": "К", "3p": ""}
_PRESENT = {"1": "ПЫн", "2": "сЫң", "2p": "сЫз", "3": "дЫ", "1p": "МЫз", "3p": "дЫ"}


def suffix(stem: str, pattern: str) -> str:
    """Return the stem with a suffix, such as `suffix("көл", "ГА") == "көлге"`. See the module for the pattern."""
    if not pattern:
        return stem
    forms = _FRONT_FORMS if _is_front(stem) else _BACK_FORMS
    word = _STEMS.get(stem, stem)
    after_vowel = word[-1] in _VOWELS
    # of the optional pieces keep the content of the kind that applies here and drop the other kind
    pattern = re.sub(r"\[(.*?)\]", r"\1" if after_vowel else "", pattern)
    pattern = re.sub(r"\((.*?)\)", "" if after_vowel else r"\1", pattern)
    if pattern[0] == "Ы":
        word = _SHORTENED.get(word, word)
    for letter in pattern:
        letter = _assimilate(word, letter)
        word = _join(word, forms.get(letter, letter))
    return word


def _assimilate(word: str, letter: str) -> str:
    if letter not in _ASSIMILATED:
        return letter
    last = word.removesuffix("ь")[-1]
    return _ASSIMILATED[letter][next((number for number, letters in enumerate(_CLASSES) if last in letters), -1)]


def _join(word: str, letter: str) -> str:
    if letter in "аеыіу":
        word = word.removesuffix("ь")
        if word[-1] in _VOICED and word[-2] in _VOWELS + "уию":
            word = word[:-1] + _VOICED[word[-1]]
    joined = _JOINED.get(word[-1] + letter)
    return word[:-1] + joined if joined else word + letter


def _is_front(stem: str) -> bool:
    """Whether a stem takes the suffixes with е and і: those of its last vowel, but к, г and ь at the end always do.

    At the end у, и and ю fit any vowel, so the one before decides; inside a loanword's last syllable и is front, у and ю are back.
    """
    stem = stem.lower().split()[-1]
    if stem in _IS_FRONT:
        return _IS_FRONT[stem]
    if stem[-1] in "кгь":
        return True
    base = stem.rstrip("уию")
    vowels = [letter for letter in base if letter in _VOWELS + "уию"]
    last = vowels[-1] if vowels else stem[len(base)]
    return last in _FRONT or last == "и"


def plural(noun: str) -> str:
    """Return the plural, such as `кітаптар`."""
    return suffix(noun, "ЛАр")


def inflect(noun: str, case: str = "", owner: str = "") -> str:
    """Return a noun with the ending of its owner (1, 2, 3, 1p, 2p, 3p or none) and of a case, such as `кітабына`."""
    if not owner:
        return suffix(noun, _CASES[case])
    owned = suffix(noun, OWNERS[owner])
    if owner in ("3", "3p"):
        return suffix(owned, _CASES_AFTER_HIS[case])
    return suffix(owned, "А" if case == "dative" and owner in "12" else _CASES[case])


def together(noun: str) -> str:
    """Return a noun and the word for "and" after it, such as `нан мен` or `сүт пен`."""
    return f"{noun} {suffix(noun, 'Пен').removeprefix(_STEMS.get(noun, noun))}"


def past(verb: str, person: str = "3", *, negative: bool = False) -> str:
    """Return the simple past, such as `келдік` or `келмедік`."""
    return suffix(suffix(verb, "МАдЫ" if negative else "ДЫ"), _PAST[person])


def present(verb: str, person: str = "3", *, negative: bool = False) -> str:
    """Return the present and future, such as `келеміз` or `келмейміз`."""
    return suffix(present_base(verb, negative=negative), _PRESENT[person])


def present_base(verb: str, *, negative: bool = False) -> str:
    """Return the converb of the present: `келе`, `оқи`, `келмей`."""
    return suffix(verb, "МАй" if negative else "[й](А)")


def perfect(verb: str, person: str = "3", *, negative: bool = False) -> str:
    """Return the perfect, such as `барғанмын` or `бармағанбыз`."""
    return stative(suffix(verb, "МАГАн" if negative else "ГАн"), person)


def stative(word: str, person: str) -> str:
    """Return a word that says what somebody is or is at, such as `жатырмын` or `барғансыз`."""
    return word if person in ("3", "3p") else suffix(word, _PRESENT[person])


def conditional(verb: str, person: str = "3") -> str:
    """Return the condition, such as `келсем` or `барсақ`."""
    return suffix(suffix(verb, "сА"), _PAST[person])


def converb(verb: str) -> str:
    """Return the converb of what goes before or along: `келіп`, `оқып`, `тауып`."""
    if verb.endswith("п"):
        # тап, жап, сеп: п becomes у
        return suffix(verb[:-1] + "у", "Ып")
    return suffix(verb, "(Ы)п")


def verbal_noun(verb: str) -> str:
    """Return the name of the action: `келу`, `бару`, `істеу`, `бастау`."""
    return suffix(verb, "у")


def let_us(verb: str) -> str:
    """Return the call to do something together: `барайық`, `сөйлейік`, `оқиық`."""
    return suffix(present_base(verb), "[й]ЫК")


def please(verb: str) -> str:
    """Return the polite request: `барыңыз`, `сөйлеңіз`, `табыңыз`."""
    return suffix(verb, "(Ы)ңЫз")


def question(word: str) -> str:
    """Return a predicate and the particle that asks: `келді ме`, `барасыз ба`, `кітап па`."""
    return f"{word} {suffix(word, 'МА').removeprefix(word)}"
