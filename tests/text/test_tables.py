import pytest

from hfasr.text.normalize import Normalizer
from hfasr.text.tables import languages, load_table


def write(folder, text, name="own.toml"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_every_language_has_a_table():
    assert languages() == ["default", "en", "kk", "ky", "ru", "tr", "tt", "uz", "zh"]
    for language in languages():
        table = load_table(language)
        assert len(set(table.letters)) == len(table.letters), language
        assert set(table.look_alikes).isdisjoint(table.letters), language
    counts = {"en": 27, "kk": 42, "ky": 36, "ru": 33, "tt": 39}  # with the apostrophe of English
    assert {language: len(load_table(language).letters) for language in counts} == counts
    assert load_table("kk-KZ") == load_table("kk")
    assert load_table("zh_CN") == load_table("zh")
    assert load_table("xx") == load_table("default")


def test_own_table(tmp_path):
    path = write(tmp_path, 'extends = "kk"\nhyphen = "-"\n[replacements]\n"т.б." = "тағы басқа"\n[numbers]\nchoice = "drop"\n')
    normalizer = Normalizer(path)
    assert normalizer("Алма-ата, мeнiң т.б. №") == "алма-ата менің тағы басқа нөмір"
    assert normalizer("5 алма") == ""
    other = write(tmp_path, 'extends = "own.toml"\nbrackets = []\n', "other.toml")
    assert Normalizer(str(other))("Алма-ата (қала)") == "алма-ата қала"


def test_own_table_with_numbers_for_tatar(tmp_path):
    path = write(tmp_path, 'extends = "tt"\n[numbers]\nchoice = "keep"\n')
    assert Normalizer(path)("25 яшь") == "25 яшь"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('leters = "абв"', "own.toml: unknown key 'leters'; known are name, letters"),
        ('[numbers]\nchoise = "keep"', "own.toml: unknown key 'numbers.choise'"),
        ("spaces = 1", "own.toml: key 'spaces' must be true or false, found 1"),
        ('letters = ["а"]', "own.toml: key 'letters' must be text in quotes"),
        ("[replacements]\na = 1", "own.toml: key 'replacements' must be a table of texts in quotes"),
        ('case = "upper"', "own.toml: key 'case' must be lower, turkic or keep, found 'upper'"),
        ('letters = "АБВ"', "own.toml: key 'letters' must be lower-case"),
        ('brackets = ["("]', "own.toml: key 'brackets' must be pairs"),
        ('[look_alikes]\n"ab" = "а"', "own.toml: key 'look_alikes.ab' must be one letter for one letter"),
        ('[numbers]\nchoice = "guess"', "own.toml: key 'numbers.choice' must be one of words, keep, drop, error"),
        ('[numbers]\nchoice = "words"', "own.toml: key 'numbers.library' must be a language of unicode-rbnf"),
        ('extends = "ky"\n[numbers]\nfraction = "{} point {}"', "own.toml: key 'numbers.fraction' must be a pattern"),
        ('extends = "ky"\n[numbers.signs]\n"%" = "пайыз"', "own.toml: key 'numbers.signs.%' must be a pattern with {}"),
        ('extends = "qq"', "own.toml: key 'extends' names 'qq', which has no table"),
        ('extends = "own.toml"', "own.toml extends itself"),
        ("letters = абв", "own.toml is not TOML in UTF-8"),
        ('extends = "ky"\n[numbers]\nlibrary = "tt"', "unicode-rbnf has no rules for the language 'tt'"),
        ('extends = "ky"\n[numbers]\nhyphen = "ordinals"', "unicode-rbnf has no rule set ordinals for 'ky'"),
    ],
)
def test_wrong_tables(tmp_path, text, message):
    with pytest.raises(ValueError) as error:
        Normalizer(write(tmp_path, text))
    assert message in str(error.value)


def test_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table of a language at .*none.toml; codes with a table are default, en"):
        Normalizer(tmp_path / "none.toml")
