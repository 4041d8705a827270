"""AISHELL-2 (Du et al. 2018), 1,000 h of Mandarin for training, and its evaluation set over three channels.

Training: `iOS/data/{wav.scp,trans.txt}` with `wav/<speaker>/<id>.wav`, such as wav/C0001/IC0001W0001.wav; only iOS is released.
Evaluation: `AISHELL-DEV-TEST-SET/{iOS,Android,Mic}/{dev,test}/` alike, with speakers such as D0012 and T0011. Lines are
`id<TAB>value`. Kaldi's and WeNet's prepare_data.sh read it so, lhotse's aishell2.py and ESPnet's (egs2/aishell2/asr1/local) name
the folders. The downloads hold archives in turn, `wav/<speaker>.tar.gz` and `iOS/test.tar.gz`, which are read in place as well.
"""

import os
import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets import DatasetDict

from hfasr.corpora.reading.nested import nested_archives, open_nested
from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import NO_TEXT, Entry, Problems
from hfasr.corpora.reading.tree import Tree

_CHANNELS = ("ios", "android", "mic")
_PARTS = {"data": "train", "train": "train", "dev": "dev", "test": "test"}
_SPEAKER = re.compile(r"[A-Z]([A-Z]\d+)W\d+")


class _Part(NamedTuple):
    channel: str
    folder: str
    archive: str | None  # that holds the folder, where it was not extracted


def _recognise(tree: Tree) -> bool:
    return bool(_parts(tree))


SOURCE = Source(
    name="aishell2",
    title="AISHELL-2",
    layout="iOS/data/ or AISHELL-DEV-TEST-SET/{iOS,Android,Mic}/{dev,test}/, each with trans.txt, wav.scp and wav/<speaker>/<id>.wav",
    recognise=_recognise,
)


def aishell2(path: str | os.PathLike, *, splits: Collection[str] | None = None, num_workers: int | None = None) -> DatasetDict:
    """Load AISHELL-2: its training set, its evaluation set, or both.

    Args:
        path: The folder that holds `iOS` (training), `AISHELL-DEV-TEST-SET`, or both, or a folder above it; an archive
            of these. Archives in the folders need not be extracted: each is uncompressed into the cache once.
        splits: Which splits; all when None. Others are not read.
        num_workers: Threads that read headers; four a core when None.

    Returns:
        Splits "train" (iOS; "train_android", "train_mic" where the folders have such), "dev_ios", "test_ios", "dev_android",
        "test_android", "dev_mic", "test_mic", as far as they are there. Rows as in `hfasr.corpora.rows`, audio decoded at
        16 kHz on access; `speaker` is the same in all channels, `source` is the channel. Audio without a transcript has no row; a
        transcript without audio has one of unknown duration, which `check_audio` sets aside. Both are counted in a warning and
        listed (`hfasr inspect`).

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: Not AISHELL-2, a part has no trans.txt or no audio, or not a wanted split.
    """
    wanted = None if splits is None else sorted(splits)
    return SOURCE.load(
        path, partial(_read, wanted=wanted), options={"splits": wanted}, splits=splits, choose=_choose, num_workers=num_workers
    )


def _choose(tree: Tree) -> Tree:
    if top := SOURCE.top(tree):
        return top
    lacks = ""
    if tree.has("trans.txt") or tree.has("wav.scp"):
        lacks = f"one part without its channel; give the folder above {tree.path.parent.name or '..'}/{tree.path.name}"
    return SOURCE.refuse(tree, lacks)


def _read(tree: Tree, problems: Problems, *, wanted: list[str] | None) -> Iterator[Entry]:
    parts = _parts(tree)
    for split in wanted or ():
        if split not in parts:
            raise ValueError(f"{tree.path} has no split {split!r}, found {', '.join(parts)}")
    for split, part in parts.items():
        if wanted is None or split in wanted:
            yield from _rows(*_opened(tree, part), split, part.channel, problems)


def _parts(tree: Tree) -> dict[str, _Part]:
    """Return the parts of all channels by their splits."""
    found: dict[str, _Part] = {}
    for channel, above in _channels(tree):
        archives = nested_archives(tree, above)
        for name, kind in _PARTS.items():
            folder = f"{above}/{name}".strip("/")
            split = kind if (kind, channel.lower()) == ("train", "ios") else f"{kind}_{channel.lower()}"
            if tree.has(f"{folder}/trans.txt") or tree.has(f"{folder}/wav.scp"):
                found.setdefault(split, _Part(channel, folder, None))
            elif name in archives:
                found.setdefault(split, _Part(channel, name, archives[name]))
    order = ["train", *(f"{kind}_{channel}" for channel in _CHANNELS for kind in ("train", "dev", "test"))]
    return {split: found[split] for split in order if split in found}


def _channels(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield channels and their folders: below the top, or below a folder there that is called after the corpus."""
    name = Path(os.path.abspath(tree.path)).name
    if type(tree) is Tree and name.lower() in _CHANNELS:
        yield name, ""
    level = [""]
    for _ in range(3):
        below = [folder for above in level for folder in tree.folders(above)]
        for folder in below:
            if (name := folder.rpartition("/")[2]).lower() in _CHANNELS:
                yield name, folder
        level = [folder for folder in below if "aishell" in folder.rpartition("/")[2].lower()]


def _opened(tree: Tree, part: _Part) -> tuple[Tree, str]:
    if part.archive is None:
        return tree, part.folder
    inner = open_nested(tree, part.archive)
    for folder in (part.folder, ""):
        if inner.has(f"{folder}/trans.txt".strip("/")):
            return inner, folder
    raise ValueError(f"{inner.path} holds no {part.folder}/trans.txt, found {inner.found()}; is it a part of AISHELL-2?")


def _rows(tree: Tree, folder: str, split: str, channel: str, problems: Problems) -> Iterator[Entry]:
    at = f"{folder}/".lstrip("/")
    if not tree.has(f"{at}trans.txt"):
        raise ValueError(f"{tree.path}: {folder} has no trans.txt, found {tree.found(folder)}; was its archive extracted to its end?")
    audio = dict(_audio(tree, f"{at}wav"))
    if not audio:
        raise ValueError(f"{tree.path}: {at}wav holds no .wav and no .tar.gz, found {tree.found(f'{at}wav')}; was it extracted to its end?")
    missing = dict(_listed(tree, f"{at}wav.scp", audio))
    spoken = set()
    for id, text in _pairs(tree, f"{at}trans.txt"):
        spoken.add(id)
        path = missing.get(id) or f"wav/{_speaker(id) or ''}/{id}.wav"
        where, speaker = audio.get(id) or (tree.where(at + path), _speaker(id))
        yield Entry(split, id, where, text=text, speaker=speaker, source=channel)
    for id in sorted((audio.keys() | missing.keys()) - spoken):
        problems.add(NO_TEXT, id, f"{split}: {audio[id][0] if id in audio else 'in wav.scp, without audio'}")


def _audio(tree: Tree, wav: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield ids, paths and speakers of all clips, of folders and of the archives of speakers that were not extracted."""
    extracted = {folder.rpartition("/")[2] for folder in tree.folders(wav)}
    trees = [(tree, wav)]
    trees += [(open_nested(tree, archive), "") for name, archive in nested_archives(tree, wav).items() if name not in extracted]
    for place, folder in trees:
        for below, names in place.walk(folder):
            speaker = below.rpartition("/")[2]
            for name in names:
                if name.lower().endswith(".wav"):
                    yield name.rpartition("/")[2][:-4], (place.where(name), speaker)


def _listed(tree: Tree, name: str, audio: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield ids and paths of wav.scp whose clips are not there."""
    if tree.has(name):
        for id, path in _pairs(tree, name):
            if id not in audio and ".." not in path and not path.startswith("/"):
                yield id, path


def _pairs(tree: Tree, name: str) -> Iterator[tuple[str, str]]:
    """Yield id and value of the lines of a table, separated by a tab or by spaces."""
    for _, line in tree.lines(name):
        id, *value = line.split(None, 1)
        yield id, "".join(value).strip()


def _speaker(id: str) -> str | None:
    return match[1] if (match := _SPEAKER.fullmatch(id)) else None
