"""The voices of the embedded corpora: variants of espeak-ng, which any of its languages can be spoken in."""

from random import Random
from typing import NamedTuple

# espeak-ng variants that stay intelligible: no whisper, robot or muffled one, none whose settings take voiced consonants below half
# their loudness (Alicia, anika, Diogo, iven2, michel), and no two of the same settings. No variant is in two splits.
_MALE = {
    "train": "m1 m3 m5 m7 m8 Andy Denis Gene Henrique Lee Mike Michael antonio iven4 adam miguel quincy robert klatt klatt3 marcelo "
    "klatt4 max paul pablo Gene2 sandro Nguyen Reed boris mike2 david zac",
    "dev": "m4 ed",
    "test": "m2 m6 Hugo victor klatt2",
}
_FEMALE = {"train": "f1 f2 f5 Annie Andrea steph aunty grandma shelby steph2 steph3", "dev": "f4 belinda", "test": "f3 linda"}


class Speaker(NamedTuple):
    """A voice and how it mostly speaks: `rate` in words per minute, `pitch` from 0 to 100."""

    voice: str
    gender: str
    age: str
    rate: int
    pitch: int


def draw_speakers(split: str, language: str, random: Random) -> list[Speaker]:
    """Give each variant of a split an age, a rate and a pitch of its own.

    Args:
        split: "train", "dev", "test", or "other", which is spoken by the voices of training
        language: code of espeak-ng
        random: where all choices come from
    """
    source = "train" if split == "other" else split
    return [
        Speaker(
            voice=f"{language}+{variant}",
            gender=gender,
            age=random.choice(["teens", "twenties", "twenties", "thirties", "fourties", "fifties"]),
            rate=random.randint(150, 200),
            pitch=random.randint(35, 65),
        )
        for gender, variants in (("male_masculine", _MALE), ("female_feminine", _FEMALE))
        for variant in variants[source].split()
    ]
