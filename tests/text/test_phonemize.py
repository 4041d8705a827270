import pytest

from hfasr.text.phonemize import Phonemizer


def test_equals_the_phonemes_of_the_unispeech_paper(shared):
    phonemizer, lines = Phonemizer("ky"), 0
    for split in ("trainSeqs_1.0", "valSeqs_1.0", "testSeqs"):
        stem = shared / "data" / "unispeech_ky" / f"{split}_uniform_new_version"
        texts = [line.split("\t", 1)[1] for line in stem.with_name(stem.name + ".text").read_text("utf-8").splitlines()]
        published = stem.with_name(stem.name + ".phone").read_text("utf-8").splitlines()
        assert phonemizer(texts) == [line.strip().removesuffix("|").rstrip() for line in published]
        lines += len(texts)
    assert lines == 1729


def test_lists_bars_and_lines_without_words():
    assert Phonemizer("ky")("Ал келди.") == "ɑ l | k e l d[ i"
    assert Phonemizer("ky", word_bars=False)("Ал келди.") == "ɑ l k e l d[ i"
    assert Phonemizer("ky")(["Ал", "", "—!", "келди\nал", "Ал"]) == ["ɑ l", "", "", "k e l d[ i | ɑ l", "ɑ l"]
    assert Phonemizer("ky")([]) == []


def test_flags_of_a_language_switch_are_removed():
    assert "(" not in Phonemizer("ky")("Ал Windows орнотту.")


def test_wrong_arguments():
    with pytest.raises(ValueError, match="'kyr'.*ky"):
        Phonemizer("kyr")
    with pytest.raises(ValueError, match="give 'ky'"):
        Phonemizer("ky+f2")
    with pytest.raises(TypeError, match="NoneType"):
        Phonemizer("ky")(["ал", None])
