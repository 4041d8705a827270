"""What every recipe asks for besides the numbers of training: a corpus, filters, a model to start from."""

import json
import logging
import math
from dataclasses import dataclass, field

from datasets import DatasetDict

from hfasr.corpora import common_voice, embedded
from hfasr.corpora.filters import keep_rows
from hfasr.corpora.reading.source import load_corpus
from hfasr.corpora.splits import split_by_speaker
from hfasr.models.load import BUILT_IN
from hfasr.training.arguments import CTCTrainingArguments

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"


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


def open_corpus(recipe: RecipeArguments, language: str, **options) -> DatasetDict:
    """Load the corpus of a recipe: its splits "train", "validation" and those to test on.

    A corpus without held-out splits is split by speaker, always in the same way.

    Args:
        recipe: Tells where it is.
        language: Of the embedded corpus.
        options: More for the source's function; `corpus_options` wins.

    Raises:
        FileNotFoundError: The corpus does not exist.
        ValueError: It cannot be read, or lacks a split.
    """
    if recipe.corpus == EMBEDDED:
        corpus = common_voice(embedded(language), **options | recipe.source_options)
    else:
        corpus = load_corpus(recipe.corpus, source=recipe.source, **options | recipe.source_options)
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


def filter_rows(recipe: RecipeArguments, corpus: DatasetDict) -> tuple[DatasetDict, list[dict]]:
    """Keep the training rows within the recipe's limits; return what was left out as well."""
    return keep_rows(
        corpus,
        min_seconds=recipe.min_seconds,
        max_seconds=recipe.max_seconds,
        min_characters_per_second=recipe.min_characters_per_second,
        max_characters_per_second=recipe.max_characters_per_second,
    )
