"""What every recipe asks for besides the numbers of training: a corpus, filters, a model to start from."""

import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset, DatasetDict, IterableDataset

from hfasr.corpora import common_voice, embedded, hub
from hfasr.corpora.check import check_audio
from hfasr.corpora.filters import keep_rows
from hfasr.corpora.reading.source import load_corpus
from hfasr.corpora.reading.stream import add_stream_target, shard_columns, stream_rows
from hfasr.corpora.rows import column, iter_values
from hfasr.corpora.splits import split_by_speaker
from hfasr.corpora.targets import add_target
from hfasr.models.load import BUILT_IN
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batching import check_budget

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
_VOCABULARY_ROWS = 20_000


@dataclass
class RecipeArguments(CTCTrainingArguments):
    """The flags that recipes share.

    Raises:
        ValueError: A value is outside its range; the message names it.
    """

    corpus: str = field(
        default=EMBEDDED,
        metadata={"help": "Folder, archive or file of a corpus, or a data set on the Hub; 'embedded' is made on the spot."},
    )
    source: str | None = field(default=None, metadata={"help": "Format of the corpus, such as ksc2; found out when left out."})
    corpus_options: str = field(
        default="{}", metadata={"help": """More for the source's function, as JSON: '{"audio_root": "/data"}'. See hfasr.corpora."""}
    )
    stream: bool = field(
        default=False,
        metadata={"help": "Train from shards (of hfasr prepare, or on the Hub) without a table of all rows; give --max_steps."},
    )
    validation_split: str = field(default="validation", metadata={"help": "Split to evaluate on during training, such as dev_ios."})
    test_splits: list[str] = field(default_factory=lambda: ["test"], metadata={"help": "Splits to evaluate on at the end."})
    base_model: str | None = field(
        default=None, metadata={"help": f"Model to start from: a Hub name, a folder, or one of {', '.join(BUILT_IN)} from scratch."}
    )
    min_seconds: float = field(default=0.5, metadata={"help": "Shortest training utterance."})
    max_seconds: float = field(default=20.0, metadata={"help": "Longest training utterance."})
    min_characters_per_second: float = field(default=0.0, metadata={"help": "Slowest training utterance, by its transcript."})
    max_characters_per_second: float = field(default=math.inf, metadata={"help": "Fastest training utterance, by its transcript."})
    min_symbol_count: int = field(default=1, metadata={"help": "Symbols that training has less often become <unk>."})
    decode_check: bool = field(
        default=True,
        metadata={
            "help": "Decode every clip once before training, and leave bad ones out; without it only headers are read, and a clip "
            "that cannot be decoded is left out when its turn comes."
        },
    )

    @property
    def source_options(self) -> dict:
        """`corpus_options` as a dict."""
        try:
            options = json.loads(self.corpus_options)
        except ValueError:
            options = None
        if not isinstance(options, dict):
            raise ValueError(f'corpus_options is {self.corpus_options!r}; give a JSON object such as \'{{"audio_root": "/data"}}\'')
        return options


Corpus = dict[str, Dataset | IterableDataset]


def open_corpus(recipe: RecipeArguments, language: str, **options) -> Corpus:
    """Load the corpus of a recipe: its splits "train", "validation" and those to test on; with `stream` the first as a stream.

    A corpus without held-out splits is split by speaker, always in the same way.

    Args:
        recipe: Tells where it is.
        language: Of the embedded corpus.
        options: More for the source's function; `corpus_options` wins.

    Raises:
        FileNotFoundError: The corpus does not exist.
        ValueError: It cannot be read, or lacks a split.
    """
    options |= recipe.source_options
    if recipe.stream:
        return _open_stream(recipe, options)
    if recipe.corpus == EMBEDDED:
        corpus = common_voice(embedded(language), **options)
    else:
        corpus = load_corpus(recipe.corpus, source=recipe.source, **options)
    if set(corpus) == {"train"}:
        logger.info("the corpus has no held-out splits: 5 %% each are made for validation and test, by speaker")
        corpus = split_by_speaker(corpus)
    for split in ("train", recipe.validation_split, *recipe.test_splits):
        if split not in corpus:
            raise ValueError(
                f"{recipe.corpus} has no split {split!r}, found {', '.join(corpus)}; choose by --validation_split and --test_splits"
            )
    chosen = {"train": corpus["train"], "validation": corpus[recipe.validation_split]}
    return DatasetDict(chosen | {split: corpus[split] for split in recipe.test_splits if split != "validation"})


def _open_stream(recipe: RecipeArguments, options: dict) -> Corpus:
    held_out = {"validation": recipe.validation_split} | {split: split for split in recipe.test_splits if split != "validation"}
    if recipe.corpus == EMBEDDED:
        raise ValueError("the embedded corpus is a table; give --stream a folder of shards (hfasr prepare) or a data set on the Hub")
    tables = hub(recipe.corpus, splits=held_out, **options)
    if os.path.exists(recipe.corpus):
        return {"train": stream_rows(recipe.corpus, split="train", columns=options.get("columns")), **tables}
    return {**hub(recipe.corpus, splits=["train"], streaming=True, **options), **tables}


def training_table(recipe: RecipeArguments, corpus: Corpus) -> Dataset | None:
    """Return the training rows; of Parquet shards that are streamed, texts, speakers and durations; None where even these would cost
    a pass over all the audio."""
    if not recipe.stream:
        return corpus["train"]
    if not os.path.exists(recipe.corpus):
        logger.warning("the training rows are streamed from the Hub: they are not looked through for leaks")
        return None
    return shard_columns(recipe.corpus, split="train", columns=recipe.source_options.get("columns"))


def filter_rows(recipe: RecipeArguments, corpus: Corpus) -> tuple[Corpus, list[dict]]:
    """Keep the training rows within the recipe's limits; return what was left out of a table as well."""
    limits = {
        "min_seconds": recipe.min_seconds,
        "max_seconds": recipe.max_seconds,
        "min_characters_per_second": recipe.min_characters_per_second,
        "max_characters_per_second": recipe.max_characters_per_second,
    }
    if recipe.stream:
        return {**corpus, "train": corpus["train"].filter(partial(_within, limits=limits), input_columns=["text", "duration"])}, []
    kept, dropped = keep_rows(corpus, **limits)
    check_budget(column(kept["train"], "duration").to_numpy(), recipe.max_batch_seconds)
    return kept, dropped


def _within(text: str, seconds: float, limits: dict[str, float]) -> bool:
    if not seconds > 0:
        return True  # the trainer says what is wrong with it
    return (
        limits["min_seconds"] <= seconds <= limits["max_seconds"]
        and limits["min_characters_per_second"] <= len(text) / seconds <= limits["max_characters_per_second"]
    )


def with_targets(corpus: Corpus, to_target: Callable[[list[str]], list[str]]) -> Corpus:
    """Add the column `target` to every split."""
    tables = add_target(DatasetDict(_tables(corpus)), to_target)
    streams = {split: add_stream_target(rows, to_target) for split, rows in corpus.items() if split not in tables}
    return {**streams, **tables}


def training_targets(corpus: Corpus, table: Dataset | None, to_target: Callable[[list[str]], list[str]]) -> list[str]:
    """Return the targets that the vocabulary is made of: all of training, or its first 20,000 where there is only a stream."""
    if getattr(to_target, "lexicon", None) is not None and table is not None:
        unknown = to_target.unknown_words(iter_values(table, "text"))
        named = ", ".join(word for word, _ in unknown.most_common(10))
        logger.info("the lexicon lacks %d words of training, %d times in all: %s", len(unknown), sum(unknown.values()), named or "none")
    if not isinstance(corpus["train"], IterableDataset):
        return column(corpus["train"], "target").to_pylist()
    if table is not None:
        return to_target(column(table, "text").to_pylist())
    logger.warning("the vocabulary is made of the first %d rows of the stream; others in it become <unk>", _VOCABULARY_ROWS)
    return [row["target"] for row in corpus["train"].select_columns(["target"]).take(_VOCABULARY_ROWS)]


def check_rows(recipe: RecipeArguments, corpus: Corpus) -> tuple[Corpus, list[dict]]:
    """Set aside the rows whose audio cannot be used, and those outside the recipe's limits by their decoded duration."""
    if not recipe.stream:
        corpus, bad = check_audio(DatasetDict(corpus), decode=recipe.decode_check)
        corpus, outside = filter_rows(recipe, corpus)
        return corpus, bad + outside
    tables, bad = check_audio(DatasetDict(_tables(corpus)), decode=recipe.decode_check)
    return {**corpus, **tables}, bad


def _tables(corpus: Corpus) -> dict[str, Dataset]:
    return {split: rows for split, rows in corpus.items() if isinstance(rows, Dataset)}
