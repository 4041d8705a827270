import gzip
import math
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest

from hfasr.decoding.ngram import estimate_ngram, write_arpa

# text and models of KenLM's lmplz (kenlm 0.3.0): -o 3, and -o 4 --prune 0 0 1, both with --discount_fallback
LMPLZ = Path(__file__).with_name("lmplz")


def read_arpa(text: str) -> dict[tuple[str, ...], tuple[float, float]]:
    """Read an ARPA file: n-gram -> log-probability and back-off."""
    found, level = {}, 0
    for line in text.split("\n"):
        if line.startswith("\\"):
            level = int(line[1]) if line.endswith("-grams:") else 0
        elif level and line:
            log_prob, words, *backoff = line.split("\t")
            assert len(words.split(" ")) == level
            found[tuple(words.split(" "))] = float(log_prob), float(backoff[0]) if backoff else 0.0
    return found


def written(tmp_path, lines, order, **options):
    write_arpa(tmp_path / "lm.arpa", estimate_ngram(lines, order, **options))
    return read_arpa((tmp_path / "lm.arpa").read_text(encoding="utf-8"))


def probability(model, context: tuple[str, ...], word: str) -> float:
    """Return P(word | context) as the ARPA format defines it."""
    if (*context, word) in model:
        return 10 ** model[(*context, word)][0]
    return 10 ** model.get(context, (0, 0))[1] * probability(model, context[1:], word)


def sentences(seed: int, number: int) -> list[str]:
    random = Random(seed)
    return [" ".join("abcdefghij"[min(9, int(random.paretovariate(0.8)) - 1)] for _ in range(random.randint(0, 7))) for _ in range(number)]


@pytest.mark.parametrize(("name", "order", "prune"), [("order3", 3, ()), ("pruned", 4, (0, 0, 1))])
def test_equal_to_lmplz(name, order, prune, tmp_path, caplog):
    lines = (LMPLZ / "text.txt").read_text(encoding="utf-8").splitlines()
    reference, found = read_arpa((LMPLZ / f"{name}.arpa").read_text(encoding="utf-8")), written(tmp_path, lines, order, prune=prune)
    assert list(found) == list(reference)
    assert np.abs(np.array([*found.values()]) - np.array([*reference.values()])).max() < 1e-5
    assert ("of order 4 allow no estimate" in caplog.text) == (order == 4)


@pytest.mark.parametrize(("order", "prune"), [(1, ()), (2, ()), (3, ()), (4, ()), (2, (1,)), (3, (0, 1)), (4, (0, 0, 2))])
def test_probabilities_of_every_context_sum_to_one(order, prune, tmp_path):
    model = written(tmp_path, sentences(order, 40), order, prune=prune)
    words = [gram[0] for gram in model if len(gram) == 1 and gram != ("<s>",)]
    for length in range(order):
        for context in product([*words, "<s>", "never seen"], repeat=min(length, 2)):
            total = sum(probability(model, context, word) for word in words)
            assert total == pytest.approx(1, abs=1e-5), context


@pytest.mark.parametrize("order", [2, 3, 4])
def test_equal_to_the_formulas_word_by_word(order, tmp_path):
    # Chen & Goodman 1998: P(w | h) = (c(hw) - D(c(hw))) / c(h.) + gamma(h) P(w | h'), with continuation counts below the highest order
    lines = sentences(100 + order, 60)
    ngram = estimate_ngram(lines, order)
    discounts = [(0.0, *some) for some in ngram.discounts]
    counts = [Counter() for _ in range(order)]
    for line in lines:
        words = ["<s>", *line.split(), "</s>"]
        for size in range(1, order + 1):
            counts[size - 1].update(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
    del counts[0][("<s>",)]
    adjusted = []
    for size, seen in enumerate(counts, 1):
        before = defaultdict(set)
        for longer in counts[size] if size < order else ():
            before[longer[1:]].add(longer[0])
        adjusted.append({gram: count if size == order or gram[0] == "<s>" else len(before[gram]) for gram, count in seen.items()})
    vocabulary = {*" ".join(lines).split(), "</s>", "<unk>"}

    def direct(gram: tuple[str, ...]) -> float:
        if not gram:
            return 1 / len(vocabulary)
        level, context = len(gram) - 1, gram[:-1]
        following = [count for other, count in adjusted[level].items() if other[:-1] == context]
        if not following:
            return direct(gram[1:])
        discount = discounts[level]
        gamma = sum(discount[min(count, 3)] for count in following) / sum(following)
        count = adjusted[level].get(gram, 0)
        return (count - discount[min(count, 3)]) / sum(following) + gamma * direct(gram[1:])

    write_arpa(tmp_path / "lm.arpa", ngram)
    model = read_arpa((tmp_path / "lm.arpa").read_text())
    assert {gram for gram in model if len(gram) > 1} == {gram for seen in counts[1:] for gram in seen}
    for gram, (log_prob, _) in model.items():
        if gram != ("<s>",):
            assert 10**log_prob == pytest.approx(direct(gram), rel=1e-5), gram
    random = Random(0)
    for _ in range(300):  # also what was not seen
        gram = tuple(random.choice(sorted(vocabulary)) for _ in range(order))
        assert probability(model, gram[:-1], gram[-1]) == pytest.approx(direct(gram), rel=1e-5), gram


def test_discounts_by_hand():
    pairs = [("a", 1), ("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 3), ("g", 4)]
    lines = [f"{word}{word}" for word, count in pairs for _ in range(count)]
    # each word makes two bigrams, after <s> and before </s>: 6 are seen once, 4 twice, 2 three and 2 four times
    ratio = 6 / (6 + 2 * 4)
    expected = (1 - 2 * ratio * 4 / 6, 2 - 3 * ratio * 2 / 4, 3 - 4 * ratio * 2 / 2)
    assert estimate_ngram(lines, 2).discounts[1] == pytest.approx(expected)


def test_a_trigram_seen_once_is_left_out_and_its_share_goes_to_shorter_ones(tmp_path):
    lines = ["a b c", "a b c", "a b d", "a b e f"]
    whole, pruned = written(tmp_path, lines, 3), written(tmp_path, lines, 3, prune=(0, 0, 1))
    assert ("a", "b", "d") in whole
    assert ("a", "b", "d") not in pruned
    assert ("a", "b", "c") in pruned
    assert {gram for gram in whole if len(gram) < 3} == {gram for gram in pruned if len(gram) < 3}
    assert probability(pruned, ("a", "b"), "d") > 0
    assert sum(probability(pruned, ("a", "b"), word) for word in ("<unk>", "</s>", *"abcdef")) == pytest.approx(1, abs=1e-5)


def test_words_are_split_at_ascii_spaces_and_an_empty_line_is_a_sentence(tmp_path):
    model = written(tmp_path, ["a\tb  c\r", "", "100\u00a0000\0d"], 2)
    assert {gram[0] for gram in model if len(gram) == 1} == {"<unk>", "<s>", "</s>", "a", "b", "c", "100\u00a0000", "d"}
    assert ("<s>", "</s>") in model


def test_gzip(tmp_path):
    ngram = estimate_ngram(["a b", "b a"], 2)
    write_arpa(tmp_path / "lm.arpa", ngram)
    write_arpa(tmp_path / "lm.arpa.gz", ngram)
    assert gzip.decompress((tmp_path / "lm.arpa.gz").read_bytes()) == (tmp_path / "lm.arpa").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lm.arpa", "lm.arpa.gz"]


def test_kenlm_reads_it_and_scores_alike(tmp_path):
    pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="flashlight-text, which holds KenLM, is not installed (extra lm)")
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    for suffix in ("arpa", "arpa.gz"):
        path, lines = tmp_path / f"lm.{suffix}", (LMPLZ / "text.txt").read_text(encoding="utf-8").splitlines()
        write_arpa(path, estimate_ngram(lines, 3))
        reference = read_arpa((LMPLZ / "order3.arpa").read_text(encoding="utf-8"))
        dictionary = Dictionary([*{gram[0] for gram in reference if len(gram) == 1}])
        model = KenLM(str(path), dictionary)
        for line in [*lines[:10], "a zebra played the nevernever football"]:
            state, context, total, expected = model.start(False), ("<s>",), 0.0, 0.0
            for word in [word if (word,) in reference else "<unk>" for word in line.split()]:
                state, change = model.score(state, dictionary.get_index(word))
                total += change
                expected += math.log10(probability(reference, context, word))
                context = (*context, word)[-2:]
            total += model.finish(state)[1]
            assert total == pytest.approx(expected + math.log10(probability(reference, context, "</s>")), abs=1e-4)


@pytest.mark.parametrize(
    ("lines", "order", "prune", "message"),
    [
        ([], 3, (), "no words in 0 lines"),
        (["", " "], 3, (), "no words in 2 lines"),
        (["a b"], 5, (), "order is 5, but no line has more than 2 words; give an order of at most 4"),
        (["a b"], 0, (), "order is 0"),
        (["a b", "c <s> d"], 2, (), "holds <s>, .* in 'c <s> d'"),
        (["a <UNK>"], 2, (), "holds <UNK>"),
        (["a b"], 2, (1, 0), "prune is 1 0; give at most 2 counts"),
        (["a b"], 2, (0, 0, 0), "at most 2 counts"),
        (["a \ud800b"], 2, (), "surrogates not allowed"),
    ],
)
def test_bad_input(lines, order, prune, message):
    with pytest.raises(ValueError, match=message):
        estimate_ngram(lines, order, prune=prune)


def test_one_string_is_refused():
    with pytest.raises(TypeError, match="found one string"):
        estimate_ngram("a b", 2)
