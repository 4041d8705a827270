"""Splits for a corpus that has none, and one corpus of several."""

import logging
import re
import zlib

import numpy as np
import pyarrow
from datasets import Audio, Dataset, DatasetDict, concatenate_datasets

from hfasr.corpora.duplicates import folded, numbered, speakers_of
from hfasr.corpora.rows import FEATURES, column, decoded, plain, with_column

logger = logging.getLogger(__name__)


def split_by_speaker(
    rows: Dataset | DatasetDict,
    *,
    validation: float = 0.05,
    test: float = 0.05,
    seed: int = 0,
    sentences: bool = False,
    speakers: bool = True,
) -> DatasetDict:
    """Split rows so that no speaker stands in two splits.

    Args:
        rows: One split, or a corpus of one. A row without a speaker is taken for a speaker of its own, with a warning.
        validation: Share of the seconds for "validation", met as nearly as the speakers allow; 0 for none.
        test: Share of the seconds for "test"; 0 for none.
        seed: Of which speakers go where.
        sentences: Keep rows of one sentence (folded, see `hfasr.corpora.duplicates`) together too. Where many speakers read the
            same sentences this leaves little to choose from, and is refused when it leaves less than the shares.
        speakers: False splits row by row, for a corpus of one or two speakers, who then stand in several splits.

    Returns:
        "train", "validation" and "test", rows in the order given, audio decoded on access.

    Raises:
        ValueError: The corpus has several splits or no rows, the shares are not possible, or there are fewer speakers, or groups
            of speakers, than splits.
    """
    rows = plain(_only_split(rows))
    # the smaller first: where speakers are few, it can only take small ones
    shares = {name: share for share, name in sorted([(validation, "validation"), (test, "test")]) if share}
    if any(not 0 <= share < 1 for share in (validation, test)) or not 0 < validation + test < 1:
        raise ValueError(f"shares of validation={validation} and test={test} are not possible; give 0 or more, less than 1 together")
    groups = _speaker_numbers(rows) if speakers else np.arange(len(rows))
    _check_enough(len(np.unique(groups)), "speakers" if speakers else "rows", len(shares) + 1)
    groups = _joined_groups(groups, numbered(folded(rows))) if sentences else groups
    seconds = np.bincount(groups, weights=_known_seconds(rows))
    if sentences:
        _check_groups(seconds, validation + test, len(shares) + 1)
    split_of = np.full(len(seconds), "train", dtype=object)
    order = np.random.default_rng(seed).permutation(len(seconds))
    for number, (split, share) in enumerate(shares.items()):
        free = order[split_of[order] == "train"]
        keep_back = len(shares) - number  # one group at least for each split still to come, and for training
        chosen = _nearest(free, seconds, share * seconds.sum(), most=len(free) - keep_back)
        split_of[chosen] = split
    made = {split: rows.select(np.flatnonzero(split_of[groups] == split)) for split in ("train", "validation", "test") if split in split_of}
    for split, share in shares.items():
        found = seconds[split_of == split].sum() / seconds.sum()
        if abs(found - share) > 0.2 * share:
            logger.warning("%s holds %.1f %% of the speech, not %.1f %%: its speakers allow no better", split, 100 * found, 100 * share)
    return decoded(DatasetDict(made))


def mix(corpora: dict[str, tuple[DatasetDict, float]], *, seed: int = 0) -> DatasetDict:
    """Make one corpus of several, each with a weight in training.

    Args:
        corpora: By name: a corpus, and how many times its training rows come in an epoch: 3.0 three times, 0.5 a random half,
            2.5 twice and a random half.
        seed: Of the random parts.

    Returns:
        "train", "validation" with the rows of all, and each other split apart, as `<split>_<name>`. The column `source` is the
        name. A column of the schema that a corpus lacks is None there. Rows are referred to, audio bytes not copied. Sentences
        that one corpus trains on and another is tested on are found by `leaks` afterwards.

    Raises:
        ValueError: A name is not made of letters, digits and underscores, a weight is not above 0, no corpus has a training
            split, a column outside the schema is not in all corpora, or is of another type.
        TypeError: A value is not a pair of a DatasetDict and a number.
    """
    parts: dict[str, list[Dataset]] = {}
    for name, pair in corpora.items():
        corpus, weight = _checked_pair(name, pair)
        for split, rows in corpus.items():
            rows = _aligned(name, split, rows)
            if split == "train":
                rows = rows.select(_weighted(len(rows), weight, (seed, zlib.crc32(name.encode()))))
            parts.setdefault(split if split in ("train", "validation") else f"{split}_{name}", []).append(rows)
    if "train" not in parts:
        raise ValueError(f"none of the corpora {', '.join(corpora) or '(none given)'} has a split 'train' to train on")
    names = [name for name in ("train", "validation") if name in parts]
    return decoded(
        DatasetDict({split: _concatenated(split, parts[split]) for split in [*names, *(set_ for set_ in parts if set_ not in names)]})
    )


def _only_split(rows: Dataset | DatasetDict) -> Dataset:
    if isinstance(rows, dict):
        if len(rows) != 1:
            raise ValueError(f"the corpus has the splits {', '.join(rows) or '(none)'}; give one of them, such as corpus['train']")
        (rows,) = rows.values()
    if not isinstance(rows, Dataset):
        raise TypeError(f"split_by_speaker takes a Dataset or a DatasetDict of one split, found {type(rows).__name__}")
    if not len(rows):
        raise ValueError("there are no rows to split")
    return rows


def _speaker_numbers(rows: Dataset) -> np.ndarray:
    """Number the speakers `(rows,)`; a row without one, by its id."""
    speakers = numbered(speakers_of(rows))
    nobody = speakers < 0
    if nobody.any():
        logger.warning(
            "%d of %d rows have no speaker and are split one by one: their speakers may stand in two splits", nobody.sum(), len(rows)
        )
        ids = numbered(column(rows, "id"))
        speakers = np.where(nobody, speakers.max() + 1 + ids, speakers)
    return np.unique(speakers, return_inverse=True)[1]


def _known_seconds(rows: Dataset) -> np.ndarray:
    """Return the seconds `(rows,)`, for an unknown duration the mean of the known ones."""
    seconds = column(rows, "duration").to_numpy().astype(np.float64)
    known = np.isfinite(seconds) & (seconds > 0)
    if not known.all():
        logger.warning("%d of %d rows have no known duration and count as the mean of the others", (~known).sum(), len(rows))
    return np.where(known, seconds, seconds[known].mean() if known.any() else 1.0)


def _joined_groups(speakers: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    """Number the groups `(rows,)` of rows that hang together by a speaker or a sentence (-1 is none)."""
    sentences = np.where(sentences < 0, sentences.max() + 1 + np.arange(len(sentences)), sentences)
    groups = np.arange(speakers.max() + 1)
    while True:
        least = np.full(sentences.max() + 1, len(groups))
        np.minimum.at(least, sentences, groups[speakers])
        joined = groups.copy()
        np.minimum.at(joined, speakers, least[sentences])
        joined = joined[joined]  # halves the way along a chain
        if (joined == groups).all():
            return np.unique(groups[speakers], return_inverse=True)[1]
        groups = joined


def _check_enough(count: int, what: str, splits: int) -> None:
    if count < splits:
        raise ValueError(
            f"{splits} splits need {splits} {what} or more, found {count}; set validation=0 or test=0, or split the rows by "
            "rows.train_test_split where one speaker in two splits is no harm"
        )


def _check_groups(seconds: np.ndarray, share: float, splits: int) -> None:
    """Refuse speakers and sentences that hang together so much that the rest is less than what is to be held out."""
    largest = seconds.max() / seconds.sum()
    if len(seconds) < splits or 1 - largest < 0.8 * share:
        raise ValueError(
            f"{100 * largest:.1f} % of the speech hangs together, since its speakers read the same sentences, and {100 * share:.1f} % "
            "are to be held out. Split with sentences=False, then drop the shared sentences from training with without_leaks(corpus)"
        )


def _nearest(groups: np.ndarray, seconds: np.ndarray, wanted: float, most: int) -> list[int]:
    """Choose groups, in their order, whose seconds come near to those wanted: at least one, at most `most`."""
    chosen, total = [], 0.0
    for group in groups:
        if len(chosen) < most and total + seconds[group] <= wanted:
            chosen.append(int(group))
            total += seconds[group]
    rest = [int(group) for group in np.setdiff1d(groups, chosen)]
    if len(chosen) < most:
        last = min(rest, key=lambda group: (abs(wanted - total - seconds[group]), group))
        if not chosen or abs(wanted - total - seconds[last]) < abs(wanted - total):
            chosen.append(last)
    return chosen


def _checked_pair(name: str, pair: tuple[DatasetDict, float]) -> tuple[DatasetDict, float]:
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"the name {name!r} becomes part of split names; use letters, digits and underscores only")
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], DatasetDict)):
        found = f"({', '.join(type(part).__name__ for part in pair)})" if isinstance(pair, tuple | list) else type(pair).__name__
        raise TypeError(f"mix takes a (DatasetDict, weight) for {name!r}, found {found}; give {{{name!r}: (corpus, 1.0)}}")
    if isinstance(pair[1], bool) or not isinstance(pair[1], int | float | np.number):
        raise TypeError(f"the weight of {name!r} is {pair[1]!r}; give a number, such as 1.0")
    if not 0 < pair[1] < np.inf:
        raise ValueError(f"the weight of {name!r} is {pair[1]}; give more than 0, or leave the corpus out")
    return pair


def _weighted(rows: int, weight: float, seed: tuple[int, int]) -> np.ndarray:
    """Return which rows come in an epoch: each as often as the whole part of the weight, and a random share of them."""
    whole = int(weight)
    share = np.random.default_rng(seed).choice(rows, round((weight - whole) * rows), replace=False)
    return np.concatenate([np.tile(np.arange(rows), whole), np.sort(share)])


def _aligned(name: str, split: str, rows: Dataset) -> Dataset:
    """Give rows the columns and types of the schema, and their source."""
    if "audio" not in rows.column_names or not isinstance(rows.features["audio"], Audio):
        raise ValueError(
            f"split {split!r} of {name!r} has no audio column, found {', '.join(rows.column_names)}; load it with hfasr.corpora"
        )
    if lacking := [needed for needed in ("id", "text", "duration") if needed not in rows.column_names]:
        raise ValueError(f"split {split!r} of {name!r} has no column {', '.join(lacking)}, found {', '.join(rows.column_names)}")
    rows = plain(rows)
    for wanted, feature in FEATURES.items():
        if wanted == "source":
            values = pyarrow.array([name]).take(pyarrow.array(np.zeros(len(rows), dtype=np.int64)))
        elif wanted not in rows.column_names:
            values = pyarrow.nulls(len(rows), feature.pa_type)
        elif wanted == "audio" or rows.features[wanted] == feature:
            continue
        else:
            values = column(rows, wanted).cast(feature.pa_type)
        rows = with_column(rows, wanted, values, feature)
    return rows


def _concatenated(split: str, parts: list[Dataset]) -> Dataset:
    features = [part.features for part in parts]
    for other in features[1:]:
        if uneven := sorted(set(other) ^ set(features[0])):
            raise ValueError(f"column {', '.join(uneven)} is not in split {split!r} of every corpus; add it to all, or after mixing")
        if unlike := [name for name in other if other[name] != features[0][name]]:
            raise ValueError(
                f"column {unlike[0]!r} of split {split!r} is {features[0][unlike[0]]} in one corpus, {other[unlike[0]]} in another"
            )
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0]
