import json
import logging
import random

import numpy as np
import pytest
from datasets import DatasetDict

from hfasr.audio import write_audio
from hfasr.corpora.leaks import leaks, without_leaks
from hfasr.corpora.rows import plain

# training's spelling, and another of the same sentence
PLANTED = [
    ("Ал келди.", "ал — КЕЛДИ!"),  # case and punctuation
    ("Мен үйгө бара жатам", "  Мен  үйгө бара   жатам… "),  # spaces
    ("Қазақ тілі әдемі", "Қазақ тiлi әдемi"),  # Latin i in Kazakh
    ("Айгүл һәм Роза", "Айгүл hәм Poзa"),  # Latin h, P, o, a
    ("Бул китеп кимдики", "Бул киteп кимдики"),  # Latin t, e
    ("IĞDIR İSTANBUL", "ığdır istanbul"),  # Turkish capitals
    ("I saw a man", "Ι saw а mаn".replace("Ι", "I")),  # Cyrillic a in English
    ("Ёлка стоит", "елка стоит"),
    ("Кафе\u0301 жабык", "КАФЕ жабык"),  # a stress mark
]
APART = [("кой", "кои"), ("öl", "ol"), ("Ал келди", "Ал кетти"), ("ү", "у")]


@pytest.mark.parametrize(("trained", "tested"), PLANTED)
def test_a_planted_sentence_is_found(rows, trained, tested):
    corpus = DatasetDict(train=rows("Биринчи", trained), test=rows("Экинчи", tested, prefix="t"))
    (leak,) = leaks(corpus).splits.values()
    assert (leak.sentences, leak.sentence_rows) == (1, 1)
    assert leak.examples == ({"id": "t1", "text": tested, "train_id": "u1", "train_text": trained},)
    kept, dropped = without_leaks(corpus)
    assert list(plain(kept["train"])["text"]) == ["Биринчи"]
    assert [(item["id"], item["reason"]) for item in dropped] == [("u1", "the sentence also stands in test")]


@pytest.mark.parametrize(("trained", "tested"), APART)
def test_other_sentences_are_not(rows, trained, tested):
    assert not leaks(DatasetDict(train=rows(trained, speaker=["a"]), test=rows(tested, prefix="t", speaker=["b"])))


def test_counts_of_sentences_speakers_and_audio(rows):
    corpus = DatasetDict(
        train=rows("Ал келди", "Башка", "Башка", "…", speaker=["a", "b", "b", None], paths=["1.wav", "2.wav", "3.wav", "4.wav#t=0,1"]),
        validation=rows("Үчүнчү", prefix="v", speaker=[""]),
        test=rows("ал келди!", "Ал, келди", "башка", "Жаңы", "", prefix="t", speaker=["b", "c", "a", "b", None],
                  paths=["9.wav", "2.wav", "8.wav", "4.wav#t=0,1", "4.wav#t=1,2"]),
        validated=rows("Ал келди"),
    )  # fmt: skip
    found = leaks(corpus)
    assert list(found.splits) == ["validation", "test"]
    test = found.splits["test"]
    assert (test.rows, test.sentences, test.sentence_rows) == (5, 2, 3)
    assert (test.speakers, test.speaker_rows, test.speaker_train_rows) == (2, 3, 3)
    assert (test.audio_rows, test.near_rows) == (2, None)
    assert [example["train_id"] for example in test.examples] == ["u0", "u0", "u1"]
    assert found
    assert not found.splits["validation"]
    assert json.loads(json.dumps(found.as_dict()))["test"]["sentence_share"] == 0.6
    assert str(found).splitlines() == [
        "split       rows  sentence in training  speaker in training  audio in training",
        "validation  1     0 (0.0 %)             0 (0 speakers)       0",
        "test        5     3 (60.0 %)            3 (2 speakers)       2",
        "test: t0 'ал келди!' is u0 'Ал келди' of train",
    ]
    assert leaks(corpus, splits=["validated"]).splits["validated"].sentence_rows == 1


def test_near_sentences(rows):
    one = "бүгүн абдан жакшы күн болду"
    corpus = DatasetDict(
        train=rows("таптакыр башка сүйлөм бул", one, one + "у"), test=rows(one.upper(), one[:-1] + "о", "жок мындай сүйлөм", prefix="t")
    )
    leak = leaks(corpus, near=True).splits["test"]
    assert (leak.sentence_rows, leak.near_rows) == (1, 1)
    assert leak.examples[1] == {"id": "t1", "text": one[:-1] + "о", "train_id": "u1", "train_text": one}
    assert "near one" in str(leaks(corpus, near=True))
    assert leaks(corpus, near=True, similarity=0.99).splits["test"].near_rows == 0
    kept, dropped = without_leaks(corpus, near=True)
    assert list(plain(kept["train"])["id"]) == ["u0"]
    assert [item["reason"] for item in dropped] == ["the sentence also stands in test", "the sentence is near to one of test"]


def test_the_same_recording_under_another_name(rows, tmp_path):
    for n, seed in enumerate((0, 1, 0)):
        write_audio(tmp_path / f"{n}.wav", 0.1 * np.random.default_rng(seed).standard_normal(16_000))
    corpus = DatasetDict(
        train=rows("а", paths=[str(tmp_path / "0.wav")]), test=rows("б", "в", paths=[str(tmp_path / "1.wav"), str(tmp_path / "2.wav")])
    )
    assert leaks(corpus).splits["test"].audio_rows == 0
    assert leaks(corpus, contents=True).splits["test"].audio_rows == 1


def test_leaks_agree_with_sets(rows):
    rng = random.Random(1)
    words = [f"сүйлөм{chr(1072 + n % 32)}{chr(1072 + n // 32)}" for n in range(200)]
    drawn = {
        split: [(rng.choice(words), rng.choice(["a", "b", "c", "d", None])) for _ in range(count)]
        for split, count in {"train": 90, "x": 40, "y": 1}.items()
    }
    corpus = DatasetDict(
        {split: rows(*[text for text, _ in pairs], speaker=[speaker for _, speaker in pairs]) for split, pairs in drawn.items()}
    )
    corpus["y"] = corpus["y"].select([])
    spoken = {text for text, _ in drawn["train"]}
    found = leaks(corpus, near=True).splits
    assert found["x"].sentence_rows == sum(text in spoken for text, _ in drawn["x"])
    assert found["x"].sentences == len(spoken & {text for text, _ in drawn["x"]})
    assert found["x"].speaker_rows == sum(speaker is not None for _, speaker in drawn["x"])
    assert (found["y"].rows, bool(found["y"])) == (0, False)
    held_out = {text for text, _ in drawn["x"]}
    assert list(plain(without_leaks(corpus)[0]["train"])["text"]) == [text for text, _ in drawn["train"] if text not in held_out]


def test_speakers_can_be_kept_apart_too(rows, caplog):
    corpus = DatasetDict(train=rows("а", "б", "в", speaker=["x", "y", None]), test=rows("в", "г", speaker=["x", None]))
    with caplog.at_level(logging.INFO, "hfasr"):
        kept, dropped = without_leaks(corpus, sentences=False, speakers=True)
    assert list(plain(kept["train"])["text"]) == ["б", "в"]
    assert dropped[0]["reason"] == "the speaker also speaks in test"
    assert caplog.messages == ["train: 1 of 3 rows left out, shared with test"]
    assert without_leaks(corpus, sentences=False)[1] == []


def test_splits_that_are_not_there(rows):
    corpus = DatasetDict(train=rows("а"), test=rows("а"))
    assert not leaks(DatasetDict(test=rows("а")))
    with pytest.raises(ValueError, match="'dev' cannot be compared with training, the other splits are test"):
        leaks(corpus, splits=["dev"])
    with pytest.raises(ValueError, match="no split 'training' to drop rows from, found train, test"):
        without_leaks(corpus, "training")
    with pytest.raises(ValueError, match="no row of 'train' is left: all 1 share sentences with test"):
        without_leaks(corpus)


def test_bytes_are_compared_and_not_their_names(rows):
    """In shards a path is only the name of the clip, which folders of several splits repeat."""
    named = lambda *data: [{"path": f"{n}.flac", "bytes": one} for n, one in enumerate(data)]
    corpus = DatasetDict(
        train=rows("а", "б", "в", audio=named(b"one", b"two", b"six")), test=rows("г", "д", prefix="t", audio=named(b"two", b"ten"))
    )
    assert leaks(corpus).splits["test"].audio_rows == 1
    unheard = [{"path": None, "bytes": None}]
    silent = leaks(DatasetDict(train=rows("а", audio=unheard), test=corpus["test"]))
    assert silent.splits["test"].audio_rows is None
    assert "not compared" in str(silent)
