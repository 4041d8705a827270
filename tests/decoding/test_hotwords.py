"""The bonus of hotwords, symbol by symbol, against a scan of the whole text; their files, and their spelling."""

import random

import pytest
from transformers import AutoTokenizer

from hfasr.decoding.hotwords import Hotwords, load_hotwords, spell_hotwords
from hfasr.decoding.words import Boundaries
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer, target_record

BAR = Boundaries(frozenset([0]), frozenset())
PIECES = Boundaries(frozenset(), frozenset([1, 2]))
NONE = Boundaries(frozenset(), frozenset())


def scanned(text: list[int], hotwords: dict[tuple[int, ...], float], where: Boundaries) -> float:
    """Bonus of the words found from left to right, the longest at each place."""

    def boundary(place: int) -> bool:
        if where.none or place in (0, len(text)):
            return True
        return text[place] in where.separators | where.starts or text[place - 1] in where.separators

    total, place = 0.0, 0
    while place < len(text):
        fitting = [word for word in hotwords if tuple(text[place : place + len(word)]) == word and boundary(place + len(word))]
        # a word ends in front of a separator, not behind it
        longest = max(fitting, key=len, default=()) if boundary(place) and text[place] not in where.separators else ()
        total += hotwords.get(longest, 0.0) * len(longest)
        place += len(longest) or 1
    return total


@pytest.mark.parametrize(
    ("where", "first", "rest", "between"), [(BAR, "123", "123", "0"), (PIECES, "12", "34", ""), (NONE, "123", "123", "")]
)
def test_the_bonus_of_a_text_is_that_of_its_hotwords(where, first, rest, between):
    draw = random.Random(3)

    def word() -> str:
        return draw.choice(first) + "".join(draw.choice(rest) for _ in range(draw.randint(0, 2)))

    for _ in range(300):
        phrases = {between.join(word() for _ in range(draw.randint(1, 3))) for _ in range(draw.randint(1, 5))}
        hotwords = {tuple(map(int, phrase)): draw.choice([0.5, 1.0, 2.0]) for phrase in phrases}
        trie = Hotwords(hotwords, where)
        for _ in range(10):
            text = [int(draw.choice(first + rest + between * 2)) for _ in range(draw.randint(0, 9))]
            place, total = trie.start, 0.0
            for label in text:
                place, gain = trie.step(place, label)
                total += gain
            assert total + trie.finish(place) == pytest.approx(scanned(text, hotwords, where)), (hotwords, text)


def test_a_bonus_is_given_on_the_way_and_taken_back_where_the_word_goes_on_otherwise():
    trie = Hotwords({(1, 2, 3): 2.0}, BAR)
    place, gains = trie.start, []
    for label in (1, 2, 2, 0, 1, 2, 3, 0):
        place, gain = trie.step(place, label)
        gains.append(gain)
    assert gains == [2, 2, -4, 0, 2, 2, 2, 0]
    assert trie.finish(trie.step(trie.start, 1)[0]) == -2


def test_files_lists_and_dicts(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeff# people\n\nАйгүл\nнур  султан\t2.5\n", encoding="utf-8")
    assert load_hotwords(path, 1.5) == load_hotwords(str(path), 1.5) == {"Айгүл": 1.5, "нур султан": 2.5}
    assert load_hotwords(["a", "b c"], 2) == load_hotwords({"a": 2, "b c": 2}, 1) == {"a": 2, "b c": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tmuch\n", "line 1 has the weight 'much'"),
        ("a\nb\t-1", "line 2 has the weight '-1'"),
        ("# none\n", "holds no hotword"),
        ("a\t", "weight ''"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, content, message):
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_hotwords(tmp_path / "names.txt", 1.0)
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        load_hotwords(tmp_path / "nowhere.txt", 1.0)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin.txt, line 1 is not UTF-8"):
        load_hotwords(tmp_path / "latin.txt", 1.0)


def test_words_are_spelled_as_the_model_s_targets_were(tmp_path):
    characters = build_tokenizer(["нур ай"], "character", record={"normalizer": "ky"})
    vocab = characters.get_vocab()
    expected = tuple(vocab["|" if char == " " else char] for char in "нур ай")
    assert spell_hotwords(["Нур, Ай!"], characters) == {"Нур, Ай!": expected}

    phonemizer = Phonemizer("ky")
    phonemes = build_tokenizer([phonemizer("Айгүл келди")], "phoneme", record=target_record([], **phonemizer.record))
    phonemes.save_pretrained(tmp_path)
    labels = spell_hotwords(["Айгүл"], AutoTokenizer.from_pretrained(tmp_path))["Айгүл"]
    assert labels == tuple(phonemes.get_vocab()[symbol] for symbol in phonemizer("Айгүл").split())

    shouting = build_tokenizer(["NUR"], "character")
    assert spell_hotwords(["Nur"], shouting) == {"Nur": tuple(shouting.get_vocab()[char] for char in "NUR")}

    pieces = build_tokenizer(["нур ай нура"], "sentencepiece", vocab_size=8)
    assert spell_hotwords(["ай нур"], pieces) == {"ай нур": tuple(pieces("ай нур").input_ids)}


def test_symbols_that_the_model_lacks_are_refused_by_name():
    with pytest.raises(ValueError, match=r"the hotwords кофе \(к о ф е\) cannot be spelled, for the model lacks"):
        spell_hotwords(["ай", "кофе"], build_tokenizer(["нур ай"], "character"))
    with pytest.raises(ValueError, match=r"кофе \(.*ф.*\)"):
        spell_hotwords(["ай", "кофе"], build_tokenizer(["нур ай"], "sentencepiece", vocab_size=8))
    with pytest.raises(ValueError, match="does not say how its targets were made"):
        spell_hotwords(["ай"], build_tokenizer(["ɑ j"], "phoneme"))
