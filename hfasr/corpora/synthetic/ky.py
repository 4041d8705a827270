"""Kyrgyz sentences for the embedded corpus: patterns of simple sentences, filled from the words in ky.txt."""

import re
from random import Random

from hfasr.corpora.synthetic.ky_grammar import OWNERS, converb, inflect, past, plural, present, present_base, suffix, verbal_noun
from hfasr.corpora.synthetic.speech import Speech, words_of

_PRONOUNS = {"мен": "1", "сен": "2", "сиз": "2p", "ал": "3", "биз": "1p", "алар": "3p"}
_GENITIVES = {"1": "менин", "2": "сенин", "3": "анын", "1p": "биздин", "2p": "сиздин"}


# verb: (section of its objects, adjectives that suit them, whether the object may stand without a case)
_TRANSITIVE = {
    "оку": ("reading", "reading_adjective", True),
    "жаз": ("writing", "reading_adjective", True),
    "же": ("food", "food_adjective", True),
    "ич": ("drink", "food_adjective", True),
    "сатып ал": ("thing", "thing_adjective", True),
    "изде": ("thing", "thing_adjective", False),
    "тап": ("thing", "thing_adjective", False),
    "алып кел": ("thing", "thing_adjective", True),
    "көтөр": ("thing", "thing_adjective", False),
    "унут": ("thing", "thing_adjective", False),
    "бышыр": ("dish", "food_adjective", True),
    "ук": ("heard", "reading_adjective", True),
    "айт": ("told", "reading_adjective", True),
    "ойло": ("told", "reading_adjective", False),
    "үйрөн": ("subject", "", False),
    "жакшы көр": ("subject", "", False),
    "оңдо": ("repaired", "thing_adjective", False),
    "ач": ("opened", "thing_adjective", False),
    "жап": ("opened", "thing_adjective", False),
    "айда": ("vehicle", "thing_adjective", False),
    "жууп кой": ("vehicle", "thing_adjective", False),
    "өстүр": ("crop", "", True),
    "жыйна": ("crop", "", True),
    "күт": ("person", "person_adjective", False),
    "чакыр": ("person", "person_adjective", False),
    "тааны": ("person", "person_adjective", False),
    "сагын": ("kin", "", False),
    "бак": ("animal", "", False),
}
_MOTION = [
    ("бар", "dative"), ("кел", "dative"), ("кет", "dative"), ("жөнө", "dative"), ("жет", "dative"), ("кир", "dative"), ("чурка", "dative"),
    ("кел", "ablative"), ("чык", "ablative"), ("кайт", "ablative"), ("кайтып кел", "ablative"),
]  # fmt: skip
_STAY = ["иште", "жаша", "оку", "ойно", "эс ал", "отур", "кал", "күт", "сүйлө", "бийле", "ырда", "машык", "тур", "уктап кал", "жолук"]
_ANIMAL_VERBS = ["чурка", "жат", "көрүн", "ойно", "адаш", "тур", "жүр", "чоңой"]
_EVENTS = [
    ("жамгыр", "жаа"), ("кар", "жаа"), ("мөндүр", "жаа"), ("катуу шамал", "сок"), ("күн", "чык"), ("күн", "бат"), ("ай", "чык"),
    ("калың туман", "түш"), ("көл", "тоң"), ("мөңгү", "эри"), ("сары жалбырактар", "түш"), ("дарыя", "тартыл"), ("күн", "күркүрө"),
    ("гүлдөр", "ачыл"), ("жылдыздар", "жан"), ("аба", "ысы"),
]  # fmt: skip
_SIDES = ["үст", "аст", "жан", "ич", "арт", "алд"]
_ACTION_JUDGED = ["пайдалуу", "оңой", "кыйын", "кызыктуу", "керек", "маанилүү", "зарыл"]


class _Speech(Speech):
    """Draws words and phrases, and puts them into sentences."""

    def word(self, section: str) -> str:
        return self.random.choice(words_of("ky")[section])

    def subject(self, pronouns: bool = True) -> tuple[str, str]:
        """A phrase and its person."""
        kind = self.random.random()
        if kind < 0.3 and pronouns:
            return self.random.choice(list(_PRONOUNS.items()))
        if kind < 0.5:
            return self.word("name"), "3"
        if kind < 0.72:
            return self.relative("")[0], "3"
        person = self.word(self.random.choice(["person", "person", "people"]))
        if kind < 0.88:
            return f"{self.maybe(self.word('person_adjective'))} {person}", "3"
        return plural(person), "3p"

    def relative(self, case: str) -> tuple[str, str]:
        """A relative or friend of somebody in a case, and whose."""
        owner = self.random.choice("1233")
        whose = _GENITIVES[owner] if owner != "3" or self.random.random() < 0.5 else inflect(self.word("name"), "genitive")
        return f"{whose} {inflect(self.word('kin'), case, owner)}", owner

    def somewhere(self, case: str) -> str:
        kind = self.random.random()
        if kind < 0.25:
            return inflect(self.word("city"), case)
        place = inflect(self.word("place"), case)
        return f"{self.word('place_adjective')} {place}" if kind < 0.45 else place

    def thing(self, verb: str) -> str:
        """The object of a transitive verb."""
        section, adjectives, bare = _TRANSITIVE[verb]
        noun, kind = self.word(section), self.random.random()
        adjective = self.maybe(self.word(adjectives) if adjectives else "", 0.35)
        if section == "kin" or (section != "subject" and kind < 0.15):
            return f"{adjective} {inflect(noun, 'accusative', self.random.choice('13'))}"
        if section == "animal":
            return inflect(plural(noun), "accusative")
        if bare and kind < 0.6:
            return f"{adjective} {noun}"
        pointer = self.maybe(self.random.choice(["бул", "ошол", "тиги", "ушул"]), 0.3 if section != "subject" else 0)
        return f"{pointer} {adjective} {inflect(noun, 'accusative')}"

    def action(self) -> tuple[str, str]:
        """What comes before a verb, and the verb."""
        kind = self.random.random()
        if kind < 0.6:
            verb = self.random.choice(list(_TRANSITIVE))
            return f"{self.maybe(self.somewhere('locative'), 0.3)} {self.thing(verb)}", verb
        if kind < 0.8:
            verb, case = self.random.choice(_MOTION)
            return self.somewhere(case), verb
        return self.somewhere("locative"), self.random.choice(_STAY)


def _past_statement(s: _Speech) -> str:
    (who, person), (what, verb) = s.subject(), s.action()
    time, how = s.maybe(s.word("past_time"), 0.6), s.maybe(s.word("manner"), 0.2)
    first, second = s.random.choice([(time, who), (who, time)])
    return f"{first} {second} {what} {how} {past(verb, person, negative=s.random.random() < 0.2)}."


def _present_statement(s: _Speech) -> str:
    (who, person), (what, verb) = s.subject(), s.action()
    time, how = s.maybe(s.word("future_time"), 0.7), s.maybe(s.word("manner"), 0.2)
    first, second = s.random.choice([(time, who), (who, time)])
    return f"{first} {second} {what} {how} {present(verb, person, negative=s.random.random() < 0.2)}."


def _two_actions(s: _Speech) -> str:
    (who, person), (what, verb), (then, second) = s.subject(), s.action(), s.action()
    return f"{who} {what} {converb(verb)}, {then} {past(second, person)}."


def _in_progress(s: _Speech) -> str:
    (who, person), (what, verb) = s.subject(), s.action()
    return f"{s.maybe('азыр')} {who} {what} {converb(verb)} {present('жат', person)}."


def _ability(s: _Speech) -> str:
    (who, person), (what, verb) = s.subject(), s.action()
    tense = s.random.choice([past, present])
    return f"{who} {what} {present_base(verb)} {tense('ал', person, negative=s.random.random() < 0.5)}."


def _wish(s: _Speech) -> str:
    owner, (what, verb) = s.random.choice(list(_GENITIVES)), s.action()
    return f"{_GENITIVES[owner]} {what} {suffix(suffix(verb, 'ГЫ'), OWNERS[owner])} {s.random.choice(['келет', 'келди', 'келбейт'])}."


def _duty(s: _Speech) -> str:
    (who, person), (what, verb) = s.subject(), s.action()
    owner = {"3p": "3"}.get(person, person)
    return f"{who} {s.maybe(s.word('future_time'))} {what} {suffix(suffix(verb, '(Ы)ш'), OWNERS[owner])} керек."


def _judged_action(s: _Speech) -> str:
    what, verb = s.action()
    return f"{what} {verbal_noun(verb)} {s.maybe(s.word('degree'))} {s.random.choice(_ACTION_JUDGED)}."


def _description(s: _Speech) -> str:
    section = s.random.choice(["thing", "place", "person", "food", "nature"])
    whose = s.random.choice(["бул", "тиги", "ошол", s.somewhere("locative") + " көргөн", "биз көргөн"])
    return f"{whose} {s.word(section)} {s.word('degree')} {s.word(section + '_adjective')} {s.maybe('экен', 0.3)}."


def _comparison(s: _Speech) -> str:
    section = s.random.choice(["thing", "place", "person"])
    adjective = s.word("person_adjective" if section == "person" else "comparable")
    return f"{s.random.choice(['бул', 'биздин'])} {s.word(section)} тиги {inflect(s.word(section), 'ablative')} {adjective}."


def _profession(s: _Speech) -> str:
    who, job = s.relative("")[0], s.word("person")
    return f"{who} {s.somewhere('locative')} {job} болуп {s.random.choice(['иштейт', 'иштеген', 'иштеп жатат'])}."


def _existence(s: _Speech) -> str:
    if s.random.random() < 0.35:
        where, noun = inflect(s.word("furniture"), "locative"), s.word("thing")
    else:
        where, noun = s.somewhere("locative"), s.word(s.random.choice(["thing", "animal", "person", "people"]))
    amount = s.random.choice([f"{s.word('number')} {noun} бар", f"{noun} көп", f"{noun} жок", f"бир нече {noun} бар"])
    return f"{where} {amount}."


def _position(s: _Speech) -> str:
    side = inflect(s.random.choice(_SIDES), "locative", "3")
    colour = s.maybe(s.word("thing_adjective"))
    return f"{colour} {s.word('thing')} {inflect(s.word('furniture'), 'genitive')} {side} {s.random.choice(['турат', 'жатат', 'калды'])}."


def _list(s: _Speech) -> str:
    section, verb = s.random.choice([("food", "сатып ал"), ("thing", "алып кел"), ("animal", "көр"), ("crop", "жыйна"), ("drink", "ич")])
    one, two, three = s.random.sample(words_of("ky")[section], 3)
    who, person = s.subject()
    return f"{who} {s.maybe(s.somewhere('ablative'))} {one}, {two} {s.random.choice(['жана', 'менен'])} {three} {past(verb, person)}."


def _numbered(s: _Speech) -> str:
    (who, person), verb = s.subject(), s.random.choice(["сатып ал", "тап", "алып кел", "оку", "жаз", "же"])
    return f"{s.maybe(s.word('past_time'))} {who} {s.word('number')} {s.word(_TRANSITIVE[verb][0])} {past(verb, person)}."


def _weather(s: _Speech) -> str:
    what, verb = s.random.choice(_EVENTS)
    when = s.random.choice([s.somewhere("locative"), ""])
    if s.random.random() < 0.5:
        return f"{s.word('past_time')} {when} {what} {past(verb)}."
    return f"{s.word('future_time')} {when} {what} {present(verb, negative=s.random.random() < 0.3)}."


def _condition(s: _Speech) -> str:
    (what, cause), (who, person), (then, verb) = s.random.choice(_EVENTS), s.subject(), s.action()
    return f"Эгер {what} {suffix(cause, 'сА')}, {who} {then} {present(verb, person)}."


def _reason(s: _Speech) -> str:
    (what, cause), (who, person), (then, verb) = s.random.choice(_EVENTS), s.subject(), s.action()
    return f"{what} {suffix(cause, 'ГАндЫктАн')}, {who} {then} {past(verb, person, negative=s.random.random() < 0.5)}."


def _meanwhile(s: _Speech) -> str:
    (who, _), (what, verb), (other, also) = s.subject(), s.action(), s.random.choice(_EVENTS)
    return f"{who} {what} {suffix(verb, 'ГАндА')}, {other} {past(also)}."


def _known_thing(s: _Speech) -> str:
    verb, end = s.random.choice(["сатып ал", "тап", "оку", "жаз", "алып кел"]), ["жоголду", "жакты", "абдан кымбат экен", "үйдө калды"]
    noun = inflect(s.word(_TRANSITIVE[verb][0]), "", s.random.choice("13"))
    return f"{s.word('past_time')} {suffix(verb, 'ГАн')} {noun} {s.random.choice(end)}."


def _with_somebody(s: _Speech) -> str:
    (who, person), verb = s.subject(), s.random.choice(["сүйлөш", "жолук", "иште", "ойно", "кет", "таанышып ал"])
    return f"{who} {s.somewhere('locative')} {s.relative('')[0]} менен {past(verb, person)}."


def _gift(s: _Speech) -> str:
    (who, person), to = s.subject(), s.random.choice([s.relative("dative")[0], inflect(s.word("name"), "dative")])
    verb = s.random.choice(["бер", "жөнөт", "көрсөт", "белек кыл", "сат"])
    return f"{who} {to} {s.maybe(s.word('thing_adjective'))} {s.word('thing')} {past(verb, person)}."


def _animal(s: _Speech) -> str:
    beast, verb = s.word("animal"), s.random.choice(_ANIMAL_VERBS)
    number = s.random.choice([beast, plural(beast), f"{s.word('number')} {beast}"])
    return f"{s.maybe(s.word('past_time'))} {number} {s.somewhere('locative')} {past(verb)}."


def _request(s: _Speech) -> str:
    what, verb = s.action()
    if s.random.random() < 0.5:
        return f"{s.random.choice(['сураныч,', 'сиз', 'эми'])} {what} {suffix(verb, '(Ы)ңЫз')}{s.random.choice('.!')}"
    return f"{s.random.choice(['кел,', 'жүргүлө,', 'бүгүн', 'эртең'])} {what} {suffix(present_base(verb), 'лЫ')}{s.random.choice('.!')}"


def _exclamation(s: _Speech) -> str:
    section, end = s.random.choice(["thing", "place", "person", "nature", "food"]), s.random.choice(["бар", "экен", "болду"])
    return f"{s.somewhere('locative')} кандай {s.word(section + '_adjective')} {s.word(section)} {end}!"


def _quotation(s: _Speech) -> str:
    pronoun, (what, verb) = s.random.choice(["мен", "биз"]), s.action()
    speaker = s.random.choice([s.word("name"), s.word("person"), s.relative("")[0]])
    told = s.random.choice(["деди", "деп айтты", "деп жооп берди", "деп сүйлөдү"])
    return f"{pronoun} {s.maybe(s.word('future_time'))} {what} {present(verb, _PRONOUNS[pronoun])}, — {told} {speaker}."


def _open_question(s: _Speech) -> str:
    (who, person), kind = s.subject(), s.random.randrange(6)
    time = s.maybe(s.word("future_time"))
    what, verb = s.action()
    return [
        f"{who} {time} кайда {present(s.random.choice(['бар', 'кет', 'жөнө', 'иште', 'жаша']), person)}?",
        f"{who} качан {what} {present(verb, person)}?",
        f"ким {s.maybe(s.word('past_time'))} {what} {past(verb)}?",
        f"эмне үчүн {who} {what} {past(verb, person, negative=True)}?",
        f"бул кимдин {inflect(s.word('thing'), '', '3')} экен?",
        f"{s.somewhere('locative')} канча {s.word(s.random.choice(['thing', 'animal', 'person']))} бар?",
    ][kind]


def _yes_no_question(s: _Speech) -> str:
    (what, verb), (who, person) = s.action(), s.random.choice([("сен", "2"), ("сиз", "2p"), (s.word("name"), "3"), s.subject(False)])
    if s.random.random() < 0.5:
        return f"{who} {s.maybe(s.word('past_time'))} {what} {suffix(past(verb, person), 'БЫ')}?"
    return f"{who} {s.maybe(s.word('future_time'))} {what} {suffix(present(verb, person).removesuffix('т'), 'БЫ')}?"


def _weekday(s: _Speech) -> str:
    (who, person), (what, verb) = s.subject(), s.action()
    return f"{s.word('weekday')} күнү {who} {what} {present(verb, person)}."


_PATTERNS = {
    _past_statement: 7, _present_statement: 7, _two_actions: 3, _in_progress: 2, _ability: 2, _wish: 2, _duty: 2, _judged_action: 2,
    _description: 3, _comparison: 2, _profession: 2, _existence: 3, _position: 3, _list: 3, _numbered: 2, _weather: 2, _condition: 2,
    _reason: 2, _meanwhile: 2, _known_thing: 2, _with_somebody: 2, _gift: 3, _animal: 3, _request: 3, _exclamation: 2, _quotation: 2,
    _open_question: 4, _yes_no_question: 4, _weekday: 2,
}  # fmt: skip


def sentence(random: Random) -> str:
    """Return one sentence with its capital letter and punctuation, drawn with `random`."""
    pattern = random.choices(list(_PATTERNS), list(_PATTERNS.values()))[0]
    text = re.sub(r"\s+", " ", pattern(_Speech(random))).strip()
    text = re.sub(r" (?=[.,?!])", "", text)
    return text[0].upper() + text[1:]
