import logging
import math
import random
from itertools import chain

import numpy as np
import pytest
from datasets import Audio, Dataset, DatasetDict, Value, load_from_disk

from hfasr.audio import write_audio
from hfasr.corpora.rows import Recording, column, decoded, plain, with_column
from hfasr.corpora.splits import mix, split_by_speaker


def many(rows, count=2000, speakers=60, seed=0, sentences=None):
    rng = random.Random(seed)
    names = [f"s{int(speakers * rng.random() ** 2)}" for _ in range(count)]
    texts = [f"сүйлөм {rng.randrange(sentences)}" if sentences else f"сүйлөм {n}" for n in range(count)]
    return rows(*texts, speaker=names, duration=[rng.uniform(1, 9) for _ in range(count)])


def ids(part) -> list[str]:
    return column(part, "id").to_pylist()


@pytest.mark.parametrize("seed", range(5))
def test_no_speaker_in_two_splits_and_shares_near(rows, seed):
    data = many(rows)
    made = split_by_speaker(data, validation=0.1, test=0.2, seed=seed)
    assert list(made) == ["train", "validation", "test"]
    assert sorted(chain.from_iterable(map(ids, made.values()))) == sorted(ids(data))
    spoken = [set(column(part, "speaker").to_pylist()) for part in made.values()]
    assert sum(map(len, spoken)) == len(set.union(*spoken))
    seconds = {split: column(part, "duration").to_numpy().sum() for split, part in made.items()}
    assert seconds["validation"] / sum(seconds.values()) == pytest.approx(0.1, abs=0.01)
    assert seconds["test"] / sum(seconds.values()) == pytest.approx(0.2, abs=0.01)
    again = split_by_speaker(DatasetDict(everything=data), validation=0.1, test=0.2, seed=seed)
    assert {split: ids(part) for split, part in again.items()} == {split: ids(part) for split, part in made.items()}
    assert ids(split_by_speaker(data, seed=seed + 1)["test"]) != ids(made["test"])
    assert isinstance(made["test"].features["audio"], Recording)


def test_one_split_alone(rows):
    assert list(split_by_speaker(many(rows), validation=0)) == ["train", "test"]
    three = rows(*"абв", speaker=["a", "b", "c"])
    assert [len(part) for part in split_by_speaker(three).values()] == [1, 1, 1]


def test_sentences_are_kept_together(rows):
    """Sentences and speakers hang together in 40 groups; an independent flood fill finds as many."""
    texts = [f"Сүйлөм {'абвгдежзий'[n % 10]}{'клмн'[n % 40 // 10]}{'' if n % 2 else '!'}" for n in range(800)]
    speakers = [f"s{n % 40}-{n % 3}" for n in range(800)]
    made = split_by_speaker(rows(*texts, speaker=speakers), validation=0.1, test=0.1, sentences=True)
    folded = [{text.rstrip("!") for text in column(part, "text").to_pylist()} for part in made.values()]
    assert [len(part) for part in folded] == [32, 4, 4]
    assert len(set.union(*folded)) == 40


def test_chains_of_speakers_and_sentences_are_followed(rows):
    """s0 and s1 share a sentence, s1 and s2 another, and so on: two chains, and one alone."""
    pairs = [(f"s{n}", f"сүйлөм {n + step}") for n in [*range(50), *range(60, 100)] for step in (0, 1)] + [("z", "жалгыз")]
    random.Random(0).shuffle(pairs)
    made = split_by_speaker(
        rows(*[text for _, text in pairs], speaker=[name for name, _ in pairs]), validation=0.01, test=0.4, sentences=True
    )
    assert [len(set(column(part, "speaker").to_pylist())) for part in made.values()] == [50, 1, 40]


def test_a_corpus_that_hangs_together_is_refused(rows):
    with pytest.raises(ValueError, match=r"of the speech hangs together.* sentences=False, then .* without_leaks"):
        split_by_speaker(many(rows, sentences=30), sentences=True)


def test_rows_without_speaker_or_duration(rows, caplog):
    data = rows(*"абвгде", speaker=["a", "a", None, "", "b", None], duration=[1.0, math.nan, 3.0, 2.0, 2.0, 2.0])
    with caplog.at_level(logging.WARNING, "hfasr"):
        made = split_by_speaker(data, validation=0.2, test=0.2)
    assert "3 of 6 rows have no speaker and are split one by one" in caplog.text
    assert "1 of 6 rows have no known duration" in caplog.text
    assert sorted(chain.from_iterable(map(ids, made.values()))) == ids(data)
    assert len(split_by_speaker(data.remove_columns("speaker"))["train"]) == 4


def test_what_cannot_be_split(rows):
    two = rows("а", "б", "в", speaker=["a", "b", "b"])
    with pytest.raises(ValueError, match="3 splits need 3 speakers or more, found 2; set validation=0 or test=0"):
        split_by_speaker(two)
    assert len(split_by_speaker(two, validation=0)["test"]) == 1
    with pytest.raises(ValueError, match="validation=0.5 and test=0.5 are not possible"):
        split_by_speaker(two, validation=0.5, test=0.5)
    with pytest.raises(ValueError, match="has the splits train, test; give one of them"):
        split_by_speaker(DatasetDict(train=two, test=two))
    with pytest.raises(ValueError, match="no rows to split"):
        split_by_speaker(two.select([]))
    with pytest.raises(TypeError, match="found list"):
        split_by_speaker([two])


def test_uneven_speakers_are_told(rows, caplog):
    with caplog.at_level(logging.WARNING, "hfasr"):
        made = split_by_speaker(rows(*"абвгде", speaker=list("aabbcc")))
    assert [len(part) for part in made.values()] == [2, 2, 2]
    assert "test holds 33.3 % of the speech, not 5.0 %: its speakers allow no better" in caplog.text


def test_mix_repeats_training_by_weight(rows):
    first = DatasetDict(train=rows(*"абвг", prefix="a"), validation=rows("д", prefix="av"), test=rows("е", prefix="at"))
    second = DatasetDict(train=rows(*"жзик", prefix="b"), validation=rows("л", prefix="bv"), test_clean=rows("м", prefix="bt"))
    mixed = mix({"ksc2": (decoded(first), 1.0), "cv": (second, 2.5)})
    assert list(mixed) == ["train", "validation", "test_ksc2", "test_clean_cv"]
    found = ids(mixed["train"])
    assert found[:12] == ["a0", "a1", "a2", "a3", *2 * ["b0", "b1", "b2", "b3"]]
    assert len(found) == 14
    assert len(set(found[12:])) == 2
    assert column(mixed["train"], "source").to_pylist() == ["ksc2"] * 4 + ["cv"] * 10
    assert ids(mixed["validation"]) == ["av0", "bv0"]
    assert column(mixed["test_clean_cv"], "source").to_pylist() == ["cv"]
    assert column(first["train"], "source").to_pylist() == ["toy"] * 4
    draws = [set(ids(mix({"cv": (second, 0.5)}, seed=seed)["train"])) for seed in range(20)]
    assert {len(draw) for draw in draws} == {2}
    assert len(set(map(frozenset, draws))) > 3
    assert draws[3] == set(ids(mix({"cv": (second, 0.5)}, seed=3)["train"]))


def test_mix_aligns_columns_and_copies_no_audio(rows, tmp_path):
    write_audio(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000))
    whole = (tmp_path / "a.wav").read_bytes()
    stored = rows(*"абв", audio=[{"path": None, "bytes": whole}] * 3)
    decoded(DatasetDict(train=stored)).save_to_disk(tmp_path / "stored")
    mapped = load_from_disk(tmp_path / "stored")
    spare = (
        rows("г", "д", paths=[str(tmp_path / "a.wav")] * 2).remove_columns(["accent", "speaker"]).cast_column("duration", Value("float32"))
    )
    mixed = mix({"a": (DatasetDict(train=mapped["train"].select([2, 0])), 2.0), "b": (DatasetDict(train=spare), 1.0)})
    assert ids(mixed["train"]) == ["u2", "u0", "u2", "u0", "u0", "u1"]
    assert mixed["train"].cache_files == mapped["train"].cache_files  # audio bytes stay in their file
    assert column(mixed["train"], "speaker").to_pylist() == ["s"] * 4 + [None] * 2
    assert mixed["train"].features["duration"] == Value("float64")
    assert [len(row["audio"]["array"]) for row in mixed["train"]] == [16_000] * 6
    again = mix({"c": (DatasetDict(train=mixed["train"]), 1.0)})
    assert column(again["train"], "source").to_pylist() == ["c"] * 6


def test_mix_refuses(rows):
    corpus = DatasetDict(train=rows("а"))
    for pair, error, message in [
        (corpus, TypeError, r"mix takes a \(DatasetDict, weight\) for 'x', found DatasetDict; give {'x': \(corpus, 1.0\)}"),
        ((rows("а"), 1.0), TypeError, r"found \(Dataset, float\)"),
        ((corpus, "2"), TypeError, "the weight of 'x' is '2'; give a number"),
        ((corpus, True), TypeError, "the weight of 'x' is True"),
        ((corpus, 0), ValueError, "the weight of 'x' is 0; give more than 0"),
        ((corpus, -1.0), ValueError, "the weight of 'x' is -1.0"),
        ((corpus, math.nan), ValueError, "the weight of 'x' is nan"),
        ((DatasetDict(test=rows("а")), 1.0), ValueError, "none of the corpora x has a split 'train'"),
        ((DatasetDict(train=rows("а").remove_columns("text")), 1.0), ValueError, "split 'train' of 'x' has no column text"),
        ((DatasetDict(train=Dataset.from_dict({"id": ["1"]})), 1.0), ValueError, "split 'train' of 'x' has no audio column, found id"),
    ]:
        with pytest.raises(error, match=message):
            mix({"x": pair})
    with pytest.raises(ValueError, match=r"none of the corpora \(none given\)"):
        mix({})
    with pytest.raises(ValueError, match="the name 'a-b' becomes part of split names"):
        mix({"a-b": (corpus, 1.0)})
    targets = DatasetDict(train=with_column(rows("а"), "target", ["а"], Value("string")))
    with pytest.raises(ValueError, match="column target is not in split 'train' of every corpus; add it to all, or after mixing"):
        mix({"x": (corpus, 1.0), "y": (targets, 1.0)})
    with pytest.raises(ValueError, match="column 'target' of split 'train' is .* in one corpus, .* in another"):
        mix({"x": (DatasetDict(train=with_column(rows("а"), "target", [1], Value("int64"))), 1.0), "y": (targets, 1.0)})
    assert isinstance(plain(mix({"x": (corpus, 1.0)}))["train"].features["audio"], Audio)
