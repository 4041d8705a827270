"""AISHELL-1 (Bu et al. 2017), 178 h of Mandarin, https://www.openslr.org/33/.

`data_aishell` holds `wav/{train,dev,test}/<speaker>/<id>.wav` and `transcript/aishell_transcript_v0.8.txt`, whose words are
separated by spaces; `resource_aishell/speaker.info` has lines of `0002 F`. data_aishell.tgz brings the audio as
`wav/<speaker>.tar.gz`, each with `<split>/<speaker>/<id>.wav`, which recipes extract in `wav` (lhotse's aishell.py, NeMo's
get_aishell_data.py); here they are read in place as well. Kaldi's recipe counts 141,925 clips; the transcript has 141,600 lines.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple

from datasets import DatasetDict

from hfasr.corpora.reading.nested import lines_beside, nested_archives, open_nested
from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import NO_TEXT, TWICE, Entry, Problems
from hfasr.corpora.reading.tree import Tree

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"
_SPEAKERS = "resource_aishell/speaker.info"


def _base(tree: Tree) -> str | None:
    return next((base for base in ("", "data_aishell/") if tree.has(base + _TRANSCRIPT)), None)


SOURCE = Source(
    name="aishell",
    title="AISHELL-1",
    layout="data_aishell/wav/{train,dev,test}/<speaker>/<id>.wav with data_aishell/transcript/aishell_transcript_v0.8.txt",
    recognise=lambda tree: _base(tree) is not None,
)


def aishell(path: str | os.PathLike, *, splits: Collection[str] | None = None, num_workers: int | None = None) -> DatasetDict:
    """Load AISHELL-1.

    Args:
        path: `data_aishell`, a folder above it, or an archive of it. `wav/<speaker>.tar.gz` of the download need not be extracted:
            each is uncompressed into the cache once, 15 GB for all. data_aishell.tgz itself must be.
        splits: Which of "train", "validation" (dev) and "test"; all when None.
        num_workers: Threads that read headers; four a core when None.

    Returns:
        Splits "train", "validation", "test". Rows as in `hfasr.corpora.rows`, audio decoded at 16 kHz on access; `text` keeps the
        spaces between words, which `Normalizer("zh")` drops; `gender` ("F", "M") comes from resource_aishell where it is beside
        data_aishell. Audio without a transcript has no row; a transcript without audio has one of unknown duration, which
        `check_audio` sets aside. Both, and speakers and splits that are not there, are counted in a warning and listed
        (`hfasr inspect`); the whole corpus has 325 clips without a transcript.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: Not AISHELL-1, no audio is there, or not a wanted split.
    """
    return SOURCE.load(path, _read, splits=splits, num_workers=num_workers)


class _Speaker(NamedTuple):
    split: str
    name: str
    tree: Tree
    folder: str


def _read(tree: Tree, problems: Problems) -> Iterator[Entry]:
    base = _base(tree)
    texts: dict[str, str] = {}
    of_speaker = defaultdict(list)
    for _, line in tree.lines(base + _TRANSCRIPT):
        id, _, text = line.strip().partition(" ")
        if id in texts:
            problems.add(TWICE, id, "in the transcript; the first one is used")
        else:
            texts[id] = text.strip()
            of_speaker[id[6:11]].append(id)  # BAC009S0002W0122
    speakers = _speakers(tree, f"{base}wav")
    if not speakers:
        raise ValueError(
            f"{tree.where(base + 'wav')} has neither {{train,dev,test}}/<speaker>/ nor <speaker>.tar.gz, found {tree.found(base + 'wav')};"
            " was data_aishell.tgz extracted to its end?"
        )
    genders = dict(_genders(tree))
    for speaker in speakers:
        yield from _rows(speaker, of_speaker.pop(speaker.name, []), texts, genders.get(speaker.name), problems)
    for split in sorted(_SPLITS.keys() - {speaker.split for speaker in speakers}):
        problems.add("split that is not there", f"wav/{split}")
    for name, ids in sorted(of_speaker.items()):
        problems.add("speaker without audio", name, f"{len(ids)} transcripts")


def _speakers(tree: Tree, wav: str) -> list[_Speaker]:
    """Return the speakers of all splits, from folders and from archives that were not extracted, by split and name."""
    speakers = [_Speaker(split, folder.rpartition("/")[2], tree, folder) for split in _SPLITS for folder in tree.folders(f"{wav}/{split}")]
    extracted = {speaker.name for speaker in speakers}
    for name, archive in nested_archives(tree, wav).items():
        if name not in extracted:
            inner = open_nested(tree, archive)
            speakers += [_Speaker(split, name, inner, f"{split}/{name}") for split in _SPLITS if inner.files(f"{split}/{name}")]
    order = list(_SPLITS)
    return sorted(speakers, key=lambda speaker: (order.index(speaker.split), speaker.name))


def _rows(speaker: _Speaker, ids: list[str], texts: dict[str, str], gender: str | None, problems: Problems) -> Iterator[Entry]:
    names = [name for name in speaker.tree.files(speaker.folder) if name.lower().endswith(".wav")]
    audio = {name.rpartition("/")[2][:-4]: name for name in names}
    for id in sorted({*audio, *ids}):
        if id not in texts:
            problems.add(NO_TEXT, audio[id])
            continue
        where = speaker.tree.where(audio.get(id, f"{speaker.folder}/{id}.wav"))
        yield Entry(_SPLITS[speaker.split], id, where, text=texts[id], speaker=speaker.name, gender=gender, source="aishell")


def _genders(tree: Tree) -> Iterator[tuple[str, str]]:
    lines = tree.lines(_SPEAKERS) if tree.has(_SPEAKERS) else lines_beside(tree, _SPEAKERS)
    for _, line in lines:
        fields = line.split()
        if len(fields) > 1:
            yield f"S{fields[0].removeprefix('S')}", fields[1]
