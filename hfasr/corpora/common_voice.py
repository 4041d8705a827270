"""Common Voice: a language's release folder, or its .tar.gz or .tar, without the Hub.

A release holds `<lang>/{train,dev,test,validated,invalidated,other}.tsv`, `clip_durations.tsv` (ms, recent releases) and
`clips/*.mp3`. Since October 2025 the Mozilla Data Collective offers it as an archive only.
"""

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path, PurePosixPath

from datasets import DatasetDict

from hfasr.audio import audio_duration
from hfasr.corpora import rows as row_tools
from hfasr.corpora.archives import archive_files

logger = logging.getLogger(__name__)

# Common Voice's name -> ours, in the order of preference when a clip stands in several
_SPLITS = {"train": "train", "dev": "validation", "test": "test", "validated": "validated", "invalidated": "invalidated", "other": "other"}
_TABLES = (*_SPLITS, "clip_durations")
_ENOUGH = ("train", "validated")  # one of these makes a folder a release
_NEEDED = ("path", "sentence")
_DISJOINT = ("train", "validation", "test")
_LIST_NAMES = {"train": "train", "val": "validation", "dev": "validation", "test": "test"}
_LIST_ENDINGS = (".txt", ".text", ".lst", ".list")


@dataclass(frozen=True)
class _Release:
    """What was found at a path: a reader of each table's text by name, and where each clip is, by file name."""

    path: Path
    clips_folder: str
    tables: dict[str, Callable[[], str]]
    clips: dict[str, str]


def common_voice(
    path: str | os.PathLike,
    *,
    language: str | None = None,
    splits: Collection[str] | None = None,
    validated_rest: bool = False,
    split_lists: str | os.PathLike | None = None,
) -> DatasetDict:
    """Load a Common Voice release.

    Args:
        path: The language's folder (`cv-corpus-25.0/ky`), the release folder above it, or the release's archive.
        language: Which language, when the path holds several.
        splits: Which splits, by the names of the result; all when None. The tables of other splits are not read.
        validated_rest: Train on all of validated.tsv that is in neither dev nor test, instead of on train.tsv.
        split_lists: Folder with lists of clip ids for training, validation and test (`train*.txt`, `val*` or `dev*`,
            `test*`; one id a line, or `id<TAB>text` as in UniSpeech's `.text` files, whose text is then the transcript).
            The splits are made of these clips, wherever the release keeps them.

    Returns:
        Splits "train", "validation" (dev.tsv), "test", and "validated", "invalidated", "other" as far as the release has
        them; with `split_lists` only the listed ones. Rows as in `hfasr.corpora.rows`, audio decoded at 16 kHz on access.
        A clip missing on disk stays in until `check_audio`. Rows of a table that do not have its columns are left out; they,
        clips that stand twice in training, validation and test, and sentences they share are counted in warnings.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: Not a Common Voice release, a table lacks a column, a wanted split has no rows, or none of a split's clips
            is there.
    """
    release = _open(Path(path), language)
    needed = _needed(release, splits, validated_rest, split_lists is not None)
    tables = {_SPLITS[name]: _parse(release, name) for name in needed}
    if split_lists is not None:
        if validated_rest:
            raise ValueError("validated_rest and split_lists both say what to train on; give one of them")
        tables = _by_lists(tables, Path(split_lists))
    elif validated_rest:
        tables["train"] = _validated_rest(release, tables)
    if splits is not None:
        unread = [] if split_lists is not None else [_SPLITS[name] for name in _SPLITS if name in release.tables and name not in needed]
        tables = _chosen(release, tables, splits, unread)
    _warn_of_repeats(tables)
    durations = _durations(release)
    corpus = DatasetDict()
    for split, records in tables.items():
        if records:
            _check_clips(release, split, records)
            corpus[split] = row_tools.build_rows([_row(release, record, durations) for record in records])
    scored = DatasetDict({split: corpus[split] for split in _DISJOINT if split in corpus})
    for split, count in row_tools.shared_sentences(scored).items():
        if count:
            logger.warning(
                "%d sentences of %s also stand in training%s", count, split, " (validated less dev and test)" if validated_rest else ""
            )
    return row_tools.decoded(corpus)


def _open(path: Path, language: str | None) -> _Release:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such corpus. Give the folder that holds train.tsv and clips/, or the release's .tar.gz")
    return _open_folder(path, language) if path.is_dir() else _open_archive(path, language)


def _open_folder(path: Path, language: str | None) -> _Release:
    folders = [path] if any((path / f"{name}.tsv").is_file() for name in _ENOUGH) else []
    folders = folders or sorted({table.parent for name in _ENOUGH for table in path.glob(f"*/{name}.tsv")})
    found = ", ".join(sorted(os.listdir(path))[:8]) or "nothing"
    folder = _one_language({folder.name: folder for folder in folders}, path, language, found)
    tables = {name: file for name in _TABLES if (file := folder / f"{name}.tsv").is_file()}
    clips = (folder / "clips").resolve()
    names = os.listdir(clips) if clips.is_dir() else []
    return _Release(
        path,
        str(clips),
        {name: partial(_read_text, file) for name, file in tables.items()},
        {name: str(clips / name) for name in names},
    )


def _open_archive(path: Path, language: str | None) -> _Release:
    tables: dict[str, dict[str, bytes]] = {}
    clips: dict[str, dict[str, str]] = {}
    found = []
    for member, where, read in archive_files(path):
        name = PurePosixPath(member)
        found += [member] if len(found) < 5 else []
        if name.suffix == ".tsv" and name.stem in _TABLES:
            tables.setdefault(str(name.parent), {})[name.stem] = read()
        elif name.parent.name == "clips":
            clips.setdefault(str(name.parent.parent), {})[name.name] = where
    folders = {PurePosixPath(parent).name: parent for parent, names in tables.items() if set(_ENOUGH) & set(names)}
    parent = _one_language(folders, path, language, ", ".join(found) or "nothing")
    texts = {name: partial(_text, data, f"{path}:{parent}/{name}.tsv") for name, data in tables[parent].items()}
    return _Release(path, f"{path}::{parent}/clips", texts, clips.get(parent, {}))


def _one_language(folders: dict, path: Path, language: str | None, found: str):
    """Choose among the folders that hold tables, by language code."""
    if language in folders:
        return folders[language]
    if language is None and len(folders) == 1:
        return next(iter(folders.values()))
    if not folders:
        raise ValueError(f"{path} has no train.tsv or validated.tsv, found {found}. Is this a Common Voice release?")
    wanted = f"no language {language!r}" if language else "several languages; choose one with language="
    if language and len(folders) == 1 and next(iter(folders)) == path.name:
        return next(iter(folders.values()))  # a language folder under a name of the user's own
    raise ValueError(f"{path} has {wanted}, found {', '.join(sorted(folders))}")


def _read_text(path: Path) -> str:
    return _text(path.read_bytes(), path)


def _text(data: bytes, name: object) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{name}, line {line}: not UTF-8 ({error.reason}); save the table as UTF-8") from None


def _needed(release: _Release, splits: Collection[str] | None, validated_rest: bool, by_lists: bool) -> list[str]:
    """Return the names of the tables to read: one that is empty or broken must not refuse the splits that do not use it."""
    there = [name for name in _SPLITS if name in release.tables]
    if by_lists:
        return [name for name in there if release.tables[name]().strip()]
    if splits is None:
        return there
    wanted = {name for name in there if _SPLITS[name] in splits}
    if validated_rest:
        wanted = wanted - {"train"} | {"validated", "dev", "test"}
    return [name for name in there if name in wanted]


def _parse(release: _Release, name: str) -> list[dict[str, str]]:
    where = f"{release.path}: {name}.tsv"
    # quotes are literal in these tables; a bare \r or U+2028 inside a sentence does not end its row
    lines = enumerate(release.tables[name]().split("\n"), start=1)
    table = [(number, line.rstrip("\r").split("\t")) for number, line in lines if line.strip()]
    header = table[0][1] if table else []
    for column in _NEEDED:
        if column not in header:
            raise ValueError(
                f"{where} has no column {column!r}, found {', '.join(header) or 'an empty file'}. Is this a Common Voice release?"
            )
    records, torn = [], []
    for number, fields in table[1:]:
        if len(fields) != len(header):
            torn.append(number)
            continue
        record = dict(zip(header, fields, strict=True))
        if record["path"]:
            # releases before 3.0 name the clips without their ending
            record["path"] += "" if PurePosixPath(record["path"]).suffix else ".mp3"
            records.append(record)
    if torn:
        message = "%s: %d rows do not have the %d columns of the header, first line %d; left out"
        logger.warning(message, where, len(torn), len(header), torn[0])
    return records


def _validated_rest(release: _Release, tables: dict[str, list[dict]]) -> list[dict]:
    if "validated" not in tables:
        raise ValueError(f"{release.path} has no validated.tsv, found {', '.join(release.tables)}; leave validated_rest out")
    held_out = {record["path"] for split in ("validation", "test") for record in tables.get(split, ())}
    return [record for record in tables["validated"] if record["path"] not in held_out]


def _chosen(release: _Release, tables: dict[str, list[dict]], splits: Collection[str], unread: list[str]) -> dict[str, list[dict]]:
    for split in splits:
        if not tables.get(split):
            counts = [f"{name} ({len(records)} rows)" for name, records in tables.items()]
            found = ", ".join(counts + [name for name in unread if name not in tables]) or "no table"
            raise ValueError(f"{release.path} has no rows for split {split!r}, found {found}")
    return {split: tables[split] for split in splits}


def _warn_of_repeats(tables: dict[str, list[dict]]) -> None:
    clips = {split: Counter(record["path"] for record in tables[split]) for split in _DISJOINT if split in tables}
    for split, counts in clips.items():
        if twice := sum(count > 1 for count in counts.values()):
            logger.warning("%d clips stand twice in %s", twice, split)
    for first, second in combinations(clips, 2):
        if both := len(clips[first].keys() & clips[second].keys()):
            logger.warning("%d clips of %s also stand in %s", both, second, first)


def _by_lists(tables: dict[str, list[dict]], folder: Path) -> dict[str, list[dict]]:
    known = {PurePosixPath(record["path"]).stem: record for records in reversed(tables.values()) for record in records}
    chosen = {}
    for split, path in _list_files(folder).items():
        wanted = [line.partition("\t") for line in _text(path.read_bytes(), path).splitlines() if line.strip()]
        found = [(known[stem], text.strip()) for name, _, text in wanted if (stem := PurePosixPath(name.strip()).stem) in known]
        if not found:
            raise ValueError(
                f"{path}: none of its {len(wanted)} clips is in the release, such as {wanted[0][0] if wanted else 'an empty list'}"
            )
        if len(found) < len(wanted):
            logger.warning("%s: %d of %d clips are not in this release", path.name, len(wanted) - len(found), len(wanted))
        chosen[split] = [record | ({"sentence": text} if text else {}) for record, text in found]
    return chosen


def _list_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of split lists")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = next((split for start, split in _LIST_NAMES.items() if path.name.lower().startswith(start)), None)
        if split is None or path.suffix.lower() not in _LIST_ENDINGS:
            continue
        if split in files:
            raise ValueError(f"{folder}: both {files[split].name} and {path.name} list the {split} split; keep one")
        files[split] = path
    for split in ("train", "test"):
        if split not in files:
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise ValueError(f"{folder} has no list for {split!r} ({split}*.txt or {split}*.text), found {found}")
    return files


def _durations(release: _Release) -> dict[str, float]:
    """Return clip name -> seconds from clip_durations.tsv, whose columns are the clip and `duration[ms]`."""
    if "clip_durations" not in release.tables:
        return {}
    lines = (line.split("\t") for line in release.tables["clip_durations"]().splitlines()[1:])
    return {fields[0]: float(fields[1]) / 1000 for fields in lines if len(fields) >= 2 and fields[1].strip().isdigit()}


def _check_clips(release: _Release, split: str, records: list[dict]) -> None:
    missing = [record["path"] for record in records if record["path"] not in release.clips]
    if len(missing) == len(records):
        raise ValueError(
            f"{release.clips_folder} holds none of the {len(missing)} clips of split {split!r}, such as {missing[0]}; is it whole?"
        )
    if missing:
        logger.warning("%s: %d of %d clips are not in the release", split, len(missing), len(records))


def _row(release: _Release, record: dict[str, str], durations: dict[str, float]) -> dict:
    # a clip is looked up by its name among those of the release, so that a table cannot point outside
    path = release.clips.get(record["path"], f"{release.clips_folder}/{PurePosixPath(record['path']).name}")
    seconds = durations.get(record["path"])
    return {
        "id": PurePosixPath(record["path"]).stem,
        "audio": {"path": path, "bytes": None},
        "text": record["sentence"],
        "duration": _header_seconds(path) if seconds is None else seconds,
        "speaker": record.get("client_id") or None,
        "gender": record.get("gender") or None,
        "accent": record.get("accents") or record.get("accent") or None,
        "source": "common_voice",
    }


def _header_seconds(path: str) -> float:
    try:
        return audio_duration(path)
    except (ValueError, OSError):
        return math.nan  # check_audio says why
