"""What an embedded corpus says, in which voices and how: all that is decided before anything is spoken."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from hfasr.corpora.synthetic import en, kk, ky, zh
from hfasr.corpora.synthetic.layouts import AISHELL2, COMMON_VOICE, Layout, Utterance
from hfasr.corpora.synthetic.voices import draw_speakers

# So many new sentences are looked through for a letter that training lacks.
_LOOK_THROUGH = 20_000


@dataclass(frozen=True)
class Language:
    """What makes one embedded corpus.

    Attributes:
        voice: language code of espeak-ng
        sentence: draws one sentence
        alphabet: lower-case letters that must all occur in training
        layout: how the corpus lies on disk
        utterances: how many per split; the times they add up to are in the tests
        lengths: of a sentence in words, least and most
        by_character: whether the language is written without spaces: then lengths count characters, and each character of dev and
            test must be heard three times in training
    """

    voice: str
    sentence: Callable[[Random], str]
    alphabet: str = ""
    layout: Layout = COMMON_VOICE
    utterances: Mapping[str, int] = field(default_factory=lambda: {"train": 930, "dev": 100, "test": 160, "other": 8})
    lengths: tuple[int, int] = (3, 9)
    by_character: bool = False


LANGUAGES = {
    "ky": Language("ky", ky.sentence, "абвгдеёжзийклмнңоөпрстуүфхцчшщъыьэюя"),
    "kk": Language("kk", kk.sentence, "аәбвгғдеёжзийкқлмнңоөпрстуұүфхһцчшщъыіьэюя"),
    # American: it speaks every r, and fewer words sound alike than in the British voice
    "en": Language(
        "en-us",
        en.sentence,
        "abcdefghijklmnopqrstuvwxyz",
        utterances={"train": 1180, "dev": 120, "test": 180, "other": 8},
    ),
    "zh": Language(
        "cmn",
        zh.sentence,
        layout=AISHELL2,
        # of 930 a small model learns the sentences by heart: four times the errors, however it is trained
        utterances={"train": 1860, "dev": 80, "test": 120},
        lengths=(5, 16),
        by_character=True,
    ),
}


def make_plan(language: str, seed: int, counts: Mapping[str, int]) -> list[Utterance]:
    """Decide all that is said, in which voice and how; equal arguments give equal plans."""
    row = LANGUAGES[language]
    sentences = _sentences(row, counts, Random(f"hfasr {language} {seed}"))
    plan = []
    for split in row.layout.splits:
        random = Random(f"hfasr {language} {seed} {split}")  # a voice more in one split changes nothing in the others
        speakers = draw_speakers(split, row.voice, random)
        for number, sentence in enumerate(sentences[split]):
            turn, place = divmod(number, len(speakers))
            speaker = speakers[place]
            plan.append(
                Utterance(
                    split=split,
                    path=row.layout.name(language, split, len(plan), place, turn),
                    sentence=sentence,
                    voice=speaker.voice,
                    gender=speaker.gender,
                    age=speaker.age,
                    rate=speaker.rate + random.randint(-10, 10),
                    pitch=speaker.pitch + random.randint(-5, 5),
                    pitch_range=random.randint(35, 65),
                    seed=random.getrandbits(32),
                )
            )
    return plan


def _sentences(language: Language, counts: Mapping[str, int], random: Random) -> dict[str, list[str]]:
    """Draw different sentences for each split; training gets the letters it needs first, as far as it has room for them."""
    new = _distinct(language, random)
    drawn = {split: [next(new) for _ in range(counts.get(split, 0))] for split in language.layout.splits}
    needed = Counter(language.alphabet)
    if language.by_character:
        needed |= Counter(dict.fromkeys(_bare("".join(drawn["dev"] + drawn["test"])), 3))
    train = drawn["train"]
    for place in range(len(train)):
        missing = set(needed - Counter("".join(train).lower()))
        if not missing:
            break
        found = (sentence for sentence in islice(new, _LOOK_THROUGH) if missing & set(sentence.lower()))
        train[place] = next(found, train[place])
    random.shuffle(train)
    return drawn


def _distinct(language: Language, random: Random) -> Iterator[str]:
    least, most = language.lengths
    seen = set()
    while True:
        sentence = language.sentence(random)
        words = list(_bare(sentence)) if language.by_character else _bare(sentence).split()
        if least <= len(words) <= most and (key := " ".join(words)) not in seen:
            seen.add(key)
            yield sentence


def _bare(sentence: str) -> str:
    return "".join(c for c in sentence.lower() if c.isalpha() or c == " ")
