"""A page to look through a corpus: distributions, the alphabet, and every row with its player, the suspicious ones first.

One file without external parts, made for tens of thousands of rows: they travel as columns of compact JSON, repeated strings as
numbers, and the browser draws only those that are in sight.
"""

import base64
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from datasets import DatasetDict

from hfasr.audio import load_audio, write_audio
from hfasr.corpora.inspection.summary import Inspection, rows_at
from hfasr.corpora.inspection.suspicion import BITS, REASONS, Suspicion
from hfasr.corpora.rows import byte_lengths, plain, refuse_one_split
from hfasr.files import write_text
from hfasr.paths import archived, without_segment

_TEMPLATE = Path(__file__).with_name("explorer.html.jinja")
_BARS = 40
_SYMBOLS = 400
_LONGEST_TEXT = 2000
_LONGEST_CLIP_SECONDS = 60
_TRIES = 3
_EMBEDDED_BYTES = 3_000_000


def write_explorer(
    path: str | os.PathLike,
    corpus: DatasetDict,
    inspection: Inspection,
    *,
    title: str = "Corpus",
    details: Mapping[str, str] | None = None,
    max_rows: int = 50_000,
    embedded: int = 30,
) -> Path:
    """Write a page to explore a corpus in a browser.

    Recordings that are files of their own are linked, relative to the page where they lie below it; those inside an archive or
    a Parquet file cannot be, so the most suspicious of them travel in the page as MP3.

    Args:
        path: The file; it is written under a temporary name and renamed.
        corpus: The corpus that was inspected.
        inspection: What `inspect` said of it.
        title: Heading of the page.
        details: Facts shown under the heading.
        max_rows: Rows in the page. Of a larger corpus the most suspicious are taken, up to half of them, and others at random.
        embedded: How many recordings that cannot be linked travel in the page; together at most 3 MB, a minute each.

    Returns:
        The path.

    Raises:
        ValueError: The inspection is of another corpus, or `max_rows` is not positive.
        TypeError: `corpus` is a single data set.
    """
    refuse_one_split(corpus, "write_explorer")
    if max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}, expected at least 1")
    sizes = {split: len(rows) for split, rows in corpus.items()}
    found = {split: each["utterances"] for split, each in inspection.splits.items()}
    if sizes != found:
        raise ValueError(f"the inspection is of another corpus: its splits have {found} rows, those given {sizes}")
    path, corpus = Path(path), plain(corpus)
    places = chosen_rows(inspection.suspicion, max_rows)
    data = _columns(corpus, inspection.suspicion, places)
    data |= _audio(corpus, data, places, path.absolute().parent, embedded)
    data |= {
        "total": sum(sizes.values()),
        "reasons": [[name, each.title, each.advice, inspection.reasons.get(name, {}).get("rows", 0)] for name, each in REASONS.items()],
        "charts": _charts(inspection.suspicion),
        "alphabet": _symbols(inspection.alphabet),
        "symbols": len(inspection.alphabet),
        "speakers": [[each["speaker"], each["utterances"], each["hours"]] for each in inspection.speakers["listed"]],
        "speakerCount": inspection.speakers["count"],
    }
    write_text(path, _render(data, inspection, title, details or {}))
    return path


def chosen_rows(suspicion: Suspicion, count: int) -> np.ndarray:
    """Return the places of at most `count` rows, in the order of the corpus: the most suspicious, and others at random.

    The suspicious ones take at most half of the room, so that the usual can be seen too.
    """
    total = len(suspicion.score)
    if total <= count:
        return np.arange(total)
    worst = suspicion.order[: min(int(np.count_nonzero(suspicion.marks)), (count + 1) // 2)]
    others = np.setdiff1d(np.arange(total), worst, assume_unique=True)
    drawn = np.random.default_rng(0).choice(others, count - len(worst), replace=False)
    return np.sort(np.concatenate([worst, drawn]))


def _render(data: dict, inspection: Inspection, title: str, details: Mapping[str, str]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    script = _TEMPLATE.with_name("explorer.js").read_text(encoding="utf-8")
    # Only this script may run, so that no text that slipped through unescaped could.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    splits = inspection.splits.values()
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        script=script,
        script_digest=digest,
        data=_json(data),
        title=title,
        details=details,
        splits=inspection.splits,
        sources=inspection.sources,
        utterances=sum(split["utterances"] for split in splits),
        hours=sum(split["hours"] for split in splits),
        suspicious=sum(split["suspicious"] for split in splits),
        speakers=inspection.speakers["count"],
        shown=len(data["id"]),
        symbols=len(inspection.alphabet),
        marked=sum(bool(each["mark"]) for each in inspection.alphabet),
    )


def _json(data: dict) -> str:
    """Return compact JSON that can stand inside a script element, whatever the texts hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # `<` ends the element or opens a comment; the others are line ends to some readers
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x00", "\\u0000")


def _columns(corpus: DatasetDict, suspicion: Suspicion, places: np.ndarray) -> dict[str, Any]:
    names = ("id", "text", "speaker", "source")
    found = rows_at(corpus, places, [name for name in names if all(name in rows.column_names for rows in corpus.values())])
    texts = [text or "" for text in found["text"]]
    marks = suspicion.marks[places]
    duration = suspicion.duration[places]
    return {
        "id": [str(each) for each in found["id"]],
        "text": [text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…" for text in texts],
        "split": _encoded(found["split"]),
        "speaker": _encoded(found.get("speaker", [None] * len(places))),
        "source": _encoded(found.get("source", [None] * len(places))),
        "duration": [None if np.isnan(seconds) else round(seconds, 2) for seconds in duration.tolist()],
        "characters": suspicion.characters[places].tolist(),
        "score": np.round(suspicion.score[places] * 10).astype(int).tolist(),
        "marks": marks.tolist(),
        "why": [[row, suspicion.reasons(int(places[row]), texts[row])] for row in np.flatnonzero(marks).tolist()],
        "bits": BITS,
    }


def _encoded(values: Sequence[str | None]) -> dict[str, list]:
    """Return `{"values", "codes"}`; -1 stands for None, and the most frequent value is the first."""
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    codes = {value: code for code, value in enumerate(sorted(counts, key=lambda value: -counts[value]))}
    return {"values": list(codes), "codes": [codes.get(value, -1) for value in values]}


def _audio(corpus: DatasetDict, data: dict, places: np.ndarray, folder: Path, embedded: int) -> dict[str, Any]:
    """Return how each row is heard: `links` as templates in which `*` stands for the row's id, `clips` inside the page."""
    ends = np.cumsum([len(rows) for rows in corpus.values()])
    paths = rows_at(corpus, places, ["audio"])["audio"]
    inside = _with_bytes(corpus, places)
    links = [None if held or path is None or archived(path) else _link(path, folder) for path, held in zip(paths, inside, strict=True)]
    templates = [link and _template(link, quote(identity, safe="")) for link, identity in zip(links, data["id"], strict=True)]
    clips, problems, size = {}, {}, 0
    missing = sorted((row for row, link in enumerate(links) if link is None), key=lambda row: (-data["score"][row], row))
    # those that cannot be read tell why, and leave their place to the next, but not without end
    for row in missing[: _TRIES * embedded]:
        if len(clips) == embedded:
            break
        place = int(places[row])
        at = int(np.searchsorted(ends, place, side="right"))
        rows = list(corpus.values())[at]
        try:
            clip = _embed(rows[place - int(ends[at]) + len(rows)]["audio"], data["duration"][row])
        except (ValueError, TypeError, OSError) as error:
            problems[row] = str(error)
            continue
        if size + len(clip) > _EMBEDDED_BYTES:
            break
        clips[row], size = clip, size + len(clip)
    return {"link": _encoded(templates), "clips": clips, "audioProblems": problems}


def _with_bytes(corpus: DatasetDict, places: np.ndarray) -> list[bool]:
    """Tell of rows whether they carry their audio."""
    return (np.concatenate([byte_lengths(rows) for rows in corpus.values()])[places] >= 0).tolist()


def _link(path: str, folder: Path) -> str:
    """Return an address that plays a file from a page in `folder`; it may end in a media fragment."""
    file = without_segment(path)
    fragment = path[len(file) :]
    absolute = Path(os.path.abspath(file))
    if absolute.is_relative_to(folder):
        return quote(absolute.relative_to(folder).as_posix(), safe="/") + fragment
    return absolute.as_uri().replace("*", "%2A") + fragment


def _template(link: str, identity: str) -> str:
    """Return a link with the last mention of the row's id as `*`, so that all links of a folder are one string."""
    before, found, after = link.rpartition(identity)
    return f"{before}*{after}" if found and "*" not in link else link


def _embed(audio: dict, seconds: float | None) -> str:
    if seconds is not None and seconds > _LONGEST_CLIP_SECONDS:
        raise ValueError(f"longer than {_LONGEST_CLIP_SECONDS} s")
    waveform = load_audio(audio)
    if len(waveform) > _LONGEST_CLIP_SECONDS * 16_000:
        raise ValueError(f"longer than {_LONGEST_CLIP_SECONDS} s")
    file = io.BytesIO()
    write_audio(file, waveform, format="MP3")
    return base64.b64encode(file.getvalue()).decode()


def _charts(suspicion: Suspicion) -> dict[str, dict]:
    """Return `edges` and `counts` of the histograms; the last bar holds all beyond it."""
    known = (suspicion.duration > 0) & (suspicion.characters > 0)
    rates = suspicion.characters[known] / suspicion.duration[known]
    usual = [round(rate, 2) for rate in suspicion.usual or ()]
    return {"duration": _histogram(suspicion.duration), "rate": _histogram(rates, max(usual, default=0.0)) | {"usual": usual}}


def _histogram(values: np.ndarray, least_end: float = 0.0) -> dict[str, list]:
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return {"edges": [0, 1], "counts": [0]}
    end = max(float(np.quantile(values, 0.995)), least_end, 1e-3)
    width = _nice(end / _BARS)
    bars = int(min(np.floor(max(float(values.max()), least_end) / width) + 1, np.ceil(end / width) + 1))
    counts = np.bincount(np.minimum(values / width, bars - 1).astype(int), minlength=bars)
    return {"edges": [round(place * width, 6) for place in range(bars + 1)], "counts": counts.tolist()}


def _nice(step: float) -> float:
    """Return the least of 1, 2, 2.5 and 5 times a power of ten that is not below a step."""
    power = 10 ** np.floor(np.log10(step))
    return float(next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step))


def _symbols(alphabet: list[dict]) -> list[list]:
    """Return the marked symbols and the most frequent others: symbol, name, script, count, rows, mark."""
    marked = [each for each in alphabet if each["mark"]]
    others = [each for each in alphabet if not each["mark"]]
    kept = marked[:_SYMBOLS] + others[: max(_SYMBOLS - len(marked), _SYMBOLS // 2)]
    return [[each[name] for name in ("symbol", "name", "script", "count", "rows", "mark")] for each in kept]
