"""Lexicon files, and their words among those that espeak-ng reads."""

import logging
import pickle
import random
import re

import pytest

from hfasr.text.lexicon import Lexicon, load_lexicon, split_signs
from hfasr.text.phonemize import Phonemizer

TEXTS = [
    "Ал келди.",
    "«Чоң-ата», Windows 10 орнотту!",
    "3.5 % өстү – жакшы, т.б.",
    "Ал-чы, 1,000 сом 'деди'.",
    "",
    "— !",
    "К\u0438\u0306ин й",
    "км/саат & № 5",
]


def test_reads_a_file_with_byte_order_mark_comments_and_two_pronunciations(tmp_path, caplog):
    path = tmp_path / "lexicon.tsv"
    path.write_bytes("\ufeff# a comment\r\nал\tɑ l\r\n\r\nкелди\tk  e l d i \r\nал\tɑ ll\r\nал\tɑ l\r\n".encode())
    with caplog.at_level(logging.WARNING, "hfasr"):
        lexicon = load_lexicon(str(path))
    assert (len(lexicon), lexicon.find("ал"), lexicon.find("Келди"), lexicon.find("ким")) == (2, "ɑ l", "k e l d i", None)
    assert "1 words have several pronunciations" in caplog.text
    assert lexicon.sha256 == Lexicon({"келди": "k e l d i", "ал": "ɑ l"}).sha256 != Lexicon({"ал": "ɑ l"}).sha256


def test_bad_lines_are_named_by_number(tmp_path):
    path = tmp_path / "lexicon.tsv"
    path.write_bytes("ал ɑ l\nбир\tb i r\nэки\t\n\tk\nбеш\tb | e\nүч алты\ty\nон\t0.9\to n\n".encode() + b"\xff\xfe\tk\n")
    with pytest.raises(ValueError, match=r"7 bad entries.*line 1: there is no tab.*line 3.*line 4.*line 5: a bar.*line 6.*line 7.*line 8"):
        load_lexicon(path)
    path.write_text("\n".join(f"word{number}" for number in range(15)))
    with pytest.raises(ValueError, match="15 bad entries.*line 10: .* and 5 more"):
        load_lexicon(path)
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="no entry"):
        load_lexicon(path)
    with pytest.raises(FileNotFoundError, match="missing.tsv"):
        load_lexicon(tmp_path / "missing.tsv")
    with pytest.raises(TypeError, match="list"):
        load_lexicon(["ал"])
    with pytest.raises(ValueError, match="'ал': there are no phonemes"):
        load_lexicon({"ал": " "})


def test_words_are_found_as_written_in_lower_case_and_without_signs():
    lexicon = Lexicon({"Ал": "A", "ал": "a", "т.б.": "t b", "чоң-ата": "c", "don't": "d", "о'": "o", "кий": "k"})
    found = [phonemes for _, phonemes in lexicon.pieces("Ал «АЛ» т.б. (Чоң-ата), don't! о', 'ал' ки\u0438\u0306 Ки\u0306")]
    assert [item for item in found if item] == ["A", "a", "t b", "c", "d", "o", "a", "k"]
    assert split_signs("5%/бир-эки-") == ["5", "%", "/", "бир-эки", "-"]
    assert split_signs("--") == ["--"]


def test_case_pairs_of_turkish_and_further_pronunciations(tmp_path):
    lexicon = Lexicon({"ılık": "1", "işık": "2", "INCİ": "3"})
    assert [lexicon.find(word) for word in ("ILIK", "Ilık", "İŞIK", "ıncİ")] == ["1", "1", "2", "3"]
    assert Lexicon({"read(2)": "r e d", "read": "r i d"}).find("read") == "r i d"
    path = tmp_path / "lexicon.tsv"
    path.write_text("a(2)\tx\nread(2)\tr e d\nread\tr i d\n")
    lexicon = load_lexicon(path)
    assert (len(lexicon), lexicon.find("read"), lexicon.find("a"), lexicon.find("read(2)")) == (2, "r i d", "x", None)


@pytest.mark.parametrize("text", TEXTS)
def test_sentences_without_a_word_of_the_lexicon_sound_as_before(text):
    assert Phonemizer("ky", lexicon={"башка": "X"})(text) == Phonemizer("ky")(text)


def test_words_of_the_lexicon_replace_those_of_espeak_in_real_sentences(shared):
    """Each sentence has words drawn for the lexicon; the others must stay as espeak says them in the whole sentence."""
    stem = shared / "data/unispeech_ky/testSeqs_uniform_new_version.text"
    texts = [" ".join(re.findall(r"\w+", line.split("\t", 1)[1].lower())) for line in stem.read_text("utf-8").splitlines()]
    words = sorted({word for text in texts for word in text.split()})
    entries = {word: f"<{place}>" for place, word in enumerate(random.Random(0).sample(words, len(words) // 3))}
    compared = 0
    for text, plain, mixed in zip(texts, Phonemizer("ky")(texts), Phonemizer("ky", lexicon=entries)(texts), strict=True):
        if len(text.split()) == len(plain.split(" | ")):
            expected = [entries.get(word, spoken) for word, spoken in zip(text.split(), plain.split(" | "), strict=True)]
            assert mixed == " | ".join(expected)
            compared += 1
    assert compared > 700


def test_the_neighbours_of_a_word_still_shape_it():
    english = Phonemizer("en-us", lexicon={"pear": "P"})
    # "the" before a vowel and before a consonant; alone it is neither
    assert english("the apple and the pear") == "ð ɪ | æ p əl | æ n d | ð ə | P"
    assert english("the apple and the pear").split(" | ")[0] != Phonemizer("en-us")("the")


def test_where_espeak_joins_words_each_stretch_is_read_alone():
    english, plain = Phonemizer("en-us", lexicon={"of": "O", "hyfasr": "H"}), Phonemizer("en-us")
    assert plain("of the dogs").startswith("ʌ v ð ə |")  # two words in one
    assert english("The end of the dogs") == f"{plain('The end')} | O | {plain('the dogs')}"
    assert english("25 of the 'hyfasr'") == f"{plain('25')} | O | {plain('the')} | H"


def test_numbers_and_signs_keep_their_reading():
    ky, plain = Phonemizer("ky", lexicon={"сом": "S", "өстү": "O"}), Phonemizer("ky")
    assert ky("1,000 сом, 3.5 % өстү") == f"{plain('1,000')} | S | {plain('3.5 % сом').removesuffix('s o m')}O"
    assert ky("'сом' – өстү") == "S | O"


def test_without_a_voice():
    phonemizer = Phonemizer(None, lexicon={"ал": "ɑ l", "келди": "k e l d i"}, word_bars=False)
    assert phonemizer(["Ал — келди!", "", "ал"]) == ["ɑ l k e l d i", "", "ɑ l"]
    assert phonemizer.record == {"voice": None, "espeak_version": None, "lexicon_sha256": phonemizer.lexicon.sha256}
    assert phonemizer.unknown_words(["Ал ким? 5 %", "ким"]) == {"ким": 2, "5": 1, "%": 1}
    with pytest.raises(ValueError, match="lacks 12 words of the texts, such as сөз0, сөз1.*сөз9;"):
        phonemizer(" ".join(f"сөз{number}" for number in range(12)))
    with pytest.raises(ValueError, match="neither"):
        Phonemizer(None)


def test_a_word_of_the_lexicon_is_not_a_language_switch():
    phonemizer = Phonemizer("ky", lexicon={"Windows": "v i n", "ал": "ɑ l"})
    assert phonemizer.phonemize(["Ал Windows орнотту", "Ал Google көрдү", "ал"]).switched == [False, True, False]


def test_it_travels_to_other_processes():
    phonemizer = pickle.loads(pickle.dumps(Phonemizer("ky", lexicon={"ал": "A"})))
    assert phonemizer("Ал келди") == "A | k e l d[ i"
