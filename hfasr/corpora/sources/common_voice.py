"""Common Voice: a language's release folder, or its .tar.gz or .tar, without the Hub.

A release holds `<lang>/{train,dev,test,validated,invalidated,other}.tsv`, `clip_durations.tsv` (ms, recent releases) and
`clips/*.mp3`. Since October 2025 the Mozilla Data Collective offers it as an archive only.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path, PurePosixPath

from datasets import DatasetDict

from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import Entry, Problems
from hfasr.corpora.reading.tree import Below, Tree

# Common Voice's name -> ours, in the order of preference when a clip stands in several
_SPLITS = {"train": "train", "dev": "validation", "test": "test", "validated": "validated", "invalidated": "invalidated", "other": "other"}
_ENOUGH = ("train", "validated")  # one of these makes a folder a release
_NEEDED = ("path", "sentence")
_DISJOINT = ("train", "validation", "test")
_LIST_NAMES = {"train": "train", "val": "validation", "dev": "validation", "test": "test"}
_LIST_ENDINGS = (".txt", ".text", ".lst", ".list")


def _recognise(tree: Tree) -> bool:
    return any(tree.has(f"{name}.tsv") and _is_ours(tree, f"{name}.tsv") for name in _ENOUGH)


def _is_ours(tree: Tree, table: str) -> bool:
    """Tell a table of Common Voice from others of its name; one that is empty or not UTF-8 is told later."""
    try:
        header = next(tree.lines(table), (0, ""))[1].split("\t")
    except ValueError:
        header = []
    return header in ([], [""]) or "client_id" in header or set(_NEEDED) <= set(header)


SOURCE = Source(
    name="common_voice",
    title="Common Voice",
    layout="<language>/{train,dev,test}.tsv with clips/*.mp3",
    recognise=_recognise,
)


def common_voice(
    path: str | os.PathLike,
    *,
    language: str | None = None,
    splits: Collection[str] | None = None,
    validated_rest: bool = False,
    split_lists: str | os.PathLike | None = None,
    num_workers: int | None = None,
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
        num_workers: Threads that read headers; four a core when None.

    Returns:
        Splits "train", "validation" (dev.tsv), "test", and "validated", "invalidated", "other" as far as the release has
        them; with `split_lists` only the listed ones. Rows as in `hfasr.corpora.rows`, audio decoded at 16 kHz on access.
        A clip missing on disk stays in, its duration unknown, until `check_audio`. Rows of a table that do not have its columns
        are left out; they, missing clips, and clips that stand in several of training, validation and test are counted in a
        warning and listed (`hfasr inspect`).

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: Not a Common Voice release, a table lacks a column, a wanted split has no rows, or none of a split's clips
            is there.
    """
    if validated_rest and split_lists is not None:
        raise ValueError("validated_rest and split_lists both say what to train on; give one of them")
    wanted = None if splits is None else list(splits)
    lists = None if split_lists is None else Path(split_lists)
    return SOURCE.load(
        path,
        partial(_read, wanted=wanted, validated_rest=validated_rest, lists=lists),
        options={"language": language, "splits": wanted, "validated_rest": validated_rest, "split_lists": lists and lists.absolute()},
        choose=partial(_one_language, language=language),
        num_workers=num_workers,
    )


def _one_language(tree: Tree, language: str | None) -> Tree:
    """Choose among the folders that hold tables, by language code."""
    if _recognise(tree):
        return tree  # a language folder, perhaps under a name of the user's own
    folders, level = {}, [""]
    while level and not folders:
        level = [folder for above in level for folder in tree.folders(above) if not folder.endswith("clips")]
        folders = {folder.rpartition("/")[2]: below for folder in level if _recognise(below := Below(tree, folder))}
    if language in folders:
        return folders[language]
    if language is None and len(folders) == 1:
        return next(iter(folders.values()))
    if not folders:
        return SOURCE.refuse(tree, "no train.tsv or validated.tsv")
    choice = 'choose one with language=, or --options (in a recipe --corpus_options) \'{"language": "ky"}\''
    wanted = f"no language {language!r}" if language else f"several languages; {choice}"
    raise ValueError(f"{tree.path} has {wanted}, found {', '.join(sorted(folders))}")


def _read(tree: Tree, problems: Problems, *, wanted: list[str] | None, validated_rest: bool, lists: Path | None) -> Iterator[Entry]:
    there = [name for name in _SPLITS if tree.has(f"{name}.tsv")]
    if lists is not None:
        tables = _by_lists(tree, there, lists, problems)
    else:
        tables = {_SPLITS[name]: _records(tree, name, problems) for name in _needed(there, wanted)}
        if validated_rest:
            tables["train"] = _validated_rest(tree, there, problems)
    for split in wanted or ():
        if split not in tables:
            raise ValueError(f"{tree.path} has no rows for split {split!r}, found {', '.join(_SPLITS[name] for name in there)}")
    clips = {name.rpartition("/")[2] for name in tree.files("clips")}
    durations = dict(_durations(tree))
    names: dict[str, set[str]] = {}
    for split in wanted or tables:
        names[split] = set()
        for record in tables[split]:
            names[split].add(record["path"])
            yield _entry(tree, split, record, clips, durations)
        if names[split] and not names[split] & clips:
            first = next(iter(names[split]))
            raise ValueError(
                f"{tree.where('clips')} holds none of the {len(names[split])} clips of split {split!r}, such as {first}; is it whole?"
            )
        if wanted and not names[split]:
            raise ValueError(f"{tree.path} has no rows for split {split!r}")
    _note_shared(names, problems)


def _needed(there: list[str], wanted: list[str] | None) -> list[str]:
    """Return the tables to read: one that is empty or broken must not refuse the splits that do not use it."""
    return there if wanted is None else [name for name in there if _SPLITS[name] in wanted]


def _records(tree: Tree, name: str, problems: Problems) -> Iterator[dict[str, str]]:
    """Yield the rows of a table that name a clip; quotes are literal in these tables."""
    where = f"{tree.path}: {name}.tsv"
    lines = tree.lines(f"{name}.tsv")
    header = next(lines, (0, ""))[1].split("\t")
    for column in _NEEDED:
        if column not in header:
            found = ", ".join(filter(None, header)) or "an empty file"
            raise ValueError(f"{where} has no column {column!r}, found {found}. Is this a Common Voice release?")
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(header):
            problems.add("row without the columns of its header", f"{name}.tsv, line {number}", f"{len(fields)} of {len(header)} columns")
            continue
        record = dict(zip(header, fields, strict=True))
        if record["path"]:
            # releases before 3.0 name the clips without their ending
            record["path"] += "" if PurePosixPath(record["path"]).suffix else ".mp3"
            yield record


def _validated_rest(tree: Tree, there: list[str], problems: Problems) -> Iterator[dict[str, str]]:
    if "validated" not in there:
        raise ValueError(f"{tree.path} has no validated.tsv, found {', '.join(there)}; leave validated_rest out")
    held_out = {record["path"] for name in ("dev", "test") if name in there for record in _records(tree, name, Problems())}
    return (record for record in _records(tree, "validated", problems) if record["path"] not in held_out)


def _by_lists(tree: Tree, there: list[str], folder: Path, problems: Problems) -> dict[str, Iterable[dict[str, str]]]:
    lists = {}
    files = _list_files(folder)
    tree.remember(str(folder.absolute()))
    for split, path in files.items():
        tree.remember(str(path.absolute()))
        listed = Tree(folder).lines(path.name)
        lists[split] = [(PurePosixPath(name.strip()).stem, text.strip()) for name, _, text in (line.partition("\t") for _, line in listed)]
    wanted = {stem for named in lists.values() for stem, _ in named}
    known: dict[str, dict[str, str]] = {}
    for table in there:
        if next(tree.lines(f"{table}.tsv"), None) is not None:
            for record in _records(tree, table, Problems()):
                if (stem := PurePosixPath(record["path"]).stem) in wanted:
                    known.setdefault(stem, record)
    for split, named in lists.items():
        missing = [stem for stem, _ in named if stem not in known]
        if len(missing) == len(named):
            first = missing[0] if missing else "an empty list"
            raise ValueError(f"{folder}: none of its {len(named)} clips of {split} is in the release, such as {first}")
        for stem in missing:
            problems.add("listed clip that is not in the release", stem, split)
    return {
        split: [known[stem] | ({"sentence": text} if text else {}) for stem, text in named if stem in known]
        for split, named in lists.items()
    }


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


def _durations(tree: Tree) -> Iterator[tuple[str, float]]:
    """Yield clip name and seconds from clip_durations.tsv, whose columns are the clip and `duration[ms]`."""
    if tree.has("clip_durations.tsv"):
        for _, line in tree.lines("clip_durations.tsv"):
            name, _, milliseconds = line.partition("\t")
            if milliseconds.strip().isdigit():
                yield name, float(milliseconds) / 1000


def _entry(tree: Tree, split: str, record: dict[str, str], clips: set[str], durations: dict[str, float]) -> Entry:
    # a clip is looked up by its name among those of the release, so that a table cannot point outside
    name = PurePosixPath(record["path"]).name
    return Entry(
        split,
        PurePosixPath(name).stem,
        tree.where(f"clips/{name}"),
        text=record["sentence"],
        duration=durations.get(name) if name in clips else None,
        speaker=record.get("client_id") or None,
        gender=record.get("gender") or None,
        accent=record.get("accents") or record.get("accent") or None,
        source="common_voice",
    )


def _note_shared(names: dict[str, set[str]], problems: Problems) -> None:
    for first, second in combinations([split for split in _DISJOINT if split in names], 2):
        for name in sorted(names[first] & names[second]):
            problems.add(f"clip of {second} that also stands in {first}", name)
