"""The Kazakh sentences of the embedded corpus: forms as in the school grammar, texts that the normalizer and espeak-ng read as written."""

import re
from collections import Counter
from random import Random

import pytest

from hfasr import Normalizer, Phonemizer
from hfasr.corpora.synthetic import kk
from hfasr.corpora.synthetic import kk_grammar as grammar

ALPHABET = "аәбвгғдеёжзийкқлмнңоөпрстуұүфхһцчшщъыіьэюя"
PERSONS = ("1", "2", "2p", "3", "1p", "3p")


@pytest.fixture(scope="module")
def sentences():
    random = Random(0)
    return [kk.sentence(random) for _ in range(2000)]


@pytest.mark.parametrize(
    "forms",
    [
        # the noun, many, of, to, accusative, at, from, with
        "кітап кітаптар кітаптың кітапқа кітапты кітапта кітаптан кітаппен",
        "мектеп мектептер мектептің мектепке мектепті мектепте мектептен мектеппен",
        "үй үйлер үйдің үйге үйді үйде үйден үймен",
        "бала балалар баланың балаға баланы балада баладан баламен",
        "әже әжелер әженің әжеге әжені әжеде әжеден әжемен",
        "көл көлдер көлдің көлге көлді көлде көлден көлмен",
        "қыз қыздар қыздың қызға қызды қызда қыздан қызбен",
        "теңіз теңіздер теңіздің теңізге теңізді теңізде теңізден теңізбен",
        "адам адамдар адамның адамға адамды адамда адамнан адаммен",
        "мұғалім мұғалімдер мұғалімнің мұғалімге мұғалімді мұғалімде мұғалімнен мұғаліммен",
        "алаң алаңдар алаңның алаңға алаңды алаңда алаңнан алаңмен",
        "күн күндер күннің күнге күнді күнде күннен күнмен",
        "жаңбыр жаңбырлар жаңбырдың жаңбырға жаңбырды жаңбырда жаңбырдан жаңбырмен",
        "тау таулар таудың тауға тауды тауда таудан таумен",
        "су сулар судың суға суды суда судан сумен",
        "аю аюлар аюдың аюға аюды аюда аюдан аюмен",
        "би билер бидің биге биді биде биден бимен",
        "ескерту ескертулер ескертудің ескертуге ескертуді ескертуде ескертуден ескертумен",
        "гараж гараждар гараждың гаражға гаражды гаражда гараждан гаражбен",
        "клуб клубтар клубтың клубқа клубты клубта клубтан клубпен",
        "велосипед велосипедтер велосипедтің велосипедке велосипедті велосипедте велосипедтен велосипедпен",
        "хирург хирургтер хирургтің хирургке хирургті хирургте хирургтен хирургпен",
        "цирк цирктер цирктің циркке циркті циркте цирктен циркпен",
        "актёр актёрлер актёрдің актёрге актёрді актёрде актёрден актёрмен",
        "станция станциялар станцияның станцияға станцияны станцияда станциядан станциямен",
        "фильм фильмдер фильмнің фильмге фильмді фильмде фильмнен фильммен",
        "спектакль спектакльдер спектакльдің спектакльге спектакльді спектакльде спектакльден спектакльмен",
        "объект объектілер объектінің объектіге объектіні объектіде объектіден объектімен",
        "журналист журналистер журналистің журналиске журналисті журналисте журналистен журналиспен",
        "борщ борщтар борщтың борщқа борщты борщта борщтан борщпен",
        "тарих тарихтар тарихтың тарихқа тарихты тарихта тарихтан тарихпен",
        "автобус автобустар автобустың автобусқа автобусты автобуста автобустан автобуспен",
        "такси таксилер таксидің таксиге таксиді таксиде таксиден таксимен",
        "кино кинолар киноның киноға киноны кинода кинодан киномен",
    ],
)
def test_plural_and_cases(forms):
    noun, many, *cases = forms.split()
    assert grammar.plural(noun) == many
    assert [grammar.inflect(noun, case) for case in list(grammar._CASES)[1:]] == cases


@pytest.mark.parametrize(
    ("noun", "forms"),
    [
        # my, your, your (polite), his, our
        ("әке", "әкем әкең әкеңіз әкесі әкеміз"),
        ("аға", "ағам ағаң ағаңыз ағасы ағамыз"),
        ("кітап", "кітабым кітабың кітабыңыз кітабы кітабымыз"),
        ("жүрек", "жүрегім жүрегің жүрегіңіз жүрегі жүрегіміз"),
        ("құлақ", "құлағым құлағың құлағыңыз құлағы құлағымыз"),
        ("ауыз", "аузым аузың аузыңыз аузы аузымыз"),
        ("мұрын", "мұрным мұрның мұрныңыз мұрны мұрнымыз"),
        ("халық", "халқым халқың халқыңыз халқы халқымыз"),
        ("ерін", "ернім ернің ерніңіз ерні ерніміз"),
        ("су", "суым суың суыңыз суы суымыз"),
        ("балық", "балығым балығың балығыңыз балығы балығымыз"),
        ("үй", "үйім үйің үйіңіз үйі үйіміз"),
        ("хат", "хатым хатың хатыңыз хаты хатымыз"),
        ("роль", "ролім ролің роліңіз ролі роліміз"),
        ("кафе", "кафем кафең кафеңіз кафесі кафеміз"),
        ("парк", "паркім паркің паркіңіз паркі паркіміз"),
        ("съезд", "съезім съезің съезіңіз съезі съезіміз"),
    ],
)
def test_possession(noun, forms):
    assert [grammar.inflect(noun, "", owner) for owner in ("1", "2", "2p", "3", "1p")] == forms.split()


@pytest.mark.parametrize(
    ("noun", "owner", "forms"),
    [
        # of, to, accusative, at, from, with
        ("әке", "1", "әкемнің әкеме әкемді әкемде әкемнен әкеммен"),
        ("дос", "2", "досыңның досыңа досыңды досыңда досыңнан досыңмен"),
        ("үй", "1p", "үйіміздің үйімізге үйімізді үйімізде үйімізден үйімізбен"),
        ("қала", "2p", "қалаңыздың қалаңызға қалаңызды қалаңызда қалаңыздан қалаңызбен"),
        ("бала", "3", "баласының баласына баласын баласында баласынан баласымен"),
        ("мектеп", "3", "мектебінің мектебіне мектебін мектебінде мектебінен мектебімен"),
        ("мұрын", "3p", "мұрнының мұрнына мұрнын мұрнында мұрнынан мұрнымен"),
    ],
)
def test_cases_of_what_is_owned(noun, owner, forms):
    assert [grammar.inflect(noun, case, owner) for case in list(grammar._CASES)[1:]] == forms.split()


@pytest.mark.parametrize(
    "forms",
    [
        # the stem, past, not past, present, not present, converb, name, perfect, let us, please
        "бар барды бармады барады бармайды барып бару барған барайық барыңыз",
        "кел келді келмеді келеді келмейді келіп келу келген келейік келіңіз",
        "бол болды болмады болады болмайды болып болу болған болайық болыңыз",
        "көр көрді көрмеді көреді көрмейді көріп көру көрген көрейік көріңіз",
        "айт айтты айтпады айтады айтпайды айтып айту айтқан айтайық айтыңыз",
        "күт күтті күтпеді күтеді күтпейді күтіп күту күткен күтейік күтіңіз",
        "жаз жазды жазбады жазады жазбайды жазып жазу жазған жазайық жазыңыз",
        "сағын сағынды сағынбады сағынады сағынбайды сағынып сағыну сағынған сағынайық сағыныңыз",
        "шық шықты шықпады шығады шықпайды шығып шығу шыққан шығайық шығыңыз",
        "тік тікті тікпеді тігеді тікпейді тігіп тігу тіккен тігейік тігіңіз",
        "тап тапты таппады табады таппайды тауып табу тапқан табайық табыңыз",
        "сеп септі сеппеді себеді сеппейді сеуіп себу сепкен себейік себіңіз",
        "оқы оқыды оқымады оқиды оқымайды оқып оқу оқыған оқиық оқыңыз",
        "ері еріді ерімеді ериді ерімейді еріп еру еріген ериік еріңіз",
        "ойна ойнады ойнамады ойнайды ойнамайды ойнап ойнау ойнаған ойнайық ойнаңыз",
        "сөйле сөйледі сөйлемеді сөйлейді сөйлемейді сөйлеп сөйлеу сөйлеген сөйлейік сөйлеңіз",
        "же жеді жемеді жейді жемейді жеп жеу жеген жейік жеңіз",
        "қой қойды қоймады қояды қоймайды қойып қою қойған қояйық қойыңыз",
        "сүй сүйді сүймеді сүйеді сүймейді сүйіп сүю сүйген сүйейік сүйіңіз",
        "ки киді кимеді киеді кимейді киіп кию киген киейік киіңіз",
        "жу жуды жумады жуады жумайды жуып жуу жуған жуайық жуыңыз",
    ],
)
def test_verbs(forms):
    verb, past, not_past, present, not_present, converb, name, perfect, let_us, please = forms.split()
    assert [grammar.past(verb), grammar.past(verb, negative=True)] == [past, not_past]
    assert [grammar.present(verb), grammar.present(verb, negative=True)] == [present, not_present]
    assert [grammar.converb(verb), grammar.verbal_noun(verb), grammar.perfect(verb)] == [converb, name, perfect]
    assert [grammar.let_us(verb), grammar.please(verb)] == [let_us, please]


@pytest.mark.parametrize(
    ("tense", "verb", "forms"),
    [
        (grammar.past, "көр", "көрдім көрдің көрдіңіз көрді көрдік көрді"),
        (grammar.past, "айт", "айттым айттың айттыңыз айтты айттық айтты"),
        (grammar.present, "бар", "барамын барасың барасыз барады барамыз барады"),
        (grammar.present, "сөйле", "сөйлеймін сөйлейсің сөйлейсіз сөйлейді сөйлейміз сөйлейді"),
        (grammar.present, "оқы", "оқимын оқисың оқисыз оқиды оқимыз оқиды"),
        (grammar.perfect, "кет", "кеткенмін кеткенсің кеткенсіз кеткен кеткенбіз кеткен"),
        (grammar.conditional, "кел", "келсем келсең келсеңіз келсе келсек келсе"),
        (grammar.conditional, "бар", "барсам барсаң барсаңыз барса барсақ барса"),
        (grammar.stative, "жатыр", "жатырмын жатырсың жатырсыз жатыр жатырмыз жатыр"),
        (grammar.stative, "жүр", "жүрмін жүрсің жүрсіз жүр жүрміз жүр"),
    ],
)
def test_persons(tense, verb, forms):
    assert [tense(verb, person) for person in PERSONS] == forms.split()


def test_negative_persons():
    assert [grammar.past("бар", person, negative=True) for person in PERSONS[:3]] == ["бармадым", "бармадың", "бармадыңыз"]
    assert [grammar.present("кел", person, negative=True) for person in ("1", "1p")] == ["келмеймін", "келмейміз"]
    assert grammar.perfect("жаз", "1p", negative=True) == "жазбағанбыз"
    assert grammar.perfect("жүргіз", "2", negative=True) == "жүргізбегенсің"


def test_need_and_wish():
    need = [grammar.suffix(grammar.verbal_noun(verb), grammar.OWNERS["1"]) for verb in ("бар", "оқы", "қой", "ки")]
    assert need == ["баруым", "оқуым", "қоюым", "киюім"]
    wish = [grammar.suffix(grammar.suffix("бар", "ГЫ"), grammar.OWNERS[person]) for person in PERSONS[:5]]
    assert wish == ["барғым", "барғың", "барғыңыз", "барғысы", "барғымыз"]
    assert [grammar.suffix(verb, "ГЫ") for verb in ("айт", "кет", "же")] == ["айтқы", "кеткі", "жегі"]


def test_small_words_agree_with_the_one_before():
    asked = [grammar.question(word) for word in ("келді", "барасыз", "кітап", "көрдің", "оқи", "барды", "қар", "мұғалім")]
    assert asked == ["келді ме", "барасыз ба", "кітап па", "көрдің бе", "оқи ма", "барды ма", "қар ма", "мұғалім бе"]
    assert [grammar.together(noun) for noun in ("нан", "қыз", "сүт", "ана", "журналист")] == [
        "нан мен", "қыз бен", "сүт пен", "ана мен", "журналист пен"
    ]  # fmt: skip
    better = [grammar.suffix(word, "(Ы)рАК") for word in ("жақсы", "үлкен", "қымбат", "әдемі", "биік")]
    assert better == ["жақсырақ", "үлкенірек", "қымбатырақ", "әдемірек", "биігірек"]


def test_names_and_cities():
    to = {name: grammar.inflect(name, "dative") for name in ("Юлия", "Ғали", "Мәскеу", "Париж", "Айгүл", "Ақтау", "Іңкәр", "Яков")}
    assert list(to.values()) == ["Юлияға", "Ғалиға", "Мәскеуге", "Парижге", "Айгүлге", "Ақтауға", "Іңкәрге", "Яковқа"]
    assert grammar.inflect("Бақыт", "genitive") == "Бақыттың"


def test_lengths_and_marks(sentences):
    lengths = Counter(len(re.findall(r"\w+", sentence)) for sentence in sentences)
    assert set(lengths) == set(range(3, 10))
    assert len(set(sentences)) > 1900
    for sentence in sentences:
        assert sentence[0].isupper()
        assert sentence[-1] in ".?!"
        assert not re.search(r"\s{2}|\s[.,?!]|[_\d\n]", sentence)


def test_the_normalizer_changes_no_letter(sentences):
    for sentence, normalized in zip(sentences, Normalizer("kk")(sentences), strict=True):
        assert normalized == " ".join(re.findall(r"\w+", sentence.lower()))
        assert set(normalized) <= set(ALPHABET + " ")


def test_harmony_of_letters(sentences):
    # within a word қ and ғ never stand before a front vowel; қонақүй is a compound
    assert not re.findall(r"\w*[қғ][әеіөү]\w*", " ".join(sentences).lower().replace("қонақүй", ""))


def test_every_letter_occurs(sentences):
    assert set(ALPHABET) <= set("".join(sentences).lower())


def test_espeak_reads_words_as_kazakh(sentences):
    read = Phonemizer("kk").phonemize(sentences)
    assert not any(read.switched)
    for sentence, phonemes in zip(sentences, read.targets, strict=True):
        words = re.findall(r"\w+", sentence)
        # a letter that is spelled out would be a word more or longer; щ, ц, и, ё, ю and я are two symbols, т and ш together one
        assert len(words) == phonemes.count("|") + 1
        for word, spoken in zip(words, phonemes.split("|"), strict=True):
            assert len(word) - 1 <= len(spoken.split()) <= len(word) + len(re.findall("[щциёюя]", word.lower())), (word, spoken)
