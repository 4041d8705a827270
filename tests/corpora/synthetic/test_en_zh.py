"""English and Mandarin sentences of the embedded corpora: forms of words, letters, lengths and what espeak-ng makes of them."""

import re
from collections import Counter
from random import Random

import pytest

from hfasr import Normalizer, Phonemizer
from hfasr.corpora.synthetic import en, zh
from hfasr.corpora.synthetic import en_grammar as grammar
from hfasr.corpora.synthetic.speech import words_of

SENTENCES = 2000
# who knows Mandarin says these with the nouns
MEASURES = {
    "本": "书 小说", "张": "照片 画 地图 报纸 桌子 床", "封": "信", "条": "新闻 裤子 裙子 河 路 鱼 狗", "件": "衣服",
    "双": "鞋", "台": "电脑",
    "辆": "车 汽车 自行车", "把": "雨伞 椅子", "杯": "茶 水 咖啡 牛奶", "碗": "米饭 面条", "块": "羊肉 牛肉", "匹": "马", "头": "牛 羊",
    "只": "猫 鸟", "家": "商店 饭馆 医院 银行", "位": "老师 医生 客人 司机 先生 学生 工人",
    "个": "学生 孩子 工人 同学 故事 电影 字 名字 苹果 面包 手机 包 杯子 碗 球 公园 图书馆 动物园",
}  # fmt: skip


@pytest.fixture(scope="module")
def english():
    random = Random(0)
    return [en.sentence(random) for _ in range(SENTENCES)]


@pytest.fixture(scope="module")
def mandarin():
    random = Random(0)
    return [zh.sentence(random) for _ in range(SENTENCES)]


def letters(sentence: str) -> str:
    return "".join(char for char in sentence if char.isalpha())


# English


def test_plurals():
    nouns = "box glass watch dish bus dress story cherry pony toy key monkey boy child man woman mouse goose ox sheep fish wolf knife shelf"
    forms = "boxes glasses watches dishes buses dresses stories cherries ponies toys keys monkeys boys children men women mice geese oxen"
    assert [grammar.plural(noun) for noun in nouns.split()] == [*forms.split(), "sheep", "fish", "wolves", "knives", "shelves"]
    assert [grammar.plural(noun) for noun in ("potato", "radio", "photo", "orange", "peach")] == [
        "potatoes", "radios", "photos", "oranges", "peaches",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "he", "past", "done", "doing"),
    [
        ("be", "is", "was", "been", "being"), ("have", "has", "had", "had", "having"), ("do", "does", "did", "done", "doing"),
        ("go home", "goes home", "went home", "gone home", "going home"), ("write", "writes", "wrote", "written", "writing"),
        ("carry", "carries", "carried", "carried", "carrying"), ("play", "plays", "played", "played", "playing"),
        ("wash", "washes", "washed", "washed", "washing"), ("catch", "catches", "caught", "caught", "catching"),
        ("fix", "fixes", "fixed", "fixed", "fixing"), ("plan", "plans", "planned", "planned", "planning"),
        ("jog", "jogs", "jogged", "jogged", "jogging"), ("swim", "swims", "swam", "swum", "swimming"),
        ("run", "runs", "ran", "run", "running"), ("shut", "shuts", "shut", "shut", "shutting"),
        ("forget", "forgets", "forgot", "forgotten", "forgetting"), ("open", "opens", "opened", "opened", "opening"),
        ("visit", "visits", "visited", "visited", "visiting"), ("eat", "eats", "ate", "eaten", "eating"),
        ("see", "sees", "saw", "seen", "seeing"), ("dance", "dances", "danced", "danced", "dancing"),
        ("freeze", "freezes", "froze", "frozen", "freezing"), ("draw", "draws", "drew", "drawn", "drawing"),
        ("buy", "buys", "bought", "bought", "buying"), ("enjoy", "enjoys", "enjoyed", "enjoyed", "enjoying"),
        ("study", "studies", "studied", "studied", "studying"), ("question", "questions", "questioned", "questioned", "questioning"),
        ("borrow", "borrows", "borrowed", "borrowed", "borrowing"), ("hope", "hopes", "hoped", "hoped", "hoping"),
        ("hop", "hops", "hopped", "hopped", "hopping"), ("stop", "stops", "stopped", "stopped", "stopping"),
        ("help", "helps", "helped", "helped", "helping"), ("ski", "skis", "skied", "skied", "skiing"),
        ("tie", "ties", "tied", "tied", "tying"),
        ("wake up", "wakes up", "woke up", "woken up", "waking up"), ("hide", "hides", "hid", "hidden", "hiding"),
        ("sell", "sells", "sold", "sold", "selling"), ("drink", "drinks", "drank", "drunk", "drinking"),
    ],
)  # fmt: skip
def test_verbs(verb, he, past, done, doing):
    assert [grammar.third(verb), grammar.past(verb), grammar.participle(verb), grammar.ing(verb)] == [he, past, done, doing]


def test_articles_and_possessives():
    for phrase in ("orange", "old box", "empty jar", "umbrella", "hour", "ox", "engineer", "angry king"):
        assert grammar.with_article(phrase) == f"an {phrase}"
    for phrase in ("box", "new orange", "university", "one", "uniform", "horse", "yellow egg", "European"):
        assert grammar.with_article(phrase) == f"a {phrase}"
    owners = ("Max", "boss", "teachers", "children", "foxes", "Alice")
    assert [grammar.possessive(owner) for owner in owners] == ["Max's", "boss's", "teachers'", "children's", "foxes'", "Alice's"]


def test_english_agrees(english):
    for sentence in english:
        text = sentence.lower()
        assert not re.search(r"\ba [aeio]|\ban [^aeiouh]", text), sentence
        assert text.endswith("?") or not re.search(r"\b(?:he|she|it) (?:are|were|have|do|don't|haven't)\b", text), sentence
        assert not re.search(r"^(?:they|we|you|i) (?:is|was|has|does|doesn't|hasn't)\b(?<!^i was)", text), sentence
        assert not re.search(r"\b(?:don't|doesn't|didn't) \w+(?:ed|ing)\b(?<!need)(?<!feed)(?<!bring)(?<!sing)", text), sentence
        assert not re.search(r"\bi (?:is|are|were|has|does)\b", text), sentence
        assert not re.search(r"n't(?: \w+)? some\b", text), sentence


def test_english_sentences(english):
    lengths = [len(sentence.split()) for sentence in english]
    assert min(lengths) >= 3
    assert max(lengths) <= 9
    assert len({sentence.lower() for sentence in english}) > 1950
    assert all(sentence[0].isupper() and sentence[-1] in ".?!" and not set("_\t\n") & set(sentence) for sentence in english)
    assert all(re.fullmatch(r"[A-Za-z]+(?:[' ,]+[A-Za-z]+|')*[.?!]", sentence) for sentence in english)
    assert {"don't", "i'm", "there's", "can't", "won't", "let's"} <= {word for sentence in english for word in sentence.lower().split()}


def test_every_english_letter_is_learnt(english):
    counts = Counter("".join(english[:900]).lower())
    assert min(counts[letter] for letter in "abcdefghijklmnopqrstuvwxyz'") > 40


def test_english_normalizes_to_itself(english):
    marks = str.maketrans("", "", ".,?!")
    assert Normalizer("en")(english) == [sentence.translate(marks).lower() for sentence in english]
    assert not any(Phonemizer("en-us").phonemize(english[:300]).switched)


# Mandarin


def test_nouns_have_their_measure_words(mandarin):
    right = {(measure, noun) for measure, words in MEASURES.items() for noun in words.split()}
    nouns = {noun for _, noun in right}
    assert {tuple(entry.split("/")[::-1]) for words in words_of("zh").values() for entry in words if "/" in entry} <= right
    longest = "|".join(sorted(nouns, key=len, reverse=True))
    adjectives = "新|旧|大|小|红|白|黑|热|漂亮的|好"
    counted = re.compile(f"(?:[一两三四五六七八九十几]|[这那])({'|'.join(MEASURES)})(?:{adjectives})?({longest})(?!们)")
    found = [match.groups() for sentence in mandarin for match in counted.finditer(sentence)]
    assert len(found) > 500
    assert set(found) - right == set()
    assert {measure for measure, _ in found} == set(MEASURES)


def test_two_is_liang_before_measure_words_only(mandarin):
    text = "\n".join(mandarin)
    assert "两" in text
    assert not re.search(f"(?<!十)二[{''.join(MEASURES)}]", text)
    assert not re.search("两[月号十]|[十]两|星期两", text)


def test_she_follows_a_woman(mandarin):
    with_she = [sentence for sentence in mandarin if "她" in sentence]
    assert with_she
    assert all(re.search("(?:妈妈|姐姐|妹妹|奶奶|女儿)[^。]*她", sentence) for sentence in with_she)
    assert not any("它" in sentence for sentence in mandarin)


def test_mandarin_uses_its_grammar(mandarin):
    for part in (
        "了。",
        "过",
        "正在",
        "把",
        "比",
        "吗？",
        "什么",
        "哪里",
        "谁",
        "因为",
        "如果",
        "虽然",
        "一起",
        "昨天",
        "图书馆",
        "没有",
        "得很",
    ):
        assert sum(part in sentence for sentence in mandarin) >= 8, part


def test_mandarin_sentences(mandarin):
    lengths = [len(letters(sentence)) for sentence in mandarin]
    assert min(lengths) >= 5
    assert max(lengths) <= 16
    assert len(set(map(letters, mandarin))) > 1950
    assert all(re.fullmatch("[\u4e00-\u9fff]+(?:[，、？][\u4e00-\u9fff]+)*[。？！]", sentence) for sentence in mandarin)


def test_few_mandarin_characters_are_rare():
    rare = []
    for seed in range(3):
        random = Random(seed)
        drawn = dict.fromkeys(zh.sentence(random) for _ in range(930))
        counts = Counter("".join(map(letters, list(drawn)[:900])))
        assert 300 < len(counts) < 400
        rare.append(sum(count < 5 for count in counts.values()) / len(counts))
    assert sum(rare) / len(rare) < 0.05


def test_espeak_reads_all_mandarin(mandarin):
    phonemizer = Phonemizer("cmn")
    assert not any(phonemizer.phonemize(mandarin).switched)
    # these, which the sentences avoid, show what a misreading looks like
    assert all(phonemizer.phonemize(["你在哪儿？", "那儿有书。", "几个儿子？"]).switched)
    text = "\n".join(mandarin)
    assert not re.search("[哪那个]儿|几点|便宜|说中文|非常|朵|生还|生为|了手|和面|半上|[两三四五六七八九十几这那]只", text)


def test_mandarin_normalizes_to_itself(mandarin):
    assert Normalizer("zh")(mandarin) == list(map(letters, mandarin))
