import pickle
import random
import unicodedata
from collections import Counter

import pytest

from hfasr.text.normalize import Normalizer, fold
from hfasr.text.tables import languages

SENTENCES = [
    ("ky", "Ал — келди! «Саламатсыңбы?»", "ал келди саламатсыңбы"),
    ("ky", "Чоң-ата (күлүп): Ооба…", "чоң ата ооба"),
    ("ky", "Айтты [үнү [бийик] чыгып] да, <шуулдап> кетти {музыка}", "айтты да кетти"),
    ("ky", "Бишкeкте бүгүн күн aчык.", "бишкекте бүгүн күн ачык"),  # Latin e, a
    ("ky", "Мен a дедим, ал o деди", "мен а дедим ал о деди"),  # a letter by itself takes the script around it
    ("ky", "Windows a Linux орнотту", "windows a linux орнотту"),  # between two Latin words it stays
    ("ky", "Бишкекте COP саммити өттү", "бишкекте cop саммити өттү"),  # all its letters have doubles, but it is in capitals
    ("ky", "Бaла ухo cop деди", "бала ухо сор деди"),  # this typist uses look-alikes
    ("ky", "Wіndows менен Gооglе ачылды", "windows менен google ачылды"),  # Cyrillic і, о, е inside
    ("ky", "Мага smsке жооп жазды", "мага smsке жооп жазды"),  # a foreign word with an ending, not a typing error
    ("ky", "X жылы план B, витамин C", "x жылы план b витамин c"),  # a Roman number, names
    ("ru", "B школе план B", "в школе план b"),
    ("ky", "бала(лар) :( келди (күлкү)", "балалар келди"),  # glued to a word; an emoticon; a remark
    ("ky", "(25) келди <эки сөз> <шум><b>", "жыйырма беш келди эки сөз"),
    ("ru", "हिन्दी за\u0301мок", "हिन्दी замок"),  # vowel signs of another script are no stress marks
    ("ky", "Бүгүн №5 мектеп ачылат", "бүгүн номер беш мектеп ачылат"),
    ("kk", "Қазaқстaн — мeнiң Отаным.", "қазақстан менің отаным"),  # Latin a, e, i
    ("kk", "Бiз hәм сiз; Ha, Hан!", "біз һәм сіз на нан"),  # small h is һ, capital H is Н
    ("kk", "IT саласы мен Expo көрмесі", "it саласы мен expo көрмесі"),
    ("kk", "Əлем əдемі", "әлем әдемі"),  # the Azerbaijani letter
    ("kk", "Ол «кет» – деді де,\u00a0шығып кетті...", "ол кет деді де шығып кетті"),
    ("ru", "Ёлка, моя   «ёлка»", "ёлка моя ёлка"),
    ("ru", "На двери висел за\u0301мок, кто-то об’явил", "на двери висел замок кто то обявил"),
    ("ru", "c кем o чём", "с кем о чём"),
    ("ru", "и\u0306од", "йод"),  # decomposed
    ("tt", "Мин Казанда яшим, hава җылы! Əни", "мин казанда яшим һава җылы әни"),
    ("tr", "IŞIK Iğdır'da, İSTANBUL’da İnci", "ışık ığdırda istanbulda inci"),
    ("tr", "Кitаp âlim «hâlâ» — okur", "kitap âlim hâlâ okur"),  # Cyrillic К, а
    ("uz", "O‘zbekiston gʻalaba, bo'ldi; ma’no, togʼ!", "oʻzbekiston gʻalaba boʻldi maʼno togʻ"),
    ("uz", "oʼʼzbek o''zbek oˈzbek oʽzbek o‛zbek o᾽zbek oꞌzbek ''kino''", "oʻzbek " * 7 + "kino"),
    ("uz", "U 'kino' dedi, Тошкент va Sаmаrqаnd", "u kino dedi тошкент va samarqand"),
    ("en", "Don't you 'quote' ME – it’s fine", "don't you quote me it's fine"),
    ("en", "A well-known iPhоnе & R&B (laughs)", "a well known iphone and r and b"),
    ("zh", "你好， 世界！ＡＢＣ １２", "你好世界abc十二"),
    ("zh", "今天　天气 很好（笑）。", "今天天气很好"),
    ("zh", "我在看《红楼梦》，hello world 你呢？【音乐】", "我在看红楼梦hello world你呢"),
    ("zh", "二〇二四年", "二零二四年"),
    ("fr", "L'été, ça va? ’Bon’ soft\u00adhyphen", "l'été ça va bon softhyphen"),
    ("hi", "हिन्दी में (हँसी) बोलो!", "हिन्दी में बोलो"),
    ("az", "İstanbul", "istanbul"),  # no combining dot left behind
    ("ky", "", ""),
]


@pytest.mark.parametrize(("language", "text", "expected"), SENTENCES)
def test_normalizes(language, text, expected):
    normalizer = Normalizer(language)
    assert normalizer(text) == expected
    assert normalizer([text, expected]) == [expected, expected]  # normalizing twice changes nothing
    assert normalizer.normalize(text).text == expected  # counting does not change the outcome


@pytest.mark.parametrize("language", [*languages(), "xx"])
def test_random_texts(language):
    """Whatever comes in, a second pass changes nothing; with an alphabet, what comes out is letters, marks and single spaces."""
    random.seed(language)
    normalizer = Normalizer(language)
    pool = (
        "абвеһіңқўйәсроухнкмтВСНМТІҺÄäàeéaoiIİıhHkmtbxyBCTzq"
        + "'’ʻ`-–—−_ .,;:!?%$№&½²Ⅳ()[]<>{}«»\"" * 2
        + "0123456789"
        + "你好世１Ａ，　。\u00ad\u0301\u0306\u200b \n\t"
    )
    for _ in range(1500):
        text = "".join(random.choices(pool, k=random.randint(0, 25)))
        once = normalizer(text)
        assert normalizer(once) == once, text
        assert normalizer.normalize(text).text == once, text
        assert once == " ".join(once.split())
        assert unicodedata.is_normalized("NFC", once)
        if normalizer.numbers != "keep":
            assert not any(unicodedata.category(char) == "Nd" for char in once), text
        if normalizer.letters and normalizer.numbers != "keep":
            other = {char for char in once if char not in normalizer.letters and char != " "}
            assert all(char.isalpha() for char in other), (text, other)


@pytest.mark.parametrize("language", ["ky", "kk", "ru", "tr", "en"])
def test_numbers_leave_only_the_alphabet(language):
    normalizer = Normalizer(language)
    for number in [*range(130), 200, 999, 1000, 1001, 1991, 2024, 10_000, 123_456, 1_000_000, 987_654_321]:
        for text in (f"{number}", f"-{number}", f"{number}%", f"{number} $"):
            assert set(normalizer(text)) <= normalizer.letters | {" "}, text


def test_missing_text():
    with pytest.raises(TypeError, match="NoneType"):
        Normalizer("ky")(None)
    with pytest.raises(TypeError, match="NoneType"):
        Normalizer("ky").normalize(None)
    with pytest.raises(TypeError, match="NoneType"):
        Normalizer("ky")(["бир", None])
    with pytest.raises(TypeError, match="dict"):
        Normalizer("ky")({"a": 1})


def test_choices_for_numbers():
    assert Normalizer("tt", numbers="keep")("Миңа 25 яшь.") == "миңа 25 яшь"
    assert Normalizer("tt")(["Миңа 25 яшь.", "Миңа егерме биш яшь."]) == ["", "миңа егерме биш яшь"]
    dropped = Normalizer("tt").normalize("Миңа 25 яшь.")
    assert (dropped.text, dropped.dropped) == ("", "number '25'")
    with pytest.raises(ValueError, match="Миңа 25 яшь.*'25'"):
        Normalizer("tt", numbers="error")("Миңа 25 яшь.")
    with pytest.raises(ValueError, match="'words' is not possible for 'uz'"):
        Normalizer("uz", numbers="words")
    with pytest.raises(ValueError, match="'say' is not known; use one of words, keep"):
        Normalizer("ky", numbers="say")
    assert Normalizer("ky", numbers="drop")("(25 шум) келди") == "келди"  # the number is in a remark
    assert Normalizer("ky").normalize("1/2 бөлүгү").dropped == "number '1/2' has no sure reading"


@pytest.mark.parametrize("language", ["ky", "kk", "ru", "tt", "tr", "uz", "en"])
def test_roman_numbers(language):
    """Never read, and kept as Latin letters: no `ıı` of Turkish, no Cyrillic `хх`."""
    for typed in ("XIX", "II", "ХХ", "ІІ", "Ⅳ", "MCMXCIX"):
        latin = typed.translate(str.maketrans("ХІ", "XI")).replace("Ⅳ", "IV").lower()
        normalizer = Normalizer(language, numbers="keep")
        assert normalizer(f"{typed}, x") == normalizer(normalizer(f"{typed}, x")) == f"{latin} x", typed
        assert normalizer.normalize(typed).changes["Roman numerals"] == Counter([unicodedata.normalize("NFKC", typed)])
        assert Normalizer(language)(f"a {typed} b") == ""
        with pytest.raises(ValueError, match="Roman"):
            Normalizer(language, numbers="error")(typed)
    for word in ("MIX", "CIVIL", "CD", "DVD"):
        assert Normalizer(language)(f"w {word} w") != ""


def test_replacements_are_whole_words(tmp_path):
    table = tmp_path / "own.toml"
    table.write_text('extends = "kk"\n[replacements]\n"т.б." = "тағы басқа"\n', encoding="utf-8")
    assert Normalizer(table)("ат.б. т.б.") == "ат б тағы басқа"


def test_languages_by_other_codes(tmp_path, caplog):
    for code, language in {"kaz": "kk", "kir": "ky", "cmn_hans_cn": "zh", "ky_kg": "ky", "uzb": "uz"}.items():
        assert Normalizer(code).table == Normalizer(language).table
    assert not caplog.records
    assert [Normalizer("qqx").table.name for _ in range(2)] == ["any language"] * 2
    assert caplog.text.count("'qqx' has no table") == 1
    with pytest.raises(ValueError, match="no table of a language"):
        Normalizer(tmp_path)
    with pytest.raises(FileNotFoundError):
        Normalizer(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('fraction = "{whole} {fraction} {more}"', "own.toml: key 'numbers.fraction' must be"),
        ('time = "{hours}"', "own.toml: key 'numbers.time' must be"),
        ('signs = { "%" = "{} {x}" }', "own.toml: key 'numbers.signs.%' must be"),
        ('year_before = { "жыл" = "ordinal" }', "own.toml: unicode-rbnf has no rule set ordinal for 'ky'; it is named in [numbers] year_b"),
        ('library = "tt"', "own.toml: unicode-rbnf has no rules for the language 'tt'"),
    ],
)  # fmt: skip
def test_wrong_tables_name_file_and_key(tmp_path, text, message):
    (tmp_path / "own.toml").write_text(f'extends = "ky"\n[numbers]\n{text}\n', encoding="utf-8")
    with pytest.raises(ValueError) as error:
        Normalizer(tmp_path / "own.toml")
    assert message in str(error.value)


def test_counts():
    texts = ["Бiз 5 кiтап (күлкі) оқыдық.", "Бiз бардық", "бардық", "½ алма", "Wi-fi"]
    report = Normalizer("kk").count(iter(texts), examples=1)
    assert (report.texts, report.changed, report.dropped) == (5, 4, 1)
    assert report.rules["look-alikes"].kinds == Counter({"i → і": 3})
    assert (report.rules["look-alikes"].changes, report.rules["look-alikes"].texts) == (3, 2)
    assert report.rules["look-alikes"].examples == [(texts[0], "біз бес кітап оқыдық")]
    assert report.rules["numbers"].kinds == {"5 → бес": 1}
    assert report.rules["brackets"].kinds == {"(күлкі)": 1}
    assert report.rules["dropped for a number"].kinds == {"½": 1}
    assert report.rules["left outside of the alphabet"].kinds == {"w": 1, "i": 2, "f": 1}
    assert report.rules["case"].kinds == {"Б → б": 2, "W → w": 1}
    assert "look-alikes: 3 in 2 texts (i → і 3)" in str(report)


def test_travels_to_other_processes():
    normalizer = Normalizer("tt", numbers="keep")
    normalizer("5 алма")
    other = pickle.loads(pickle.dumps(normalizer))
    assert other("5 алма") == "5 алма"
    assert other.fingerprint == normalizer.fingerprint != Normalizer("tt").fingerprint


ALIKE = [
    ("Қазақстан — менің Отаным!", "ҚAЗAҚCTAH мeнiң отaным"),  # Latin letters in the second
    ("Апа нан алды", "апа Hан алды"),
    ("Һәм сен", "hәм ceн"),
    ("Ёлка зелёная", "елка зеленая"),
    ("IŞIK İNCİ ılık", "ışık inci ILIK"),
    ("O‘zbek, ma'no", "oʻzbek maʼno"),
    ("don't", "Dont"),
    ("ＡＢＣ，１２", "abc 12"),
    ("чоң-ата", "чоң ата"),
    ("и\u0306од за\u0301мок", "йод замок"),
    ("Straße", "STRASSE"),
]
UNLIKE = [("й", "и"), ("ой", "ои"), ("өт", "от"), ("ü", "u"), ("қол", "кол"), ("5 алма", "6 алма"), ("ң", "н"), ("हिन्दी", "हन्दी")]


def test_fold():
    for one, other in ALIKE:
        assert fold(one) == fold(other), (one, other)
    for one, other in UNLIKE:
        assert fold(one) != fold(other), (one, other)
    assert fold(" …!") == ""
    for language, text, expected in SENTENCES:
        if not set("()[]<>{}№&〇（【") & set(text) and not any(char.isdigit() for char in text):
            assert fold(text) == fold(expected), (language, text)
