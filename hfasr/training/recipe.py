"""What every recipe asks for besides the numbers of training: a corpus, filters, a model to start from."""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pyarrow.compute
from datasets import Dataset, DatasetDict, Features, IterableDataset, Value

from hfasr.corpora import load_embedded
from hfasr.corpora.check import check_audio
from hfasr.corpora.filters import keep_rows
from hfasr.corpora.reading.source import load_corpus
from hfasr.corpora.reading.stream import add_stream_target
from hfasr.corpora.rows import FEATURES, column, iter_values, plain
from hfasr.corpora.sources.hub import hub_columns
from hfasr.corpora.splits import split_by_speaker
from hfasr.corpora.targets import add_target
from hfasr.models.load import BUILT_IN
from hfasr.training.arguments import AUTO, CTCTrainingArguments
from hfasr.training.batches.sampler import check_budget

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
_SAMPLE_ROWS = 20_000


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
    audio_root: str | None = field(default=None, metadata={"help": "Where the audio of a manifest or table is on this machine."})
    stream: bool = field(
        default=False,
        metadata={"help": "Train from shards (of hfasr prepare, or on the Hub) without a table of all rows; give --max_steps."},
    )
    validation_split: str = field(default="validation", metadata={"help": "Split to evaluate on during training, such as dev_ios."})
    test_splits: list[str] = field(default_factory=lambda: ["test"], metadata={"help": "Splits to evaluate on at the end."})
    base_model: str | None = field(
        default=None,
        metadata={"help": f"Model to start from: a Hub name, a folder, a .nemo file, or one of {', '.join(BUILT_IN)} from scratch."},
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
        if "token" in options:
            raise ValueError("corpus_options holds a token, which would be written to recipe.json; use `hf auth login` or $HF_TOKEN")
        return options | ({"audio_root": self.audio_root} if self.audio_root else {})


Corpus = dict[str, Dataset | IterableDataset]


def open_corpus(recipe: RecipeArguments, language: str, **options) -> Corpus:
    """Load the corpus of a recipe: "train", the validation split and those to test on; with `stream` the first as a stream.

    A corpus without held-out splits is split by speaker, always in the same way, unless other splits than those are asked for.

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
        corpus = load_embedded(language, **options)
    else:
        corpus = load_corpus(recipe.corpus, source=recipe.source, **options)
    wanted = dict.fromkeys(["train", recipe.validation_split, *recipe.test_splits])
    if set(corpus) == {"train"} and set(wanted) <= {"train", "validation", "test"}:
        corpus = _split(corpus)
    for split in wanted:
        if split not in corpus:
            raise ValueError(
                f"{recipe.corpus} has no split {split!r}, found {', '.join(corpus)}; choose by --validation_split and --test_splits"
            )
    return DatasetDict({split: corpus[split] for split in wanted})


def _split(corpus: DatasetDict) -> DatasetDict:
    speakers = pyarrow.compute.count_distinct(column(corpus["train"], "speaker")).as_py()
    if speakers >= 3:
        logger.info("the corpus has no held-out splits: 5 percent each are made for validation and test, by speaker")
        return split_by_speaker(corpus)
    logger.warning(
        "the corpus has no held-out splits and %d named speakers: 5 percent each are made for validation and test, row by row, so that "
        "speakers stand in several; scores on other people will be worse",
        speakers,
    )
    return split_by_speaker(corpus, speakers=False)


def _open_stream(recipe: RecipeArguments, options: dict) -> Corpus:
    if recipe.corpus == EMBEDDED:
        raise ValueError("the embedded corpus is a table; give --stream a folder of shards (hfasr prepare) or a data set on the Hub")
    if recipe.source not in (None, "hub"):
        raise ValueError(f"--stream reads shards, not {recipe.source}; write some first: hfasr prepare {recipe.corpus} shards/")
    if "splits" in options:
        raise ValueError("corpus_options has splits; with --stream choose them by --validation_split and --test_splits")
    held_out = {split: split for split in (recipe.validation_split, *recipe.test_splits)}
    tables = load_corpus(recipe.corpus, source="hub", splits=held_out, **options)
    return {**load_corpus(recipe.corpus, source="hub", splits=["train"], streaming=True, **options), **tables}


def filter_rows(recipe: RecipeArguments, corpus: Corpus) -> tuple[Corpus, list[dict]]:
    """Keep the training rows within the recipe's limits; return what was left out of a table as well.

    Raises:
        ValueError: No row is left, or one is longer than a batch may be.
    """
    if recipe.stream:
        within = partial(_within, limits=_limits(recipe))
        return {**corpus, "train": corpus["train"].filter(within, input_columns=["text", "duration"])}, []
    kept, dropped = keep_rows(DatasetDict(corpus), **_limits(recipe))
    if recipe.max_batch_seconds != AUTO:  # else the trainer checks it, when it knows it
        check_budget(column(kept["train"], "duration").to_numpy(), recipe.max_batch_seconds, recipe.views)
    return kept, dropped


def _limits(recipe: RecipeArguments) -> dict[str, float]:
    return {
        "min_seconds": recipe.min_seconds,
        "max_seconds": recipe.max_seconds,
        "min_characters_per_second": recipe.min_characters_per_second,
        "max_characters_per_second": recipe.max_characters_per_second,
    }


def _within(text: str | None, seconds: float, limits: dict[str, float]) -> bool:
    if not seconds > 0:
        return True  # the trainer says what is wrong with it
    return (
        limits["min_seconds"] <= seconds <= limits["max_seconds"]
        and limits["min_characters_per_second"] <= len(text or "") / seconds <= limits["max_characters_per_second"]
    )


def with_targets(corpus: Corpus, to_target: Callable[[list[str]], list[str]]) -> Corpus:
    """Add the column `target` to every split."""
    tables = add_target(DatasetDict(_tables(corpus)), to_target)
    streams = {split: add_stream_target(rows, to_target) for split, rows in corpus.items() if split not in tables}
    return {**streams, **tables} if streams else tables


def training_table(recipe: RecipeArguments, corpus: Corpus, to_target: Callable[[list[str]], list[str]]) -> Dataset:
    """Return the training rows with their targets, to make a vocabulary of and to look for leaks.

    Of shards that are streamed from disk these are texts, speakers and durations; of a stream from the Hub its first 20,000 rows.
    """
    if not recipe.stream:
        table = corpus["train"]
    elif (columns := hub_columns(recipe.corpus, split="train", **recipe.source_options)) is not None:
        kept, _ = keep_rows(DatasetDict(train=columns), **_limits(recipe), drop_empty=False)
        table = add_target(kept, to_target)["train"]
    else:
        logger.warning("vocabulary and leak check see the first %d rows of the stream; other symbols in it become <unk>", _SAMPLE_ROWS)
        names = ["id", "text", "speaker", "duration", "target"]
        sample = list(corpus["train"].select_columns(names).take(_SAMPLE_ROWS))
        features = Features({**FEATURES, "target": Value("string")})
        table = plain(Dataset.from_list([dict.fromkeys(features) | row for row in sample], features=features))
    if getattr(to_target, "lexicon", None) is not None:
        unknown = to_target.unknown_words(iter_values(table, "text"))
        named = ", ".join(word for word, _ in unknown.most_common(10))
        logger.info("the lexicon lacks %d words of training, %d times in all: %s", len(unknown), sum(unknown.values()), named or "none")
    return table


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
