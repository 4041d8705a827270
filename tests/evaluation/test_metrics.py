"""Rates and counts against jiwer, against a dynamic programme written out, and against cases worked by hand."""

import random
import subprocess
import sys

import jiwer
import numpy as np
import pytest

from hfasr.evaluation import edits
from hfasr.evaluation.metrics import (
    align,
    confidence_interval,
    confusions,
    error_rate,
    evaluate_predictions,
    phonetic_score,
    score,
)

TOKENS = {
    "word": ["сал", "кыргызча", "а", "é", "e\u0301", "中文", "中", "\u0301", "🎉", "ң", "b", "", " "],
    "character": ["с", "а ", "é", "e\u0301", "中", "文", "🎉", "\u200d", "b", " ", "", "  "],
    "phoneme": ["t[", "d[", "tS", "oe:", "ɑ", "ɑ:", "t͡ʃ", "ʲ", "n̩", "中", "🎉", "p", "b", "", " "],
}


def _random_text(rng: random.Random, unit: str) -> str:
    separator = "" if unit == "character" else " "
    return separator.join(rng.choices(TOKENS[unit], k=rng.choice([0, 1, 2, 5, 9, 20])))


def _noisy(rng: random.Random, text: str, unit: str) -> str:
    tokens = list(text) if unit == "character" else text.split(" ")
    kept = [token if rng.random() < 0.8 else rng.choice(TOKENS[unit]) for token in tokens if rng.random() < 0.9]
    return ("" if unit == "character" else " ").join(kept)


@pytest.mark.parametrize("unit", ["word", "character", "phoneme"])
def test_rate_and_counts_equal_jiwer_on_10000_random_pairs(unit):
    rng = random.Random(unit)
    references = [_random_text(rng, unit) for _ in range(10_000)]
    hypotheses = [_noisy(rng, text, unit) if rng.random() < 0.7 else _random_text(rng, unit) for text in references]
    assert references.count("") > 100
    process = jiwer.process_characters if unit == "character" else jiwer.process_words
    expected = process(references, hypotheses)
    found = score(references, hypotheses, unit)
    assert found.rate == (expected.cer if unit == "character" else expected.wer)
    assert error_rate(references, hypotheses, unit) == found.rate
    counts = (found.hits, found.substitutions, found.deletions, found.insertions)
    assert counts == (expected.hits, expected.substitutions, expected.deletions, expected.insertions)
    assert found.errors == found.utterance_errors.sum() == found.substitutions + found.deletions + found.insertions
    assert found.reference_length == found.utterance_lengths.sum() == found.hits + found.substitutions + found.deletions


def test_each_pair_alone_equals_jiwer():
    rng = random.Random(5)
    for _ in range(300):
        reference, hypothesis = _random_text(rng, "phoneme"), _random_text(rng, "phoneme")
        expected, found = jiwer.process_words([reference], [hypothesis]), score([reference], [hypothesis], "phoneme")
        assert (found.rate, found.hits) == (expected.wer, expected.hits)
        assert (found.substitutions, found.deletions, found.insertions) == (
            expected.substitutions,
            expected.deletions,
            expected.insertions,
        )


@pytest.mark.parametrize(
    ("symbols", "packs"),
    [
        (["a", "tS", "t͡ʃ", "oe:"], True),
        (["t͡ʃʲː", "a", "b"], False),
        (["\ue000", "a", "tS"], False),
        (["\ud800", "a", "tS"], False),
        (["\0", "a\0", "tS", "a"], False),
        (["a\0b", "ab", "b"], False),
        (["🎉", "🎈", "🎉🎈"], True),
        ([f"{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"], False),
    ],
)
def test_both_ways_of_packing_agree(symbols, packs):
    rng = random.Random(1)
    texts = [" ".join(rng.choices(symbols, k=30)) for _ in range(400)]
    references, hypotheses = texts[:200], texts[200:]
    assert (edits._pack_by_array(texts) is not None) == packs
    expected = jiwer.process_words(references, hypotheses)
    assert score(references, hypotheses, "phoneme").hits == expected.hits
    assert score(references, hypotheses, "word").hits == expected.hits


def test_whitespace_of_any_kind_separates_phonemes_as_in_str_split():
    spaces = [chr(code) for code in range(0x3001) if chr(code).isspace()]
    assert len(spaces) > 25
    text = "".join(f"tS{space}ɑ{space}{space}" for space in spaces)
    found = score([text], ["x"], "phoneme")
    assert found.reference_length == 2 * len(spaces) == len(text.split())
    assert score([f"tS{chr(7)}ɑ"], ["x"], "phoneme").reference_length == 1


def test_word_bars_are_never_counted():
    assert score(["k e | l d[ i |"], ["k e l | d[ i"], "phoneme").rate == 0
    assert score(["|"], ["| |"], "phoneme").reference_length == 0
    assert align("k e|l", "k | l", "phoneme") == [("k", "k"), ("e", None), ("l", "l")]


def test_nul_characters_do_not_disturb_the_hits():
    assert score(["a\0bcd"], ["xa\0dc"], "character").hits == jiwer.process_characters(["a\0bcd"], ["xa\0dc"]).hits


def test_empty_references():
    assert score(["", ""], ["", " "]).rate == 0.0
    assert score(["", ""], ["a b", "c"]).rate == 3.0 == jiwer.wer(["", ""], ["a b", "c"])
    found = score(["", "a b"], ["x", "a b"])
    assert (found.rate, found.insertions, found.hits) == (0.5, 1, 2)
    assert phonetic_score([""], [""]).rate == 0.0
    assert phonetic_score([""], ["a b"]).rate == 2.0


def test_counts_worked_by_hand():
    found = score(["бир эки үч төрт"], ["бир үч беш алты төрт"])
    assert (found.hits, found.substitutions, found.deletions, found.insertions) == (2, 2, 0, 1)
    assert found.rate == 0.75
    assert list(found.utterance_errors) == [3]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("ab", "ab"), TypeError, r"references is one str.*\['ab'\]"),
        ((["a"], "a"), TypeError, "hypotheses is one str"),
        ((["a", "b"], ["a"]), ValueError, "2 references but 1 hypotheses"),
        ((["a", None], ["a", "b"]), TypeError, r"references\[1\] is None \(NoneType\)"),
        (([], []), ValueError, "at least one utterance"),
        ((["a"], ["a"], "phone"), ValueError, "unit is 'phone', expected one of word, character, phoneme"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, words):
    for function in (score, error_rate):
        with pytest.raises(error, match=words):
            function(*arguments)


def test_other_iterables_are_taken():
    assert score(np.array(["a b"]), ("a c",)).rate == 0.5
    assert score(iter(["a"]), (text for text in ["a"])).rate == 0


def test_confusions_and_alignment():
    counts = confusions(["t ɑ l", "t ɑ"], ["d ɑ l", "t ɑ r"], "phoneme")
    assert counts == {("t", "d"): 1, ("t", "t"): 1, ("ɑ", "ɑ"): 2, ("l", "l"): 1, (None, "r"): 1}
    assert align("а б в д", "а в г д е") == [("а", "а"), ("б", "в"), ("в", "г"), ("д", "д"), (None, "е")]


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        lengths = rng.integers(5, 40, 80)
        wrong = rng.binomial(lengths, 0.1)
        references = [" ".join("a" * length) for length in lengths]
        hypotheses = [" ".join("b" * count + "a" * (length - count)) for count, length in zip(wrong, lengths, strict=True)]
        low, high = confidence_interval(score(references, hypotheses, "phoneme"), resamples=200)
        covered += low <= 0.1 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_interval_is_reproducible_and_checks_its_arguments():
    found = score(["a b c", "d e f", "g"], ["a b", "d e f", "h"])
    assert confidence_interval(found, seed=3) == confidence_interval(found, seed=3)
    low, high = confidence_interval(found)
    assert 0 <= low <= found.rate <= high <= 1
    narrow = confidence_interval(found, level=0.5)
    assert low <= narrow[0] <= narrow[1] <= high
    for options in ({"level": 95}, {"level": 0}, {"resamples": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            confidence_interval(found, **options)


def test_results_by_split():
    rows = [
        {"split": "test", "reference": "t ɑ | l", "hypothesis": "d ɑ | l", "duration": 1.5},
        {"split": "test", "reference": "e l", "hypothesis": "e l", "duration": 0.5},
        {"split": "validation", "reference": "e l", "hypothesis": "e", "duration": None},
        {"split": "validation", "reference": "o", "hypothesis": "o", "duration": float("nan")},
    ]
    results = evaluate_predictions(rows, "phoneme")
    assert list(results) == ["test", "validation"]
    test = results["test"]
    assert test["per"] == 0.2
    assert test["pfer"] == pytest.approx(1 / 24 / 5)
    assert test["per_ci95"][0] <= 0.2 <= test["per_ci95"][1]
    assert (test["hits"], test["substitutions"], test["deletions"], test["insertions"]) == (4, 1, 0, 0)
    assert (test["utterances"], test["seconds"]) == (2, 2.0)
    assert (results["validation"]["deletions"], results["validation"]["seconds"]) == (1, 0.0)
    characters = evaluate_predictions([{"split": "test", "reference": "ал келди", "hypothesis": "ал келд"}], "character")["test"]
    assert (characters["cer"], characters["wer"], characters["deletions"]) == (1 / 8, 0.5, 1)
    chinese = evaluate_predictions([{"split": "test", "reference": "你好世界", "hypothesis": "你 世界"}], "character")["test"]
    assert (chinese["cer"], "wer" in chinese) == (1 / 4, False)
    words = evaluate_predictions([{"split": "test", "reference": "ал келди", "hypothesis": "ал келд"}], "word")["test"]
    assert (words["wer"], words["cer"], words["substitutions"]) == (0.5, 1 / 8, 1)


def test_metrics_have_the_interface_of_evaluate():
    import evaluate

    from hfasr.evaluation.evaluate_metrics import CER, PER, PFER, WER

    metric = PER()
    assert isinstance(metric, evaluate.Metric)
    expected = {"per": 1 / 3, "hits": 2, "substitutions": 1, "deletions": 0, "insertions": 0}
    assert metric.compute(predictions=["t ɑ | l"], references=["d ɑ | l"]) == expected
    metric.add_batch(predictions=["t ɑ"], references=["t ɑ"])
    metric.add_batch(predictions=["t", "a"], references=["t", "a o"])
    assert metric.compute() == {"per": 0.2, "hits": 4, "substitutions": 0, "deletions": 1, "insertions": 0}
    assert WER().compute(predictions=["a c"], references=["a b"])["wer"] == 0.5
    assert CER().compute(predictions=["ac"], references=["ab"])["cer"] == 0.5
    features = PFER().compute(predictions=["t ɑ"], references=["d ☃"])
    assert features["pfer"] == pytest.approx((1 / 24 + 1) / 2)
    assert features["unknown"] == ["☃"]


def test_score_does_not_pay_for_evaluate():
    check = "import sys; import hfasr.evaluation.metrics; sys.exit('evaluate' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
