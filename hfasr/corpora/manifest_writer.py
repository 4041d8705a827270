"""Rows -> NeMo manifests."""

import json
import logging
import math
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.compute
from datasets import Dataset, DatasetDict

from hfasr.audio import SAMPLING_RATE, load_audio, write_audio
from hfasr.corpora.rows import byte_lengths, column, plain
from hfasr.files import temporary_beside
from hfasr.paths import archived, segment_of, without_segment

logger = logging.getLogger(__name__)

_ENDINGS = (".json", ".jsonl")
_CHUNK = 1000
_ALSO = ("speaker", "gender", "accent", "source")


def write_manifest(
    corpus: Dataset | DatasetDict,
    path: str | os.PathLike,
    *,
    relative: bool = True,
    audio_folder: str | os.PathLike | None = None,
) -> list[Path]:
    """Write rows as NeMo manifests, which `manifest` and NeMo read: JSON lines, whole or not at all.

    A segment of a recording becomes `offset` and `duration`. Each line has the row's `id` and, as far as they are known, its
    `duration`, `speaker`, `gender`, `accent` and `source`. NeMo wants a duration: run `check_audio` first where some are unknown.

    Args:
        corpus: A corpus, of which each split becomes `<split>.json` in a folder, or one split.
        path: The folder for a corpus; for one split the file, which ends in .json or .jsonl.
        relative: Name the audio relative to the manifest, so that both can be moved together; else by its absolute path.
        audio_folder: Where to write audio that is no file of its own (in an archive or in Parquet), as 16 kHz FLAC; what cannot
            be decoded is left out, which is told in a warning.

    Returns:
        The manifests.

    Raises:
        ValueError: Audio is no file of its own and there is no `audio_folder`, or `path` is not of the kind that `corpus` needs.
        TypeError: `corpus` is not rows on disk.
    """
    path = Path(path).expanduser()
    if isinstance(corpus, DatasetDict):
        if path.suffix.lower() in _ENDINGS or path.is_file():
            raise ValueError(
                f"{path}: a corpus with splits {', '.join(corpus)} needs a folder; for a file give one split, such as corpus['train']"
            )
        targets = {path / f"{split}.json": rows for split, rows in corpus.items()}
    elif isinstance(corpus, Dataset):
        if path.suffix.lower() not in _ENDINGS or path.is_dir():
            raise ValueError(f"{path}: one split becomes a file, whose name ends in .json or .jsonl")
        targets = {path: corpus}
    else:
        raise TypeError(f"write_manifest takes a Dataset or DatasetDict of rows, found {type(corpus).__name__}")
    for target, rows in targets.items():
        _refuse_unreferable(rows, target, audio_folder)
    temporaries = {target: temporary_beside(target) for target in targets}
    try:
        for target, rows in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            folder = None if audio_folder is None else Path(audio_folder).expanduser().absolute() / target.stem
            with open(temporaries[target], "w", encoding="utf-8") as file:
                for record in _records(plain(rows), target, relative, folder):
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
        for target, temporary in temporaries.items():
            temporary.replace(target)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
    return list(targets)


def _refuse_unreferable(rows: Dataset, target: Path, audio_folder: str | os.PathLike | None) -> None:
    if audio_folder is not None:
        return
    paths, held = column(rows, "audio", "path"), byte_lengths(rows) >= 0
    inside = pyarrow.compute.fill_null(pyarrow.compute.match_substring(paths, "::"), True).to_numpy()
    for place in np.flatnonzero(held | inside):
        if not (held[place] or paths[place].as_py() is None or archived(paths[place].as_py())):
            continue  # a name with "::" that is a file
        what = "bytes in the row" if held[place] else f"in an archive ({paths[place]})"
        raise ValueError(
            f"{target}: the audio of {column(rows, 'id')[place]} is {what}, which a manifest cannot name; give audio_folder= to write such "
            "audio as FLAC files, or keep the corpus as Parquet with `hfasr prepare`"
        )


def _records(rows: Dataset, target: Path, relative: bool, audio_folder: Path | None) -> Iterator[dict]:
    """Yield the lines of a manifest."""
    given, left_out = set(), []
    here = os.path.abspath(target.parent)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            jobs = [
                pool.submit(_write_file, audio, audio_folder / _file_name(name, given)) if audio_folder and _needs_file(audio) else None
                for name, audio in zip(chunk["id"], chunk["audio"], strict=True)
            ]
            for place, job in enumerate(jobs):
                audio = chunk["audio"][place]["path"]
                record = {"duration": chunk["duration"][place]}
                if job is not None:
                    try:
                        audio, record["duration"] = job.result()
                    except (ValueError, FileNotFoundError) as error:
                        left_out.append(str(error))
                        continue
                yield _record(audio, record["duration"], here if relative else None, {key: values[place] for key, values in chunk.items()})
    if left_out:
        logger.warning("%s: %d rows without usable audio are left out, for example %s", target, len(left_out), left_out[0])


def _record(audio: str, duration: float | None, relative_to: str | None, row: dict) -> dict:
    segment, file = segment_of(audio), os.path.abspath(without_segment(audio))
    record = {"audio_filepath": file if relative_to is None else _relative(file, relative_to)}
    if segment is not None:
        start, end = segment
        record["offset"] = start
        if (duration is None or math.isnan(duration)) and end is not None:
            duration = round(end - start, 6)
    if duration is not None and not math.isnan(duration):
        record["duration"] = duration
    record |= {"text": row["text"], "id": row["id"]}
    return record | {key: row[key] for key in _ALSO if row.get(key) is not None}


def _relative(file: str, folder: str) -> str:
    path = os.path.relpath(file, folder)
    if path.startswith(".."):  # which leads out of what a link leads to
        path = os.path.relpath(os.path.join(_real(os.path.dirname(file)), os.path.basename(file)), _real(folder))
    return Path(path).as_posix()


_real = lru_cache(maxsize=1024)(os.path.realpath)


def _needs_file(audio: dict) -> bool:
    return audio["bytes"] is not None or audio["path"] is None or archived(audio["path"])


def _file_name(row: str, given: set[str]) -> str:
    """Name a file after a row's id, none twice; a name must not lead out of its folder."""
    stem = name = re.sub(r"[^\w.()+-]+", "_", row or "").lstrip(".") or "row"
    number = 1
    while name.lower() in given:  # some file systems take A and a for the same
        number += 1
        name = f"{stem}_{number}"
    given.add(name.lower())
    return f"{name}.flac"


def _write_file(audio: dict, path: Path) -> tuple[str, float]:
    waveform = load_audio(audio)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, waveform, SAMPLING_RATE)
    return str(path), len(waveform) / SAMPLING_RATE
