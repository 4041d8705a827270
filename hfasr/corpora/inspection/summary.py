"""What a corpus holds, in numbers, and what in it to look at first."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from hfasr.corpora.duplicates import Duplicates, find_duplicates, folded
from hfasr.corpora.inspection.headers import read_headers
from hfasr.corpora.inspection.suspicion import BITS, REASONS, Suspicion, assess
from hfasr.corpora.inspection.symbols import Symbol, alphabet_of, unused_letters
from hfasr.corpora.leaks import Leaks, leaks
from hfasr.corpora.rows import column, plain, refuse_one_split
from hfasr.text.changes import NormalizationReport
from hfasr.text.normalize import Normalizer
from hfasr.text.tables import load_table

_QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}
_EXAMPLES = 3
_SPEAKERS_LISTED = 50
_NORMALIZED_TEXTS = 50_000
_KINDS = 50  # of changes by one rule, in `as_dict`
_NEAR = 0.9
_REPEATED = {
    "ids": "the id of an earlier row",
    "paths": "the recording of an earlier row",
    "speaker_sentences": "the same speaker said this sentence in an earlier row",
    "near_sentences": "nearly the sentence of another row",
}


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found. `str` of it is a report to read, `as_dict` plain data.

    Attributes:
        language: The language whose letters were asked for.
        splits: For each: `utterances, hours, speakers, unknown_durations`, and quantiles of `duration` (s) and
            `characters_per_second`.
        sources: Source -> `utterances, hours`.
        speakers: `count`, `unnamed` rows, quantiles of `utterances` and `hours` of a speaker, and who speaks most, `listed`.
        files: What a sample of the headers says: `sampled` clips, how many of each of `formats`, `sampling_rates` (Hz) and
            `channels`, `unreadable` ones with the reason, and how often the duration is another than the header's.
        alphabet: Each symbol: `symbol, name, script, kind, count, rows, mark` (why it stands out, or empty) and `example`, the
            id of a row.
        unused: Letters of the language that the texts never use in either case.
        reasons: For each reason to suspect a row that was found: `title, rows, advice`, and the most suspicious `examples`.
        problems: Problem -> `count` and `examples`, as the loader met them.
        duplicates: For each split what `find_duplicates` says.
        leaks: What training shares with the others.
        normalized: What the `Normalizer` of the language would change, in at most 50,000 texts; None without a language.
        suspicious: The rows to look at first: `split, id, text, duration, score, reasons`.
        suspicion: Marks and scores of all rows; not part of `as_dict`.
    """

    language: str | None
    splits: dict[str, dict]
    sources: dict[str, dict]
    speakers: dict[str, Any]
    files: dict[str, Any]
    alphabet: list[dict]
    unused: list[str]
    reasons: dict[str, dict]
    problems: dict[str, dict]
    duplicates: dict[str, Duplicates]
    leaks: Leaks
    normalized: NormalizationReport | None
    suspicious: list[dict]
    suspicion: Suspicion = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "suspicion"}
        return values | {
            "duplicates": {split: found.as_dict() for split, found in self.duplicates.items()},
            "leaks": self.leaks.as_dict(),
            "normalized": None if self.normalized is None else _plain_report(self.normalized),
        }

    def __str__(self) -> str:
        from hfasr.corpora.inspection.text import inspection_text

        return inspection_text(self)


def describe(corpus: DatasetDict) -> dict[str, dict]:
    """Return for each split `{"utterances", "hours", "speakers"}`; rows of unknown duration count no time."""
    described = {}
    for split, rows in plain(corpus).items():
        seconds = column(rows, "duration").to_numpy()
        described[split] = {
            "utterances": len(rows),
            "hours": round(float(np.nansum(seconds)) / 3600, 4),
            "speakers": pc.count_distinct(column(rows, "speaker")).as_py() if "speaker" in rows.column_names else None,
        }
    return described


def inspect(
    corpus: DatasetDict,
    *,
    language: str | None = None,
    problems: Iterable[Mapping[str, str]] = (),
    near: bool = False,
    headers: int = 2000,
    worst: int = 100,
) -> Inspection:
    """Look through a corpus: its size, its files, its alphabet, and which rows are suspicious.

    No audio is decoded; of a sample of clips the header is read.

    Args:
        corpus: Rows of every split.
        language: Code such as "ky"; letters outside its alphabet stand out, and what its `Normalizer` changes is counted.
        problems: What the loader met, `{"problem", "name", "reason"}` each, or `check_audio`'s `{"split", "id", "path", "reason"}`.
        near: Look for near duplicates too, which takes longer.
        headers: How many clips' headers to read, drawn from all rows.
        worst: How many of the most suspicious rows to list; all keep their marks in `suspicion`.

    Raises:
        ValueError: There are no rows.
        TypeError: `corpus` is a single data set.
    """
    refuse_one_split(corpus, "inspect")
    corpus = plain(corpus)
    if not sum(map(len, corpus.values())):
        raise ValueError("the corpus has no rows, expected at least one")
    problems = [dict(problem) for problem in problems]
    texts = [column(rows, "text") for rows in corpus.values()]
    duration = np.concatenate([column(rows, "duration").to_numpy() for rows in corpus.values()])
    ids = pyarrow.chunked_array([chunk for rows in corpus.values() for chunk in column(rows, "id").chunks], pyarrow.string())
    letters, look_alikes = alphabet_of(language)
    duplicates = {split: find_duplicates(rows, similarity=_NEAR if near else None) for split, rows in corpus.items()}
    shared = leaks(corpus, near=near, similarity=_NEAR)
    notes = _repeated_rows(duplicates) | {"leak": _leaked_rows(corpus, shared), "bad": _bad_rows(problems, corpus)}
    suspicion = assess(texts, list(corpus), duration, letters=letters, look_alikes=look_alikes, notes=notes)
    speakers = _column_of_all(corpus, "speaker")
    return Inspection(
        language=language,
        splits=_describe_splits(corpus, suspicion),
        sources=_totals(_column_of_all(corpus, "source"), duration),
        speakers=_describe_speakers(_totals(speakers, duration), speakers.null_count),
        files=read_headers(corpus, headers),
        alphabet=_alphabet(suspicion, ids),
        unused=unused_letters(suspicion.symbols, language),
        reasons=_reasons(corpus, suspicion),
        problems=_group_problems(problems),
        duplicates=duplicates,
        leaks=shared,
        normalized=None if language is None else _count_changes(texts, language),
        suspicious=_listed_rows(corpus, suspicion, suspicion.order[: min(worst, np.count_nonzero(suspicion.marks))]),
        suspicion=suspicion,
    )


def rows_at(corpus: DatasetDict, places: np.ndarray, columns: Iterable[str]) -> dict[str, list]:
    """Return columns of the rows at some places among all rows, in the order of the places; "audio" is its path."""
    ends = np.cumsum([len(rows) for rows in corpus.values()])
    order = np.argsort(places, kind="stable")
    tables = []
    for (split, rows), end in zip(corpus.items(), ends.tolist(), strict=True):
        inside = places[order][(places[order] >= end - len(rows)) & (places[order] < end)] - (end - len(rows))
        if len(inside):
            tables.append({"split": [split] * len(inside)} | {name: _values(rows, name).take(inside).to_pylist() for name in columns})
    back = np.argsort(order, kind="stable")
    joined = {name: [value for table in tables for value in table[name]] for name in ("split", *columns)}
    return {name: [values[place] for place in back] for name, values in joined.items()}


def _values(rows: Dataset, name: str) -> pyarrow.ChunkedArray:
    return column(rows, name, "path" if name == "audio" else None)


def _column_of_all(corpus: DatasetDict, name: str) -> pyarrow.ChunkedArray:
    chunks = []
    for rows in corpus.values():
        chunks += column(rows, name).chunks if name in rows.column_names else [pyarrow.nulls(len(rows), pyarrow.string())]
    return pyarrow.chunked_array(chunks, pyarrow.string())


def _quantiles(values: np.ndarray) -> dict[str, float] | None:
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return None
    return {name: round(float(found), 3) for name, found in zip(_QUANTILES, np.quantile(values, list(_QUANTILES.values())), strict=True)}


def _describe_splits(corpus: DatasetDict, suspicion: Suspicion) -> dict[str, dict]:
    described, start = describe(corpus), 0
    for split, end in suspicion.split_ends.items():
        duration, characters = suspicion.duration[start:end], suspicion.characters[start:end]
        known = duration > 0
        described[split] |= {
            "unknown_durations": int(np.isnan(duration).sum()),
            "duration": _quantiles(duration),
            "characters_per_second": _quantiles(characters[known] / duration[known]),
            "suspicious": int(np.count_nonzero(suspicion.marks[start:end])),
        }
        start = end
    return described


def _totals(names: pyarrow.ChunkedArray, duration: np.ndarray) -> dict[str, dict]:
    """Return utterances and hours of each name, the one with most hours first."""
    encoded = names.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()
    utterances = np.bincount(codes, minlength=len(encoded.dictionary) + 1)
    hours = np.bincount(codes, weights=np.nan_to_num(duration), minlength=len(encoded.dictionary) + 1) / 3600
    named = encoded.dictionary.to_pylist()
    order = np.lexsort((-utterances[: len(named)], -hours[: len(named)]))
    return {named[place]: {"utterances": int(utterances[place]), "hours": round(float(hours[place]), 4)} for place in order}


def _describe_speakers(totals: dict[str, dict], unnamed: int) -> dict[str, Any]:
    return {
        "count": len(totals),
        "unnamed": unnamed,
        "utterances": _quantiles(np.array([each["utterances"] for each in totals.values()], float)),
        "hours": _quantiles(np.array([each["hours"] for each in totals.values()], float)),
        "listed": [{"speaker": name} | each for name, each in list(totals.items())[:_SPEAKERS_LISTED]],
    }


def _alphabet(suspicion: Suspicion, ids: pyarrow.ChunkedArray) -> list[dict]:
    examples = ids.take(pyarrow.array([symbol.places[0] for symbol in suspicion.symbols], pyarrow.int64())).to_pylist()
    return [
        {
            "symbol": symbol.text,
            "name": symbol.name,
            "script": symbol.script,
            "kind": symbol.kind,
            "count": symbol.count,
            "rows": symbol.rows,
            "mark": _mark(symbol, suspicion),
            "example": example,
        }
        for symbol, example in zip(suspicion.symbols, examples, strict=True)
    ]


def _mark(symbol: Symbol, suspicion: Suspicion) -> str:
    if symbol.text in suspicion.outside:
        return ", ".join(["outside", *suspicion.outside[symbol.text].split(", ")[1:]])
    return "rare" if symbol.text in suspicion.rare else symbol.kind if symbol.kind in ("invisible", "broken") else ""


def _reasons(corpus: DatasetDict, suspicion: Suspicion) -> dict[str, dict]:
    reasons = {}
    for name, bit in BITS.items():
        places = suspicion.order[(suspicion.marks & bit)[suspicion.order] != 0]
        if len(places):
            reasons[name] = {"title": REASONS[name].title, "rows": len(places), "advice": REASONS[name].advice}
            reasons[name]["examples"] = _listed_rows(corpus, suspicion, places[:_EXAMPLES], name)
    return reasons


def _listed_rows(corpus: DatasetDict, suspicion: Suspicion, places: np.ndarray, reason: str | None = None) -> list[dict]:
    found = rows_at(corpus, places, ("id", "text"))
    return [
        {
            "split": found["split"][index],
            "id": found["id"][index],
            "text": found["text"][index],
            "duration": None if np.isnan(suspicion.duration[place]) else float(suspicion.duration[place]),
            "score": round(float(suspicion.score[place]), 2),
            "reasons": suspicion.reasons(place, found["text"][index] or "", reason),
        }
        for index, place in enumerate(places.tolist())
    ]


def _group_problems(problems: list[dict]) -> dict[str, dict]:
    counts = Counter(problem.get("problem", "audio cannot be used") for problem in problems)
    grouped = {name: {"count": count, "examples": []} for name, count in counts.most_common()}
    for problem in problems:
        examples = grouped[problem.get("problem", "audio cannot be used")]["examples"]
        if len(examples) < _EXAMPLES:
            examples.append({"name": problem.get("name") or problem.get("id"), "reason": problem.get("reason", "")})
    return grouped


def _bad_rows(problems: list[dict], corpus: DatasetDict) -> dict[int, str]:
    """Return place -> what is wrong for the rows that problems name by split and id; the same id may stand in several splits."""
    found, start = {}, 0
    for split, rows in corpus.items():
        ids = column(rows, "id")
        named = {
            problem.get("name") or problem.get("id"): problem.get("reason") or problem.get("problem", "")
            for problem in problems
            if problem.get("split") == split
        }
        places = np.flatnonzero(pc.is_in(ids, pyarrow.array(list(named), pyarrow.string())).to_numpy())
        found |= {start + place: named[ids[place].as_py()] for place in places.tolist()}
        start += len(rows)
    return found


def _repeated_rows(duplicates: Mapping[str, Duplicates]) -> dict[str, dict[int, str]]:
    """Return place -> words for the rows that repeat an earlier one of their split, exactly or nearly."""
    notes: dict[str, dict[int, str]] = {"duplicate": {}, "near": {}}
    start = 0
    for found in duplicates.values():
        for name, words in _REPEATED.items():
            repeats = getattr(found, name)
            into = notes["near" if name == "near_sentences" else "duplicate"]
            for place in (repeats.places + start).tolist() if repeats is not None else ():
                into[place] = f"{into[place]}, {words}" if place in into else words
        start += found.rows
    return notes


def _leaked_rows(corpus: DatasetDict, found: Leaks) -> dict[int, str]:
    """Return place -> words for the rows whose sentence also stands in training."""
    notes, start = {}, 0
    ours = folded(corpus[found.train]) if found else None
    for split, rows in corpus.items():
        if split in found.splits and found.splits[split].sentence_rows:
            trained = pc.index_in(folded(rows), value_set=ours, skip_nulls=True)
            places = np.flatnonzero(trained.is_valid().to_numpy(zero_copy_only=False))
            ids = column(corpus[found.train], "id").take(trained.drop_null()).to_pylist()
            notes |= {
                start + place: f"the same sentence as {name} of {found.train}" for place, name in zip(places.tolist(), ids, strict=True)
            }
        start += len(rows)
    return notes


def _count_changes(texts: list[pyarrow.ChunkedArray], language: str) -> NormalizationReport:
    """Count what the `Normalizer` would change, in at most 50,000 texts drawn from all."""
    table = load_table(language).numbers
    # what would end a run is one more thing to look at here
    normalizer = Normalizer(language, numbers="keep" if "error" in (table.choice, table.unreadable) else None)
    column = pyarrow.chunked_array([chunk for each in texts for chunk in each.chunks], pyarrow.string())
    if len(column) > _NORMALIZED_TEXTS:
        column = column.take(np.sort(np.random.default_rng(0).choice(len(column), _NORMALIZED_TEXTS, replace=False)))
    return normalizer.count((text.as_py() for text in column if text.is_valid), examples=_EXAMPLES)


def _plain_report(report: NormalizationReport) -> dict[str, Any]:
    rules = {
        name: {"changes": rule.changes, "texts": rule.texts, "kinds": dict(rule.kinds.most_common(_KINDS)), "examples": rule.examples}
        for name, rule in report.rules.items()
    }
    return {"language": report.language, "texts": report.texts, "changed": report.changed, "dropped": report.dropped, "rules": rules}
