import pytest

from hfasr.text.normalize import Normalizer


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("ky", "Ал — келди! «Саламатсыңбы?»", "ал келди саламатсыңбы"),
        ("ky", "Чоң-ата (күлүп): Ооба…", "чоң ата ооба"),
        ("kk", "Қазaқстaн — мeнiң Отаным.", "қазақстан менің отаным"),  # Latin a, e, i inside
        ("kk", "IT саласы", "it саласы"),  # a Latin word stays Latin
        ("ru", "Ёлка, моя   «ёлка»", "ёлка моя ёлка"),
        ("en", "Don't you 'quote' ME – it’s fine", "don't you quote me it's fine"),
        ("zh", "你好， 世界！ＡＢＣ １２", "你好世界 abc 12"),
        ("xx", "L'été, ça va?", "l'été ça va"),
        ("ky", "", ""),
    ],
)
def test_normalizes(language, text, expected):
    normalizer = Normalizer(language)
    assert normalizer(text) == expected
    assert normalizer([text, expected]) == [expected, expected]  # normalizing twice changes nothing


def test_decomposed_letters_are_composed():
    assert Normalizer("ky")("й") == "й"


def test_missing_text():
    with pytest.raises(TypeError, match="NoneType"):
        Normalizer("ky")(None)
