"""What several verbs share: the corpus that they read, checks of what they write, and how they print."""

import json
import os
import unicodedata
from pathlib import Path
from typing import Annotated

import typer

Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help="Folder, archive or file of a corpus, or the name of a data set on the Hub.")]
SourceName = Annotated[str | None, typer.Option(help="Format, such as ksc2 or common_voice; found out when left out.", show_default=False)]
Splits = Annotated[str | None, typer.Option(help="Only these splits: train,test.", show_default=False)]
AudioRoot = Annotated[str | None, typer.Option(help="Where the audio of a manifest or table is on this machine.", show_default=False)]
Options = Annotated[str, typer.Option(help="""More for the source's function, as JSON: '{"validated_rest": true}'.""")]


def load(corpus: str, source: str | None, splits: str | None, audio_root: str | None, options: str):
    from hfasr.corpora.reading.source import load_corpus

    try:
        more = json.loads(options)
    except ValueError:
        more = None
    if not isinstance(more, dict):
        raise ValueError(f"--options is {options!r}; give a JSON object such as '{{\"validated_rest\": true}}'")
    if audio_root is not None:
        more["audio_root"] = audio_root
    if splits is not None:
        more["splits"] = [split.strip() for split in splits.split(",") if split.strip()]
        if not more["splits"]:
            raise ValueError("--splits names no split; give some, such as --splits train,test, or leave it out")
    return load_corpus(corpus, source=source, **more)


def check_writable(file: Path) -> None:
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise ValueError(f"cannot write {file}: {'it is a folder' if file.is_dir() else 'its folder does not exist'}")


def printable(name: str) -> str:
    """Return a file's name, or a message with one, as UTF-8: names from old systems can be opened but not written."""
    return os.fsencode(name).decode(errors="replace")


def one_line(text: str) -> str:
    """Return a transcript without line breaks and what else moves a terminal's cursor, which a model's symbols may hold."""
    return "".join(" " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character for character in text)
