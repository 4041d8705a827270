"""Feature vectors against PanPhon's, recorded, and against what any phonetics textbook says of minimal pairs."""

import json

import numpy as np
import pytest

from hfasr.text.phonetic_features import ESPEAK_MNEMONICS, FEATURES, UNKNOWN, feature_differences, feature_vector, is_known, to_ipa

# panphon 0.22.2, FeatureTable().word_to_vector_list, one segment each; its 24 features come in the order of FEATURES.
PANPHON = """
p --+--------+-0+-----0-00
b --+-----+--+-0+-----0-00
t --+--------++-------0-00
d --+-----+--++-------0-00
s --++---+---++-------0-00
z --++---++--++-------0-00
ʃ --++---+----++------0-00
ʒ --++---++---++------0-00
t͡ʃ --+-+--+----++------0-00
d͡ʒ --+-+--++---++------0-00
k --+----------0-+-+--0-00
ɡ --+-----+----0-+-+--0-00
q --+----------0---+--0-00
ʁ --++---++----0---+--0-00
χ --++---+-----0---+--0-00
m -++---+-+--+-0+-----0-00
n -++---+-+--++-------0-00
ŋ -++---+-+----0-+-+--0-00
l -+++-+--+--++-------0-00
r -+++0---+--++--00---0-00
ɾ -+++0---+--++--00---0-00
j -+-+----+----0-+----0-00
w -+-+----+----0++-++-0-00
i ++-+----+--0-0-+----+-00
y ++-+----+--0-0++--+-+-00
u ++-+----+--0-0++-++-+-00
e ++-+----+--0-0------+-00
ø ++-+----+--0-0----+-+-00
o ++-+----+--0-0---++-+-00
a ++-+----+--0-0--++--+-00
ɑ ++-+0---+--0-0--++--+-00
ə ++-+----+--0-0---+----00
ɯ ++-+----+--0-0-+-+----00
ɨ ++-+----+--0-0-+-+--+-00
aː ++-+----+--0-0--++--++00
tʰ --+------+-++-------0-00
kʷ --+----------0-+-++-0-00
nʲ -++---+-+--++--+----0-00
t̪ --+--------+++------0-00
d̪ --+-----+--+++------0-00
ɛ̃ ++-+--+-+--0-0--------00
m̩ +++---+-+--+-0+-----0-00
h -+++---------0---+--0-00
ʔ -+--------+--0---+--0-00
ç --++---------0-+----0-00
t͡s --+-+--+---++-------0-00
ɲ -++---+-+----0-+----0-00
ɕ --+++--+----++-+----0-00
t͡ɕ --+-+--+----++-+----0-00
θ --++-------+++------0-00
ð --++----+--+++------0-00
lʲ -+++-+--+--++--+----0-00
kʼ --+-------+--0-+-+--0-00
bː --+-----+--+-0+-----0+00
"""


@pytest.mark.parametrize("row", PANPHON.split("\n")[1:-1])
def test_equals_panphon(row):
    segment, signs = row.split()
    expected = [{"+": 1, "-": -1, "0": 0}[sign] for sign in signs]
    assert feature_vector(segment).tolist() == expected


def _difference(one: str, other: str) -> set[str]:
    return {name for name, left, right in zip(FEATURES, feature_vector(one), feature_vector(other), strict=True) if left != right}


@pytest.mark.parametrize(
    ("one", "other", "features"),
    [
        ("p", "b", {"voiced"}),
        ("t", "d", {"voiced"}),
        ("t[", "d[", {"voiced"}),
        ("tʃ", "dʒ", {"voiced"}),
        ("tS", "dZ", {"voiced"}),
        ("s", "z", {"voiced"}),
        ("X", "ʁ", {"voiced"}),
        ("f", "v", {"voiced"}),
        ("ɑ", "ɑ:", {"long"}),
        ("oe", "oe:", {"long"}),
        ("a", "ã", {"nasal"}),
        ("n", "n̩", {"syllabic"}),
        ("t", "tʰ", {"spread glottis"}),
        ("i", "e", {"high"}),
        ("u", "y", {"back"}),
        ("oe", "e", {"round"}),
        ("l", "l", set()),
    ],
)
def test_minimal_pairs_differ_in_what_the_textbook_says(one, other, features):
    assert _difference(one, other) == features


@pytest.mark.parametrize(
    ("mnemonic", "ipa"),
    [("tS", "tʃ"), ("dZ", "dʒ"), ("d[", "d̪"), ("t[", "t̪"), ("oe", "ø"), ("N", "ŋ"), ("X", "χ"), ("S", "ʃ"), ("y:", "yː"), ("ts", "t͡s")],
)
def test_mnemonics_have_the_vector_of_their_ipa(mnemonic, ipa):
    assert feature_vector(mnemonic).tolist() == feature_vector(ipa).tolist()
    assert to_ipa(mnemonic) == to_ipa(ipa)


def test_every_mnemonic_that_stands_alone_is_known():
    assert all(is_known(mnemonic) or is_known(f"n{mnemonic}") for mnemonic in ESPEAK_MNEMONICS)


def test_every_phoneme_of_the_kyrgyz_paper_is_known_and_has_its_own_vector(shared):
    symbols = list(json.loads((shared / "data/unispeech_ky/phonesMatches_reduced.json").read_text(encoding="utf-8")))
    assert len(symbols) == 39
    assert all(map(is_known, symbols))
    assert len({feature_vector(symbol).tobytes() for symbol in symbols}) == 39


def test_diphthongs_keep_what_their_parts_share():
    diphthong = dict(zip(FEATURES, feature_vector("aɪ").tolist(), strict=True))
    assert (diphthong["syllabic"], diphthong["voiced"], diphthong["round"]) == (1, 1, -1)
    assert (diphthong["high"], diphthong["low"]) == (0, 0)
    assert _difference("ll", "lː") == set()
    assert _difference("ⁿd", "d") == {"nasal"}
    assert feature_vector("a5").tolist() == feature_vector("a1").tolist()


@pytest.mark.parametrize("symbol", ["", "☃", "K", "a☃", "|", "ː", "中"])
def test_unknown_symbols_are_far_from_everything(symbol):
    assert not is_known(symbol)
    assert (feature_vector(symbol) == UNKNOWN).all()
    differences = feature_differences([symbol, "a", "another☃"])
    assert differences[0].tolist() == [0, len(FEATURES), len(FEATURES)]


def test_differences_are_symmetric_and_match_the_vectors():
    symbols = ["p", "b", "ɑ", "ɑː", "☃", "tʃ"]
    differences = feature_differences(symbols)
    assert (differences == differences.T).all()
    assert (np.diag(differences) == 0).all()
    assert differences[0, 1] == 1
    assert differences[0, 5] == len(_difference("p", "tʃ"))
    assert feature_differences([]).shape == (0, 0)


def test_vectors_are_shared_and_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        feature_vector("a")[0] = 5
