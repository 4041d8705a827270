import itertools
import random

import numpy as np
import pytest
from datasets import concatenate_datasets
from rapidfuzz.distance import Levenshtein

import hfasr.corpora.near
from hfasr.audio import write_audio
from hfasr.corpora.duplicates import find_duplicates, folded, numbered
from hfasr.corpora.near import near_pairs
from hfasr.corpora.rows import column
from hfasr.paths import archive_path, segment_path

LETTERS = "абвгдежзийклмноөпрстуүыэ"


def sentences(count: int, seed: int) -> list[str]:
    """Make sentences of a small vocabulary, a third of them edits of earlier ones."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 9))) for _ in range(300)]
    made = []
    for _ in range(count):
        text = list(rng.choice(made)) if made and rng.random() < 0.33 else list(" ".join(rng.choices(words, k=rng.randint(1, 12))))
        for _ in range(rng.randint(0, 6)):
            place = rng.randrange(len(text) + 1)
            text[place : place + rng.randint(0, 1)] = rng.choices(LETTERS, k=rng.randint(0, 1))
        made.append("".join(text))
    return list(dict.fromkeys(made))


def brute_force(texts: list[str], others: list[str], similarity: float) -> list[list[int]]:
    return [
        [one, other]
        for (one, text), (other, second) in itertools.product(enumerate(texts), enumerate(others))
        if text and second and Levenshtein.distance(text, second) <= (1 - similarity) * max(len(text), len(second)) + 1e-9
    ]


@pytest.mark.parametrize("similarity", [0.95, 0.9, 0.8])
def test_near_pairs_are_those_of_brute_force(similarity):
    texts = [*sentences(700, seed=int(100 * similarity)), "", "а", "😀😀 эмодзи менен сүйлөм", "😀😁 эмодзи менен сүйлөм"]
    expected = [pair for pair in brute_force(texts, texts, similarity) if pair[0] < pair[1]]
    assert len(expected) > 50
    assert near_pairs(texts, similarity=similarity).tolist() == expected
    first, second = texts[:300] + texts[400:420], texts[280:]
    assert near_pairs(first, second, similarity=similarity).tolist() == brute_force(first, second, similarity)


def test_near_pairs_of_templates_are_found_but_for_a_few():
    """Sentences that share most pieces with all others: the bounded search finds at least 9 of 10 pairs, and no wrong one."""
    rng = random.Random(0)
    names = ["".join(rng.choices(LETTERS, k=8)) for _ in range(150)]
    texts = list(dict.fromkeys(f"абонент {rng.choice(names)} менен саат {rng.randint(1, 24)} сүйлөш" for _ in range(2500)))
    expected = {tuple(pair) for pair in brute_force(texts, texts, 0.9) if pair[0] < pair[1]}
    found = set(map(tuple, near_pairs(texts).tolist()))
    assert found <= expected
    assert len(found) > 0.9 * len(expected)


def test_near_pairs_of_little():
    assert near_pairs([]).shape == near_pairs(["а"]).shape == near_pairs(["", ""]).shape == near_pairs(["а"], []).shape == (0, 2)
    assert near_pairs(["кыска", "кыска", "кыскa"]).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="similarity 1.1 is not possible; give 0.7 to 1"):
        near_pairs(["а"], similarity=1.1)


def test_a_crowd_is_narrowed_to_its_neighbours(monkeypatch):
    monkeypatch.setattr(hfasr.corpora.near, "_CROWD", 4)
    ranks = np.array([0, 1, 2, 3, 10, 11, 12, 20, 30, 31])
    left, right = hfasr.corpora.near._less_crowded(np.array([0, 2, 0]), np.array([10, 5, 10]), ranks, np.array([12, 0, 99]))
    assert (left.tolist(), right.tolist()) == ([4, 2, 8], [8, 5, 10])


def test_exact_duplicates(rows):
    texts = ["Ал келди.", "ал — келди!", "Башка", "Ал келди", "", "…", "Башка"]
    data = rows(*texts, speaker=["a", "a", "a", "b", "a", "a", None], id=["1", "1", "2", "3", "4", "3", "1"],
                paths=["x.wav", "y.wav", "x.wav", "l.wav#t=0,1", "l.wav#t=1,2", None, None])  # fmt: skip
    found = find_duplicates(data)
    assert found.rows == 7
    assert (found.ids.groups, found.ids.places.tolist(), found.ids.examples) == (2, [1, 5, 6], (("1", "1", "1"), ("3", "3")))
    assert found.paths.places.tolist() == [2]
    assert (found.sentences.groups, found.sentences.places.tolist()) == (2, [1, 3, 6])
    assert found.speaker_sentences.places.tolist() == [1]
    assert found.contents is None
    assert found.near_sentences is None
    assert found.as_dict()["ids"] == {"groups": 2, "rows": 3, "examples": [["1", "1", "1"], ["3", "3"]]}
    without = find_duplicates(data.select(np.delete(np.arange(7), found.ids.places)))
    assert without.ids.groups == 0


def test_duplicates_agree_with_counting(rows):
    rng = random.Random(3)
    texts, speakers, ids = (
        rng.choices(pool, k=500) for pool in (["а", "б!", "Б", "в г", "В, Г", "д"], ["s1", "s2", None], list("0123456789") * 30)
    )
    data = rows(*texts, speaker=speakers, id=ids, paths=ids)
    chosen = rng.sample(range(500), 400)
    found = find_duplicates(data.select(chosen))
    plain = [(texts[n].replace(",", "").replace("!", "").lower(), speakers[n]) for n in chosen]
    assert len(found.sentences.places) == 400 - len({text for text, _ in plain})
    assert len(found.speaker_sentences.places) == len([1 for pair in plain if pair[1]]) - len({pair for pair in plain if pair[1]})
    assert len(found.ids.places) == 400 - len({ids[n] for n in chosen})


def test_one_recording_under_several_names(rows, tmp_path):
    for seed, name in enumerate(("a.wav", "other.wav")):
        write_audio(tmp_path / name, 0.1 * np.random.default_rng(seed).standard_normal(16_000))
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(whole)
    (tmp_path / "x.tar").write_bytes(b"\0" * 512 + whole)
    paths = [tmp_path / "a.wav", tmp_path / "other.wav", tmp_path / "b.wav", archive_path(tmp_path / "x.tar", "m.wav", 512, len(whole)),
             tmp_path / "gone.wav", segment_path(tmp_path / "a.wav", 0, 1)]  # fmt: skip
    audio = [{"path": str(path), "bytes": None} for path in paths] + [{"path": None, "bytes": whole}, {"path": None, "bytes": whole[:-2]}]
    found = find_duplicates(rows(*"abcdefgh", audio=audio), contents=True)
    assert (found.contents.groups, found.contents.places.tolist()) == (1, [2, 3, 6])
    assert found.contents.examples == (("u0", "u2", "u3", "u6"),)


def test_near_sentences_form_groups(rows):
    one = "бүгүн абдан жакшы күн болду"
    texts = [one, "Бүгүн абдан жакшы күн болду!", one + "у", one[:-1] + "о", "таптакыр башка сүйлөм бул", one + "ууу"]
    found = find_duplicates(rows(*texts), similarity=0.9).near_sentences
    assert (found.groups, found.places.tolist()) == (1, [1, 2, 3, 5])
    assert find_duplicates(rows("а", ""), similarity=0.9).near_sentences.groups == 0


def test_numbers_follow_chunks(rows):
    parts = concatenate_datasets([rows("б", "а"), rows("а", "в", "…"), rows("б")])
    assert column(parts, "text").num_chunks == 3
    assert numbered(column(parts, "text")).tolist() == [0, 1, 1, 2, 3, 0]
    assert numbered(folded(parts)).tolist() == [0, 1, 1, 2, -1, 0]
    assert len(numbered(folded(parts.select([])))) == 0
