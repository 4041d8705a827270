"""A folder of audio with a text file beside each recording: `talks/anna/01.wav` and `talks/anna/01.txt`."""

import os
import re
from collections.abc import Collection, Iterator
from functools import partial

from datasets import DatasetDict

from hfasr.corpora.reading.locate import AUDIO, CONVERT, FOREIGN_AUDIO, SPLITS, in_order
from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import NO_TEXT, Entry, Problems
from hfasr.corpora.reading.tree import Tree, unwrapped

_TEXT = (".txt", ".lab")
_LOOK_AT_MOST = 100
_NOT_TEXT = re.compile(r"(?i)(readme|licen[cs]e|changelog|about|metadata|notes?)([-_.].*)?")


def _recognise(tree: Tree) -> bool:
    if tree.given is not None:
        return False
    for number, (_, names) in enumerate(unwrapped(tree).walk()):
        _, audio, texts = _by_ending(names)
        if audio.keys() & texts.keys():
            return True
        if number >= _LOOK_AT_MOST:
            break
    return False


SOURCE = Source(
    name="folder",
    title="a folder of audio with text files",
    layout="[train|dev|test/]…/<name>.wav (or .flac, .mp3, .ogg, .opus) with <name>.txt beside each",
    recognise=_recognise,
    order=40,
)


def folder(
    path: str | os.PathLike,
    *,
    speaker: str | None = None,
    splits: Collection[str] | None = None,
    num_workers: int | None = None,
) -> DatasetDict:
    """Load audio files with a text file of the same name beside each.

    Args:
        path: The folder or an archive of it.
        speaker: How the speaker is told: "folder" for the name of the folder that a file is in, a regular expression that is
            searched in the id and whose first group (or all of it) is the speaker, such as "^(s\\d+)_"; unknown when None.
        splits: Which splits, by the names of the result; all when None.
        num_workers: Threads that read headers and transcripts; four a core when None.

    Returns:
        A split for each folder at the top that is named train, dev, valid, validation or test, in any case; all is "train" when
        there is none. Rows as in `hfasr.corpora.rows`, audio decoded at 16 kHz on access. The id is the path below the split's
        folder without ending, `source` the first folder in it. Audio without text has no row; text without audio has one of
        unknown duration, which `check_audio` sets aside. Both are counted in a warning and listed (`hfasr inspect`), as are files
        outside of the splits, and audio that libsndfile does not read.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: No audio with a text beside it, not a wanted split, or a `speaker` that is no regular expression.
    """
    try:
        pattern = None if speaker in (None, "folder") else re.compile(speaker)
    except re.error as error:
        raise ValueError(f"speaker {speaker!r} is neither 'folder' nor a regular expression ({error})") from None
    return SOURCE.load(
        path,
        partial(_read, by_folder=speaker == "folder", pattern=pattern),
        options={"speaker": speaker},
        splits=splits,
        choose=_choose,
        num_workers=num_workers,
    )


def _choose(tree: Tree) -> Tree:
    return unwrapped(tree) if _recognise(tree) else SOURCE.refuse(tree, "no audio file with a text file of the same name beside it")


def _read(tree: Tree, problems: Problems, *, by_folder: bool, pattern: re.Pattern | None) -> Iterator[Entry]:
    tops: dict[str, list[str]] = {}
    for top in tree.folders():
        if top.lower() in SPLITS:
            tops.setdefault(SPLITS[top.lower()], []).append(top)
    if tops:
        _note_outside(tree, [top for each in tops.values() for top in each], problems)
    tops = tops or {"train": [""]}
    for split in in_order(tops):
        for top in tops[split]:
            for place, names in tree.walk(top):
                below = place.removeprefix(top).strip("/")
                for entry in _pairs(tree, names, split, top if len(tops[split]) == 1 else "", problems):
                    entry.source = below.partition("/")[0] or None
                    if by_folder:
                        entry.speaker = below.rpartition("/")[2] or None
                    elif pattern is not None:
                        entry.speaker = _speaker(entry.id, pattern, problems)
                    yield entry


def _pairs(tree: Tree, names: list[str], split: str, top: str, problems: Problems) -> Iterator[Entry]:
    """Yield the entries of one folder; ids are paths below `top`."""
    foreign, audio, texts = _by_ending(names)
    for stem, name in sorted(foreign.items()):
        if stem not in audio:
            texts.pop(stem, None)
            problems.add("audio in a format that cannot be read", name, CONVERT.format(name=name, stem=stem))
    for stem in sorted(audio.keys() - texts.keys()):
        problems.add(NO_TEXT, audio[stem][0])
    for stem, names_of_stem in audio.items():
        if len(names_of_stem) > 1:
            problems.add("several recordings of one name", stem, f"{names_of_stem[0]} is used, not {', '.join(names_of_stem[1:])}")
    for stem in sorted(texts):
        if stem not in audio and _NOT_TEXT.fullmatch(stem.rpartition("/")[2]):
            continue
        where = tree.where(audio[stem][0] if stem in audio else f"{stem}.wav")
        yield Entry(split, stem.removeprefix(top).lstrip("/"), where, text_file=tree.where(texts[stem]))


def _by_ending(names: list[str]) -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """Return files by their names without ending: audio that cannot be read, audio, text."""
    foreign, audio, texts = {}, {}, {}
    for name in names:
        stem, ending = os.path.splitext(name)
        if (ending := ending.lower()) in AUDIO:
            audio.setdefault(stem, []).append(name)
        elif ending in _TEXT:
            texts[stem] = name
        elif ending in FOREIGN_AUDIO:
            foreign[stem] = name
    for files in audio.values():
        files.sort(key=lambda name: AUDIO.index(os.path.splitext(name)[1].lower()))
    return foreign, audio, texts


def _note_outside(tree: Tree, tops: list[str], problems: Problems) -> None:
    for place in [None, *(folder for folder in tree.folders() if folder not in tops)]:
        for names in [tree.files()] if place is None else (names for _, names in tree.walk(place)):
            for files in _by_ending(names)[1].values():
                problems.add("audio outside of the folders of the splits", files[0], f"splits are {', '.join(sorted(tops))}")


def _speaker(row: str, pattern: re.Pattern, problems: Problems) -> str | None:
    if (found := pattern.search(row)) is None:
        problems.add("id that does not tell its speaker", row, pattern.pattern)
        return None
    return found[1] if pattern.groups else found[0]
