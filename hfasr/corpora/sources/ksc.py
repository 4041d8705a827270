"""KSC, the Kazakh Speech Corpus of ISSAI (Khassanov et al. 2021), 332 h, https://www.openslr.org/102/.

`ISSAI_KSC_335RS_v1.1_flac` holds `Meta/{train,dev,test}.csv`, `Transcriptions/<uttID>.txt` and `Audios_flac/<uttID>.flac`, as
ESPnet's recipe by ISSAI reads it (egs2/ksc/asr1/local/prepare_data.sh); ISSAI's first recipe (IS2AI/ISSAI_SAIDA_Kazakh_ASR,
ksc/asr1/local/data_prep.py) has `Audios/<uttID>.wav`. The tables are separated by spaces, with a header: `uttID deviceID Gender
Age Region Device_Type Headphones` in test.csv, while train.csv is said to have no more than the ids of utterance and device.
"""

import csv
import os
from collections.abc import Collection, Iterator

from datasets import DatasetDict

from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import Entry, Problems
from hfasr.corpora.reading.tree import Tree

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_AUDIO = {"Audios_flac": ".flac", "Audios": ".wav"}  # the first one counts where both are there
_TEXTS = "Transcriptions"


def _recognise(tree: Tree) -> bool:
    return any(tree.has(f"Meta/{name}.csv") for name in _SPLITS) and bool({_TEXTS, *_AUDIO} & set(tree.folders()))


SOURCE = Source(
    name="ksc",
    title="KSC (version 1)",
    layout="ISSAI_KSC_335RS_v1.1_flac/Meta/{train,dev,test}.csv with Transcriptions/<id>.txt and Audios_flac/<id>.flac",
    recognise=_recognise,
)


def ksc(path: str | os.PathLike, *, splits: Collection[str] | None = None, num_workers: int | None = None) -> DatasetDict:
    """Load KSC, version 1.

    Args:
        path: `ISSAI_KSC_335RS_v1.1_flac`, a folder above it, or an archive of it.
        splits: Which of "train", "validation" (dev) and "test"; all when None.
        num_workers: Threads that read headers and transcripts; four a core when None.

    Returns:
        Splits "train", "validation", "test". Rows as in `hfasr.corpora.rows`, audio decoded at 16 kHz on access. `speaker` is
        the id of the device that recorded: volunteers are not told apart otherwise, and several may have used one device.
        `accent` is the region, where the table has one. An utterance without a transcript has no row; one without audio has
        one of unknown duration, which `check_audio` sets aside. These, and transcripts and audio that no table lists, are
        counted in a warning and listed (`hfasr inspect`).

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: Not KSC, a table lacks the column uttID, no transcript or no audio is there, or not a wanted split.
    """
    return SOURCE.load(path, _read, splits=splits, num_workers=num_workers)


def _read(tree: Tree, problems: Problems) -> Iterator[Entry]:
    audio = _by_id(tree, _AUDIO)
    texts = _by_id(tree, {_TEXTS: ".txt"})
    for files, what in ((audio, f"audio in {' or '.join(_AUDIO)}"), (texts, f"transcript in {_TEXTS}")):
        if not files:
            raise ValueError(f"{tree.path} is KSC without any {what}, found {tree.found()}; was the archive extracted to its end?")
    listed: dict[str, str] = {}
    for name, split in _SPLITS.items():
        if not tree.has(f"Meta/{name}.csv"):
            problems.add("split that is not there", f"Meta/{name}.csv")
            continue
        for record in _records(tree, f"Meta/{name}.csv", problems):
            # looked up by its name, so that a table cannot point outside
            id = record["uttID"].rpartition("/")[2]
            if (first := listed.setdefault(id, split)) != split:
                problems.add(f"id of {split} that also stands in {first}", id)
            yield Entry(
                split,
                id,
                tree.where(audio.get(id, f"{next(iter(_AUDIO))}/{id}.flac")),
                text_file=tree.where(texts.get(id, f"{_TEXTS}/{id}.txt")),
                speaker=record.get("deviceID") or None,
                gender=record.get("Gender") or None,
                accent=record.get("Region") or None,
                source="ksc",
            )
    for files, problem in ((audio, "audio that no split lists"), (texts, "transcript that no split lists")):
        for id in sorted(files.keys() - listed.keys()):
            problems.add(problem, files[id])


def _by_id(tree: Tree, folders: dict[str, str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for folder, ending in folders.items():
        for name in tree.files(folder):
            if name.lower().endswith(ending):
                files.setdefault(name.rpartition("/")[2][: -len(ending)], name)
    return files


def _records(tree: Tree, name: str, problems: Problems) -> Iterator[dict[str, str]]:
    lines = tree.lines(name)
    header = _fields(next(lines, (0, ""))[1])
    if "uttID" not in header:
        found = ", ".join(header) or "an empty file"
        raise ValueError(f"{tree.path}: {name} has no column 'uttID', found {found}. Its columns are separated by spaces in KSC")
    for number, line in lines:
        fields = _fields(line)
        if len(fields) != len(header):
            problems.add("row without the columns of its header", f"{name}, line {number}", f"{len(fields)} of {len(header)} columns")
        else:
            yield dict(zip(header, fields, strict=True))


def _fields(line: str) -> list[str]:
    return next(csv.reader([line.strip()], delimiter=" ", skipinitialspace=True), [])
