"""Steps that recipes share, where the recipes' own tests do not reach."""

import pytest
from datasets import Dataset, DatasetDict

from hfasr.corpora.rows import FEATURES, column
from hfasr.training.recipe import RecipeArguments, _split, open_corpus


def rows(speakers: list) -> DatasetDict:
    size = len(speakers)
    columns = {name: [None] * size for name in FEATURES} | {
        "id": [str(n) for n in range(size)],
        "duration": [1.0] * size,
        "text": ["а"] * size,
    }
    return DatasetDict(train=Dataset.from_dict(columns | {"speaker": speakers}, features=FEATURES))


@pytest.mark.parametrize("speakers", [[None] * 60, ["Айгүл"] * 60])
def test_a_corpus_of_one_speaker_is_split_by_row(speakers, caplog):
    split = _split(rows(speakers))
    assert {name: len(part) for name, part in split.items()} == {"train": 54, "validation": 3, "test": 3}
    assert sorted(int(name) for part in split.values() for name in column(part, "id").to_pylist()) == list(range(60))
    assert {name for part in split.values() for name in column(part, "speaker").to_pylist()} == {speakers[0]}
    assert set(split["test"].column_names) == set(FEATURES)
    assert "speakers stand in several" in caplog.text


def test_a_corpus_of_several_is_split_by_speaker():
    split = _split(rows([f"s{n % 30}" for n in range(300)]))
    heard = [set(column(part, "speaker").to_pylist()) for part in split.values()]
    assert sum(map(len, heard)) == 30


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"corpus_options": '{"token": "hf_secret"}'}, "holds a token"),
        ({"corpus_options": "[1]"}, "give a JSON object"),
        ({"stream": True}, "embedded corpus is a table"),
        ({"stream": True, "corpus": "shards", "source": "ksc2"}, "hfasr prepare shards"),
        ({"stream": True, "corpus": "shards", "corpus_options": '{"splits": ["a"]}'}, "--validation_split"),
        ({"corpus": "tests/nosuch"}, "tests/nosuch: no such corpus in the folder tests"),
    ],
)
def test_flags_that_cannot_work_are_told(flags, message, tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        open_corpus(RecipeArguments(output_dir=str(tmp_path / "run"), use_cpu=True, **flags), "ky")
    assert "hf_secret" not in str(caught.value)
