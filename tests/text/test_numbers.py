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
        ("ky", "-15 даража (-5) COVID-19", "минус он беш даража минус беш covid он тогуз"),
        ("ky", "3,5 пайыз, 50%дан көп, 0,05", "үч бүтүн ондон беш пайыз элүү пайыздан көп нөл бүтүн жүздөн беш"),
        (
            "ky",
            "1990–1995, −5 градус, 2000-жылы",
            "бир миң тогуз жүз токсон бир миң тогуз жүз токсон беш минус беш градус эки миңинчи жылы",
        ),
        ("ky", "саат 10:30да, код 007", "саат он отузда код нөл нөл жети"),
        ("ky", "1990-инде 90дөгөн 5-дагы 5тик", "бир миң тогуз жүз токсонинде токсондөгөн бешдагы бештик"),
        ("ky", "5-май, 10-класс, 5-А, 12-күнү", "бешинчи май онунчу класс бешинчи а он экинчи күнү"),
        ("ky", "1000 жылдыгы, 1500 жыл мурун, 1500 жылы", "миң жылдыгы бир миң беш жүз жыл мурун бир миң беш жүзүнчү жылы"),
        ("kk", "5-шi сынып 2-ншi 5-iнші 20-ғa", "бесінші сынып екінші бесінші жиырмаға"),
        ("kk", "1500 жылдығы, 1500 жыл бұрын, 3-еуі 2-сінші", "мың бес жүз жылдығы мың бес жүз жыл бұрын үшеуі екінші"),
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
        ("ru", "5-й класс, 5-го, 90-х годов, 3-я", "пятый класс пятого девяностых годов третья"),
        ("ru", "2024 год, 1 год", "две тысячи двадцать четвёртый год один год"),
        ("ru", "80-е годы и 1990 годах", "восьмидесятые годы и одна тысяча девятьсот девяностых годах"),
        (
            "ru",
            "21 рубль, 2 часа, 11 книг, к 2024 году",
            "двадцать один рубль два часа одиннадцать книг к две тысячи двадцать четвёртому году",
        ),
        ("ru", "1,2 и 21,01 и 3,5%", "одна целая две десятых и двадцать одна целая одна сотая и три целых пять десятых процента"),
        ("ru", "1 001 рубль, -3", "одна тысяча один рубль минус три"),
        ("tr", "2024'te %50'si 4'ü 5'inci 1.000.000", "iki bin yirmi dörtte yüzde ellisi dördü beşinci bir milyon"),
        ("tr", "3,05 ve −7", "üç virgül sıfır beş ve eksi yedi"),
        ("tr", "5. sınıf 21. yüzyıl 2. Dünya Savaşı", "beşinci sınıf yirmi birinci yüzyıl ikinci dünya savaşı"),
        ("tr", "90'lı yıllar 4'lerin 5'İNCİ", "doksanlı yıllar dörtlerin beşinci"),
        ("en", "In 1991, 1,234 men; 3.14", "in nineteen ninety one one thousand two hundred thirty four men three point one four"),
        (
            "en",
            "the 21st in the 1990s, $1 and $5, 50%",
            "the twenty first in the nineteen nineties one dollar and five dollars fifty percent",
        ),
        ("zh", "2024年有2000人和2个", "二零二四年有两千人和两个"),
        ("zh", "2小时 第2个 1949-1950年 13912345678 二○二四", "两小时第二个一九四九一九五零年一三九一二三四五六七八二零二四"),
        ("zh", "１，０００人 ￥5 5﹪ 1500年历史", "一千人五元百分之五一千五百年历史"),
        ("zh", "１，２，３；3.14；50%；105；-5；12000", "一二三三点一四百分之五十一百零五负五一万两千"),
    ],
)
def test_numbers_in_sentences(language, text, expected):
    assert Normalizer(language)(text) == expected


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ky", "5G"), ("ky", "2х"), ("ky", "B12"), ("ky", "12.05.2024"), ("ky", "5-абв"), ("ky", "COVID -19"),
        ("ky", "5 -7"), ("ky", "-$5"),
        ("ky", "$100 миң"), ("ky", "$5 млн"), ("en", "$5 million"), ("zh", "$5万"), ("ky", "5℃"), ("ky", "5㎡"),
        ("ky", "5 ¢"), ("ky", "2 < 3"), ("ky", "2 + 2"),
        ("ky", "100 200 300"), ("ky", "+996 555 12 34 56"), ("ky", "0 700 123"), ("ky", "8 800 555 35 35"), ("ky", "10,000"),
        ("ky", "15:05"), ("ky", "09:30"), ("ky", "2024-05-12"), ("zh", "15:30"), ("zh", "2008年前"),
        ("ru", "2-х"), ("ru", "21000-й"), ("ru", "5-й школы"), ("ru", "2 книги"), ("ru", "5 января"),
        ("ru", "до 5 часов"), ("ru", "около 21 рубля"),
        ("ru", "2010-2015 годы"), ("ru", "5-ю"), ("ru", "90-е"),
        ("ky", "1/2"), ("ky", "3.5"), ("ky", "10 м²"), ("ky", "1,2345"), ("ky", "£5"),
        ("ru", "20-летний"), ("ru", "200-й"), ("ru", "1000000-й"), ("tr", "3.5"), ("en", "3,5"), ("zh", "½"),
    ],
)  # fmt: skip
def test_no_sure_reading(language, text):
    done = Normalizer(language).normalize(f"a {text} b")
    assert done.text == ""
    assert "has no sure reading" in done.dropped


def test_signs_between_numbers_are_no_minus():
    assert Normalizer("ky")("20%-30%") == "жыйырма пайыз отуз пайыз"
    assert Normalizer("en")("$5-$6") == "five dollars six dollars"


def test_the_longest_key_wins(tmp_path):
    table = tmp_path / "own.toml"
    table.write_text('extends = "ky"\n[numbers.year_before]\n"жылкы" = "spellout-cardinal"\n', encoding="utf-8")
    assert Normalizer(table)("1500 жылкы, 1500 жылы") == "бир миң беш жүз жылкы бир миң беш жүзүнчү жылы"


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
