"""Rows that stand twice in a split: ids, recordings, sentences alike or nearly alike."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset

from hfasr.corpora.near import near_pairs
from hfasr.corpora.rows import byte_lengths, column, plain
from hfasr.paths import archived, read_bytes, segment_of
from hfasr.text.normalize import fold

_EXAMPLES = 10


@dataclass(frozen=True)
class Repeats:
    """Rows that share a value.

    Args:
        groups: Values that stand in several rows.
        places: The rows that repeat an earlier one `(rows,)`: without them each value stands once.
        examples: Up to 10 groups, each the ids of up to 4 of its rows.
    """

    groups: int
    places: np.ndarray
    examples: tuple[tuple[str, ...], ...]

    def as_dict(self) -> dict:
        """Return counts and examples, as JSON takes them."""
        return {"groups": self.groups, "rows": len(self.places), "examples": [list(ids) for ids in self.examples]}


@dataclass(frozen=True)
class Duplicates:
    """What stands several times in one split: `ids`, audio `paths`, audio `contents` under several names, sentences of the
    same speaker, `sentences` of any (usual in read speech), and sentences near to another; None for what was not looked for.
    """

    rows: int
    ids: Repeats
    paths: Repeats
    speaker_sentences: Repeats
    sentences: Repeats
    contents: Repeats | None = None
    near_sentences: Repeats | None = None

    def as_dict(self) -> dict:
        """Return all counts, as JSON takes them."""
        return {"rows": self.rows} | {name: found.as_dict() for name, found in vars(self).items() if isinstance(found, Repeats)}


def find_duplicates(rows: Dataset, *, contents: bool = False, similarity: float | None = None) -> Duplicates:
    """Find what stands several times in one split.

    Args:
        rows: One split. Sentences are compared folded: without case, punctuation, spaces and look-alikes.
        contents: Also read the recordings of equal size and duration, to find one audio under several names. Segments of a
            longer recording are left out.
        similarity: Also find sentences within this normalised edit similarity, such as 0.9; see `near_pairs`.
    """
    rows = plain(rows)
    texts = folded(rows)
    sentences, speakers = numbered(texts), numbered(speakers_of(rows))
    both = np.where((sentences >= 0) & (speakers >= 0), sentences * (speakers.max(initial=0) + 1) + speakers, -1)
    return Duplicates(
        rows=len(rows),
        ids=_repeats(rows, numbered(column(rows, "id"))),
        paths=_repeats(rows, numbered(column(rows, "audio", "path"))),
        speaker_sentences=_repeats(rows, both),
        sentences=_repeats(rows, sentences),
        contents=_repeats(rows, numbered(contents_of([rows])[0])) if contents else None,
        near_sentences=_repeats(rows, _near_codes(texts, similarity)) if similarity is not None else None,
    )


def folded(rows: Dataset) -> pyarrow.Array:
    """Return each row's sentence as `fold` makes it `(rows,)`; null where no letter or digit is left."""
    texts = column(rows, "text").cast(pyarrow.large_string()).combine_chunks().dictionary_encode()
    sentences = pyarrow.array([fold(text) or None for text in texts.dictionary.to_pylist()], pyarrow.large_string())
    return sentences.take(texts.indices)


def speakers_of(rows: Dataset) -> pyarrow.ChunkedArray:
    """Return each row's speaker `(rows,)`; null where none is told."""
    if "speaker" not in rows.column_names:
        return pyarrow.chunked_array([pyarrow.nulls(len(rows), pyarrow.string())])
    speakers = column(rows, "speaker")
    return pyarrow.compute.if_else(pyarrow.compute.equal(speakers, ""), None, speakers)


def numbered(values: pyarrow.Array | pyarrow.ChunkedArray) -> np.ndarray:
    """Return for each value the number of its kind `(values,)`, in the order in which they come; -1 for null."""
    values = values if isinstance(values, pyarrow.ChunkedArray) else pyarrow.chunked_array([values])
    chunks = values.dictionary_encode().chunks  # they share one dictionary
    return np.concatenate([np.zeros(0, np.int64), *(chunk.indices.fill_null(-1).to_numpy().astype(np.int64) for chunk in chunks)])


def contents_of(parts: Sequence[Dataset], *, files: bool = True) -> list[pyarrow.Array]:
    """Return for each row of several splits a hash of its recording's bytes; null where no other has its size and duration.

    Segments of longer recordings and files that are missing have none; without `files` only rows that hold their bytes have one.
    """
    sizes = np.concatenate([_sizes(rows) if files else byte_lengths(rows) for rows in parts])
    durations = np.concatenate([np.nan_to_num(column(rows, "duration").to_numpy(), nan=-1.0).round(2) for rows in parts])
    _, back, counts = np.unique(np.stack([sizes, durations]), axis=1, return_inverse=True, return_counts=True)
    alike = (counts[back] > 1) & (sizes >= 0)
    hashes, start, known = [], 0, {}
    for rows in parts:
        places = np.flatnonzero(alike[start : start + len(rows)])
        values = np.full(len(rows), None, dtype=object)
        for place in places:
            audio = rows[int(place)]["audio"]
            key = audio["path"] if audio["bytes"] is None else None
            if key is None or key not in known:
                data = read_bytes(key) if key is not None else audio["bytes"]
                known[key] = hashlib.blake2b(data, digest_size=16).hexdigest()
            values[place] = known[key]
        hashes.append(pyarrow.array(values, pyarrow.string()))
        start += len(rows)
    return hashes


def _sizes(rows: Dataset) -> np.ndarray:
    """Return the encoded size in bytes of each recording `(rows,)`; -1 of segments and missing files."""
    paths = column(rows, "audio", "path").to_pylist()
    sizes = byte_lengths(rows).tolist()
    return np.array([size if size >= 0 else _size(path) for size, path in zip(sizes, paths, strict=True)], dtype=np.int64)


def _size(path: str | None) -> int:
    if path is None or segment_of(path) is not None:
        return -1
    if "::" in path and archived(path):
        return int(path.rpartition("+")[2])
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def near_sentences(ours: pyarrow.Array, theirs: pyarrow.Array | None, similarity: float) -> tuple[np.ndarray, pyarrow.Array, pyarrow.Array]:
    """Return the pairs `(pairs, 2)` of near distinct sentences, none of them equal, and the distinct sentences they are places in."""
    left = pyarrow.compute.unique(ours).drop_null()
    right = left if theirs is None else pyarrow.compute.unique(theirs).drop_null()
    pairs = near_pairs(left.to_pylist(), None if theirs is None else right.to_pylist(), similarity=similarity)
    if theirs is not None and len(pairs):
        same = pyarrow.compute.equal(left.take(pyarrow.array(pairs[:, 0])), right.take(pyarrow.array(pairs[:, 1])))
        pairs = pairs[~same.to_numpy(zero_copy_only=False)]
    return pairs, left, right


def _near_codes(sentences: pyarrow.Array, similarity: float) -> np.ndarray:
    """Number the groups of sentences that hang together by near pairs `(rows,)`; -1 for a sentence near to none."""
    pairs, distinct, _ = near_sentences(sentences, None, similarity)
    groups = np.arange(len(distinct))
    while len(pairs) and (groups[pairs[:, 0]] != groups[pairs[:, 1]]).any():
        least = np.minimum(groups[pairs[:, 0]], groups[pairs[:, 1]])
        np.minimum.at(groups, pairs[:, 0], least)
        np.minimum.at(groups, pairs[:, 1], least)
    groups[np.setdiff1d(np.arange(len(distinct)), pairs)] = -1
    places = pyarrow.compute.index_in(sentences, value_set=distinct, skip_nulls=True).fill_null(-1).to_numpy()
    return np.where(places >= 0, groups[places] if len(groups) else -1, -1)


def _repeats(rows: Dataset, codes: np.ndarray) -> Repeats:
    """Find the rows that share a code other than -1."""
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    again = np.concatenate([[False], codes[order[1:]] == codes[order[:-1]]]) if len(order) else np.zeros(0, bool)
    first = np.flatnonzero(~again)
    sizes = np.diff(np.append(first, len(order)))
    ids = column(rows, "id")
    examples = [
        tuple(ids[int(place)].as_py() for place in order[first[group] : first[group] + min(sizes[group], 4)])
        for group in np.flatnonzero(sizes > 1)[:_EXAMPLES]
    ]
    return Repeats(int((sizes > 1).sum()), np.sort(order[again]), tuple(examples))
