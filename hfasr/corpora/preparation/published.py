"""The finished shards of a prepared folder: which are there, what they tell, and the dataset card beside them."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow
import pyarrow.parquet

from hfasr.corpora.preparation.shards import read_footer
from hfasr.files import write_jsonl, write_text

logger = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<split>.+)-\d{5,}-of-\d{5,}-(?P<digest>[0-9a-f]{16})\.parquet")
_CARD_MARK = "Written by `hfasr prepare`"

# split -> digest -> path of the shards in place
Shards = dict[str, dict[str, Path]]


@dataclass(frozen=True)
class Contents:
    """What a folder's shards hold: utterances, hours and shards of each split, and how many clips were left out."""

    utterances: dict[str, int]
    hours: dict[str, float]
    shards: dict[str, int]
    quarantined: int


def shard_name(split: str, number: int, total: int, digest: str) -> str:
    """Return the file name of a shard in place."""
    return f"{split}-{number:05d}-of-{total:05d}-{digest}.parquet"


def published(folder: Path) -> Shards:
    """Return the shards in place: split -> digest -> path, in the order of their numbers."""
    found: Shards = {}
    for path in sorted(folder.glob("*/*.parquet")):
        if (name := _NAME.fullmatch(path.name)) and name["split"] == path.parent.name:
            found.setdefault(name["split"], {})[name["digest"]] = path
    return found


def is_finished(path: Path) -> bool:
    """Tell whether a shard is whole and none of its clips failed for a reason that may have passed."""
    return (footer := read_footer(path)) is not None and footer["lasting"]


def footer_of(path: Path) -> dict:
    """Return what a shard's footer tells, as `read_footer`.

    Raises:
        ValueError: It is not a whole shard.
    """
    if (footer := read_footer(path)) is None:
        raise ValueError(f"{path} is not a whole shard; was it changed while prepare ran? Run it again")
    return footer


def refuse_other_columns(schema: pyarrow.Schema, others: Shards) -> None:
    """Refuse to add splits to a folder whose other splits have other columns: `datasets` could not read it.

    Raises:
        ValueError: A split has other columns than `schema`.
    """
    for split, shards in others.items():
        found = pyarrow.parquet.read_schema(next(iter(shards.values())))
        if not found.equals(schema):
            raise ValueError(
                f"split {split!r}, which is in the folder already, has the columns {', '.join(found.names)}; "
                f"this corpus has {', '.join(schema.names)}. Prepare all splits together, or give another folder"
            )


def summarise(folder: Path) -> Contents:
    """Write the dataset card and the list of clips left out, from what all shards of the folder tell.

    Raises:
        ValueError: A shard is not whole.
    """
    contents, problems = Contents({}, {}, {}, 0), []
    for split, paths in published(folder).items():
        footers = [footer_of(path) for path in paths.values()]
        contents.utterances[split] = sum(footer["clips"] for footer in footers)
        contents.hours[split] = sum(footer["seconds"] for footer in footers) / 3600
        contents.shards[split] = len(footers)
        problems += [{"split": split, **problem} for footer in footers for problem in footer["problems"]]
    quarantine = folder / "quarantine.jsonl"
    if problems:
        write_jsonl(quarantine, problems)
        logger.warning("%d clips cannot be used and are left out, for example %s; see %s", len(problems), problems[0]["reason"], quarantine)
    else:
        quarantine.unlink(missing_ok=True)
    _write_card(folder / "README.md", contents)
    return replace(contents, quarantined=len(problems))


def _write_card(path: Path, contents: Contents) -> None:
    """Write the dataset card, unless somebody has written their own."""
    there = path.read_text(encoding="utf-8") if path.is_file() else _CARD_MARK
    splits = contents.utterances
    if _CARD_MARK not in there:
        logger.warning("%s is not ours and stays; its `configs` should name <split>/*.parquet for %s", path, ", ".join(splits))
        return
    files = "".join(f"  - split: {split}\n    path: {split}/*.parquet\n" for split in splits)
    lines = "".join(f"| {split} | {splits[split]} | {contents.hours[split]:.2f} | {contents.shards[split]} |\n" for split in splits)
    text = (
        f"---\ntask_categories:\n- automatic-speech-recognition\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        f"# Speech corpus\n\n{_CARD_MARK}: 16 kHz mono 16-bit FLAC in Parquet; `datasets.load_dataset` reads it, whole or streamed.\n\n"
        f"| split | utterances | hours | shards |\n|---|---|---|---|\n{lines}"
    )
    if text != there:
        write_text(path, text)
