"""Targets: added to the rows, and kept for large corpora."""

import pytest
from datasets import Dataset, DatasetDict

from hfasr.corpora.rows import FEATURES, column, plain
from hfasr.corpora.targets import add_target
from hfasr.text.phonemize import Phonemizer


def rows(texts: list[str]) -> Dataset:
    size = len(texts)
    columns = {name: [None] * size for name in FEATURES} | {"id": [str(n) for n in range(size)], "text": texts}
    return Dataset.from_dict(columns | {"audio": [{"bytes": b"audio", "path": None}] * size}, features=FEATURES)


class Upper:
    """A function of texts that says what it is."""

    def __init__(self, fingerprint: str):
        self.fingerprint, self.calls = fingerprint, 0

    def __call__(self, texts):
        self.calls += 1
        return [text.upper() + self.fingerprint for text in texts]


def test_targets_of_many_texts_are_made_once():
    texts = [f"сөз {n}" for n in range(12_345)]
    corpus = DatasetDict(train=rows(texts).select(range(12_344, 0, -1)), test=rows(["а"]))
    first, again, other = Upper("!"), Upper("!"), Upper("?")
    for function, calls, end in ((first, 3, "!"), (again, 1, "!"), (other, 3, "?")):
        found = add_target(corpus, function)
        assert column(found["train"], "target").to_pylist() == [text.upper() + end for text in texts[:0:-1]]
        assert column(found["test"], "target").to_pylist() == ["А" + end]
        assert function.calls == calls  # the split of one text is made each time


def test_a_phonemizer_marks_switched_rows():
    corpus = DatasetDict(train=rows(["ал келди", "ал iPhone алды"]))
    found = plain(add_target(corpus, Phonemizer("ky"))["train"])
    assert found["target"][0] == "ɑ l | k e l d[ i"
    assert found["code_switched"][:] == [False, True]
    assert "code_switched" not in add_target(corpus, list)["train"].column_names


def test_a_target_too_few_is_told():
    with pytest.raises(ValueError, match="made 1 targets of 2 texts"):
        add_target(DatasetDict(train=rows(["а", "б"])), lambda texts: texts[:1])
