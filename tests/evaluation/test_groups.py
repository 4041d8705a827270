"""Rates by group against pandas and jiwer."""

import jiwer
import numpy as np
import pandas
import pytest

from hfasr.evaluation.groups import group_places
from hfasr.evaluation.metrics import confidence_interval, evaluate_predictions, phonetic_score, score


def _utterances(count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        symbols = rng.choice(["t[", "ɑ", "oe", "l", "tS"], size=rng.integers(1, 12))
        heard = [rng.choice(["d[", "ɑ", "y"]) if rng.random() < 0.2 else symbol for symbol in symbols if rng.random() < 0.9]
        rows.append(
            {
                "split": "test" if number % 3 else "validation",
                "id": str(number),
                "text": "",
                "reference": " ".join(symbols),
                "hypothesis": " ".join(heard),
                "duration": [float(rng.uniform(0.1, 40)), float(rng.integers(1, 31)), None, float("nan")][number % 4],
                "speaker": f"speaker {rng.integers(6)}",
                "gender": [None, "female", "male", ""][rng.integers(4)],
                "accent": "the only one",
                "source": "radio" if number % 2 else None,
            }
        )
    return rows


def test_groups_are_those_of_pandas():
    rows = _utterances(300)
    results = evaluate_predictions(rows, "phoneme")
    table = pandas.DataFrame(rows)
    table["gender"] = table["gender"].replace("", None)
    edges, labels = [0, 2, 4, 6, 8, 10, 15, 20, 30, np.inf], ["0 to 2 s", "2 to 4 s", "4 to 6 s", "6 to 8 s", "8 to 10 s"]
    labels += ["10 to 15 s", "15 to 20 s", "20 to 30 s", "30 s and more"]
    table["duration"] = table["duration"].astype(float)
    table["seconds"] = table["duration"].fillna(0)
    table["duration"] = pandas.cut(table["duration"], edges, right=False, labels=labels)
    for split, of_split in table.groupby("split"):
        groups = results[split]["groups"]
        assert list(groups) == ["duration", "gender", "source", "speaker"]  # the accent does not tell any apart
        for column, members in groups.items():
            expected = dict(iter(of_split.groupby(column, observed=True)))
            assert set(members) == set(expected)
            for name, found in members.items():
                group = expected[name]
                references, hypotheses = group["reference"].tolist(), group["hypothesis"].tolist()
                assert found["per"] == pytest.approx(jiwer.wer(references, hypotheses))
                assert found["pfer"] == pytest.approx(phonetic_score(references, hypotheses).rate)
                assert found["per_ci95"] == pytest.approx(confidence_interval(score(references, hypotheses, "phoneme")))
                assert found["utterances"] == len(group)
                assert found["seconds"] == pytest.approx(group["seconds"].sum(), abs=1e-3)
    assert list(results["test"]["groups"]["duration"]) == labels


def test_what_is_unknown_or_tells_nothing_apart_is_no_group():
    same = {"speaker": "a", "gender": "", "duration": None}
    assert group_places([same, same]) == {}
    assert group_places([]) == {}
    assert group_places([{"duration": 3.0, "speaker": "a"}, {"duration": 3.5, "speaker": "b"}]).keys() == {"speaker"}
    found = group_places([{"duration": 4.0}, {"duration": 3.999}, {"duration": float("nan")}, {}])
    assert {name: places.tolist() for name, places in found["duration"].items()} == {"2 to 4 s": [1], "4 to 6 s": [0]}
    named = group_places([{"gender": "male", "duration": 1.0}, {"duration": 1.0}])
    assert {name: places.tolist() for name, places in named["gender"].items()} == {"male": [0]}
