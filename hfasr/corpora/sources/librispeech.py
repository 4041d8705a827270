"""LibriSpeech (Panayotov et al. 2015), 960 h of English, https://www.openslr.org/12/; Mini LibriSpeech has the same layout.

`LibriSpeech/<part>/<speaker>/<chapter>/<id>.flac` with `<speaker>-<chapter>.trans.txt` in each chapter (lines of `id TEXT`) and
`LibriSpeech/SPEAKERS.TXT` (`14   | F | train-clean-360  | 25.03 | name`, comments after `;`), as Kaldi's
egs/librispeech/s5/local/data_prep.sh and lhotse's librispeech.py read it. Each part is downloaded as `<part>.tar.gz`.
"""

import os
import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets import DatasetDict

from hfasr.corpora.reading.nested import lines_beside, nested_archives, open_nested
from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import NO_TEXT, TWICE, Entry, Problems
from hfasr.corpora.reading.tree import Tree

_PART = re.compile(r"(train|dev|test)-(clean|other)(-\d+)?")
_BASES = ("", "LibriSpeech/")
_ENDING = ".flac"


class _Part(NamedTuple):
    split: str
    folder: str
    archive: str | None = None  # that holds the folder, where it was not extracted


def _recognise(tree: Tree) -> bool:
    return any(part.archive is not None or _has_chapter(tree, part.folder) for part in _parts(tree).values())


def _has_chapter(tree: Tree, folder: str) -> bool:
    # LibriTTS has the same folders, but .wav in them
    chapters = (chapter for speaker in tree.folders(folder)[:3] for chapter in tree.folders(speaker)[:3])
    return any(name.endswith((".flac", ".trans.txt")) for chapter in chapters for name in tree.files(chapter))


SOURCE = Source(
    name="librispeech",
    title="LibriSpeech",
    layout="LibriSpeech/{train-clean-100,dev-clean,…}/<speaker>/<chapter>/<id>.flac with <speaker>-<chapter>.trans.txt, or <part>.tar.gz",
    recognise=_recognise,
)


def librispeech(
    path: str | os.PathLike,
    *,
    train: Collection[str] | None = None,
    splits: Collection[str] | None = None,
    num_workers: int | None = None,
) -> DatasetDict:
    """Load LibriSpeech, or those of its parts that are there.

    Args:
        path: `LibriSpeech`, a folder above it, one part (`dev-clean`), an archive of these, or a folder of several, such as
            `dev-clean.tar.gz`, which are uncompressed into the cache once.
        train: Which parts make the training split, such as `("train-clean-100",)`; all that are there when None.
        splits: Which splits; all when None. Others are not read.
        num_workers: Threads that read headers; four a core when None.

    Returns:
        Splits "train" (parts in the order of their names), "dev_clean", "dev_other", "test_clean", "test_other", as far as
        they are there. Rows as in `hfasr.corpora.rows`, audio decoded at 16 kHz on access; `source` is the part, `gender` is
        "F" or "M" where SPEAKERS.TXT is there. Audio without a transcript has no row; a transcript without audio has one of
        unknown duration, which `check_audio` sets aside. Both are counted in a warning and listed (`hfasr inspect`).

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: Not LibriSpeech, a part without audio, or not a wanted part or split.
    """
    wanted = None if splits is None else sorted(splits)
    chosen = None if train is None else sorted({train} if isinstance(train, str) else train)
    return SOURCE.load(
        path,
        partial(_read, train=chosen, wanted=wanted),
        options={"train": chosen, "splits": wanted},
        splits=splits,
        num_workers=num_workers,
    )


def _parts(tree: Tree) -> dict[str, _Part]:
    """Return the parts of a tree by their names: folders first, then archives of others, sorted."""
    found: dict[str, _Part] = {}
    for base in _BASES:
        for folder in tree.folders(base.rstrip("/")):
            _add(found, folder.rpartition("/")[2], folder, None)
    for name, archive in nested_archives(tree).items():
        _add(found, name, name, archive)
    name = Path(os.path.abspath(tree.path)).name
    if type(tree) is Tree and not found:
        _add(found, name, "", None)
    return dict(sorted(found.items()))


def _add(found: dict[str, _Part], name: str, folder: str, archive: str | None) -> None:
    if kind := _PART.fullmatch(name):
        found.setdefault(name, _Part("train" if kind[1] == "train" else name.replace("-", "_"), folder, archive))


def _read(tree: Tree, problems: Problems, *, train: list[str] | None, wanted: list[str] | None) -> Iterator[Entry]:
    parts = _parts(tree)
    for name in train or ():
        if name not in parts or parts[name].split != "train":
            raise ValueError(f"{tree.path} has no training part {name!r}, found {', '.join(parts)}")
    parts = {name: part for name, part in parts.items() if part.split != "train" or train is None or name in train}
    there = [part.split for part in parts.values()]
    for split in wanted or ():
        if split not in there:
            raise ValueError(f"{tree.path} has no split {split!r}, found {', '.join(dict.fromkeys(there))}")
    # training first, then as named
    for name, part in sorted(parts.items(), key=lambda item: item[1].split != "train"):
        if wanted is None or part.split in wanted:
            place, folder = _opened(tree, part)
            yield from _rows(place, folder, name, part.split, problems)


def _opened(tree: Tree, part: _Part) -> tuple[Tree, str]:
    if part.archive is None:
        return tree, part.folder
    inner = open_nested(tree, part.archive)
    for base in _BASES:
        if inner.folders(base + part.folder):
            return inner, base + part.folder
    raise ValueError(f"{inner.path} holds no LibriSpeech/{part.folder}, found {inner.found()}; is it a part of LibriSpeech?")


def _rows(tree: Tree, folder: str, name: str, split: str, problems: Problems) -> Iterator[Entry]:
    chapters = [chapter for speaker in tree.folders(folder) for chapter in tree.folders(speaker)]
    if not any(file.lower().endswith(_ENDING) for chapter in chapters for file in tree.files(chapter)):
        raise ValueError(
            f"{tree.path}: {name} holds no <speaker>/<chapter>/<id>.flac, found {tree.found(folder)}; was its archive extracted to its end?"
        )
    genders = dict(_genders(tree, folder))
    for chapter in chapters:
        *_, speaker, number = chapter.split("/")
        audio = {file.rpartition("/")[2][: -len(_ENDING)]: file for file in tree.files(chapter) if file.lower().endswith(_ENDING)}
        texts: dict[str, str] = {}
        for id, text in _texts(tree, f"{chapter}/{speaker}-{number}.trans.txt"):
            if texts.setdefault(id, text) is not text:
                problems.add(TWICE, id, "in the transcripts of its chapter; the first one is used")
        for id in sorted(audio.keys() - texts.keys()):
            problems.add(NO_TEXT, audio[id])
        for id, text in texts.items():
            where = tree.where(audio.get(id, f"{chapter}/{id}.flac"))
            yield Entry(split, id, where, text=text, speaker=speaker, gender=genders.get(speaker), source=name)


def _texts(tree: Tree, name: str) -> Iterator[tuple[str, str]]:
    if tree.has(name):
        for _, line in tree.lines(name):
            id, _, text = line.strip().partition(" ")
            yield id.rpartition("/")[2], text.strip()


def _genders(tree: Tree, folder: str) -> Iterator[tuple[str, str]]:
    name = f"{folder.rpartition('/')[0]}/SPEAKERS.TXT".lstrip("/")
    lines = tree.lines(name) if tree.has(name) else () if folder else lines_beside(tree, "SPEAKERS.TXT")
    for _, line in lines:
        fields = [field.strip() for field in line.split("|")]
        if len(fields) > 1 and not line.startswith(";"):
            yield fields[0], fields[1]
