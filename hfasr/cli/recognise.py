"""The verbs that use a trained model: transcribe."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hfasr.cli.app import app
from hfasr.cli.shared import check_writable, one_line, printable


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
        check_writable(output)
    files = find_audio(paths)
    # after the paths, for this import takes seconds
    from hfasr.inference.transcriber import Transcriber

    transcripts = Transcriber(model, batch_seconds=batch_seconds, device=device)(files)
    records = [
        {"path": printable(file), "text": found.text, "duration": found.duration, "error": found.error and printable(found.error)}
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
                text = one_line(record["text"])
                print(text if one else f"{record['path']}\t{text}")
    if unread:
        print(f"{len(unread)} of {len(files)} files could not be read:", *unread, sep="\n  ", file=sys.stderr)
        raise typer.Exit(1)
