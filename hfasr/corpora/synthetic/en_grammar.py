"""English word forms for the sentences of the embedded corpus: plurals, verbs, articles and possessives."""

import re

_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "mouse": "mice", "goose": "geese", "ox": "oxen", "sheep": "sheep", "fish": "fish",
    "wolf": "wolves", "knife": "knives", "shelf": "shelves", "potato": "potatoes", "tomato": "tomatoes",
}  # fmt: skip
# base form, past, past participle
_IRREGULAR = """
be was been, have had had, do did done, go went gone, come came come, see saw seen, take took taken, give gave given, get got got,
find found found, lose lost lost, buy bought bought, bring brought brought, think thought thought, catch caught caught, sell sold
sold, say said said, write wrote written, drive drove driven, ride rode ridden, eat ate eaten, drink drank drunk, sing sang sung,
swim swam swum, run ran run, draw drew drawn, know knew known, throw threw thrown, wear wore worn, break broke broken, speak spoke
spoken, wake woke woken, choose chose chosen, hide hid hidden, forget forgot forgotten, sleep slept slept, leave left left, feed
fed fed, send sent sent, lend lent lent, shut shut shut, hear heard heard, freeze froze frozen
"""
_FORMS = {forms[0]: forms[1:] for forms in (line.split() for line in _IRREGULAR.split(","))}
_SIBILANT = re.compile(r"(s|x|z|ch|sh)$")
# one syllable with one vowel letter and one consonant after it: stop, quiz, shut
_DOUBLES = re.compile(r"(?:[^aeiou]|(?<=q)u)*[aeio][^aeiouwxy]|(?:[^aeiouq]|q(?!u))*u[^aeiouwxy]")
_AN = re.compile(r"(?!(?:uni|use|eu|one\b))[aeiou]|hour|honest", re.IGNORECASE)


def plural(noun: str) -> str:
    """Return the plural of a noun: `box` -> `boxes`, `child` -> `children`."""
    return _PLURALS.get(noun) or _with_s(noun)


def third(verb: str) -> str:
    """Return the form of the present tense after `he`; the words that follow the verb stay: `go home` -> `goes home`."""
    verb, space, rest = verb.partition(" ")
    form = {"be": "is", "have": "has", "do": "does", "go": "goes"}.get(verb) or _with_s(verb)
    return form + space + rest


def past(verb: str) -> str:
    """Return the past tense, of which `be` has the singular: `buy` -> `bought`."""
    verb, space, rest = verb.partition(" ")
    return (_FORMS[verb][0] if verb in _FORMS else _with_ed(verb)) + space + rest


def participle(verb: str) -> str:
    """Return the past participle: `eat` -> `eaten`."""
    verb, space, rest = verb.partition(" ")
    return (_FORMS[verb][1] if verb in _FORMS else _with_ed(verb)) + space + rest


def ing(verb: str) -> str:
    """Return the form in -ing: `swim` -> `swimming`."""
    verb, space, rest = verb.partition(" ")
    if verb == "forget" or _DOUBLES.fullmatch(verb):
        stem = verb + verb[-1]
    elif verb.endswith("ie"):
        stem = verb[:-2] + "y"
    else:
        stem = verb[:-1] if re.search(r"[^eoy]e$", verb) and verb != "be" else verb
    return stem + "ing" + space + rest


def with_article(phrase: str) -> str:
    """Put the indefinite article before a noun or its adjective: `old box` -> `an old box`."""
    return f"{'an' if _AN.match(phrase) else 'a'} {phrase}"


def possessive(noun: str) -> str:
    """Return the possessive of a noun, singular or plural: `Max` -> `Max's`, `teachers` -> `teachers'`."""
    is_plural = noun.endswith("s") and plural(noun[:-1]) == noun
    return noun + ("'" if is_plural else "'s")


def _with_s(word: str) -> str:
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if _SIBILANT.search(word) else "s")


def _with_ed(verb: str) -> str:
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    if _DOUBLES.fullmatch(verb):
        return verb + verb[-1] + "ed"
    return verb + ("d" if verb.endswith("e") else "ed")
