"""Kyrgyz suffixes, against the forms of the school grammar, and sentences made with them."""

from random import Random

import pytest

from hfasr.corpora.synthetic import ky
from hfasr.corpora.synthetic import ky_grammar as grammar


@pytest.mark.parametrize(
    ("noun", "many", "to", "of", "at", "from_", "accusative"),
    [
        ("китеп", "китептер", "китепке", "китептин", "китепте", "китептен", "китепти"),
        ("үй", "үйлөр", "үйгө", "үйдүн", "үйдө", "үйдөн", "үйдү"),
        ("бала", "балдар", "балага", "баланын", "балада", "баладан", "баланы"),
        ("көл", "көлдөр", "көлгө", "көлдүн", "көлдө", "көлдөн", "көлдү"),
        ("тоо", "тоолор", "тоого", "тоонун", "тоодо", "тоодон", "тоону"),
        ("мектеп", "мектептер", "мектепке", "мектептин", "мектепте", "мектептен", "мектепти"),
        ("суу", "суулар", "сууга", "суунун", "сууда", "суудан", "сууну"),
        ("кыз", "кыздар", "кызга", "кыздын", "кызда", "кыздан", "кызды"),
        ("шаар", "шаарлар", "шаарга", "шаардын", "шаарда", "шаардан", "шаарды"),
        ("колдонуучу", "колдонуучулар", "колдонуучуга", "колдонуучунун", "колдонуучуда", "колдонуучудан", "колдонуучуну"),
        ("эже", "эжелер", "эжеге", "эженин", "эжеде", "эжеден", "эжени"),
        ("күн", "күндөр", "күнгө", "күндүн", "күндө", "күндөн", "күндү"),
        ("актёр", "актёрлор", "актёрго", "актёрдун", "актёрдо", "актёрдон", "актёрду"),
        ("станция", "станциялар", "станцияга", "станциянын", "станцияда", "станциядан", "станцияны"),
        ("борщ", "борщтор", "борщко", "борщтун", "борщто", "борщтон", "борщту"),
        ("роль", "ролдор", "ролго", "ролдун", "ролдо", "ролдон", "ролду"),
    ],
)
def test_plural_and_cases(noun, many, to, of, at, from_, accusative):
    assert grammar.plural(noun) == many
    cases = ("dative", "genitive", "locative", "ablative", "accusative")
    assert [grammar.inflect(noun, case) for case in cases] == [to, of, at, from_, accusative]


@pytest.mark.parametrize(
    ("noun", "case", "owner", "expected"),
    [
        ("китеп", "", "1", "китебим"), ("китеп", "", "3", "китеби"), ("үй", "dative", "3", "үйүнө"), ("үй", "dative", "1", "үйүмө"),
        ("үй", "dative", "1p", "үйүбүзгө"), ("бала", "", "3", "баласы"), ("бала", "accusative", "3", "баласын"), ("тоо", "", "3", "тоосу"),
        ("жүрөк", "", "3", "жүрөгү"), ("кулак", "locative", "3", "кулагында"), ("токой", "", "3", "токою"),
        ("кол", "ablative", "3", "колунан"),
        ("ата", "genitive", "1", "атамдын"), ("дос", "dative", "2", "досуңа"), ("үй", "", "2p", "үйүңүз"), ("банк", "", "3", "банкы"),
        ("суу", "dative", "3", "суусуна"), ("көз", "locative", "3", "көзүндө"),
    ],
)  # fmt: skip
def test_possession(noun, case, owner, expected):
    assert grammar.inflect(noun, case, owner) == expected


@pytest.mark.parametrize(
    ("verb", "past", "not_past", "present", "not_present", "converb", "name"),
    [
        ("бар", "барды", "барбады", "барат", "барбайт", "барып", "баруу"),
        ("кел", "келди", "келбеди", "келет", "келбейт", "келип", "келүү"),
        ("бол", "болду", "болбоду", "болот", "болбойт", "болуп", "болуу"),
        ("көр", "көрдү", "көрбөдү", "көрөт", "көрбөйт", "көрүп", "көрүү"),
        ("айт", "айтты", "айтпады", "айтат", "айтпайт", "айтып", "айтуу"),
        ("ук", "укту", "укпады", "угат", "укпайт", "угуп", "угуу"),
        ("оку", "окуду", "окубады", "окуйт", "окубайт", "окуп", "окуу"),
        ("иште", "иштеди", "иштебеди", "иштейт", "иштебейт", "иштеп", "иштөө"),
        ("сүйлө", "сүйлөдү", "сүйлөбөдү", "сүйлөйт", "сүйлөбөйт", "сүйлөп", "сүйлөө"),
        ("ойно", "ойноду", "ойнободу", "ойнойт", "ойнобойт", "ойноп", "ойноо"),
        ("кой", "койду", "койбоду", "коёт", "койбойт", "коюп", "коюу"),
        ("тап", "тапты", "таппады", "табат", "таппайт", "таап", "табуу"),
        ("чык", "чыкты", "чыкпады", "чыгат", "чыкпайт", "чыгып", "чыгуу"),
        ("күт", "күттү", "күтпөдү", "күтөт", "күтпөйт", "күтүп", "күтүү"),
        ("сатып ал", "сатып алды", "сатып албады", "сатып алат", "сатып албайт", "сатып алып", "сатып алуу"),
    ],
)
def test_verbs(verb, past, not_past, present, not_present, converb, name):
    assert [grammar.past(verb), grammar.past(verb, negative=True)] == [past, not_past]
    assert [grammar.present(verb), grammar.present(verb, negative=True)] == [present, not_present]
    assert [grammar.converb(verb), grammar.verbal_noun(verb)] == [converb, name]


def test_persons():
    persons = ("1", "2", "2p", "3", "1p", "3p")
    assert [grammar.past("көр", p) for p in persons] == ["көрдүм", "көрдүң", "көрдүңүз", "көрдү", "көрдүк", "көрүштү"]
    assert [grammar.present("бар", p) for p in persons] == ["барам", "барасың", "барасыз", "барат", "барабыз", "барышат"]
    assert [grammar.present("оку", p) for p in persons] == ["окуймун", "окуйсуң", "окуйсуз", "окуйт", "окуйбуз", "окушат"]
    assert grammar.present("кел", "3p", negative=True) == "келишпейт"
    asked = [grammar.suffix(word, "БЫ") for word in ("келди", "окуйбуз", "китеп", "көрдүң")]
    assert asked == ["келдиби", "окуйбузбу", "китеппи", "көрдүңбү"]
    assert [grammar.suffix(verb, "ГАн") for verb in ("бар", "кет", "көр", "ук")] == ["барган", "кеткен", "көргөн", "уккан"]


def test_sentences_come_from_the_given_random_only():
    assert [ky.sentence(Random(5)) for _ in range(3)] == [ky.sentence(Random(5))] * 3


def test_a_sentence_begins_with_a_capital_and_ends_with_a_mark():
    random = Random(7)
    for sentence in (ky.sentence(random) for _ in range(300)):
        assert sentence[0].isupper()
        assert sentence[-1] in ".?!"
        assert not set("\t\n_") & set(sentence)
