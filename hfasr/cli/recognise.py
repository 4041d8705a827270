"""The verb that uses a trained model: transcribe."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from hfasr.cli.app import app
from hfasr.cli.shared import (
    Alpha,
    BeamSize,
    Beta,
    Hotwords,
    HotwordWeight,
    LanguageModel,
    Lexicon,
    beam_options,
    hide_loading,
)
from hfasr.inference.transcript import one_line
from hfasr.paths import as_utf8

_MOST_ERRORS = 20


@app.command()
def transcribe(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS",
            help="Audio, folders and archives of it, NeMo manifests (.json, .jsonl), lists of paths (.txt); - is the standard input.",
            show_default=False,
        ),
    ],
    model: Annotated[str, typer.Option(help="Folder of a checkpoint, name on the Hub, or .nemo file.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="Write into this folder instead of printing; goes on with what is there.", show_default=False)
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="With --output: some of txt,jsonl,srt,vtt,textgrid,ctm; txt when left out.", show_default=False),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="With --output: remove what is there and start over.")] = False,
    lm: LanguageModel = None,
    lexicon: Lexicon = None,
    alpha: Alpha = None,
    beta: Beta = None,
    hotwords: Hotwords = None,
    hotword_weight: HotwordWeight = None,
    beam_size: BeamSize = None,
    n_best: Annotated[int | None, typer.Option(help="Readings, of recordings up to a window.", show_default=False)] = None,
    confidence: Annotated[str | None, typer.Option(help="max, tsallis or gibbs.", show_default=False)] = None,
    split: Annotated[
        str | None, typer.Option(help="Where long recordings are cut: windows, which overlap, or silence.", show_default=False)
    ] = None,
    window_seconds: Annotated[float | None, typer.Option(help="What the network hears at once of a long one.", show_default=False)] = None,
    stream: Annotated[bool, typer.Option("--stream", help="PATHS is -: print live what comes on the standard input.")] = False,
    rate: Annotated[int | None, typer.Option(help="With --stream: Hz of raw 16-bit samples; 16000.", show_default=False)] = None,
    batch_seconds: Annotated[float | None, typer.Option(help="Seconds of audio in a batch, padding included.", show_default=False)] = None,
    num_workers: Annotated[int | None, typer.Option(help="Processes that decode files.", show_default=False)] = None,
    compile: Annotated[str, typer.Option(help="auto, off, dynamic or static: compile the network.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU if there is one.", show_default=False)] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="With --output: on this Ray cluster.", show_default=False)] = None,
) -> None:
    """Transcribe audio: lines of path, tab, text; of a single file the text alone. Exit status 1 when a file could not be read."""
    from hfasr.inference.folder.files import find_recordings
    from hfasr.inference.folder.settings import Settings
    from hfasr.inference.writers import check_formats

    if output is None:
        given = {"--format": format, "--replace": replace or None, "--ray": ray, "--n-best": n_best}
        for option in (name for name, value in given.items() if value is not None):
            raise ValueError(f"{option} is for results in a folder; give it with --output FOLDER")
    elif output.suffix in (".jsonl", ".json", ".txt") or output.is_file():
        raise ValueError(f"--output {output} is a file; give a folder, in which transcripts.jsonl is written")
    formats = check_formats("txt" if format is None else format)
    beam = {"alpha": alpha, "beta": beta, "hotwords": hotwords, "hotword_weight": hotword_weight, "beam_size": beam_size, "n_best": n_best}
    decoding = beam_options(lm=lm, lexicon=lexicon, **beam) or {}
    options = {"split": split, "window_seconds": window_seconds}
    if confidence is not None:
        (decoding or options)["confidence"] = confidence
    settings = Settings(model, {name: value for name, value in options.items() if value is not None}, decoding)
    machine = {"device": device, "batch_seconds": batch_seconds, "num_workers": num_workers, "compile": compile}
    if stream:
        if paths != ["-"] or output is not None:
            raise ValueError("--stream prints what comes on the standard input; give - as the only path, and no --output")
        if batch_seconds is not None or num_workers is not None or compile != "auto":
            raise ValueError("--batch-seconds, --num-workers and --compile are for recordings, not for --stream; leave them out")
        from hfasr.cli.live import live

        live(settings, device=device, rate=rate)
        return
    if rate is not None:
        raise ValueError("--rate is for the raw samples of --stream; a recording tells its own")
    recordings = find_recordings(paths)
    stdin = sys.stdin.buffer.read() if "-" in paths and sys.stdin is not None else b""
    hide_loading()
    if output is not None:
        errors = _into_folder(recordings, output, settings, formats=formats, replace=replace, ray_address=ray, stdin=stdin, **machine)
    else:
        errors = _print_lines(recordings, [recording.path for recording in recordings] != paths, stdin, settings, machine)
    if errors:
        more = [f"and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
        told = [as_utf8(error) for error in errors[:_MOST_ERRORS]] + more
        print(f"{len(errors)} of {len(recordings)} files could not be read:", *told, sep="\n  ", file=sys.stderr)
        raise typer.Exit(1)


def _into_folder(recordings: list, output: Path, settings, **options) -> list[str]:
    from hfasr.inference.folder.to_folder import transcribe_to_folder

    try:
        done = transcribe_to_folder(recordings, output, settings, show=sys.stderr.isatty(), **options)
    except KeyboardInterrupt:
        print(f"stopped; the same command{' without --replace' if options['replace'] else ''} goes on", file=sys.stderr)
        raise
    kept = f", {done.kept} of them before" if done.kept else ""
    speed = f", {done.speed}" if done.speed else ""
    print(f"{done.recordings - len(done.errors)} recordings transcribed{kept}{speed}: {output}")
    return done.errors


def _print_lines(recordings: list, many: bool, stdin: bytes, settings, machine: dict) -> list[str]:
    from hfasr.inference.folder.progress import show_progress

    sources = ({"path": "-", "bytes": stdin} if recording.path == "-" else recording.path for recording in recordings)
    errors, bare = [], not many and len(recordings) == 1
    transcriber = settings.build(**machine)
    # a bar would stand between lines on the same terminal
    with show_progress(len(recordings), sys.stderr.isatty() and not sys.stdout.isatty()) as progress:
        for recording, found in zip(recordings, _in_order(transcriber.iter(sources)), strict=True):
            progress.add(1, found.duration)
            if found.error:
                errors.append(found.error.replace(recording.path, recording.shown) if recording.alias else found.error)
            else:
                print(one_line(found.text) if bare else f"{as_utf8(recording.shown)}\t{one_line(found.text)}", flush=True)
    return errors


def _in_order(found: Iterable[tuple[int, object]]) -> Iterator:
    waiting, following = {}, 0
    for place, transcript in found:
        waiting[place] = transcript
        while following in waiting:
            yield waiting.pop(following)
            following += 1
