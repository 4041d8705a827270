"""KSC2, the Kazakh Speech Corpus 2 of ISSAI (Mussakhojayeva et al. 2022), 1,200 h: a `.txt` beside each `.flac`.

The layout is what ISSAI's recipe reads (IS2AI/Kazakh_ASR, asr1/local/prep_data.py). Some clips of tv_news are named
`<id>.flac.flac` and `<id>.txt.txt` in the release. It is downloaded as ten parts of one .tar.gz.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

from datasets import DatasetDict

from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import NO_TEXT, Entry, Problems
from hfasr.corpora.reading.tree import Tree

_SPLITS = {"Train": "train", "Dev": "validation", "Test": "test"}
_AUDIO = (".flac", ".wav")  # the first one counts where both are there
_TEXT = ".txt"
_NOT_TRANSCRIPTS = ("readme", "license", "licence", "changelog")
_PART = ".tar.gz.part"


def _recognise(tree: Tree) -> bool:
    return any(_has_pair(tree, source) for folder in tree.folders() if folder in _SPLITS for source in tree.folders(folder))


def _has_pair(tree: Tree, folder: str) -> bool:
    # the first names are enough: recognising must not depend on how many there are
    names = tree.files(folder)[:1000]
    texts = {_stem(name, _TEXT) for name in names if name.lower().endswith(_TEXT)}
    return any(_stem(name, ending) in texts for name in names for ending in _AUDIO if name.lower().endswith(ending))


SOURCE = Source(
    name="ksc2",
    title="KSC2",
    layout="ISSAI_KSC2/{Train,Dev,Test}/<source>/<id>.flac with <id>.txt beside each",
    recognise=_recognise,
)


def ksc2(path: str | os.PathLike, *, splits: Collection[str] | None = None, num_workers: int | None = None) -> DatasetDict:
    """Load KSC2 (https://issai.nu.edu.kz/kz-speech-corpus/).

    Args:
        path: `ISSAI_KSC2`, a folder above it, or an archive of it.
        splits: Which of "train", "validation" (Dev) and "test"; all when None.
        num_workers: Threads that read headers and transcripts; four a core when None.

    Returns:
        Splits "train", "validation", "test". Rows as in `hfasr.corpora.rows`, audio decoded at 16 kHz on access; `source` is
        the folder below the split, such as "radio" or "crowdsourced". The corpus does not tell its speakers. Audio without a
        transcript has no row; a transcript without audio has one of unknown duration, which `check_audio` sets aside. Both,
        and splits and sources that are not there, are counted in a warning and listed (`hfasr inspect`).

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: Not KSC2, a split without audio, or not a wanted split.
    """
    if _PART in Path(path).name:
        _refuse_parts(Path(path))
    return SOURCE.load(path, _read, splits=splits, choose=_choose, num_workers=num_workers)


def _choose(tree: Tree) -> Tree:
    top = SOURCE.top(tree)
    if top is None:
        part = next((name for name in tree.files() if _PART in name), None)
        if part is not None:
            _refuse_parts(tree.path / part)
        if "Train" in tree.folders() and {"Dev", "Test"} & set(tree.folders()):
            sources = ", ".join(tree.folders("Train")) or "no folder"
            raise ValueError(
                f"{tree.path} has the folders of KSC2 but no audio with its transcript beside it (Train/ holds {sources}); "
                "was the archive extracted to its end?"
            )
        return SOURCE.refuse(tree)
    return top


def _refuse_parts(path: Path) -> NoReturn:
    whole = str(path).partition(".part")[0]
    raise ValueError(f"{path} is one part of KSC2's archive; join the parts (cat '{whole}'.part* > '{whole}') and give {whole}")


def _read(tree: Tree, problems: Problems) -> Iterator[Entry]:
    for folder, split in _SPLITS.items():
        if folder not in tree.folders():
            problems.add("split that is not there", folder)
            continue
        audio = False
        for place, names in tree.walk(folder):
            below = place.removeprefix(folder).strip("/")
            audio = audio or any(name.lower().endswith(_AUDIO) for name in names)
            if not names and not tree.folders(place):
                problems.add("empty folder", place)
            yield from _pairs(tree, names, problems, split, below.partition("/")[0] or None)
        if not audio:
            raise ValueError(f"{tree.path}: {folder} holds no audio, found {tree.found(folder)}; was the archive extracted to its end?")


def _pairs(tree: Tree, names: list[str], problems: Problems, split: str, source: str | None) -> Iterator[Entry]:
    texts, audio = {}, {}
    for name in names:
        if name.lower().endswith(_TEXT):
            _keep(texts, _stem(name, _TEXT), name, problems)
    for ending in _AUDIO:
        for name in names:
            if name.lower().endswith(ending):
                _keep(audio, _stem(name, ending), name, problems)
    for stem in sorted(audio.keys() - texts.keys()):
        problems.add(NO_TEXT, audio[stem])
    for stem in sorted(texts):
        id = stem.rpartition("/")[2]
        if stem in audio or id.lower() not in _NOT_TRANSCRIPTS:
            where = tree.where(audio.get(stem, f"{stem}.flac"))
            yield Entry(split, id, where, text_file=tree.where(texts[stem]), source=source)


def _keep(files: dict[str, str], stem: str, name: str, problems: Problems) -> None:
    if files.setdefault(stem, name) != name:
        problems.add("second file of an id", name, f"{files[stem]} is used")


def _stem(name: str, ending: str) -> str:
    while name.lower().endswith(ending):
        name = name[: -len(ending)]
    return name
