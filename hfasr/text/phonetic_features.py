"""Articulatory features of phonemes, for phonemes as espeak-ng writes them: IPA in most voices, mnemonics in some.

Features and values are those of PanPhon (Mortensen et al. 2016, "PanPhon: A Resource for Mapping IPA Segments to Articulatory
Feature Vectors", COLING; MIT licence), so that a rate computed here compares with one computed there. PanPhon gives a few pairs
of symbols the same vector (a and æ, r and ɾ, ʌ and ɐ): no feature tells them apart.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

FEATURES = (
    "syllabic",
    "sonorant",
    "consonantal",
    "continuant",
    "delayed release",
    "lateral",
    "nasal",
    "strident",
    "voiced",
    "spread glottis",
    "constricted glottis",
    "anterior",
    "coronal",
    "distributed",
    "labial",
    "high",
    "low",
    "back",
    "round",
    "velaric",
    "tense",
    "long",
    "high tone",
    "high register",
)
UNKNOWN = 2
"""Value of every feature of an unknown symbol; it differs from each value that a known symbol can have."""

# One row per segment, tie bars left out: symbol, then + (present), - (absent) or 0 (does not apply) for each of FEATURES.
_TABLE = """
# Plosives and implosives
c --+----------0-+----0-00
ɡ --+-----+----0-+-+--0-00
k --+----------0-+-+--0-00
q --+----------0---+--0-00
ɖ --+-----+---+-------0-00
ɟ --+-----+----0-+----0-00
ɠ --+-----+-+--0-+-+--0-00
ɢ --+-----+----0---+--0-00
ʄ --+-----+-+--0-+----0-00
ʈ --+---------+-------0-00
ʛ --+-----+-+--0---+--0-00
b --+-----+--+-0+-----0-00
d --+-----+--++-------0-00
p --+--------+-0+-----0-00
t --+--------++-------0-00
ɓ --+-----+-++-0+-----0-00
ɗ --+-----+-+++-------0-00
# Fricatives
x --++---------0-+-+--0-00
ç --++---------0-+----0-00
ħ --++---------0--++--0-00
ɣ --++----+----0-+-+--0-00
ʁ --++---++----0---+--0-00
ʂ --++---+----+-------0-00
ʃ --++---+----++------0-00
ʐ --++---++---+-------0-00
ʒ --++---++---++------0-00
ʕ --++----+----0--++--0-00
ʝ --++----+----0-+----0-00
χ --++---+-----0---+--0-00
f --++---+---+-0+-----0-00
s --++---+---++-------0-00
v --++---++--+-0+-----0-00
z --++---++--++-------0-00
ð --++----+--+++------0-00
ɸ --++-------+-0+-----0-00
β --++----+--+-0+-----0-00
θ --++-------+++------0-00
ɧ --+++-------++-+----0-00
ɕ --+++--+----++-+----0-00
ɬ --++++-----++--00---0-00
ɮ --++++--+---+--00---0-00
ʑ --+++--++---++-+----0-00
# Affricates and double articulations
kp --+--------0-0++-+--0-00
ɡb --+-----+--0-0++-+--0-00
bd --+-----+--++-+-----0-00
pt --+--------++-+-----0-00
bβ --+-+---+--+-0+00---0-00
kx --+-+--------0-+-+--0-00
pɸ --+-+------+-0+00---0-00
qχ --+-+--+-----0---+--0-00
ɡɣ --+-+---+----0-+-+--0-00
ɢʁ --+-+--++----0---+--0-00
cç --+-+-------++-+----0-00
dʒ --+-+--++---++------0-00
tʃ --+-+--+----++------0-00
ɖʐ --+-+--++---+--00---0-00
ɟʝ --+-+---+---++-+----0-00
ʈʂ --+-+--+----+--00---0-00
bv --+-+--++--+-0+-----0-00
dz --+-+--++--++-------0-00
dɮ --+-++--+---+--00---0-00
dʑ --+-+--++---++-+----0-00
pf --+-+--+---+-0+-----0-00
ts --+-+--+---++-------0-00
tɕ --+-+--+----++-+----0-00
tɬ --+-++-----++--00---0-00
# Nasals
ɱ -++-0-+-+--+-0+00---0-00
ŋ -++---+-+----0-+-+--0-00
ɳ -++---+-+---+0------0-00
ɴ -++---+-+----0---+--0-00
m -++---+-+--+-0+-----0-00
n -++---+-+--++-------0-00
ɲ -++---+-+----0-+----0-00
# Approximants, trills, taps, laterals, glottals
ʔ -+--------+--0---+--0-00
ɥ -+-+0---+----0++--+-+-00
ɰ -+-+0---+----0-+-+--+-00
ʋ -+-+0---+--+-0+00---0-00
ʀ -+++0---+----0---+--0-00
ʙ -+++0---+--+-0+00---0-00
ʟ -+++0+--+----0-+-+--0-00
ɭ -+++0+--+---+--00---0-00
ɽ -+++0---+---+--00---0-00
ʎ -+++0+--+---++-+----0-00
r -+++0---+--++--00---0-00
ɫ -+++0+--+--++-------0-00
ɺ -+++0+--+--++--00---0-00
ɾ -+++0---+--++--00---0-00
ʍ -+-+---------0++-++-0-00
h -+++---------0---+--0-00
j -+-+----+----0-+----0-00
w -+-+----+----0++-++-0-00
ɹ -+-+----+--++--+--+-0-00
ɻ -+-+----+---+-------0-00
l -+++-+--+--++-------0-00
ɦ -+++----+----0---+--0-00
# Vowels
ɑ ++-+0---+--0-0--++--+-00
ɤ ++-+0---+--0-0---+--+-00
ʉ ++-+0---+--0-0++-++-+-00
a ++-+----+--0-0--++--+-00
e ++-+----+--0-0------+-00
i ++-+----+--0-0-+----+-00
o ++-+----+--0-0---++-+-00
u ++-+----+--0-0++-++-+-00
y ++-+----+--0-0++--+-+-00
æ ++-+----+--0-0--+---+-00
ø ++-+----+--0-0----+-+-00
œ ++-+----+--0-0----+---00
ɒ ++-+----+--0-0--+++-+-00
ɔ ++-+----+--0-0---++---00
ə ++-+----+--0-0---+----00
ɘ ++-+0---+--0-0------+-00
ɵ ++-+0---+--0-0+---+-+-00
ɞ ++-+0---+--0-0+---+---00
ɜ ++-+----+--0-0---+----00
ɛ ++-+----+--0-0--------00
ɨ ++-+----+--0-0-+-+--+-00
ɪ ++-+----+--0-0-+------00
ɯ ++-+----+--0-0-+-+----00
ɶ ++-+----+--0-0--+-+-+-00
ʊ ++-+----+--0-0-+-++---00
ɐ ++-+----+--0-0------+-00
ʌ ++-+----+--0-0---+--+-00
ʏ ++-+----+--0-0-+--+---00
# Clicks
ʘ --+--------0-0++---+0-00
ǀ --+--------+++-+---+0-00
ǃ --+--------++--+---+0-00
ǂ --+---------++-+---+0-00
ǁ --+--+-----++--+---+0-00
"""

# espeak-ng's own phoneme names, which it prints where a voice has no IPA for them (Kyrgyz above all). Capital letters, digits
# and signs never stand for sounds in IPA; of the small letters only "oe" is a mnemonic. From the table ipa1 in espeak-ng's
# dictionary.c and phsource/ph_kyrgyz.
ESPEAK_MNEMONICS = {
    "tS": "tʃ",
    "dZ": "dʒ",
    "t[": "t̪",
    "d[": "d̪",
    "oe": "ø",
    "A": "ɑ",
    "B": "β",
    "C": "ç",
    "D": "ð",
    "E": "ɛ",
    "G": "ɢ",
    "H": "ħ",
    "I": "ɪ",
    "J": "ɟ",
    "L": "ɫ",
    "M": "ɱ",
    "N": "ŋ",
    "O": "ɔ",
    "P": "ɸ",
    "Q": "ɣ",
    "R": "ʀ",
    "S": "ʃ",
    "T": "θ",
    "U": "ʊ",
    "V": "ʌ",
    "W": "œ",
    "X": "χ",
    "Y": "ø",
    "Z": "ʒ",
    "0": "ɒ",
    "8": "ɵ",
    "@": "ə",
    "&": "æ",
    "*": "ɾ",
    "?": "ʔ",
    ":": "ː",
    ";": "ʲ",
    "[": "̪",
    "~": "̃",
    "`": "ʼ",
    "#": "̥",
    "^": "ʲ",
}
# Other spellings of IPA characters that espeak-ng prints.
_SPELLINGS = {
    "g": "ɡ",
    "ε": "ɛ",
    "Φ": "ɸ",
    "ʦ": "ts",
    "ʣ": "dz",
    "ʧ": "tʃ",
    "ʤ": "dʒ",
    "ʨ": "tɕ",
    "ʥ": "dʑ",
    "ɚ": "ə˞",
    "ɝ": "ɜ˞",
    "ᵻ": "ɨ",
}
_REWRITES = ESPEAK_MNEMONICS | _SPELLINGS
_REWRITE = re.compile("|".join(map(re.escape, sorted(_REWRITES, key=len, reverse=True))))

# What a diacritic or modifier letter does to the segment before it.
_MODIFIERS = {
    "ː": {"long": 1},
    "ˑ": {"long": 1},
    "ʰ": {"spread glottis": 1},
    "ʱ": {"spread glottis": 1},
    "̤": {"spread glottis": 1},
    "ʼ": {"constricted glottis": 1},
    "ˀ": {"constricted glottis": 1},
    "̰": {"constricted glottis": 1},
    "ʲ": {"high": 1, "back": -1},
    "ʷ": {"high": 1, "back": 1, "round": 1},
    "ᶣ": {"high": 1, "back": -1, "round": 1},
    "ᵝ": {"labial": 1},
    "̼": {"labial": 1},
    "ˠ": {"high": 1, "back": 1},
    "̴": {"high": 1, "back": 1},
    "ˤ": {"low": 1, "back": 1},
    "̃": {"nasal": 1},
    "ⁿ": {"nasal": 1},
    "ᵐ": {"nasal": 1},
    "ᵑ": {"nasal": 1},
    "ˡ": {"lateral": 1, "delayed release": 1},
    "̪": {"distributed": 1},
    "̻": {"distributed": 1},
    "̺": {"distributed": -1},
    "̥": {"voiced": -1},
    "̊": {"voiced": -1},
    "̬": {"voiced": 1},
    "̩": {"syllabic": 1},
    "̯": {"syllabic": -1},
    "˞": {"anterior": -1, "high": 1, "round": 1},
    "̘": {"tense": 1},
    "̙": {"tense": -1},
}
# Tie bars, stress, and marks of advancement, height, rounding, release and shortness, for which there is no feature; and the
# numbers and signs of tones and variants in espeak-ng's voices, whose meaning depends on the language.
_WITHOUT_FEATURE = set("͜͡ˈˌ̟̠̝̞̹̜̽̆̈̚") | set('1234567.+"')


def to_ipa(symbol: str) -> str:
    """A phoneme of espeak-ng in IPA, decomposed (NFD), without tie bars.

    >>> to_ipa("tS"), to_ipa("d["), to_ipa("oe:")
    ('tʃ', 'd̪', 'øː')
    """
    ipa = _REWRITE.sub(lambda match: _REWRITES[match[0]], symbol)
    return unicodedata.normalize("NFD", ipa).replace("͡", "").replace("͜", "")


@lru_cache(maxsize=10_000)
def feature_vector(symbol: str) -> np.ndarray:
    """Features of one phoneme, read-only int8 `(24,)` in the order of `FEATURES`: 1 present, -1 absent, 0 does not apply.

    Diacritics change the features they name. Of a symbol made of several segments, such as a diphthong, a feature keeps the
    value on which the segments agree and is 0 where they differ; a segment written twice is long. The result for a symbol that
    is neither IPA nor a mnemonic is `UNKNOWN` throughout.
    """
    vectors = _read_segments(to_ipa(symbol))
    if not vectors:
        return _UNKNOWN_VECTOR
    first = vectors[0]
    agree = (np.array(vectors) == first).all(axis=0)
    if len(vectors) > 1 and agree.all():
        first[FEATURES.index("long")] = 1
    merged = np.where(agree, first, 0).astype(np.int8)
    merged.flags.writeable = False
    return merged


def _read_segments(ipa: str) -> list[np.ndarray]:
    """Vectors of the segments of decomposed IPA, diacritics applied; none if any character is unknown."""
    vectors, before = [], []
    place = 0
    while place < len(ipa):
        segment = next((ipa[place : place + size] for size in (3, 2, 1) if ipa[place : place + size] in _SEGMENTS), None)
        if segment is not None:
            vectors.append(_SEGMENTS[segment].copy())
            _modify(vectors[-1], before)
            before = []
        elif ipa[place] in _MODIFIERS:
            # A modifier at the start, as in prenasalised ⁿd, belongs to the segment that follows.
            if vectors:
                _modify(vectors[-1], [ipa[place]])
            else:
                before.append(ipa[place])
        elif ipa[place] not in _WITHOUT_FEATURE:
            return []
        place += len(segment or " ")
    return vectors


def _modify(vector: np.ndarray, modifiers: list[str]):
    for modifier in modifiers:
        for feature, value in _MODIFIERS[modifier].items():
            vector[FEATURES.index(feature)] = value


def is_known(symbol: str) -> bool:
    """Whether `symbol` has features."""
    return bool(feature_vector(symbol)[0] != UNKNOWN)


def feature_differences(symbols: Sequence[str]) -> np.ndarray:
    """Number of features in which each two of K symbols differ, 0 to 24, int32 `(K, K)`.

    An unknown symbol differs from every other symbol, known or not, in all features.
    """
    vectors = np.array([feature_vector(symbol) for symbol in symbols], np.int8).reshape(-1, len(FEATURES))
    differences = np.zeros((len(symbols), len(symbols)), np.int32)
    for column in vectors.T:
        differences += column[:, None] != column
    unknown = vectors[:, 0] == UNKNOWN
    differences[np.ix_(unknown, unknown)] = len(FEATURES)
    np.fill_diagonal(differences, 0)
    return differences


def _read_table() -> dict[str, np.ndarray]:
    values = {"+": 1, "-": -1, "0": 0}
    rows = (line.split() for line in _TABLE.splitlines() if line and not line.startswith("#"))
    return {unicodedata.normalize("NFD", symbol): np.array([values[sign] for sign in signs], np.int8) for symbol, signs in rows}


_SEGMENTS = _read_table()
_UNKNOWN_VECTOR = np.full(len(FEATURES), UNKNOWN, np.int8)
_UNKNOWN_VECTOR.flags.writeable = False
