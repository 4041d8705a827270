"""Mandarin sentences for the embedded corpus: patterns of simple sentences, filled from the words in zh.txt.

The words are few and stand in many patterns, because a small model must learn each character from an hour and a half of speech
and has nothing but the sound to go by. So characters that sound alike are avoided where another word does: 他 stands for all
third persons, 她 only after a word for a woman, 它 nowhere.

What espeak-ng 1.52 misreads is left out: 儿 after 哪, 那 and 个 (as English), 只 after all but 一 (zhǐ), 几点 (jī), 便宜 (biànyí), 说中文
and 非常好 (zhòng, hào), the verbs 教, 弹 and 种 (jiào, dàn, zhǒng), and the measure word 朵 (without tone).
"""

import re
from random import Random

from hfasr.corpora.synthetic.speech import Speech, words_of

_NUMBERS = "一两三四五六七八九十"
_DIGITS = "一二三四五六七八九十"
_WEEK = "一二三四五六天"

# verb: sections of its objects
_TRANSITIVE = {
    "看": ["watched"], "读": ["reading"], "写": ["written"], "吃": ["food"], "喝": ["drink"], "穿": ["clothes"],
    "买": ["thing", "clothes", "food", "vehicle"], "找": ["thing", "clothes"], "拿": ["thing"], "带": ["thing", "food", "drink"],
    "借": ["lent", "vehicle"], "洗": ["clothes", "vehicle"], "卖": ["clothes", "food", "vehicle"], "画": ["animal"], "用": ["tool"],
}  # fmt: skip
# verb, what follows it when it is done, sections of its objects
_DONE = [
    ("看", "完", ["watched"]), ("写", "完", ["written"]), ("读", "完", ["reading"]), ("吃", "完", ["food"]), ("喝", "完", ["drink"]),
    ("洗", "干净", ["clothes", "vehicle"]), ("找", "到", ["thing"]), ("拿", "走", ["thing"]), ("拿", "来", ["thing", "furniture"]),
    ("借", "走", ["lent", "vehicle"]), ("卖", "完", ["food"]), ("洗", "干净", ["clothes"]),
]  # fmt: skip
_MANNERS = [("跑", "快"), ("写", "漂亮"), ("唱", "好"), ("跳", "高"), ("走", "慢"), ("睡", "好"), ("跳", "好")]
_DIRECTIONS = ["旁边", "前面", "后面", "左边", "右边"]
# words that espeak-ng finds across the border of two others, and reads with another sound
_MISREAD = re.compile("生还|生为|了手|和面")


class _Speech(Speech):
    """Draws words and phrases, and puts them into sentences."""

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def entry(self, *sections: str) -> str:
        """A noun and its measure word."""
        return self.random.choice(words_of("zh")[self.random.choice(sections)])

    def word(self, *sections: str) -> str:
        return self.entry(*sections).split("/")[0]

    def several(self, count: int, section: str) -> list[str]:
        """Different entries of one section."""
        return self.random.sample(sorted(set(words_of("zh")[section])), count)

    def relative(self) -> str:
        return f"{self.pick('我', '你', '他')}{self.word('kin')}"

    def who(self) -> str:
        kind = self.random.random()
        if kind < 0.25:
            return self.pick("我", "你", "他", "我们", "他们", "大家")
        if kind < 0.55:
            return self.relative()
        return self.word("name") if kind < 0.8 else self.pointed(self.entry("person"))

    def owner(self) -> str:
        return self.pick(self.pick("我", "你", "他"), self.word("name"), self.relative())

    def pointed(self, entry: str) -> str:
        noun, measure = entry.split("/")
        if measure == "只":  # which espeak-ng reads wrongly after 这
            return f"{self.pick('我', '你', '他')}的{noun}"
        return f"{self.pick('这', '那')}{measure}{noun}"

    def counted(self, entry: str, adjective: str = "") -> str:
        noun, measure = entry.split("/")
        number = "一" if measure == "只" else self.pick(*_NUMBERS, "一", "几")
        return f"{number}{measure}{adjective}{noun}"

    def described(self, section: str) -> str:
        """Some things of a section, in half of the cases with an adjective."""
        adjectives = f"{section}_adjective"
        return self.counted(self.entry(section), self.maybe(self.word(adjectives)) if adjectives in words_of("zh") else "")

    def action(self) -> tuple[str, str]:
        """A verb and the section of its object."""
        verb = self.pick(*_TRANSITIVE)
        return verb, self.pick(*_TRANSITIVE[verb])

    def doing(self) -> str:
        """What somebody does: a verb with all that belongs to it."""
        kind = self.random.random()
        if kind < 0.3:
            verb, section = self.action()
            return f"{verb}{self.word(section)}"
        if kind < 0.5:
            return f"去{self.word('place')}"
        if kind < 0.65:
            return f"坐{self.word('ride')}去{self.word('city')}"
        if kind < 0.8:
            return f"在{self.word('indoors')}{self.word('study')}"
        return f"在{self.word('outdoors')}{self.word('sport')}"

    def hour(self) -> str:
        return f"{self.word('hour')}点{self.maybe('半')}"

    def side(self) -> str:
        return self.pick("上", "下面", *_DIRECTIONS)

    def judged(self) -> tuple[str, str]:
        """A section of things and a quality that suits them."""
        section = self.pick(
            "reading", "reading", "watched", "clothes", "thing", "vehicle", "food", "drink", "person", "animal", "landscape"
        )
        return section, self.word(f"{section}_judged")


def _past_statement(s: _Speech) -> str:
    (verb, section), time, who = s.action(), s.maybe(s.word("past_time"), 0.6), s.who()
    return f"{s.pick(time + who, who + time)}{verb}了{s.described(section)}。"


def _not_done(s: _Speech) -> str:
    return f"{s.word('past_time')}{s.who()}{s.pick('没', '没有', '也没')}{s.doing()}。"


def _future(s: _Speech) -> str:
    time, who, will = s.word("future_time"), s.who(), s.pick("想", "要", "会", "可以", "不想", "不能", "也要")
    return f"{s.pick(time + who, who + time)}{will}{s.doing()}。"


def _all(s: _Speech) -> str:
    all_of = s.pick("我们", "他们", "大家", "孩子们", "同学们")
    return f"{s.maybe(s.word('future_time'))}{all_of}都{s.pick('想', '要', '会')}{s.doing()}。"


def _habit(s: _Speech) -> str:
    return f"{s.who()}{s.word('often')}{s.doing()}。"


def _in_progress(s: _Speech) -> str:
    verb, section = s.action()
    indoors, outdoors = f"在{s.word('indoors')}{s.word('study')}", f"在{s.word('outdoors')}{s.word('sport')}"
    return f"{s.maybe('现在', 0.4)}{s.who()}{s.pick(indoors, outdoors, f'正在{verb}{s.word(section)}')}。"


def _experience(s: _Speech) -> str:
    verb, section = s.random.choice(
        [("看", "watched"), ("读", "reading"), ("吃", "food"), ("喝", "drink"), ("去", "city"), ("去", "country")]
    )
    return f"{s.who()}{s.pick('没', '还没', '以前没', '以前', '已经')}{verb}过{s.word(section)}。"


def _ability(s: _Speech) -> str:
    if s.random.random() < 0.8:
        return f"{s.who()}{s.pick('会', '不会', '已经会', '想学', '能', '正在学', '也会', '常常')}{s.word('skill')}。"
    return f"{s.owner()}的{s.pick('中文', '英文')}说得{s.pick('很好', '不好', '真快', '太慢了')}。"


def _manner(s: _Speech) -> str:
    verb, how = s.random.choice(_MANNERS)
    return f"{s.maybe(s.word('past_time'), 0.3)}{s.who()}{verb}得{s.pick('很', '不太', '真', '最', '更')}{how}。"


def _liking(s: _Speech) -> str:
    feel = s.pick("喜欢", "不喜欢", "很喜欢", "也喜欢", "最喜欢", "不爱", "爱", "最爱", "更喜欢")
    return f"{s.maybe(s.word('season'), 0.3)}{s.who()}{feel}{s.doing()}。"


def _description(s: _Speech) -> str:
    section, quality = s.judged()
    return f"{s.pick('', '', '我觉得')}{s.pointed(s.entry(section))}{s.word('degree')}{quality}。"


def _possession(s: _Speech) -> str:
    section = s.pick("clothes", "thing", "vehicle")
    return f"{s.owner()}的{s.word(section)}{s.word('degree')}{s.word(section + '_judged')}。"


def _exclamation(s: _Speech) -> str:
    section, quality = s.judged()
    thing = f"{s.pointed(s.entry(section))}太{quality}了！"
    return s.pick(thing, f"{s.word('city')}的{s.word('place')}{s.pick('真', '多么')}{s.word('place_judged')}！")


def _distance(s: _Speech) -> str:
    one, two = s.several(2, "place")
    return s.pick(
        f"{one}离{s.pick(two, s.owner() + '家', '这里')}{s.pick('很', '不', '太')}{s.pick('远', '近')}。",
        f"{s.word('city')}的{one}{s.word('degree')}{s.word('place_judged')}。",
        f"{one}比{two}{s.pick('远', '近', '大', '干净')}。",
    )


def _comparison(s: _Speech) -> str:
    section, quality = s.judged()
    one, two = s.several(2, section)
    here = s.pick("今天", "今年", "这里", "上海", "现在")
    fast, slow = s.several(2, "ride")
    return s.pick(
        f"{s.relative()}比{s.word('name')}{s.maybe('更', 0.4)}{s.word('person_judged')}。",
        f"{here}比{s.pick('昨天', '去年', '北京', '以前', '南京')}{s.maybe('更')}{s.pick('冷', '热')}。",
        f"{s.maybe('我觉得')}{fast}{s.pick('比', '没有')}{slow}{s.pick('快', '慢', '贵')}。",
        f"{s.pointed(one)}{s.pick('比', '没有')}{s.pointed(two)}{quality}。",
    )


def _sameness(s: _Speech) -> str:
    section, quality = s.judged()
    one, two = s.several(2, section)
    people = f"{s.word('name')}{s.pick('跟', '和')}{s.relative()}一样{s.word('person_judged')}。"
    return s.pick(people, f"{s.pointed(one)}{s.pick('跟', '和')}{s.pointed(two)}一样{quality}。")


def _age(s: _Speech) -> str:
    years = f"{s.pick('', '十', '二十', '三十')}{s.pick(*_DIGITS[:9])}岁"
    one, two = (s.pick("我", "你", "他") + name for name in s.several(2, "sibling"))
    return s.pick(f"{s.pick(one, s.word('name'))}今年{years}{s.maybe('了')}。", f"{one}比{two}大{s.pick(*_NUMBERS)}岁。")


def _walk(s: _Speech) -> str:
    one, two = s.several(2, "place")
    minutes = s.pick(*_DIGITS[4:], "二十", "三十")
    return s.pick(
        f"从{one}到{two}要走{minutes}分钟。", f"{s.who()}等了{minutes}分钟。", f"{one}离{s.pick('这里', two)}有{minutes}分钟的路。"
    )


def _understanding(s: _Speech) -> str:
    what = s.pick("这个故事", "那个故事", "你的话", "他的话", "你的名字", "这个字", "这条新闻", "那条新闻", "英文歌")
    return f"{s.who()}{s.pick('没听懂', '听不懂', '听懂了', '已经听懂了')}{what}。"


def _season(s: _Speech) -> str:
    what = s.pick(f"{s.word('degree')}{s.pick('冷', '热', '漂亮')}", f"{s.pick('常常', '不常')}{s.pick('下雨', '下雪', '刮风')}")
    return s.pick(
        f"{s.word('city')}的{s.word('season')}{what}。",
        f"{s.word('country')}的{s.word('season')}{what}吗？",
        f"{s.word('season')}的时候，{s.word('city')}{what}。",
    )


def _ba_done(s: _Speech) -> str:
    verb, result, sections = s.random.choice(_DONE)
    what = f"{s.maybe(s.owner() + '的')}{s.word(*sections)}"
    return s.pick(
        f"{s.who()}{s.pick('', '已经')}把{what}{verb}{result}了。", f"请{s.maybe('你')}把{what}{verb}{result}{s.pick('吧', '')}！"
    )


def _ba_place(s: _Speech) -> str:
    where = s.pick(f"{s.word('furniture')}{s.side()}", s.pick("家里", "车上", "包里", "教室里", "门后面"))
    what = f"把{s.word('thing', 'paper', 'clothes')}放在{where}"
    return s.pick(f"{s.who()}{s.pick('已经', '')}{what}了。", f"请{what}吧。", f"{s.pick('请别', '不要', '别')}{what}。")


def _ba_open(s: _Speech) -> str:
    when = s.pick("", "太热了，", "太冷了，", "睡觉以前，", "出门以前，")
    what = f"把{s.pick('门', '电脑', '电视', '手机')}{s.pick('打开', '关上')}"
    return f"{when}{s.pick('请', '请你', '别忘了', s.word('name') + '，请')}{what}{s.pick('。', '吧。', '！')}"


def _existence(s: _Speech) -> str:
    inside = f"{s.word('furniture')}{s.side()}{s.pick('有', '放着', '还有')}"
    return s.pick(
        f"{inside}{s.described(s.pick('thing', 'food', 'drink'))}。",
        f"{s.pick(s.word('outdoors'), '动物园里', '路边', '门前')}{s.pick('有', '来了')}{s.described('animal')}。",
    )


def _position(s: _Speech) -> str:
    one, two = s.several(2, "place")
    beside = s.counted(s.entry("building", "landscape"), s.maybe(s.pick("大", "小", "新")))
    return s.pick(
        f"{s.owner()}的{s.word('thing')}{s.pick('在', '不在')}{s.word('furniture')}{s.side()}。",
        f"{one}在{two}{s.maybe('的', 0.3)}{s.pick(*_DIRECTIONS)}。",
        f"{s.pick(one, s.owner() + '家')}{s.pick(*_DIRECTIONS)}有{beside}。",
    )


def _list(s: _Speech) -> str:
    section, verb = s.random.choice([("food", "买"), ("clothes", "买"), ("animal", "看见"), ("animal", "画"), ("drink", "喝")])
    one, two, three = (entry.split("/")[0] for entry in s.several(3, section))
    return f"{s.who()}{verb}了{one}、{two}{s.pick('和', '跟')}{three}。"


def _family(s: _Speech) -> str:
    who, place = s.owner(), s.pick(s.word("indoors"), s.word("city"), s.word("country"))
    return s.pick(
        f"{s.relative()}是{s.pick('一位', '', '一位好')}{s.word('job')}。",
        f"{who}在{place}{s.pick('上班', '学习')}。",
        f"{who}{s.pick('', '也', '不')}是{s.word('country')}人。",
        f"{who}有{s.pick('一', '两', '三')}个{s.word('sibling')}。",
    )


def _together(s: _Speech) -> str:
    return f"{s.maybe(s.word('future_time'), 0.4)}{s.who()}{s.pick('和', '跟')}{s.relative()}一起{s.doing()}。"


def _travel(s: _Speech) -> str:
    (start, end), ride = s.several(2, "city"), s.word("ride")
    return s.pick(
        f"{s.word('past_time')}{s.who()}坐{s.pick(ride + '去了' + end, '飞机去了' + s.word('country'))}。",
        f"{s.who()}从{start}坐{ride}到{end}。",
        f"从{start}到{end}坐{ride}要{s.pick(*_NUMBERS)}个{s.maybe('半')}小时。",
        f"{s.who()}{s.word('past_time')}从{s.word('city', 'place', 'country')}回来了。",
        f"{s.pick('火车', '汽车', '船')}{s.hour()}{s.pick('开', '到')}，{s.pick('别忘了', '我们走吧', '快一点', '我等你')}。",
    )


def _routine(s: _Speech) -> str:
    return f"{s.who()}{s.maybe('每天', 0.6)}{s.hour()}{s.word('routine')}。"


def _date(s: _Speech) -> str:
    day = f"{s.pick(*_DIGITS, '十一', '十二')}月{s.pick('', '十', '二十')}{s.pick(*_DIGITS[:9])}号"
    return s.pick(
        f"今天是{day}，星期{s.pick(*_WEEK)}。",
        f"{s.owner()}的生日是{day}。",
        f"星期{s.pick(*_WEEK)}{s.hour()}{s.who()}{s.pick('有课', '没有课', '要上班', '很忙')}。",
    )


def _price(s: _Speech) -> str:
    entry = s.entry("clothes", "thing", "food", "vehicle", "drink")
    hundreds = f"{s.pick(*_NUMBERS[:9])}百"
    amount = s.pick(f"{s.pick(*_DIGITS[1:9])}十", hundreds)
    return s.pick(f"{s.pointed(entry)}{amount}块钱。", f"{s.counted(entry)}{amount}块钱。", f"请问，{s.pointed(entry)}多少钱？")


def _weather_report(s: _Speech) -> str:
    return s.pick(
        f"{s.word('past_time')}{s.word('city')}{s.pick('下雨', '下雪', '刮风', '刮大风')}了。",
        f"{s.word('future_time')}{s.word('city')}会{s.pick('下大雨', '下雪', '刮大风')}{s.pick('。', '吗？')}",
        f"{s.pick('天气', s.word('season'), s.word('city'))}越来越{s.word('weather')}了，{s.pick('太阳', '月亮', '太阳', '太阳')}出来了。",
    )


def _condition(s: _Speech) -> str:
    return (
        f"如果{s.maybe(s.word('future_time'))}{s.word('weather_event')}，{s.pick('我', '我们', '他们')}就{s.maybe('不', 0.3)}{s.doing()}。"
    )


def _reason(s: _Speech) -> str:
    cause = s.pick(s.word("weather_event"), "病了", "没有钱", "太忙", "太累", "手疼")
    return f"因为{cause}，所以{s.who()}{s.pick('没', '不想', '不能')}{s.doing()}。"


def _contrast(s: _Speech) -> str:
    bad = s.pick("下雨", "下雪", "刮风", "天气不好", "很累", "很忙", "头疼")
    return f"虽然{bad}，但是{s.who()}还{s.pick('在', '想', '要')}{s.word('sport')}。"


def _meanwhile(s: _Speech) -> str:
    when = s.pick(s.word("routine"), s.word("study"), s.pick("下雨", "下雪", "刮风", "天气好"))
    return f"{when}的时候，{s.who()}{s.pick('在', '喜欢', '常常', '不能')}{s.word('sport', 'study')}。"


def _two_actions(s: _Speech) -> str:
    one, two = s.random.sample(["唱歌", "跳舞", "走路", "听音乐", "喝茶", "看书", "做饭", "说话", "洗衣服"], 2)
    return s.pick(f"{s.who()}一边{one}，一边{two}。", f"{s.who()}先{s.word('routine')}，然后{s.doing()}。")


def _gift(s: _Speech) -> str:
    what = s.described(s.pick("thing", "clothes", "paper"))
    return f"{s.maybe(s.word('past_time'), 0.3)}{s.who()}{s.pick('送给', '送给', '带给')}{s.relative()}{what}。"


def _doing_for(s: _Speech) -> str:
    what = s.pick("打电话", f"买{s.word('food')}", "做饭", "洗衣服", "唱歌", f"找{s.word('thing')}", "画画", "写信")
    return f"{s.maybe(s.word('future_time'))}{s.who()}{s.pick('要', '可以', '想')}{s.pick('给', '帮')}{s.relative()}{what}。"


def _quotation(s: _Speech) -> str:
    whose, woman = s.pick("我", "你", "他"), s.word("woman")
    return s.pick(
        f"{whose}{woman}说她{s.pick('很累', '不累', '很忙', '病了', '头疼', '真高兴')}{s.maybe('，想' + s.word('routine'), 0.4)}。",
        f"{whose}{woman}{s.pick('觉得', '说')}她的{s.word('clothes', 'thing')}{s.pick('太旧了', '很漂亮', '太贵了', '真好看')}。",
        f"{s.who()}{s.pick('说', '知道')}{s.word('future_time')}{s.pick('会', '要')}{s.pick('下雨', '下雪', '刮风')}。",
    )


def _request(s: _Speech) -> str:
    verb, section = s.action()
    return s.pick(
        f"请给我{s.counted(s.entry('food', 'drink', 'thing', 'paper'))}。",
        f"我们{s.maybe(s.word('future_time'))}{s.doing()}{s.pick('吧！', '，好吗？', '，可以吗？')}",
        f"{s.maybe(s.word('name') + '，')}别忘了{verb}{s.word(section)}。",
        f"{s.word('name')}，请在{s.word('indoors', 'place')}等{s.pick('我', '我们', '他')}。",
    )


def _greeting(s: _Speech) -> str:
    return s.pick(
        f"{s.word('name')}，祝你{s.pick('生日快乐', '新年快乐', '天天快乐')}！",
        f"谢谢{s.pick('你', s.word('name'))}{s.pick('帮我', '给我')}{s.pick('买', '找')}的{s.word('thing', 'food')}。",
        f"对不起，{s.who()}{s.pick('不知道', '忘了')}{s.pick('你', '他')}的名字。",
        f"对不起，{s.who()}没听见{s.pick('你', '他')}的话。",
        f"对不起，{s.who()}{s.pick('没看见', '忘了', '没带')}你的{s.word('thing', 'clothes')}。",
    )


def _name(s: _Speech) -> str:
    name = s.pick("小明", "小红", "小雪", "王明", "李红", "张明")
    return s.pick(
        f"{s.pick('我', '他', s.relative())}叫{name}，是{s.word('job')}。",
        f"请问，{s.pick('你', '他', s.relative())}叫什么名字？",
        f"{s.relative()}的名字{s.pick('叫', '是')}{name}。",
    )


def _open_question(s: _Speech) -> str:
    (verb, section), entry, who = s.action(), s.entry("thing", "clothes", "paper"), s.who()
    noun, measure = s.entry("food", "thing", "clothes", "drink").split("/")
    return s.pick(
        f"{who}{s.maybe(s.word('future_time'))}想{s.pick('吃', '喝', '买', '看', '做', '学', '用')}什么？",
        f"请问，{s.word('place')}在哪里？{s.maybe('离这里远吗？')}",
        f"{who}{s.pick('现在', '明天', '晚上')}{s.pick('在', '去')}哪里{s.pick('玩', '吃饭', '上课', '上班', '游泳', '睡觉')}？",
        f"{s.pointed(entry)}是谁的？{s.maybe('是你的吗？', 0.3)}",
        f"谁{s.pick('会', '想', '能', '在')}{s.word('skill', 'sport')}？",
        f"谁{s.maybe(s.word('past_time'))}{verb}了{s.pointed(s.entry(section))}？",
        f"{who}为什么{s.pick('不', '没')}{s.doing()}？",
        f"{who}{s.pick('明天', '今天', '')}什么时候{s.word('routine')}？",
        f"{who}{s.pick('买了', '有', '要')}几{measure}{noun}？",
        f"{who}怎么{s.pick('去', '没来', '回')}{s.word('place', 'city')}？",
        f"请问，去{s.word('place')}怎么走？",
    )


def _yes_no_question(s: _Speech) -> str:
    who = s.pick("你", "你们", s.word("name"), "你" + s.word("kin"))
    one, two = (entry.split("/")[0] for entry in s.several(2, "food"))
    return s.pick(
        f"{who}{s.maybe(s.word('future_time'))}{s.pick('想', '会', '能', '喜欢', '要')}{s.doing()}吗？",
        f"{who}{s.pick('喜欢', '想', '爱')}{s.pick('吃', '买')}{one}还是{two}？",
        f"{who}{s.maybe(s.word('past_time'))}{s.doing()}了{s.pick('吗', '没有')}？",
        f"我{s.doing()}，{who}呢？",
    )


def _change(s: _Speech) -> str:
    who = s.who()
    return s.pick(
        f"{who}{s.pick('生病', '回家', '睡着', '忘')}了，{s.pick('没来上课', '大家都知道', '我们很累', '我很高兴')}。",
        f"{s.owner()}的{s.pick('头', '手')}{s.pick('很疼，要休息', '很疼，要去医院', '很疼，要看医生', '不疼了，病好了')}。",
        f"{who}{s.pick('已经', '快', '也')}{s.pick('到', '回', '去')}{s.word('place', 'city')}了。",
    )


def _animal(s: _Speech) -> str:
    beast = s.entry("animal")
    walker = s.pick("狗/条", "马/匹", "牛/头", "羊/头", "猫/只")
    adjective = s.maybe(s.word("animal_adjective"))
    moving = s.pick("跑", "睡觉", "走路", "喝水", "玩")
    return s.pick(
        f"{s.counted(walker, adjective)}在{s.word('outdoors')}{moving}。",
        f"{s.who()}{s.pick('有', '买了', '看见了', '想要')}{s.counted(beast, adjective)}。",
        f"{s.pick('天上', '树上', '山上')}有一只{s.pick('小', '大', '白', '黑')}鸟在{s.pick('飞', '唱歌', '叫')}。",
        f"{s.owner()}家的{walker[0]}{s.pick('跑', '走')}得{s.pick('很', '真', '不太')}{s.pick('快', '慢')}。",
    )


_PATTERNS = {
    _past_statement: 5, _not_done: 3, _future: 4, _all: 4, _habit: 4, _in_progress: 4, _experience: 4, _ability: 6, _manner: 3, _liking:
    4, _description: 7, _possession: 3, _exclamation: 4, _distance: 4, _comparison: 4, _sameness: 4, _age: 4, _walk: 4, _understanding:
    4, _season: 5, _ba_done: 4, _ba_place: 4, _ba_open: 4, _existence: 5, _position: 4, _list: 5, _family: 5, _together: 2, _travel: 3,
    _routine: 2, _date: 3, _price: 5, _weather_report: 6, _condition: 4, _reason: 4, _contrast: 4, _meanwhile: 3, _two_actions: 4,
    _gift: 5, _doing_for: 3, _quotation: 4, _request: 5, _greeting: 6, _name: 2, _open_question: 9, _yes_no_question: 6, _change: 6,
    _animal: 5,
}  # fmt: skip


def sentence(random: Random) -> str:
    """Return one sentence of 5 to 16 characters and its punctuation, drawn with `random`."""
    while True:
        pattern = random.choices(list(_PATTERNS), list(_PATTERNS.values()))[0]
        text = pattern(_Speech(random))
        if 5 <= sum(map(str.isalpha, text)) <= 16 and not _MISREAD.search(text):
            return text
