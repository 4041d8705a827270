import logging
import random

import pytest
from phonemizer.backend import EspeakBackend
from phonemizer.separator import Separator

from hfasr.text.normalize import Normalizer
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


MIXED = [
    "Windows",
    "Привет",
    "नमस्ते",
    "καλημέρα",
    "مرحبا",
    "你好",
    "안녕",
    "ал,",
    "Google!",
    "iPhone-дан",
    "naïve",
    "25",
    "Чоң-ата",
    "don't",
    "%",
    "(x)",
    "3.5",
]


@pytest.mark.parametrize("voice", ["ky", "en-us", "fr-fr", "cmn", "hi", "pt-br", "uz"])
def test_switched_texts_are_told_and_keep_the_targets_of_phonemizers_own_removal(voice):
    """phonemizer removes the flags itself with "remove-flags", and names the lines that had one in a warning."""
    phonemizer, draw = Phonemizer(voice), random.Random(0)
    texts = ["25", *(" ".join(draw.sample(MIXED, 4)) for _ in range(200))]
    found = phonemizer.phonemize(texts)
    logger, told = logging.Logger("switches"), []
    logger.addFilter(lambda record: told.append(record.getMessage()) or False)
    backend = EspeakBackend(voice, language_switch="remove-flags", with_stress=False, logger=logger)
    lines = backend.phonemize(texts, Separator(phone=" ", word=" | ", syllable=""), strip=False)
    assert found.targets == [" | ".join(" ".join(word.split()) for word in line.split("|") if word.strip()) for line in lines]
    lists = [message for message in told if "on lines" in message]
    numbers = {int(number) for number in lists[0].rpartition("on lines ")[2].split(", ")}
    assert found.switched == [place + 1 in numbers for place in range(len(texts))]
    assert any(found.switched)
    assert not all(found.switched)


def test_no_sentence_of_the_paper_is_switched_but_a_latin_word_is(shared):
    stem = shared / "data/unispeech_ky/testSeqs_uniform_new_version.text"
    texts = [line.split("\t", 1)[1] for line in stem.read_text("utf-8").splitlines()]
    assert not any(Phonemizer("ky").phonemize(texts).switched)
    assert Phonemizer("ky").phonemize(["Ал Windows орнотту.", "Ал орнотту.", ""]).switched == [True, False, False]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="'kyr'.*ky"):
        Phonemizer("kyr")
    with pytest.raises(ValueError, match="give 'ky'"):
        Phonemizer("ky+f2")
    with pytest.raises(TypeError, match="NoneType"):
        Phonemizer("ky")(["ал", None])


def test_a_normalizer_mends_look_alikes_first():
    plain, mended = Phonemizer("ky"), Phonemizer("ky", normalizer=Normalizer("ky"))
    assert mended("кыpгыз (күлөт) тили") == plain("кыргыз тили") != plain("кыpгыз тили")
    assert mended.record == {**plain.record, "normalizer": "ky"}
    assert mended.fingerprint != plain.fingerprint
