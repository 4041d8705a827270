"""`hfasr <verb>`: parse, call one public function, print."""

import json
import logging
import os
import sys
import unicodedata
from pathlib import Path
from typing import Annotated

import typer

from hfasr.errors import user_errors

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help="Folder, archive or file of a corpus, or the name of a data set on the Hub.")]
SourceName = Annotated[str | None, typer.Option(help="Format, such as ksc2 or common_voice; found out when left out.", show_default=False)]
Splits = Annotated[str | None, typer.Option(help="Only these splits: train,test.", show_default=False)]
AudioRoot = Annotated[str | None, typer.Option(help="Where the audio of a manifest or table is on this machine.", show_default=False)]
Options = Annotated[str, typer.Option(help="""More for the source's function, as JSON: '{"validated_rest": true}'.""")]


@app.callback()
def _hfasr() -> None:
    """Train and use CTC speech recognisers. Training is `accelerate launch recipes/<name>.py`."""
    package = logging.getLogger("hfasr")
    package.setLevel(logging.INFO)
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        package.addHandler(handler)


@app.command()
def inspect(
    corpus: Corpus,
    language: Annotated[str | None, typer.Option(help="Code such as kk: marks letters outside its alphabet.", show_default=False)] = None,
    source: SourceName = None,
    splits: Splits = None,
    audio_root: AudioRoot = None,
    options: Options = "{}",
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every clip, as a recipe does before training, and list the bad ones.")
    ] = False,
    near: Annotated[bool, typer.Option("--near", help="Also look for sentences that are nearly the same.")] = False,
    show_normalized: Annotated[bool, typer.Option("--show-normalized", help="Show what the normaliser of --language changes.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page to explore the rows.", show_default=False)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures as JSON.", show_default=False)] = None,
) -> None:
    """Show what is in a corpus: hours, speakers, rates, alphabet, duplicates, leaks, bad files."""
    from hfasr.corpora.check import check_audio
    from hfasr.corpora.inspection.explorer import write_explorer
    from hfasr.corpora.inspection.summary import inspect
    from hfasr.corpora.reading.table import problems_of
    from hfasr.files import write_text

    for file in (html, json_file):
        if file is not None:
            _check_writable(file)
    if show_normalized and language is None:
        raise ValueError("--show-normalized needs --language, such as --language kk")
    rows = _load(corpus, source, splits, audio_root, options)
    problems = problems_of(next(iter(rows.values())))
    if decode:
        rows, bad = check_audio(rows)
        problems += bad
    inspection = inspect(rows, language=language, problems=problems, near=near)
    print(inspection)
    if show_normalized:
        print(f"\n{inspection.normalized}")
    if json_file is not None:
        write_text(json_file, json.dumps(inspection.as_dict(), ensure_ascii=False, indent=1) + "\n")
        print(f"\nwritten: {json_file}")
    if html is not None:
        write_explorer(html, rows, inspection, title=Path(corpus).name, details={"Path": corpus})
        print(f"\nwritten: {html}")


@app.command()
def prepare(
    corpus: Corpus,
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    source: SourceName = None,
    splits: Splits = None,
    audio_root: AudioRoot = None,
    options: Options = "{}",
    workers: Annotated[int | None, typer.Option(help="Processes; one a core when left out.", show_default=False)] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Use a Ray cluster: auto, host:port, or local.", show_default=False)
    ] = None,
    shard_seconds: Annotated[float | None, typer.Option(help="Most seconds of audio in a shard.", show_default=False)] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also write where another corpus was prepared, and remove that.")] = False,
) -> None:
    """Write a corpus as sharded Parquet with 16 kHz FLAC, to train from as a stream or to push to the Hub."""
    from hfasr.corpora.preparation.prepare import SHARD_SECONDS, prepare

    rows = _load(corpus, source, splits, audio_root, options)
    made = prepare(
        rows,
        folder,
        num_workers=workers,
        ray_address=ray,
        shard_seconds=SHARD_SECONDS if shard_seconds is None else shard_seconds,
        replace=replace,
    )
    for split in dict.fromkeys([*rows, *made.utterances]):
        print(f"{split:12} {made.utterances[split]:9,} utterances {made.hours[split]:9.2f} h")
    print(f"{made.made} shards made, {made.kept} were there: {folder}")
    if made.quarantined:
        print(f"{made.quarantined} clips cannot be used: {folder / 'quarantine.jsonl'}")


@app.command()
def transcribe(
    paths: Annotated[list[str], typer.Argument(metavar="PATHS", help="Audio files, and folders of audio.", show_default=False)],
    model: Annotated[str, typer.Option(help="Folder of a checkpoint, name on the Hub, or .nemo file.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Write JSON lines to this file instead of printing.", show_default=False)] = None,
    batch_seconds: Annotated[float | None, typer.Option(help="Seconds of audio in a batch, padding included.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU if there is one.", show_default=False)] = None,
) -> None:
    """Transcribe audio: lines of path, tab, text; of a single file the text alone. Exit status 1 when a file could not be read."""
    from hfasr.files import write_jsonl
    from hfasr.inference.files import find_audio

    if output is not None:
        _check_writable(output)
    files = find_audio(paths)
    # after the paths, for this import takes seconds
    from hfasr.inference.transcriber import Transcriber

    transcripts = Transcriber(model, batch_seconds=batch_seconds, device=device)(files)
    records = [
        {"path": _printable(file), "text": found.text, "duration": found.duration, "error": found.error and _printable(found.error)}
        for file, found in zip(files, transcripts, strict=True)
    ]
    unread = [record["error"] for record in records if record["error"]]
    if output is not None:
        write_jsonl(output, records)
        print(f"{len(files) - len(unread)} files transcribed: {output}")
    else:
        one = files == paths and len(files) == 1
        for record in records:
            if not record["error"]:
                text = _one_line(record["text"])
                print(text if one else f"{record['path']}\t{text}")
    if unread:
        print(f"{len(unread)} of {len(files)} files could not be read:", *unread, sep="\n  ", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def import_nemo(
    file: Annotated[Path, typer.Argument(help="A .nemo archive of a QuartzNet or Citrinet CTC model.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the checkpoint.")],
    framing: Annotated[
        str | None,
        typer.Option(
            metavar="current|nemo24",
            help="How the waveform is cut: as NeMo 2.5 and newer, or as older ones; by the version that saved the archive when left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a NeMo checkpoint a Transformers checkpoint."""
    from hfasr.models.nemo import import_nemo
    from hfasr.models.nemo_archive import shown

    checkpoint = import_nemo(file, folder, framing=framing)
    extractor, labels = checkpoint.feature_extractor, checkpoint.labels
    parameters = sum(tensor.numel() for name, tensor in checkpoint.weights.items() if ".running_" not in name and ".num_" not in name)
    window, hop = (1000 * samples / extractor.sampling_rate for samples in (extractor.window_length, extractor.hop_length))
    named = ("(space)" if label == " " else label if label.isprintable() and len(label) < 20 else shown(label) for label in labels[:50])
    symbols = " ".join(named) + (" ..." if len(labels) > 50 else "")
    print(f"class       {type(checkpoint.config).__name__.removesuffix('Config')}, from {shown(checkpoint.target)}")
    print(f"parameters  {parameters:,}")
    print(f"symbols     {len(labels)} and the blank: {symbols}")
    print(f"front end   {extractor.feature_size} mel bins, {window:g} ms every {hop:g} ms, {extractor.sampling_rate:,} Hz")
    print(f"framing     {extractor.framing}, {checkpoint.framing_reason}")
    for remark in checkpoint.remarks:
        print(f"note        {remark}")
    print(f"written: {folder}")


def _load(corpus: str, source: str | None, splits: str | None, audio_root: str | None, options: str):
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


def _check_writable(file: Path) -> None:
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise ValueError(f"cannot write {file}: {'it is a folder' if file.is_dir() else 'its folder does not exist'}")


def _printable(name: str) -> str:
    """Return a file's name, or a message with one, as UTF-8: names from old systems can be opened but not written."""
    return os.fsencode(name).decode(errors="replace")


def _one_line(text: str) -> str:
    """Return a transcript without line breaks and what else moves a terminal's cursor, which a model's symbols may hold."""
    return "".join(" " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character for character in text)


def main() -> None:
    """Run the command line; a wrong value ends with one sentence and exit status 2."""
    # recipes spell their flags with underscores, as Transformers does; here both spellings work
    arguments = []
    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        arguments.append((name.replace("_", "-") if name.startswith("--") else name) + equals + value)
    with user_errors():
        app(arguments, prog_name="hfasr")


if __name__ == "__main__":
    main()
