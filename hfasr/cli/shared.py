"""What several verbs share: the corpus that they read, and checks of what they write."""

import json
from pathlib import Path
from typing import Annotated

import typer

Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help="Folder, archive or file of a corpus, or the name of a data set on the Hub.")]
SourceName = Annotated[str | None, typer.Option(help="Format, such as ksc2 or common_voice; found out when left out.", show_default=False)]
Splits = Annotated[str | None, typer.Option(help="Only these splits: train,test.", show_default=False)]
AudioRoot = Annotated[str | None, typer.Option(help="Where the audio of a manifest or table is on this machine.", show_default=False)]
Options = Annotated[str, typer.Option(help="""More for the source's function, as JSON: '{"validated_rest": true}'.""")]

LanguageModel = Annotated[
    Path | None, typer.Option("--lm", help="Language model: ARPA file, as hfasr lm writes, or KenLM binary.", show_default=False)
]
Lexicon = Annotated[
    Path | None,
    typer.Option(help="What can be said: words, one a line; word<TAB>phonemes for a model of phonemes.", show_default=False),
]
Alpha = Annotated[float | None, typer.Option(help="Weight of the language model.", show_default=False)]
Beta = Annotated[float | None, typer.Option(help="Bonus of each unit of the language model.", show_default=False)]
Hotwords = Annotated[
    Path | None, typer.Option(help="Likely words, such as names, one a line, with a weight after a tab or without.", show_default=False)
]
HotwordWeight = Annotated[float | None, typer.Option(help="Bonus of each symbol of a hotword.", show_default=False)]
BeamSize = Annotated[int | None, typer.Option(help="Texts that the beam search keeps at each frame.", show_default=False)]


def load(corpus: str, source: str | None, splits: str | None, audio_root: str | None, options: str):
    from hfasr.corpora.reading.source import load_corpus

    more = source_options(options, audio_root)
    if splits is not None:
        more["splits"] = split_names(splits)
    return load_corpus(corpus, source=source, **more)


def source_options(options: str, audio_root: str | None) -> dict:
    try:
        more = json.loads(options)
    except ValueError:
        more = None
    if not isinstance(more, dict):
        raise ValueError(f"--options is {options!r}; give a JSON object such as '{{\"validated_rest\": true}}'")
    return more | ({} if audio_root is None else {"audio_root": audio_root})


def beam_options(**options) -> dict | None:
    """Return the options of a BeamDecoder that were given; None, for the best path, where none was."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, needed in (("alpha", "lm"), ("hotword_weight", "hotwords")):
        if name in given and needed not in given:
            raise ValueError(f"--{name.replace('_', '-')} weighs what --{needed} names; give that too, or leave it out")
    return given or None


def split_names(splits: str) -> list[str]:
    names = [split.strip() for split in splits.split(",") if split.strip()]
    if not names:
        raise ValueError("--splits names no split; give some, such as --splits train,test, or leave it out")
    return names


def hide_loading() -> None:
    """Keep Transformers from showing a bar while it loads the weights of a checkpoint."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def check_writable(file: Path) -> None:
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise ValueError(f"cannot write {file}: {'it is a folder' if file.is_dir() else 'its folder does not exist'}")
