import random

import pytest

from hfasr.text.normalize import Normalizer
from hfasr.text.numbers import NumberReader
from hfasr.text.tables import load_table

WORDS = {
    "ky": (
        "нөл бир эки үч төрт беш алты жети сегиз тогуз",
        "он жыйырма отуз кырк элүү алтымыш жетимиш сексен токсон",
        "жүз миң миллион миллиард",
    ),
    "kk": (
        "нөл бір екі үш төрт бес алты жеті сегіз тоғыз",
        "он жиырма отыз қырық елу алпыс жетпіс сексен тоқсан",
        "жүз мың миллион миллиард",
    ),
    "tr": (
        "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
        "on yirmi otuz kırk elli altmış yetmiş seksen doksan",
        "yüz bin milyon milyar",
    ),
}


def spelled(number, language):
    """Spell a number of a Turkic language by its plain rule, with no `one` before hundred, nor thousand but where Kyrgyz says it."""
    units, tens, powers = (words.split() for words in WORDS[language])
    if number == 0:
        return units[0]
    words = []
    whole = number
    for value, power in zip((10**9, 10**6, 1000, 100), reversed(powers), strict=True):
        count, number = divmod(number, value)
        said = value >= 10**6 or (value == 1000 and language == "ky" and whole != 1000)
        words += ([spelled(count, language)] if count > 1 or (count and said) else []) + [power] * bool(count)
    return " ".join(words + [tens[number // 10 - 1]] * (number > 9) + [units[number % 10]] * (number % 10 > 0))


@pytest.mark.parametrize("language", list(WORDS))
def test_cardinals_of_turkic_languages(language):
    random.seed(0)
    reader = NumberReader(load_table(language).numbers)
    for number in [*range(2100), *(random.randrange(10 ** random.randint(4, 12)) for _ in range(500))]:
        assert reader.replace(str(number)).strip() == spelled(number, language), number


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("ky", "101 күн, 1 000 000 сом", "жүз бир күн бир миллион сом"),
        ("ky", "5-класс окуучулары 2024-жылы 1-сентябрда", "бешинчи класс окуучулары эки миң жыйырма төртүнчү жылы биринчи сентябрда"),
        ("ky", "3-чү жолу, 15те, 15-те; 3-чүсү", "үчүнчү жолу он беште он беште үчүнчүсү"),
        ("ky", "COVID-19 менен 5G, 2х", "covid он тогуз менен беш g эки х"),
        ("ky", "3,5 пайыз, 50%дан көп, 0,05", "үч бүтүн ондон беш пайыз элүү пайыздан көп нөл бүтүн жүздөн беш"),
        (
            "ky",
            "1990–1995, −5 градус, 2000-жылы",
            "бир миң тогуз жүз токсон бир миң тогуз жүз токсон беш минус беш градус эки миңинчи жылы",
        ),
        ("ky", "саат 10:30да, 12.05.2024, код 007", "саат он отузда он эки беш эки миң жыйырма төрт код нөл нөл жети"),
        ("kk", "1991 жылы 40-шы, 5 жыл, 5-сынып", "мың тоғыз жүз тоқсан бірінші жылы қырқыншы бес жыл бесінші сынып"),
        (
            "kk",
            "2,25 және 1 234 567 теңге, 10%-ы",
            "екі бүтін жүзден жиырма бес және бір миллион екі жүз отыз төрт мың бес жүз алпыс жеті теңге он пайызы",
        ),
        (
            "ru",
            "в 2024 году 21% и 22% и 25%",
            "в две тысячи двадцать четвёртом году двадцать один процент и двадцать два процента и двадцать пять процентов",
        ),
        ("ru", "5-й, 5-го, 90-х, 3-я", "пятый пятого девяностых третья"),
        ("ru", "1,2 и 21,01 и 3,5%", "одна целая две десятых и двадцать одна целая одна сотая и три целых пять десятых процента"),
        ("ru", "1 001 рубль, -3", "одна тысяча один рубль минус три"),
        ("tr", "2024'te %50'si 4'ü 5'inci 1.000.000", "iki bin yirmi dörtte yüzde ellisi dördü beşinci bir milyon"),
        ("tr", "3,05 ve -7", "üç virgül sıfır beş ve eksi yedi"),
        ("en", "In 1991, 1,234 men; 3.14", "in nineteen ninety one one thousand two hundred thirty four men three point one four"),
        (
            "en",
            "the 21st in the 1990s, $1 and $5, 50%",
            "the twenty first in the nineteen nineties one dollar and five dollars fifty percent",
        ),
        ("zh", "2024年有2000人和2个", "二零二四年有两千人和二个"),
        ("zh", "１，２，３；3.14；50%；105；-5；12000", "一二三三点一四百分之五十一百零五负五一万两千"),
    ],
)
def test_numbers_in_sentences(language, text, expected):
    assert Normalizer(language)(text) == expected


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ky", "1/2"), ("ky", "3.5"), ("ky", "10 м²"), ("ky", "1,2345"), ("ky", "£5"),
        ("ru", "20-летний"), ("ru", "200-й"), ("ru", "1000000-й"), ("tr", "3.5"), ("en", "3,5"), ("zh", "½"),
    ],
)  # fmt: skip
def test_no_sure_reading(language, text):
    done = Normalizer(language).normalize(f"a {text} b")
    assert done.text == ""
    assert "has no sure reading" in done.dropped


def test_very_long_numbers_are_read_digit_by_digit():
    assert Normalizer("en")("1234567890123456").split()[:3] == ["one", "two", "three"]
    assert Normalizer("en")("123456789012345").startswith("one hundred twenty three trillion")


def test_ordinals_of_kyrgyz_and_kazakh():
    for language, expected in {
        "ky": "биринчи экинчи үчүнчү төртүнчү бешинчи алтынчы жетинчи сегизинчи тогузунчу онунчу",
        "kk": "бірінші екінші үшінші төртінші бесінші алтыншы жетінші сегізінші тоғызыншы оныншы",
    }.items():
        normalizer = Normalizer(language)
        assert " ".join(normalizer(f"{number}-класс").split()[0] for number in range(1, 11)) == expected
