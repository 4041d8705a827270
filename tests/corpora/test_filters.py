import logging
import math
import random
import unicodedata

import pytest
from datasets import DatasetDict

from hfasr.corpora.filters import keep_durations, keep_rows
from hfasr.corpora.rows import plain

KYRGYZ = "абвгдеёжзийклмнңоөпрстуүфхцчшщъыьэюя"


def test_keep_durations(rows):
    corpus = DatasetDict(train=rows("a", "b", "c", "d", duration=[0.2, 1.0, 30.0, math.nan]), test=rows("e", duration=[40.0]))
    kept = keep_durations(corpus, 0.5, 20)
    assert list(kept["train"]["id"]) == ["u1", "u3"]
    assert len(kept["test"]) == 1
    with pytest.raises(ValueError, match="'train' lasts 40"):
        keep_durations(DatasetDict(train=rows("a")), 40, 50)
    with pytest.raises(ValueError, match="empty range"):
        keep_durations(corpus, 5, 2)


def test_every_row_left_out_has_its_reason(rows, caplog):
    texts = ["Ал келди.", "", " — …", "Ал келди.", "Ал келди.", "Ал", "Ал келди, барды.", "Ал Kelди.", "Үйгө 5 адам", "Эң жакшы"]
    durations = [1.0, 1.0, 1.0, 0.2, 30.0, 4.0, 0.5, 1.0, 1.0, math.nan]
    corpus = DatasetDict(train=rows(*texts, duration=durations), test=rows("", duration=[0.1]))
    with caplog.at_level(logging.INFO, "hfasr"):
        kept, dropped = keep_rows(
            corpus, min_seconds=0.3, max_seconds=20, min_characters_per_second=1, max_characters_per_second=25, alphabet=KYRGYZ
        )
    assert list(plain(kept["train"])["id"]) == ["u0", "u9"]
    assert len(kept["test"]) == 1
    assert [(item["id"], item["reason"]) for item in dropped] == [
        ("u1", "the text is empty"),
        ("u2", "the text is empty"),
        ("u3", "lasts 0.20 s, less than 0.3 s"),
        ("u4", "lasts 30.00 s, more than 20 s"),
        ("u5", "0.5 characters/s, less than 1"),
        ("u6", "32.0 characters/s, more than 25"),
        ("u7", "holds 'K' (U+004B), 'e' (U+0065), 'l' (U+006C), outside the alphabet"),
        ("u8", "holds '5' (U+0035), outside the alphabet"),
    ]
    assert dropped[0] == {"split": "train", "id": "u1", "path": "/nowhere/u1.wav", "reason": "the text is empty"}
    (line,) = caplog.messages
    assert line.startswith("train: 8 of 10 rows left out: 2 empty, 2 outside the alphabet, 1 shorter than 0.3 s")


def test_alphabets_take_both_cases_and_any_spelling_of_an_accent(rows):
    turkish = rows("İstanbul'da IŞIK", unicodedata.normalize("NFD", "Çiğdem, öğün!"), "Ҫ", "naïf")
    kept, dropped = keep_rows(DatasetDict(train=turkish), alphabet="abcçdefgğhıijklmnoöprsştuüvyz")
    assert list(plain(kept["train"])["id"]) == ["u0", "u1"]
    assert "U+04AA" in dropped[0]["reason"]
    assert "'ï'" in dropped[1]["reason"]
    assert not keep_rows(DatasetDict(train=rows("ısı", "5 adam")), alphabet={"ı", "s", "a", "d", "m", *"0123456789"})[1]


def test_the_alphabet_agrees_with_a_loop_over_characters(rows, monkeypatch):
    monkeypatch.setattr("hfasr.corpora.filters._TEXTS_AT_ONCE", 7)
    rng = random.Random(0)
    texts = ["".join(rng.choices("abc xyz.,5é𝒳", k=rng.randint(0, 4))) for _ in range(300)]
    kept, dropped = keep_rows(DatasetDict(train=rows(*texts)), alphabet="abcxé", drop_empty=False)
    good = [all(char in "abcxé" or char in " .," for char in text) for text in texts]
    assert list(plain(kept["train"])["text"]) == [text for text, fine in zip(texts, good, strict=True) if fine]
    assert len(dropped) == good.count(False)


def test_nothing_is_copied_when_all_rows_stay(rows, caplog):
    corpus = DatasetDict(train=rows("a", "b"))
    with caplog.at_level(logging.INFO, "hfasr"):
        kept, dropped = keep_rows(corpus)
    assert (list(plain(kept["train"])["id"]), dropped, caplog.messages) == (["u0", "u1"], [], [])


def test_wrong_limits_are_refused(rows):
    corpus = DatasetDict(train=rows("a", "b"))
    with pytest.raises(ValueError, match="rates from 5 to 2 characters/s are an empty range; give 0 <= min_characters_per_second"):
        keep_rows(corpus, min_characters_per_second=5, max_characters_per_second=2)
    with pytest.raises(ValueError, match="to filter 'dev', but the splits are train"):
        keep_rows(corpus, splits=["train", "dev"])
    with pytest.raises(ValueError, match="the alphabet is empty"):
        keep_rows(corpus, alphabet="")
    with pytest.raises(ValueError, match="no row of split 'train' is left: of 2 rows are 2 shorter than 3 s"):
        keep_rows(corpus, min_seconds=3)
