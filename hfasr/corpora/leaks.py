"""What training shares with the splits it is tested on."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset, DatasetDict

from hfasr.corpora.duplicates import contents_of, folded, near_sentences, speakers_of
from hfasr.corpora.rows import byte_lengths, column, decoded, plain, refuse_one_split

logger = logging.getLogger(__name__)

# Common Voice keeps these beside its splits: they hold clips of the others, and nobody is tested on them.
POOLS = ("validated", "invalidated", "other")

_EXAMPLES = 10


@dataclass(frozen=True)
class Leak:
    """What one split shares with training.

    Args:
        rows: Of the split.
        sentences: Distinct sentences, folded, that also stand in training.
        sentence_rows: Rows of the split with such a sentence.
        speakers: Speakers who also speak in training.
        speaker_rows: Rows of the split by them.
        speaker_train_rows: Rows of training by them.
        audio_rows: Rows whose recording also stands in training, by its path, or by its content where rows hold it or that was
            asked for; None when the training rows have neither, as those of a stream.
        near_rows: Further rows whose sentence is near to one of training; None when that was not looked for.
        examples: Up to 10 `{"id", "text", "train_id", "train_text"}`; those of near sentences come last.
    """

    rows: int
    sentences: int
    sentence_rows: int
    speakers: int
    speaker_rows: int
    speaker_train_rows: int
    audio_rows: int | None
    near_rows: int | None
    examples: tuple[dict[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.sentence_rows or self.speakers or self.audio_rows or self.near_rows)

    def as_dict(self) -> dict:
        """Return counts, share of the rows and examples, as JSON takes them."""
        share = round(self.sentence_rows / self.rows, 6) if self.rows else 0.0
        return {name: value for name, value in vars(self).items() if value is not None} | {
            "sentence_share": share,
            "examples": list(self.examples),
        }


@dataclass(frozen=True)
class Leaks:
    """What each split shares with training; true when any shares anything, and printed as a table."""

    train: str
    splits: dict[str, Leak] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.splits.values())

    def as_dict(self) -> dict[str, dict]:
        """Return `Leak.as_dict` of each split."""
        return {split: leak.as_dict() for split, leak in self.splits.items()}

    def __str__(self) -> str:
        near = any(leak.near_rows is not None for leak in self.splits.values())
        head = ["split", "rows", "sentence in training", *(["near one"] if near else []), "speaker in training", "audio in training"]
        lines = [head] + [
            [
                split,
                str(leak.rows),
                f"{leak.sentence_rows} ({_percent(leak.sentence_rows, leak.rows)})",
                *([str(leak.near_rows)] if near else []),
                f"{leak.speaker_rows} ({leak.speakers} speaker{'' if leak.speakers == 1 else 's'})",
                "not compared" if leak.audio_rows is None else str(leak.audio_rows),
            ]
            for split, leak in self.splits.items()
        ]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        for split, leak in self.splits.items():
            table += [
                f"{split}: {one['id']} {one['text']!r} is {one['train_id']} {one['train_text']!r} of {self.train}"
                for one in leak.examples[:1]
            ]
        return "\n".join(table)


def leaks(
    corpus: DatasetDict,
    train: str = "train",
    *,
    splits: Collection[str] | None = None,
    near: bool = False,
    similarity: float = 0.9,
    contents: bool = False,
) -> Leaks:
    """Find sentences, speakers and recordings that training shares with the other splits.

    Sentences are compared folded: without case, punctuation, spaces and look-alikes of other scripts. Rows without a speaker
    share none.

    Args:
        corpus: Rows.
        train: Name of the training split; without it nothing is shared.
        splits: Which others; when None all but Common Voice's pools (validated, invalidated, other), which hold training clips.
        near: Also look for near sentences.
        similarity: From which normalised edit similarity a sentence is near.
        contents: Also compare the recordings of equal size and duration by their content, which reads them.

    Raises:
        ValueError: A split that is asked for is not there.
        TypeError: `corpus` is a single data set.
    """
    refuse_one_split(corpus, "leaks")
    corpus, others = plain(corpus), _held_out(corpus, train, splits)
    if train not in corpus:
        return Leaks(train)
    ours, found = _Training(corpus[train]), {}
    audio = contents_of([corpus[train], *(corpus[split] for split in others)], files=contents)
    for split, content in zip(others, audio[1:], strict=True):
        found[split] = _leak(ours, corpus[split], similarity if near else None, audio[0], content)
    return Leaks(train, found)


def without_leaks(
    corpus: DatasetDict,
    train: str = "train",
    *,
    splits: Collection[str] | None = None,
    sentences: bool = True,
    speakers: bool = False,
    near: bool = False,
    similarity: float = 0.9,
) -> tuple[DatasetDict, list[dict]]:
    """Drop from training the rows whose sentence, or speaker, also stands in another split.

    Args:
        corpus: Rows.
        train: Name of the training split.
        splits: The splits to protect; see `leaks`.
        sentences: Drop rows with their sentences, folded.
        speakers: Drop rows by their speakers.
        near: Drop rows with near sentences too.
        similarity: From which normalised edit similarity a sentence is near.

    Returns:
        The corpus, and one `{"split", "id", "path", "reason"}` for each row left out.

    Raises:
        ValueError: A split is not there, or training has no row left.
        TypeError: `corpus` is a single data set.
    """
    refuse_one_split(corpus, "without_leaks")
    corpus, others = plain(corpus), _held_out(corpus, train, splits)
    if train not in corpus:
        raise ValueError(f"there is no split {train!r} to drop rows from, found {', '.join(corpus)}; give train=")
    rows = corpus[train]
    ours, reasons = _Training(rows), {}
    for split in others:
        theirs = folded(corpus[split])
        if sentences:
            _note(reasons, _shared(ours.sentences, theirs), f"the sentence also stands in {split}")
        if speakers:
            _note(reasons, _shared(ours.speakers, speakers_of(corpus[split])), f"the speaker also speaks in {split}")
        if near:
            pairs, left, _ = near_sentences(ours.sentences, theirs, similarity)
            _note(
                reasons,
                _shared(ours.sentences, left.take(pyarrow.array(np.unique(pairs[:, 0])))),
                f"the sentence is near to one of {split}",
            )
    places = sorted(reasons)
    if len(rows) and len(places) == len(rows):
        raise ValueError(f"no row of {train!r} is left: all {len(rows)} share {'sentences or speakers' if speakers else 'sentences'} "
                         f"with {', '.join(others)}")  # fmt: skip
    named = rows.select(places)
    dropped = [
        {"split": train, "id": name, "path": path, "reason": reasons[place]}
        for place, name, path in zip(places, column(named, "id").to_pylist(), column(named, "audio", "path").to_pylist(), strict=True)
    ]
    if dropped:
        logger.info("%s: %d of %d rows left out, shared with %s", train, len(dropped), len(rows), ", ".join(others))
    kept = rows.select(np.delete(np.arange(len(rows)), places)) if places else rows
    return decoded(DatasetDict({**corpus, train: kept})), dropped


class _Training:
    def __init__(self, rows: Dataset):
        self.rows, self.sentences, self.speakers = rows, folded(rows), speakers_of(rows)
        self.paths = _paths(rows)
        self.silent = len(rows) > 0 and self.paths.null_count == len(rows) and not (byte_lengths(rows) >= 0).any()


def _paths(rows: Dataset) -> pyarrow.ChunkedArray:
    """Return where recordings are; null for rows that hold the bytes, whose path is only a name."""
    paths = column(rows, "audio", "path")
    return pyarrow.compute.if_else(pyarrow.array(byte_lengths(rows) >= 0), None, paths)


def _leak(ours: _Training, rows: Dataset, similarity: float | None, our_audio: pyarrow.Array, audio: pyarrow.Array) -> Leak:
    sentences, speakers = folded(rows), speakers_of(rows)
    shared, by_shared = _shared(sentences, ours.sentences), _shared(speakers, ours.speakers)
    heard = _shared(_paths(rows), ours.paths) | _shared(audio, our_audio)
    near, pairs = np.zeros(len(rows), dtype=bool), {}
    if similarity is not None:
        found, left, right = near_sentences(sentences.filter(pyarrow.array(~shared)), ours.sentences, similarity)
        near = _shared(sentences, left.take(pyarrow.array(np.unique(found[:, 0])))) & ~shared
        pairs = dict(
            zip(left.take(pyarrow.array(found[::-1, 0])).to_pylist(), right.take(pyarrow.array(found[::-1, 1])).to_pylist(), strict=True)
        )
    return Leak(
        rows=len(rows),
        sentences=pyarrow.compute.count_distinct(sentences.filter(pyarrow.array(shared))).as_py(),
        sentence_rows=int(shared.sum()),
        speakers=pyarrow.compute.count_distinct(speakers.filter(pyarrow.array(by_shared))).as_py(),
        speaker_rows=int(by_shared.sum()),
        speaker_train_rows=int(_shared(ours.speakers, speakers).sum()),
        audio_rows=None if ours.silent else int(heard.sum()),
        near_rows=None if similarity is None else int(near.sum()),
        examples=tuple(_examples(ours, rows, sentences, [*np.flatnonzero(shared), *np.flatnonzero(near)][:_EXAMPLES], pairs)),
    )


def _examples(ours: _Training, rows: Dataset, sentences: pyarrow.Array, places: list[int], near: dict[str, str]) -> list[dict[str, str]]:
    """Put the rows at some places beside the first row of training that has their sentence, or the one near to it."""
    theirs = [sentences[int(place)].as_py() for place in places]
    wanted = pyarrow.array([near.get(sentence, sentence) for sentence in theirs], ours.sentences.type)
    train_places = pyarrow.compute.index_in(wanted, value_set=ours.sentences).to_numpy()
    names = [(column(part, "id"), column(part, "text")) for part in (rows, ours.rows)]
    return [
        {
            "id": names[0][0][int(place)].as_py(),
            "text": names[0][1][int(place)].as_py(),
            "train_id": names[1][0][int(train_place)].as_py(),
            "train_text": names[1][1][int(train_place)].as_py(),
        }
        for place, train_place in zip(places, train_places, strict=True)
    ]


def _shared(values: pyarrow.Array | pyarrow.ChunkedArray, others: pyarrow.Array | pyarrow.ChunkedArray) -> np.ndarray:
    """Tell which values `(values,)` are among the others; null is not."""
    others = others.combine_chunks() if isinstance(others, pyarrow.ChunkedArray) else others
    values = values if isinstance(values, pyarrow.ChunkedArray) else pyarrow.chunked_array([values])
    return pyarrow.compute.is_in(values, value_set=others, skip_nulls=True).to_numpy().astype(bool)


def _note(reasons: dict[int, str], failed: np.ndarray, reason: str) -> None:
    for place in np.flatnonzero(failed).tolist():
        reasons.setdefault(place, reason)


def _held_out(corpus: DatasetDict, train: str, splits: Collection[str] | None) -> list[str]:
    if splits is None:
        return [split for split in corpus if split != train and split not in POOLS]
    if unknown := [split for split in splits if split not in corpus or split == train]:
        raise ValueError(f"{', '.join(map(repr, unknown))} cannot be compared with training, the other splits are "
                         f"{', '.join(split for split in corpus if split != train) or 'none'}; give splits= of these")  # fmt: skip
    return list(splits)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
