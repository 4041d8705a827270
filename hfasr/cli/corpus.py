"""The verbs of corpora: inspect, prepare."""

from pathlib import Path
from typing import Annotated

import typer

from hfasr.cli.app import app
from hfasr.cli.shared import AudioRoot, Corpus, Options, SourceName, Splits, check_writable, load


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
    from hfasr.files import write_json

    for file in (html, json_file):
        if file is not None:
            check_writable(file)
    if show_normalized and language is None:
        raise ValueError("--show-normalized needs --language, such as --language kk")
    rows = load(corpus, source, splits, audio_root, options)
    problems = problems_of(next(iter(rows.values())))
    if decode:
        rows, bad = check_audio(rows)
        problems += bad
    inspection = inspect(rows, language=language, problems=problems, near=near)
    print(inspection)
    if show_normalized:
        print(f"\n{inspection.normalized}")
    if json_file is not None:
        write_json(json_file, inspection.as_dict())
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

    rows = load(corpus, source, splits, audio_root, options)
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
