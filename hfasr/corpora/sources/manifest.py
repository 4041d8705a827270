"""NeMo manifests, in and out: JSON lines with `audio_filepath`, `duration`, `text`, optionally `offset`, `speaker`, `lang`, …

A relative `audio_filepath` is relative to the manifest's folder (NeMo's `get_full_path`, which looks in the working directory
first; hfasr does not, so that the same manifest means the same wherever it is read). Data sets that NeMo packed into
`audio_<shard>.tar` are read in place.
"""

import json
import math
import os
import re
from collections.abc import Collection, Iterator
from functools import lru_cache, partial
from pathlib import Path

from datasets import DatasetDict

from hfasr.corpora.reading.archives import archive_files, is_archive
from hfasr.corpora.reading.locate import FileNames, Locator, in_order, split_of, stem_of
from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import NO_AUDIO, NO_TEXT, Entry, Problems
from hfasr.corpora.reading.tree import Paths, Tree, unwrapped
from hfasr.paths import segment_path

_ENDINGS = (".json", ".jsonl")
_LOOK_AT_MOST = 50  # some corpora have a JSON file beside each clip
_AUDIO_KEYS = ("audio_filepath", "audio_filename")
_NO_JSON = "line that is not a JSON object"
_RANGE = re.compile(r"(?:\{|_OP_|\(|\[|<)(\d+)\.\.(\d+)(?:\}|_CL_|\)|\]|>)")


def _recognise(tree: Tree) -> bool:
    top = unwrapped(tree)
    return any(_is_manifest(top, name) for name in _named(top)[:_LOOK_AT_MOST])


SOURCE = Source(
    name="manifest",
    title="a NeMo manifest",
    layout="{train,dev,test}*.json with one {audio_filepath, duration, text} on each line",
    recognise=_recognise,
    order=20,
)


def manifest(
    path: Paths,
    *,
    audio_root: str | os.PathLike | None = None,
    language: str | None = None,
    splits: Collection[str] | None = None,
    num_workers: int | None = None,
) -> DatasetDict:
    """Load NeMo manifests.

    Args:
        path: A manifest; several as a list, as NeMo writes them in one string ("a.json,b.json" or "manifest__OP_0..7_CL_.json"),
            or as a dict from split to one or several; or a folder or archive with `{train,dev,test}*.json`.
        audio_root: Where the audio is when the manifest is from another machine: the beginning of each `audio_filepath` is
            replaced by this folder, as little of it as makes the files found (`Locator`).
        language: Keep only the lines whose `lang` is this.
        splits: Which splits, by the names of the result; all when None.
        num_workers: Threads that look for the files and read missing durations and transcripts; four a core when None.

    Returns:
        A split for each name or word for a split at the end of a file's name (`an4_dev_manifest.json`: "validation"); "train" for
        files whose names tell none. Rows as in `hfasr.corpora.rows`, audio decoded at 16 kHz on access. A line with `offset` is a
        segment of its recording. `duration` is trusted where it is given. An id is the line's `id` when that is a string, else
        the file's name without its ending, with `-<start>-<end>` in ms for a segment; when two files have the same name, it is
        the path below the folder that all have in common, for all rows. Lines that cannot be used are left out; they and missing
        files are counted in a warning and listed (`hfasr inspect`).

    Raises:
        FileNotFoundError: A manifest, or `audio_root`, does not exist.
        ValueError: Not a manifest, no row, not a wanted split, or none of the audio is there.
    """
    path = _as_files(path)
    root = None if audio_root is None else os.path.abspath(os.path.expanduser(audio_root))
    return SOURCE.load(
        path,
        partial(_read, audio_root=root, language=language),
        options={"audio_root": root, "language": language},
        splits=splits,
        choose=_choose,
        num_workers=num_workers,
    )


def _as_files(path: Paths) -> Paths:
    """Take NeMo's lists and ranges apart, and let one file have any name."""
    if isinstance(path, dict):
        return {split: _as_files(paths) for split, paths in path.items()}
    if isinstance(path, list | tuple):
        found = [_as_files(each) for each in path]
        return [file for each in found for file in (each if isinstance(each, list) else [each])]
    if os.path.exists(path) or not isinstance(path, str):
        path = Path(path).expanduser()
        return [path] if path.is_file() and not is_archive(path) else path
    names = [name for name in re.sub(r"\[(?!\d+\.\.)|(?<!\d)\]", "", path).split(",") if name.strip()]
    files = [file for name in names for file in _expanded(name.strip())]
    return files if len(files) > 1 else path


def _expanded(name: str) -> list[str]:
    """Return the files of a NeMo range, such as "manifest__OP_0..7_CL_.json"."""
    if (found := _RANGE.search(name)) is None:
        return [name]
    return [f"{name[: found.start()]}{number}{name[found.end() :]}" for number in range(int(found[1]), int(found[2]) + 1)]


def _choose(tree: Tree) -> Tree:
    top = unwrapped(tree)
    names = _named(top)
    if not names:
        SOURCE.refuse(top, "no .json or .jsonl file")
    if not any(_is_manifest(top, name) for name in names[:_LOOK_AT_MOST]):
        reason = _why_not(top, names[0])
        SOURCE.refuse(top, f"{names[0]} {reason}")
    return top


def _named(tree: Tree) -> list[str]:
    """Return the files that may be manifests, packed data sets' too."""
    if tree.given is not None:
        return list(tree.given)
    files = [name for name in tree.files() if name.endswith(_ENDINGS)]
    return files or [name for name in tree.files("sharded_manifests") if name.endswith(_ENDINGS)]


def _is_manifest(tree: Tree, name: str) -> bool:
    try:
        return _why_not(tree, name) == ""
    except (ValueError, OSError):
        return False


def _why_not(tree: Tree, name: str) -> str:
    """Say why a file is no manifest, from its first line; nothing when it is one."""
    _, line = next(tree.lines(name), (0, ""))
    if not line:
        return "is empty"
    try:
        record = json.loads(line)
    except ValueError:
        pretty = line.strip() in ("[", "{")
        return "is not JSON lines: " + ("one JSON value spans many lines" if pretty else f"it begins {line[:40]!r}")
    if isinstance(record, list):
        return "is one JSON list, not JSON lines"
    if not isinstance(record, dict) or not any(key in record for key in _AUDIO_KEYS):
        found = ", ".join(list(record)[:8]) if isinstance(record, dict) else repr(record)
        return f"has no audio_filepath, found {found}"
    return ""


def _read(tree: Tree, problems: Problems, *, audio_root: str | None, language: str | None) -> Iterator[Entry]:
    names = [name for name in _named(tree) if tree.given is not None or _is_manifest(tree, name)]
    splits: dict[str, list[str]] = {}
    for name in names:
        split = (tree.given or {}).get(name) or split_of(name, "train" if tree.given is not None else None)
        splits.setdefault(split, []).append(name)
    lines = _Lines(tree, audio_root, language)
    for split in in_order(splits):
        top = lines.top(splits[split])
        for name in splits[split]:
            yield from lines.entries(name, split, top, problems)


class _Lines:
    """The lines of manifests as entries."""

    def __init__(self, tree: Tree, audio_root: str | None, language: str | None):
        self._tree, self._root, self._language = tree, audio_root, language
        self._locators: dict[str, Locator] = {}
        self._members = lru_cache(maxsize=32)(self._list_members)

    def entries(self, name: str, split: str, top: str | None, problems: Problems) -> Iterator[Entry]:
        """Yield the entries of a manifest; ids are paths below `top`, file names without it."""
        for number, record in self._records(name, problems):
            where = f"{name}, line {number}"
            audio = self._audio(name, record)
            if audio is None:
                problems.add(NO_AUDIO, where, f"{record['audio_filepath']} is not in the shard's tar")
                continue
            entry = _entry(record, split, audio, top, where, problems)
            if entry is not None:
                if entry.text_file is not None:
                    entry.text_file = self._locators[name](entry.text_file, audio=False)
                yield entry

    def top(self, names: list[str]) -> str | None:
        """Return the folder that the ids of a split's rows are paths below, None when the names of its files tell them apart."""
        found = FileNames()
        for name in names:
            self._locators[name] = self._locator(name)
            for _, record in self._records(name, Problems()):
                if not isinstance(record.get("id"), str):
                    offset = record.get("offset")
                    found.add(record["audio_filepath"], None if offset is None else (str(offset), str(record.get("duration"))))
        return found.top()

    def _locator(self, name: str) -> Locator:
        paths = (record["audio_filepath"] for _, record in self._records(name, Problems()) if record.get("shard_id") is None)
        return Locator(self._tree, name, paths, self._root)

    def _audio(self, name: str, record: dict) -> str | None:
        if record.get("shard_id") is None:
            return self._locators[name](record["audio_filepath"])
        return self._members(name, record["shard_id"]).get(record["audio_filepath"])

    def _list_members(self, name: str, shard: int) -> dict[str, str]:
        """Return the audio in a packed data set's tar, beside the manifest or in the folder above `sharded_manifests`."""
        place = Path(self._root or os.path.dirname(self._tree.where(name)))
        for folder in (place, place.parent):
            if (tar := folder / f"audio_{shard}.tar").is_file():
                self._tree.remember(str(tar))
                members = dict(archive_files(tar))
                # NeMo appends -sub1, -sub2, … to the names of further segments of one recording
                return _WithSegments(members)
        raise FileNotFoundError(
            f"{self._tree.label(name)}: no audio_{shard}.tar beside it; say where the tar files are by audio_root=, or --audio_root DIR"
        )

    def _records(self, name: str, problems: Problems) -> Iterator[tuple[int, dict]]:
        """Yield number and record of each line that names audio in the wanted language."""
        for number, line in self._tree.lines(name):
            try:
                record = json.loads(line)
            except ValueError as error:
                problems.add(_NO_JSON, f"{name}, line {number}", str(error))
                continue
            if not isinstance(record, dict):
                problems.add(_NO_JSON, f"{name}, line {number}", f"found {type(record).__name__}")
                continue
            audio = record.get("audio_filepath") or record.get("audio_filename")
            if not isinstance(audio, str):
                problems.add("line without audio_filepath", f"{name}, line {number}", "it is missing" if not audio else f"it is {audio!r}")
            elif self._language is None or record.get("lang") == self._language:
                record["audio_filepath"] = audio
                yield number, record


class _WithSegments(dict):
    def get(self, name: str) -> str | None:
        return super().get(name) or super().get(re.sub(r"-sub\d+(?=(\.\w+)?$)", "", name))


def _entry(record: dict, split: str, audio: str, top: str | None, where: str, problems: Problems) -> Entry | None:
    text, text_file = record.get("text"), None
    if text is None and isinstance(text_file := record.get("text_filepath"), str):
        pass
    elif not isinstance(text := record.get("normalized_text") if text is None else text, str):
        problems.add(NO_TEXT, where, f"{record['audio_filepath']}: text is {text!r}")
        return None
    duration, offset = _seconds(record, "duration", where, problems), record.get("offset")
    name = record.get("id")
    if not isinstance(name, str):
        name = stem_of(record["audio_filepath"], top)
    if offset is not None:
        start = _seconds(record, "offset", where, problems)
        if start is None:
            return None
        end = None if duration is None else start + duration
        audio = segment_path(audio, start, end)
        if not isinstance(record.get("id"), str):
            name += f"-{round(start * 1000)}-{'' if end is None else round(end * 1000)}"
    known = {key: str(value) for key in ("speaker", "gender", "accent", "source") if (value := record.get(key)) is not None}
    if "lang" in record and "source" not in known:
        known["source"] = str(record["lang"])
    return Entry(split, name, audio, text=text, text_file=text_file, duration=duration, **known)


def _seconds(record: dict, key: str, where: str, problems: Problems) -> float | None:
    """Return a number of seconds; None, and a problem unless there is none, when it cannot be."""
    value = record.get(key)
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (seconds > 0 or (seconds == 0 and key == "offset")) or seconds == math.inf:
        problems.add(f"{key} that is not possible", where, f"{value!r}")
        return None
    return seconds
