"""The paired bootstrap against all sets that can be drawn, against cases with a known answer, and what it refuses."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from hfasr.evaluation.comparison import compare, compare_runs, comparison_lines


def _system(errors: list[int], lengths: list[int], **more: list) -> list[dict]:
    """Utterances of "a" in which so many symbols are recognised as "b"."""
    return [
        {
            "split": "test",
            "id": f"u{place}",
            "reference": " ".join("a" * length),
            "hypothesis": " ".join("b" * wrong + "a" * (length - wrong)),
            "duration": 1.5,
            **{name: values[place] for name, values in more.items()},
        }
        for place, (wrong, length) in enumerate(zip(errors, lengths, strict=True))
    ]


def test_equals_the_enumeration_of_all_sets():
    first, second, lengths = [3, 0, 2, 5, 1], [2, 1, 2, 2, 2], [9, 4, 7, 8, 3]
    drawn = np.array(list(product(range(5), repeat=5)))
    rates = [np.array(errors)[drawn].sum(axis=1) / np.array(lengths)[drawn].sum(axis=1) for errors in (first, second)]
    differences = rates[1] - rates[0]
    improvement = np.mean(differences < -1e-12) + np.mean(abs(differences) <= 1e-12) / 2
    found = compare(_system(first, lengths), _system(second, lengths), "phoneme", resamples=40_000)["test"]
    assert found["per"]["first"] == sum(first) / sum(lengths)
    assert found["per"]["second"] == sum(second) / sum(lengths)
    assert found["per"]["difference"] == pytest.approx((sum(second) - sum(first)) / sum(lengths))
    assert found["per"]["improvement"] == pytest.approx(improvement, abs=0.01)
    assert found["per"]["difference_ci95"] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.01)
    assert (found["utterances"], found["seconds"]) == (5, 7.5)


def test_known_answers():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 30, size=60).tolist()
    errors = [int(rng.integers(1, length)) for length in lengths]
    same = compare(_system(errors, lengths), _system(errors, lengths), "phoneme")["test"]["per"]
    assert same == {"first": same["first"], "second": same["first"], "difference": 0.0, "difference_ci95": [0.0, 0.0], "improvement": 0.5}
    fewer = [count - 1 for count in errors]
    better = compare(_system(errors, lengths), _system(fewer, lengths), "phoneme")["test"]["per"]
    assert better["improvement"] == 1.0
    assert better["difference"] == pytest.approx(-60 / sum(lengths))
    worse = compare(_system(fewer, lengths), _system(errors, lengths), "phoneme")["test"]["per"]
    assert (worse["improvement"], worse["difference"]) == (0.0, -better["difference"])
    assert worse["difference_ci95"] == pytest.approx([-end for end in better["difference_ci95"][::-1]])


def test_pairing_sees_what_separate_intervals_hide():
    """Utterances differ far more than the systems do; the second is better in 3 of 4."""
    rng = np.random.default_rng(1)
    errors = rng.integers(0, 50, size=400)
    better = np.maximum(0, errors - (rng.random(400) < 0.75) + (rng.random(400) < 0.1))
    found = compare(_system(errors.tolist(), [100] * 400), _system(better.tolist(), [100] * 400), "phoneme")["test"]["per"]
    assert found["improvement"] == 1.0
    assert found["difference_ci95"][1] < 0
    # a mean of 400 independent differences, of which the central limit theorem knows the spread
    step = (better - errors) / 100
    assert found["difference_ci95"] == pytest.approx(step.mean() + np.array([-1.96, 1.96]) * step.std() / 20, abs=4e-4)


def test_groups_splits_and_order():
    speakers = [*"xxxxxyyyyyz"]
    systems = ([1] * 5 + [2] * 5 + [1], [0] * 5 + [3] * 5 + [1])
    first, second = (_system(errors, [4] * 11, speaker=speakers) for errors in systems)
    other = [row | {"split": "validation"} for row in first]
    found = compare(first + other, second[::-1] + [row | {"split": "train"} for row in second], "phoneme")
    assert list(found) == ["test"]
    assert list(found["test"]["groups"]) == ["speaker"]  # all are as long
    groups = found["test"]["groups"]["speaker"]
    assert {name: group["per"]["improvement"] for name, group in groups.items()} == {"x": 1.0, "y": 0.0, "z": None}
    assert found["test"]["per"]["difference"] == 0.0
    lines = comparison_lines(found)
    assert [line.split()[:3] for line in lines[1:]] == [
        ["test", "PER", "36.36"],
        ["test", "PFER", lines[2].split()[2]],
        *[["test", "speaker", name] for name in "xyz"],
    ]
    assert " ".join(lines[3].split()) == "test speaker x PER 25.00 0.00 -25.00 -25.00 to -25.00 100.0 % 5"
    assert " ".join(lines[5].split()) == "test speaker z PER 25.00 25.00 +0.00 - - 1"
    many = {"test": found["test"] | {"groups": {"speaker": dict.fromkeys(map(str, range(21)), groups["x"])}}}
    assert len(comparison_lines(many)) == 3


def test_characters_and_words():
    first = [
        {"split": "dev", "id": 1, "reference": "ал келди", "hypothesis": "ал келд"},
        {"split": "dev", "id": 2, "reference": "", "hypothesis": ""},
    ]
    second = [{**row, "hypothesis": row["reference"]} for row in first]
    found = compare(first, second, "character")["dev"]
    assert found["cer"]["first"] == 1 / 8
    assert found["wer"]["first"] == 1 / 2
    assert found["wer"]["second"] == 0.0


def _write(folder: Path, rows: list[dict], name: str = "results.json", **content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_two_folders(tmp_path):
    first, second = _system([1, 2], [4, 4]), _system([0, 2], [4, 4])
    second[0]["text"] = "a line \u2028 separator"
    ours = _write(tmp_path / "a", first, unit="phoneme")
    theirs = _write(tmp_path / "b", second, "recipe.json", unit="phoneme")  # as runs of before had it
    assert compare_runs(ours, theirs) == compare(first, second, "phoneme")


def test_what_cannot_be_compared_is_named(tmp_path):
    rows = _system([1, 2, 0], [4, 4, 4])
    ours = _write(tmp_path / "a", rows, unit="phoneme")
    for changed, message in [
        (rows[:1], r"the second has no utterance 'u1' of test, and 1 more"),
        ([*rows, rows[0] | {"id": "new"}], r"the first has no utterance 'new' of test, and 0 more"),
        ([*rows, rows[0]], r"the first has no utterance 'u0' of test, and 0 more"),
        (
            [rows[0], rows[1] | {"reference": "a a b a"}, rows[2]],
            r"utterance 'u1' of test has the reference 'a a a a' in the first and 'a a b a'",
        ),
        ([row | {"split": "dev"} for row in rows], r"no split to compare on: the first has test, the second dev"),
    ]:
        with pytest.raises(ValueError, match=message):
            compare_runs(ours, _write(tmp_path / "b", changed, unit="phoneme"))
    with pytest.raises(ValueError, match="recognises phonemes and .* characters"):
        compare_runs(ours, _write(tmp_path / "b", rows, unit="character"))
    with pytest.raises(FileNotFoundError, match=r"has no results.json or recipe.json with a unit"):
        compare_runs(tmp_path / "nothing", ours)
    (tmp_path / "b" / "predictions.jsonl").write_text('{"split": "test"}\n')
    with pytest.raises(ValueError, match="line 1 is not an utterance"):
        compare_runs(_write(tmp_path / "c", rows, unit="character"), tmp_path / "b")
    (tmp_path / "b" / "predictions.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no predictions.jsonl"):
        compare_runs(tmp_path / "c", tmp_path / "b")
    with pytest.raises(ValueError, match="resamples is 0"):
        compare(rows, rows, "phoneme", resamples=0)
