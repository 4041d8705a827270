"""English sentences for the embedded corpus: patterns of simple sentences, filled from the words in en.txt.

Words whose sound depends on their sense (read, live, close) and the commoner words that only differ in spelling (their, its, meat) are
left out, because a small model has nothing but the sound to go by.
"""

import re
from random import Random

from hfasr.corpora.synthetic.en_grammar import ing, participle, past, plural, possessive, third, with_article
from hfasr.corpora.synthetic.speech import Speech, words_of

_PRONOUNS = {"I": "1", "you": "2", "he": "3", "she": "3", "we": "p", "they": "p"}
_BE = {"1": "am", "2": "are", "3": "is", "p": "are"}
_WAS = {"1": "was", "2": "were", "3": "was", "p": "were"}
_SHORT_BE = {"I": "I'm", "he": "he's", "she": "she's", "we": "we're"}
_HAVE = {"I": "I've", "he": "he's", "she": "she's", "we": "we've", "they": "they've"}
_WILL = {"I": "I'll", "he": "he'll", "she": "she'll", "we": "we'll", "they": "they'll"}
_WILL_NOT, _NOT, _CLOCK = "won't", "n't", "o'clock"  # an expression inside of an f-string takes no backslash
_MASS = ("dish", "cooked", "drink")

# verb: sections of its objects
_TRANSITIVE = {
    "buy": ["thing", "clothes", "vehicle", "food", "dish", "reading"], "find": ["thing"], "lose": ["thing", "clothes"],
    "carry": ["thing", "furniture"], "bring": ["thing", "food", "drink"], "fix": ["repaired"], "write": ["written"],
    "eat": ["food", "dish"], "drink": ["drink"], "see": ["animal", "person"], "feed": ["animal"], "draw": ["animal", "vehicle"],
    "wash": ["clothes", "vehicle"], "wear": ["clothes"], "drive": ["vehicle"], "open": ["opened"], "shut": ["opened"],
    "sell": ["vehicle", "food", "clothes"], "borrow": ["thing", "vehicle", "reading"], "move": ["furniture"], "take": ["thing"],
    "help": ["person"], "call": ["person"], "cook": ["cooked"], "choose": ["thing", "clothes"], "hide": ["thing"], "enjoy": ["reading"],
    "need": ["thing", "vehicle"], "question": ["person"], "paint": ["furniture", "opened"], "like": ["reading", "food"],
    "forget": ["thing", "clothes"], "throw": ["thing"], "break": ["repaired"], "catch": ["animal"],
}  # fmt: skip
_STATES = ("need", "like", "see", "find", "lose", "forget")  # verbs that are not said in the progressive
_WEATHER = ["it rains", "it snows", "the sun shines", "it gets cold", "the wind blows", "the lake freezes", "it gets dark"]
_SIDES = ["under", "on", "behind", "beside", "next to", "in front of"]


class _Speech(Speech):
    """Draws words and phrases, and puts them into sentences."""

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def word(self, *sections: str) -> str:
        return self.random.choice(words_of("en")[self.random.choice(sections)])

    def adjective(self, section: str, chance: float = 0.4) -> str:
        """An adjective and a space, or nothing."""
        adjectives = f"{section}_adjective"
        return self.maybe(f"{self.word(adjectives)} ", chance) if adjectives in words_of("en") else ""

    def name(self) -> str:
        return self.word("man", "woman")

    def subject(self, pronouns: bool = True) -> tuple[str, str]:
        """A phrase and its person: 1, 2, 3 or p for the plural."""
        kind = self.random.random()
        if kind < 0.35 and pronouns:
            who = self.pick(*_PRONOUNS, "I", "I")
            return who, _PRONOUNS[who]
        if kind < 0.55:
            return self.name(), "3"
        if kind < 0.75:
            return self.relative(), "3"
        if kind < 0.9:
            return f"the {self.adjective('person')}{self.word('person')}", "3"
        return f"the {self.adjective('person')}{plural(self.word('person'))}", "p"

    def asked(self) -> tuple[str, str]:
        """A subject of which one asks others."""
        who, person = self.subject()
        return ("you", "2") if person == "1" else (who, person)

    def relative(self) -> str:
        return f"{self.owner()} {self.word('kin')}"

    def owner(self) -> str:
        return self.pick(self.pick("my", "your", "his", "her", "our"), possessive(self.name()))

    def thing(self, section: str) -> str:
        """A noun of a section with its article, number or owner."""
        noun, adjective, kind = self.word(section), self.adjective(section), self.random.random()
        if section in _MASS:
            return f"{self.pick('some', 'the', 'some')} {adjective}{noun}"
        if kind < 0.3:
            return f"the {adjective}{noun}"
        if kind < 0.65:
            return with_article(adjective + noun)
        if kind < 0.8:
            return f"{self.word('number')} {adjective}{plural(noun)}"
        return f"{self.owner()} {noun}" if section not in ("person", "animal") else f"some {adjective}{plural(noun)}"

    def action(self, states: bool = True) -> tuple[str, str]:
        """A verb, and its object or place."""
        kind = self.random.random()
        if kind < 0.6:
            verb = self.pick(*(verb for verb in _TRANSITIVE if states or verb not in _STATES))
            return verb, self.thing(self.pick(*_TRANSITIVE[verb]))
        if kind < 0.8:
            return self.word("activity"), self.word("place")
        if kind < 0.9:
            return "go", f"to {self.word('goal')}"
        return "visit", self.pick(self.word("city"), self.relative(), self.word("city"))

    def degree(self, be: str) -> str:
        return self.pick("very", "too", "so") if be.endswith("n't") else self.word("degree")

    def short_be(self, who: str, person: str) -> str:
        return _SHORT_BE.get(who, f"{who} {_BE[person]}")

    def do(self, person: str) -> str:
        return "does" if person == "3" else "do"

    def present(self, verb: str, person: str) -> str:
        return third(verb) if person == "3" else verb


def _any(what: str) -> str:
    return re.sub(r"^some\b", "any", what)


def _past_statement(s: _Speech) -> str:
    (who, _), (verb, what) = s.subject(), s.action()
    return f"{who} {past(verb)} {what} {s.maybe(s.word('past_time'))}."


def _not_past(s: _Speech) -> str:
    (who, _), (verb, what) = s.subject(), s.action()
    return f"{who} didn't {verb} {_any(what)} {s.maybe(s.word('past_time'), 0.4)}."


def _habit(s: _Speech) -> str:
    (who, person), (verb, what) = s.subject(), s.action()
    return f"{who} {s.word('often')} {s.present(verb, person)} {what}."


def _not_habit(s: _Speech) -> str:
    (who, person), (verb, what) = s.subject(), s.action()
    return f"{who} {s.do(person)}n't {verb} {_any(what)}."


def _future(s: _Speech) -> str:
    (who, _), (verb, what) = s.subject(), s.action()
    time = s.maybe(s.word("future_time"))
    will = s.pick(_WILL.get(who, f"{who} will"), f"{who} will")
    return s.pick(f"{will} {verb} {what} {time}.", f"{will} {verb} {what} {time}.", f"{who} won't {verb} {_any(what)} {time}.")


def _in_progress(s: _Speech) -> str:
    (who, person), (verb, what) = s.subject(), s.action(states=False)
    be = s.pick(s.short_be(who, person), s.short_be(who, person), f"{who} {_WAS[person]}")
    return s.pick(f"{be} {ing(verb)} {what}.", f"{be} {ing(verb)} {what}.", f"{who} {_WAS[person]}n't {ing(verb)} {_any(what)}.")


def _perfect(s: _Speech) -> str:
    (who, person), (verb, what) = s.subject(), s.action()
    have, done = f"{who} {'has' if person == '3' else 'have'}", participle(verb)
    return s.pick(
        f"{_HAVE.get(who, have)} {s.maybe('already')} {done} {what}.",
        f"{have}n't {done} {_any(what)} {s.maybe('yet')}.",
        f"{have} never {done} {_any(what)}.",
    )


def _ability(s: _Speech) -> str:
    can = s.pick("can", "can't", "could", "couldn't", "will", "won't", "should")
    return f"{s.subject()[0]} {can} {s.word('skill')} {s.maybe(s.pick('very well', 'quite well', 'again'), 0.4)}."


def _wish(s: _Speech) -> str:
    (who, person), (verb, what), wish = s.subject(), s.action(states=False), s.pick("want", "need", "plan", "hope")
    form = s.pick(s.present(wish, person), past(wish))
    return s.pick(f"{who} {form} to {verb} {what}.", f"{who} {s.do(person)}n't want to {verb} {_any(what)}.")


def _liking(s: _Speech) -> str:
    (who, person), (verb, what) = s.subject(), s.action(states=False)
    likes = s.pick(s.present("like", person), s.present("enjoy", person))
    return s.pick(f"{who} {likes} {ing(verb)} {what}.", f"{who} {s.do(person)}n't like {ing(verb)} {_any(what)}.")


def _description(s: _Speech) -> str:
    section, be = s.pick("thing", "clothes", "vehicle", "food", "reading", "person", "animal"), s.pick("is", "isn't", "was", "wasn't")
    return f"{s.pick('this', 'that', 'the')} {s.word(section)} {be} {s.degree(be)} {s.word(section + '_adjective')}."


def _many(s: _Speech) -> str:
    section, be = s.pick("thing", "clothes", "vehicle", "food", "animal", "person"), s.pick("are", "aren't", "were", "weren't")
    return f"{s.pick('these', 'those', 'the')} {plural(s.word(section))} {be} {s.degree(be)} {s.word(section + '_adjective')}."


def _feeling(s: _Speech) -> str:
    who, person = s.subject()
    degree, feeling = s.maybe(s.pick("very", "too", "so")), s.word("feeling")
    now = f"{s.short_be(who, person)} {degree} {feeling} {s.pick('today', 'again', 'now')}."
    return s.pick(now, f"{who} {_WAS[person]}{s.maybe(_NOT)} {degree} {feeling} {s.maybe(s.word('past_time', 'place'))}.")


def _profession(s: _Speech) -> str:
    who, where = s.pick(s.name(), s.relative()), s.maybe(f"in {s.word('city')}")
    job = with_article(s.adjective("person") + s.word("job"))
    return s.pick(f"{who} is {job} {where}.", f"{who} was {job} {where}.", f"{who} works {s.word('place')} in {s.word('city')}.")


def _existence(s: _Speech) -> str:
    section = s.pick("thing", "animal", "person", "food")
    inside = f"{s.pick(*_SIDES)} the {s.word('furniture')}"
    where = s.pick(s.word("place"), inside) if section in ("thing", "food") else s.word("place")
    noun = s.adjective(section) + s.word(section)
    several = f"{s.adjective(section)}{plural(s.word(section))}"
    return s.pick(
        f"there's {with_article(noun)} {where}.",
        f"there {s.pick('are', 'were')} {s.word('number')} {several} {where}.",
        f"there {s.pick('are', 'were')} no {several} {where}.",
    )


def _position(s: _Speech) -> str:
    be, adjective = s.pick("is", "isn't", "was", "wasn't"), s.maybe(s.pick("old ", "green ", "big "))
    return (
        f"{s.pick('the', s.owner())} {s.word('thing', 'clothes', 'reading')} {be} {s.pick(*_SIDES)} the {adjective}{s.word('furniture')}."
    )


def _list(s: _Speech) -> str:
    section, verb = s.random.choice([("food", "buy"), ("thing", "bring"), ("animal", "see"), ("clothes", "sell"), ("food", "eat")])
    one, two, three = map(plural, s.random.sample(words_of("en")[section], 3))
    return f"{s.subject()[0]} {past(verb)} {one}, {two} and {three}."


def _comparison(s: _Speech) -> str:
    how = s.pick("older than", "bigger than", "cheaper than", "as old as", "as big as", "more expensive than", "more beautiful than")
    section, person = s.pick("thing", "vehicle", "clothes"), s.pick("taller", "younger", "older", "quicker", "busier")
    one, two = s.random.sample(words_of("en")[section], 2)
    return s.pick(f"{s.name()} is {person} than {s.relative()}.", f"{s.pick('this', s.owner())} {one} is {how} that {two}.")


def _gift(s: _Speech) -> str:
    what = s.thing(s.pick("thing", "clothes", "reading"))
    return f"{s.subject()[0]} {s.pick('gave', 'sent', 'lent', 'sold')} {s.pick(s.name(), s.relative())} {what}."


def _together(s: _Speech) -> str:
    who, verb = s.subject(pronouns=False)[0], s.word("activity")
    return f"{who} {past(verb)} with {s.pick(s.name(), s.relative())} {s.maybe(s.word('place', 'past_time'))}."


def _travel(s: _Speech) -> str:
    (who, person), ride, time = s.subject(), s.word("ride"), s.word("future_time")
    start, end = s.random.sample(words_of("en")["city"], 2)
    return s.pick(
        f"{who} went to {s.word('city')} by {ride} {s.maybe(s.word('past_time'))}.",
        f"{who} came back from {s.word('city', 'goal')} {s.word('past_time')}.",
        f"{s.short_be(who, person)} going to {s.word('city', 'goal')} by {ride}.",
        f"the {s.pick('bus', 'train', 'plane')} from {start} to {end} {s.pick('leaves', 'arrives')} {time}.",
    )


def _routine(s: _Speech) -> str:
    (who, person), hour = s.subject(), s.pick("five", "six", "seven", "nine", "ten", "twelve")
    return f"{who} {s.maybe(s.word('often'))} {s.present(s.word('routine'), person)} at {hour} {s.maybe(_CLOCK)}."


def _weather(s: _Speech) -> str:
    what, where = s.pick("rain", "snow", "freeze", "be cold", "get dark"), s.pick(f"in {s.word('city')}", s.word("place"))
    return s.pick(
        f"it {s.pick('will', _WILL_NOT)} {what} {where} {s.word('future_time')}.",
        f"it {past(what)} {where} {s.word('past_time')}.",
        f"it's {s.word('degree')} {s.pick('cold', 'hot', 'dark', 'quiet', 'windy')} {where} {s.maybe('today')}.",
    )


def _condition(s: _Speech) -> str:
    (who, _), (verb, what) = s.subject(), s.action()
    return f"if {s.pick(*_WEATHER)}, {_WILL.get(who, who + ' will')} {verb} {what}."


def _reason(s: _Speech) -> str:
    (who, person), (verb, what) = s.subject(), s.action()
    why = f"{s.name()} was {s.word('feeling')}"
    return s.pick(
        f"{who} {past(verb)} {what} because {why}.", f"{who} {_WAS[person]} {s.word('feeling')}, so {s.name()} {past(verb)} {what}."
    )


def _meanwhile(s: _Speech) -> str:
    (who, person), (verb, what) = s.subject(), s.action(states=False)
    return f"{s.name()} {s.pick('called', 'laughed', 'arrived', 'waited', 'slept')} when {who} {_WAS[person]} {ing(verb)} {what}."


def _quotation(s: _Speech) -> str:
    (who, person), (verb, what), speaker = s.subject(), s.action(), s.pick(s.name(), s.relative())
    return s.pick(
        f"{speaker} said that {who} {s.present(verb, person)} {what}.",
        f"{speaker} {s.pick('thinks', 'knows', 'hopes')} that {who} will {verb} {what}.",
        f"I'll {verb} {what}, {s.pick('said', 'answered')} {speaker}.",
    )


def _request(s: _Speech) -> str:
    verb, what = s.action(states=False)
    name = s.maybe(f"{s.name()}, ")
    return s.pick(
        f"{name}please {verb} {what}.", f"{name}don't {verb} {_any(what)}!", f"let's {verb} {what} {s.maybe(s.word('future_time'))}."
    )


def _exclamation(s: _Speech) -> str:
    section = s.pick("thing", "clothes", "vehicle", "food", "person", "animal")
    adjective, noun = s.word(f"{section}_adjective"), s.word(section)
    return s.pick(
        f"what {with_article(adjective + ' ' + noun)} {s.word('place')}!", f"how {adjective} {s.owner()} {s.word('clothes', 'thing')} is!"
    )


def _open_question(s: _Speech) -> str:
    (who, person), (verb, what), do = s.asked(), s.action(states=False), s.pick("did", "will")
    section = s.pick("thing", "animal", "person", "food")
    return s.pick(
        f"where {do} {who} {verb} {what}?",
        f"when {do} {who} {verb} {what}?",
        f"why didn't {who} {verb} {_any(what)}?",
        f"who {past(verb)} {what} {s.maybe(s.word('past_time'))}?",
        f"what {s.do(person)} {who} want to {s.pick('buy', 'eat', 'drink', 'cook', 'draw', 'fix')} {s.maybe(s.word('future_time'))}?",
        f"how many {plural(s.word(section))} are there {s.word('place')}?",
        f"where's {s.owner()} {s.adjective('thing')}{s.word('thing')}?",
        f"what's in {s.owner()} {s.pick('box', 'bag', 'basket', 'jacket', 'van')} {s.maybe('today')}?",
    )


def _yes_no_question(s: _Speech) -> str:
    (who, person), (verb, what) = s.asked(), s.action(states=False)
    return s.pick(
        f"did {who} {verb} {_any(what)} {s.maybe(s.word('past_time'), 0.3)}?",
        f"can {who} {s.word('skill')}?",
        f"{s.do(person)}n't {who} {s.word('routine', 'skill')}?",
        f"{_BE[person]} {who} {ing(verb)} {_any(what)}?",
        f"will {who} {verb} {_any(what)} {s.maybe(s.word('future_time'), 0.3)}?",
        f"is this {s.pick(s.owner(), 'the')} {s.adjective('thing')}{s.word('thing', 'reading')}?",
    )


def _animal(s: _Speech) -> str:
    one, two = s.random.sample(words_of("en")["animal"], 2)
    quick, several = f"the {s.word('animal_adjective')} {one}", f"{s.word('number')} {plural(one)}"
    verb, alone = (
        s.pick("jump over", "run after", "see", "hear", "sleep near", "play with", "hide from"),
        s.pick("run", "sleep", "play", "jump"),
    )
    return s.pick(
        f"{quick} {past(verb)} {with_article(s.adjective('animal') + two)}.",
        f"{several} {past(alone)} {s.word('place')} {s.maybe(s.word('past_time'), 0.3)}.",
        f"{quick} is {ing(alone)} {s.word('manner', 'place')}.",
    )


def _manner(s: _Speech) -> str:
    (who, person), verb = s.subject(), s.word("activity")
    return s.pick(f"{who} {past(verb)} {s.word('manner')} {s.word('place')}.", f"{s.short_be(who, person)} {ing(verb)} {s.word('manner')}.")


_PATTERNS = {
    _past_statement: 9, _not_past: 3, _habit: 4, _not_habit: 3, _future: 6, _in_progress: 5, _perfect: 5, _ability: 3, _wish: 4,
    _liking: 3, _description: 4, _many: 3, _feeling: 3, _profession: 3, _existence: 4, _position: 4, _list: 3, _comparison: 3, _gift: 4,
    _together: 3, _travel: 4, _routine: 3, _weather: 3, _condition: 3, _reason: 3, _meanwhile: 3, _quotation: 3, _request: 4,
    _exclamation: 2, _open_question: 6, _yes_no_question: 5, _animal: 4, _manner: 3,
}  # fmt: skip


def sentence(random: Random) -> str:
    """Return one sentence of 3 to 9 words with its capital letter and punctuation, drawn with `random`."""
    while True:
        pattern = random.choices(list(_PATTERNS), list(_PATTERNS.values()))[0]
        text = re.sub(r"\s+", " ", pattern(_Speech(random)))
        text = re.sub(r" (?=[.,?!])", "", text)
        if 3 <= len(text.split()) <= 9:
            return text[0].upper() + text[1:]
