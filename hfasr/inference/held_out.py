"""Which rows a model is evaluated on: a corpus that is named, or that of the model's run, and the splits of it that are held out."""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from datasets import DatasetDict

from hfasr.corpora import load_embedded
from hfasr.corpora.reading.locate import SPLITS
from hfasr.corpora.reading.source import load_corpus
from hfasr.evaluation.card import read_json

EMBEDDED = "embedded"


def load_splits(
    corpus: str | None,
    splits: Sequence[str] | None = None,
    *,
    model: str | os.PathLike | None = None,
    source: str | None = None,
    language: str | None = None,
    options: Mapping[str, object] | None = None,
) -> tuple[str, DatasetDict]:
    """Load what a model is to be evaluated on.

    Args:
        corpus: What `load_corpus` takes, or "embedded". None takes that of the model's `recipe.json`, with its source and options.
        splits: Which of its splits; "dev" and its like stand for "validation" where there is no such split. None takes those that the
            recipe names, else those whose names begin with a word for development or test, else all.
        model: The model's folder, whose recipe.json, if it has one, names corpus and language.
        source: The corpus's format; found out when None.
        language: Of the embedded corpus; that of recipe.json when None.
        options: More for the source's function.

    Returns:
        The corpus's name, and its splits.

    Raises:
        FileNotFoundError: There is no such corpus.
        ValueError: It is not named, cannot be read, or lacks a split.
    """
    options = dict(options or {})
    path = Path(model or "", "recipe.json")
    recipe = read_json(path) if model is not None and path.is_file() else {}
    if corpus is None:
        if not recipe.get("corpus", {}).get("name"):
            raise ValueError("no corpus is named, and the model's folder has no recipe.json that names one; give --corpus")
        corpus, arguments = recipe["corpus"]["name"], recipe.get("arguments", {})
        source = source or arguments.get("source")
        options = _recorded_options(arguments) | options
        splits = splits or [arguments["validation_split"], *arguments["test_splits"]]
    if corpus == EMBEDDED:
        language = language or recipe.get("language")
        if not language:
            raise ValueError("the embedded corpora are of several languages; give one, such as --language ky")
        return corpus, _chosen(load_embedded(language, **options), splits, corpus)
    if not os.path.exists(os.path.expanduser(corpus)) and "/" in corpus:  # on the Hub, where each split costs a download
        if not splits:
            raise ValueError(f"{corpus} is not here; give the splits to load from the Hub, such as --split test")
        return corpus, load_corpus(corpus, source=source, **{"splits": [SPLITS.get(split, split) for split in splits], **options})
    return corpus, _chosen(load_corpus(corpus, source=source, **options), splits, corpus)


def first_to_develop_on(corpus: DatasetDict) -> DatasetDict:
    """Return the first split whose name begins with a word for development, alone.

    Raises:
        ValueError: There is none.
    """
    for split, rows in corpus.items():
        if purpose(split) == "validation":
            return DatasetDict({split: rows})
    raise ValueError(f"there is no split to develop on, found {', '.join(corpus)}; name one to tune on (--tune-split)")


def purpose(split: str) -> str | None:
    """Tell what the first word of a split's name says that it is for: "test" of "test_clean", None of "other"."""
    return SPLITS.get(re.split("[-_. ]", split.lower())[0])


def _recorded_options(arguments: Mapping) -> dict:
    """Return the options of the source's function that decide which rows a run was evaluated on."""
    options = json.loads(arguments.get("corpus_options") or "{}")
    return options | {name: arguments[name] for name in ("audio_root", "split_lists") if arguments.get(name)}


def _chosen(corpus: DatasetDict, splits: Collection[str] | None, name: str) -> DatasetDict:
    if not splits:
        splits = [split for split in corpus if purpose(split) in ("validation", "test")] or list(corpus)
    found = {}
    for split in dict.fromkeys(splits):
        place = split if split in corpus else SPLITS.get(split.lower(), split)
        if place not in corpus:
            raise ValueError(f"{name} has no split {split!r}, found {', '.join(corpus)}")
        found[place] = corpus[place]
    return DatasetDict(found)
