"""Kazakh sentences for the embedded corpus: patterns of simple sentences, filled from the words in kk.txt."""

import re
from random import Random

from hfasr.corpora.synthetic.kk_grammar import (
    OWNERS,
    conditional,
    converb,
    inflect,
    let_us,
    past,
    perfect,
    please,
    plural,
    present,
    present_base,
    question,
    stative,
    suffix,
    together,
    verbal_noun,
)
from hfasr.corpora.synthetic.speech import Speech, words_of

_PRONOUNS = {"мен": "1", "сен": "2", "сіз": "2p", "ол": "3", "біз": "1p", "олар": "3p"}
_GENITIVES = {"1": "менің", "2": "сенің", "3": "оның", "1p": "біздің", "2p": "сіздің", "3p": "олардың"}
_DATIVES = {"1": "маған", "2": "саған", "3": "оған", "1p": "бізге", "2p": "сізге", "3p": "оларға"}
_FEWEST_WORDS, _MOST_WORDS = 3, 9


# verb: (section of its objects, adjectives that suit them, how often the object stands without a case)
_TRANSITIVE = {
    "оқы": ("reading", "reading_adjective", 0.6),
    "жаз": ("writing", "reading_adjective", 0.6),
    "же": ("food", "food_adjective", 0.6),
    "іш": ("drink", "food_adjective", 0.6),
    "сатып ал": ("thing", "thing_adjective", 0.6),
    "ізде": ("thing", "thing_adjective", 0.2),
    "тап": ("thing", "thing_adjective", 0.2),
    "әкел": ("thing", "thing_adjective", 0.6),
    "көтер": ("thing", "thing_adjective", 0),
    "ұмыт": ("thing", "thing_adjective", 0),
    "пісір": ("dish", "food_adjective", 0.6),
    "тыңда": ("heard", "reading_adjective", 0.6),
    "көр": ("watched", "reading_adjective", 0.6),
    "айт": ("told", "reading_adjective", 0.6),
    "зертте": ("science", "", 0),
    "жақсы көр": ("liked", "", 0),
    "ойна": ("game", "", 1),
    "ки": ("clothes", "thing_adjective", 0.6),
    "тік": ("sewn", "thing_adjective", 0.6),
    "жөнде": ("repaired", "thing_adjective", 0),
    "аш": ("opened", "thing_adjective", 0),
    "жап": ("opened", "thing_adjective", 0),
    "жүргіз": ("vehicle", "thing_adjective", 0.5),
    "жу": ("vehicle", "thing_adjective", 0),
    "өсір": ("crop", "", 0.6),
    "жина": ("crop", "", 0.6),
    "күт": ("person", "person_adjective", 0),
    "шақыр": ("person", "person_adjective", 0),
    "таны": ("person", "person_adjective", 0),
    "сағын": ("kin", "", 0),
    "бақ": ("herd", "", 0.6),
}
# nobody is asked to do these, and they are never being done just now
_STATES = {"ұмыт", "жақсы көр", "таны", "сағын"}
_MOTION = [
    ("бар", "dative"), ("кел", "dative"), ("кет", "dative"), ("жет", "dative"), ("кір", "dative"), ("жүгір", "dative"), ("асық", "dative"),
    ("кел", "ablative"), ("шық", "ablative"), ("қайт", "ablative"), ("қайтып кел", "ablative"),
]  # fmt: skip
_STAY = ["жұмыс істе", "оқы", "ойна", "демал", "отыр", "қал", "күт", "биле", "ән айт", "жаттық", "тұр", "ұйықта", "серуенде"]
_ANIMAL_VERBS = ["жүгір", "жат", "көрін", "ойна", "адас", "тұр", "жүр", "ұйықта"]
_EVENTS = [
    ("жаңбыр", "жау"), ("қар", "жау"), ("бұршақ", "жау"), ("қатты жел", "соқ"), ("күн", "шық"), ("күн", "бат"), ("ай", "шық"),
    ("қалың тұман", "түс"), ("өзен", "тасы"), ("мұз", "ері"), ("сары жапырақтар", "түс"), ("күн", "күркіре"), ("ағаштар", "гүлде"),
    ("жұлдыздар", "жарқыра"), ("күн", "жылы"), ("боран", "соқ"), ("дауыл", "тұр"),
]  # fmt: skip
_SIDES = ["үст", "аст", "жан", "іш", "арт", "алд"]
_ACTION_JUDGED = ["пайдалы", "оңай", "қиын", "қызық", "керек", "маңызды", "қажет"]


class _Speech(Speech):
    """Draws words and phrases, and puts them into sentences."""

    def word(self, section: str) -> str:
        return self.random.choice(words_of("kk")[section])

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def subject(self, *, genitive: bool = False) -> tuple[str, str]:
        """A phrase and its person."""
        kind, case = self.random.random(), "genitive" if genitive else ""
        if kind < 0.3:
            pronoun, person = self.random.choice(list(_PRONOUNS.items()))
            return (_GENITIVES[person] if genitive else pronoun), person
        if kind < 0.5:
            return inflect(self.word("name"), case), "3"
        if kind < 0.72:
            return self.relative(case), "3"
        person = self.word(self.pick("person", "person", "people"))
        if kind < 0.88:
            return f"{self.maybe(self.word('person_adjective'))} {inflect(person, case)}", "3"
        return inflect(plural(person), case), "3p"

    def relative(self, case: str) -> str:
        """A relative or friend of somebody, in a case."""
        owner = self.pick("1", "2", "3", "3")
        whose = _GENITIVES[owner] if owner != "3" or self.random.random() < 0.5 else inflect(self.word("name"), "genitive")
        return f"{whose} {inflect(self.word('kin'), case, owner)}"

    def somewhere(self, case: str, *sections: str) -> str:
        """A city, or a place of one of the sections, or of any; in a case."""
        kind = self.random.random()
        if kind < 0.25:
            return inflect(self.word("city"), case)
        place = inflect(self.word(self.pick(*sections or ("place", "place", "outdoors"))), case)
        return f"{self.word('place_adjective')} {place}" if kind < 0.45 else place

    def thing(self, verb: str) -> str:
        """The object of a transitive verb."""
        section, adjectives, bare = _TRANSITIVE[verb]
        noun = self.word(section)
        adjective = self.maybe(self.word(adjectives) if adjectives else "", 0.35)
        if self.random.random() < bare:
            return f"{adjective} {noun}"
        if section == "kin" or (section == "thing" and self.random.random() < 0.15):
            return f"{adjective} {inflect(noun, 'accusative', self.pick('1', '3'))}"
        pointer = self.maybe(self.pick("бұл", "осы", "сол", "анау"), 0 if section in ("science", "liked") else 0.3)
        return f"{pointer} {adjective} {inflect(noun, 'accusative')}"

    def action(self, *, states: bool = True) -> tuple[str, str]:
        """What comes before a verb, and the verb, which is that of a state only if `states`."""
        kind = self.random.random()
        if kind < 0.6:
            verb = self.random.choice([verb for verb in _TRANSITIVE if states or verb not in _STATES])
            before = "" if verb in _STATES else self.pick(self.maybe(self.somewhere("locative"), 0.6), self.maybe(self.word("manner"), 0.4))
            return f"{before} {self.thing(verb)}", verb
        if kind < 0.8:
            verb, case = self.random.choice(_MOTION)
            return f"{self.maybe(self.word('manner'), 0.15)} {self.somewhere(case)}", verb
        return self.somewhere("locative"), self.random.choice(_STAY)

    def timed_subject(self, section: str) -> tuple[str, str]:
        """A subject with a word of time before or after it or none, and its person."""
        (who, person), time = self.subject(), self.maybe(self.word(section), 0.65)
        return self.pick(f"{time} {who}", f"{who} {time}"), person


def _past_statement(s: _Speech) -> str:
    (who, person), (what, verb) = s.timed_subject("past_time"), s.action()
    return f"{who} {what} {past(verb, person, negative=s.random.random() < 0.2)}."


def _present_statement(s: _Speech) -> str:
    (who, person), (what, verb) = s.timed_subject("future_time"), s.action()
    return f"{who} {what} {present(verb, person, negative=s.random.random() < 0.2)}."


def _experience(s: _Speech) -> str:
    (who, person), (what, verb), negative = s.subject(), s.action(), s.random.random() < 0.5
    return f"{who} {s.pick('бұрын', 'әлі' if negative else 'былтыр')} {what} {perfect(verb, person, negative=negative)}."


def _two_actions(s: _Speech) -> str:
    (who, person), (what, verb), (then, second) = s.subject(), s.action(), s.action()
    return f"{who} {what} {converb(verb)}, {then} {past(second, person)}."


def _in_progress(s: _Speech) -> str:
    (who, person), now = s.subject(), s.maybe("қазір")
    if s.random.random() < 0.2:
        verb, case = s.random.choice([("бара", "dative"), ("келе", "dative"), ("келе", "ablative")])
        return f"{now} {who} {s.somewhere(case)} {verb} {stative('жатыр', person)}."
    verb = s.random.choice([verb for verb in _TRANSITIVE if verb not in _STATES | {"тап", "әкел"}])
    where = s.maybe(s.somewhere("locative"), 0.3)
    return f"{now} {who} {where} {s.thing(verb)} {converb(verb)} {stative(s.pick('жатыр', 'отыр', 'жүр', 'тұр'), person)}."


def _ability(s: _Speech) -> str:
    (who, person), (what, verb) = s.subject(), s.action(states=False)
    tense = s.random.choice([past, present])
    return f"{who} {what} {present_base(verb)} {tense('ал', person, negative=s.random.random() < 0.5)}."


def _wish(s: _Speech) -> str:
    (whose, owner), (what, verb) = s.subject(genitive=True), s.action(states=False)
    return f"{whose} {what} {suffix(suffix(verb, 'ГЫ'), OWNERS[owner])} {s.pick('келеді', 'келді', 'келмейді')}."


def _duty(s: _Speech) -> str:
    (whose, owner), (what, verb), time = s.subject(genitive=True), s.action(states=False), s.maybe(s.word("future_time"))
    return f"{whose} {time} {what} {suffix(verbal_noun(verb), OWNERS[owner])} {s.pick('керек', 'керек', 'қажет')}."


def _judged_action(s: _Speech) -> str:
    what, verb = s.action()
    judged = s.random.choice(_ACTION_JUDGED)
    return f"{what} {verbal_noun(verb)} {'' if judged in ('керек', 'қажет') else s.maybe(s.word('degree'))} {judged}."


def _description(s: _Speech) -> str:
    section = s.pick("thing", "place", "person", "food", "nature")
    whose = s.pick("бұл", "мына", "анау", s.somewhere("locative") + " көрген", "біз көрген")
    return f"{whose} {s.word(section)} {s.word('degree')} {s.word(section + '_adjective')} {s.maybe('екен', 0.3)}."


def _comparison(s: _Speech) -> str:
    section = s.pick("thing", "place", "person")
    adjective = s.word("person_adjective" if section == "person" else "comparable")
    better = s.pick(adjective, suffix(adjective, "(Ы)рАК"))
    return f"{s.pick('мына', 'бұл')} {s.word(section)} анау {inflect(s.word(section), 'ablative')} {better}."


def _profession(s: _Speech) -> str:
    who, where = s.relative(""), s.somewhere("locative", "place")
    return f"{who} {where} {s.word('person')} болып жұмыс {s.pick('істейді', 'істеген', 'істеп жүр')}."


def _existence(s: _Speech) -> str:
    section = s.pick("thing", "animal", "person", "people")
    noun, where = s.word(section), s.somewhere("locative", "outdoors" if section == "animal" else "place")
    if section == "thing" and s.random.random() < 0.7:
        where = f"{inflect(s.word('furniture'), 'genitive')} {inflect(s.pick('үст', 'жан'), 'locative', '3')}"
    return f"{where} {s.pick(s.word('number') + f' {noun} бар', f'{noun} көп', f'{noun} жоқ', f'бірнеше {noun} бар')}."


def _having(s: _Speech) -> str:
    (whose, owner), section = s.subject(genitive=True), s.pick("thing", "kin")
    noun = inflect(s.word(section), "", owner)
    quality = s.word("thing_adjective" if section == "thing" else "person_adjective")
    many = s.random.choice(words_of("kk")["number"][:6])
    return f"{whose} {s.pick(many, quality)} {noun} бар."


def _position(s: _Speech) -> str:
    side = inflect(s.random.choice(_SIDES), "locative", "3")
    colour = s.maybe(s.word("thing_adjective"))
    return f"{colour} {s.word('thing')} {inflect(s.word('furniture'), 'genitive')} {side} {s.pick('тұр', 'жатыр', 'қалды')}."


def _list(s: _Speech) -> str:
    section, verb = s.random.choice([("food", "сатып ал"), ("thing", "әкел"), ("animal", "көр"), ("crop", "жина"), ("drink", "іш")])
    one, two, three = s.random.sample(words_of("kk")[section], 3)
    who, person = s.subject()
    joined = s.pick(f"{two} және", together(two))
    return f"{who} {s.maybe(s.somewhere('locative'))} {one}, {joined} {three} {past(verb, person)}."


def _numbered(s: _Speech) -> str:
    (who, person), verb = s.subject(), s.pick("сатып ал", "тап", "әкел", "оқы", "жаз")
    return f"{s.maybe(s.word('past_time'))} {who} {s.word('number')} {s.word(_TRANSITIVE[verb][0])} {past(verb, person)}."


def _weather(s: _Speech) -> str:
    what, verb = s.random.choice(_EVENTS)
    where = s.maybe(s.somewhere("locative", "outdoors"))
    if s.random.random() < 0.5:
        return f"{s.word('past_time')} {where} {what} {past(verb)}."
    return f"{s.word('future_time')} {where} {what} {present(verb, negative=s.random.random() < 0.3)}."


def _condition(s: _Speech) -> str:
    (what, cause), (who, person), (then, verb) = s.random.choice(_EVENTS), s.subject(), s.action()
    return f"Егер {what} {conditional(cause)}, {who} {then} {present(verb, person)}."


def _own_condition(s: _Speech) -> str:
    (who, person), (what, verb), (then, second) = s.random.choice(list(_PRONOUNS.items())), s.action(), s.action()
    return f"{who} {what} {conditional(verb, person)}, {then} {present(second, person)}."


def _reason(s: _Speech) -> str:
    (what, cause), (who, person), (then, verb) = s.random.choice(_EVENTS), s.subject(), s.action()
    return f"{what} {suffix(cause, 'ГАндЫКтАн')}, {who} {then} {past(verb, person, negative=s.random.random() < 0.5)}."


def _meanwhile(s: _Speech) -> str:
    (who, _), (what, verb), (other, also) = s.subject(), s.action(), s.random.choice(_EVENTS)
    return f"{who} {what} {suffix(verb, 'ГАндА')}, {other} {past(also)}."


def _known_thing(s: _Speech) -> str:
    verb, end = s.pick("сатып ал", "тап", "оқы", "жаз", "әкел"), s.pick("жоғалды", "ұнады", "өте қызық екен", "үйде қалды")
    noun = inflect(s.word(_TRANSITIVE[verb][0]), "", s.pick("1", "2", "1p"))
    return f"{s.word('past_time')} {perfect(verb)} {noun} {end}."


def _with_somebody(s: _Speech) -> str:
    (who, person), verb = s.subject(), s.pick("сөйлес", "кездес", "жұмыс істе", "ойна", "таныс")
    return f"{who} {s.somewhere('locative')} {s.relative('instrumental')} {past(verb, person)}."


def _journey(s: _Speech) -> str:
    (who, person), verb = s.timed_subject("past_time"), s.pick("бар", "кел", "кет", "жет")
    return f"{who} {s.somewhere('dative')} {inflect(s.word('vehicle'), 'instrumental')} {past(verb, person)}."


def _gift(s: _Speech) -> str:
    (who, person), other = s.subject(), s.random.choice(list(_DATIVES))
    to = s.pick(s.relative("dative"), inflect(s.word("name"), "dative"), "" if other[0] == person[0] else _DATIVES[other])
    verb = s.pick("бер", "жібер", "көрсет", "сыйла", "сат")
    return f"{who} {to} {s.maybe(s.word('thing_adjective'))} {s.word('thing')} {past(verb, person)}."


def _animal(s: _Speech) -> str:
    beast, verb = s.word("animal"), s.random.choice(_ANIMAL_VERBS)
    number = s.pick(beast, plural(beast), f"{s.word('number')} {beast}")
    return f"{s.maybe(s.word('past_time'))} {s.somewhere('locative', 'outdoors')} {number} {past(verb)}."


def _pain(s: _Speech) -> str:
    (whose, owner), part = s.subject(genitive=True), s.word("body")
    return f"{s.maybe(s.word('past_time'))} {whose} {inflect(part, '', owner)} {s.pick('ауырды', 'ауырып қалды', 'ауырған жоқ')}."


def _request(s: _Speech) -> str:
    what, verb = s.action(states=False)
    if s.random.random() < 0.5:
        return f"{s.pick('өтінемін,', 'сіз', 'енді')} {what} {please(verb)}{s.pick('.', '!')}"
    return f"{s.pick('кел,', 'жүріңдер,', 'бүгін', 'ертең')} {what} {let_us(verb)}{s.pick('.', '!')}"


def _exclamation(s: _Speech) -> str:
    section, end = s.pick("thing", "place", "person", "nature", "food"), s.pick("бар", "бар екен", "болды")
    where = inflect(s.word("city"), "locative") if section in ("place", "nature") else s.somewhere("locative", "place")
    return f"{where} қандай {s.word(section + '_adjective')} {s.word(section)} {end}!"


def _quotation(s: _Speech) -> str:
    pronoun, (what, verb) = s.pick("мен", "біз"), s.action()
    speaker = s.pick(s.word("name"), s.word("person"), s.relative(""))
    told = s.pick("деді", "деп айтты", "деп жауап берді")
    return f"{pronoun} {s.maybe(s.word('future_time'))} {what} {present(verb, _PRONOUNS[pronoun])}, — {told} {speaker}."


def _open_question(s: _Speech) -> str:
    (who, person), (what, verb), time = s.subject(), s.action(), s.maybe(s.word("future_time"))
    where = s.random.choice([("қайда", "бар"), ("қайда", "кет"), ("қайда", "жұмыс істе"), ("қайда", "тұр"), ("қайдан", "кел")])
    return s.pick(
        f"{who} {time} {where[0]} {present(where[1], person)}?",
        f"{who} қашан {what} {present(verb, person)}?",
        f"кім {s.maybe(s.word('past_time'))} {what} {past(verb)}?",
        f"{s.pick('неге', 'неліктен', 'не үшін')} {who} {what} {past(verb, person, negative=True)}?",
        f"{s.pick('бұл', 'анау')} кімнің {inflect(s.word('thing'), '', '3')} {s.maybe('екен')}?",
        f"{s.somewhere('locative', 'place')} {s.pick('қанша', 'неше')} {s.word(s.pick('thing', 'people', 'person'))} бар?",
    )


def _yes_no_question(s: _Speech) -> str:
    (what, verb), (who, person) = s.action(), s.random.choice([("сен", "2"), ("сіз", "2p"), (s.word("name"), "3"), (s.relative(""), "3")])
    if s.random.random() < 0.5:
        return f"{who} {s.maybe(s.word('past_time'))} {what} {question(past(verb, person))}?"
    # the third person drops -ды before the particle
    asked = present_base(verb) if person == "3" else present(verb, person)
    return f"{who} {s.maybe(s.word('future_time'))} {what} {question(asked)}?"


def _weekday(s: _Speech) -> str:
    (who, person), (what, verb) = s.subject(), s.action()
    return f"{s.word('weekday')} күні {who} {what} {present(verb, person)}."


_PATTERNS = {
    _past_statement: 7, _present_statement: 7, _experience: 2, _two_actions: 3, _in_progress: 3, _ability: 2, _wish: 2, _duty: 2,
    _judged_action: 2, _description: 3, _comparison: 2, _profession: 2, _existence: 3, _having: 2, _position: 3, _list: 3, _numbered: 2,
    _weather: 2, _condition: 2, _own_condition: 1, _reason: 2, _meanwhile: 2, _known_thing: 2, _with_somebody: 2, _journey: 2, _gift: 3,
    _animal: 3, _pain: 2, _request: 3, _exclamation: 2, _quotation: 2, _open_question: 4, _yes_no_question: 4, _weekday: 2,
}  # fmt: skip


def sentence(random: Random) -> str:
    """Return one sentence of 3 to 9 words with its capital letter and punctuation, drawn with `random`."""
    while True:
        pattern = random.choices(list(_PATTERNS), list(_PATTERNS.values()))[0]
        text = re.sub(r"\s+", " ", pattern(_Speech(random))).strip()
        if _FEWEST_WORDS <= len(text.replace("—", "").split()) <= _MOST_WORDS:
            text = re.sub(r" (?=[.,?!])", "", text)
            return text[0].upper() + text[1:]
