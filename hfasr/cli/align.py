"""The verb that finds when given words are said: align."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hfasr.cli.app import app
from hfasr.cli.shared import check_writable, hide_loading
from hfasr.inference.transcript import one_line
from hfasr.paths import as_utf8

_BY_ENDING = {".txt": "txt", ".jsonl": "jsonl", ".json": "jsonl", ".srt": "srt", ".vtt": "vtt", ".textgrid": "textgrid", ".ctm": "ctm"}

# Mean of a recording's words. Of right texts of the embedded test sentences none was below (240, of models of characters and of
# phonemes; the least had 0.56), of exchanged ones 94 % were.
_LEAST_CONFIDENCE = 0.4

_TEXT = "What is said, or a file of it, with * for what it leaves out; the .txt beside the audio when not given."
_OUTPUT = "File, by its ending .TextGrid .ctm .srt .vtt .jsonl .txt; for a folder of audio a folder."


@app.command()
def align(
    audio: Annotated[str, typer.Argument(metavar="AUDIO", help="Audio file, or a folder of audio with .txt beside.", show_default=False)],
    model: Annotated[str, typer.Option(help="Folder of a checkpoint, name on the Hub, or .nemo file.", show_default=False)],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help=_TEXT, show_default=False)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=_OUTPUT, show_default=False)] = None,
    format: Annotated[str | None, typer.Option(help="textgrid,ctm,srt,vtt,jsonl; else by the ending.", show_default=False)] = None,
    language: Annotated[str | None, typer.Option(help="Of the text, for a model that does not record it.", show_default=False)] = None,
    unit: Annotated[str | None, typer.Option(help="phoneme or character, for such a model.", show_default=False)] = None,
    lexicon: Annotated[Path | None, typer.Option(help="Pronunciations the model was trained with.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU if there is one.", show_default=False)] = None,
) -> None:
    """Find when each word and symbol of a text is said. Without --output, lines of begin, end, confidence and word."""
    from hfasr.inference.folder.files import find_recordings

    recordings = find_recordings([audio])
    options = {"device": device, "unit": unit, "language": language, "lexicon": lexicon}
    if not os.path.isdir(audio) and len(recordings) == 1:
        _align_one(recordings[0].path, text, output, format, model, options)
    elif text is not None:
        raise ValueError(f"{audio} holds {len(recordings)} recordings; leave the text out and put a .txt with what is said beside each")
    elif output is None:
        raise ValueError(f"{audio} holds {len(recordings)} recordings; give --output, a folder for their alignments")
    else:
        _align_all(recordings, output, format, model, options)


def _align_one(audio: str, text: str | None, output: Path | None, format: str | None, model: str, options: dict) -> None:
    source = text if text is not None else _beside(audio)
    said = _text_of(source)
    if output is not None:
        check_writable(output)
        formats = _formats_of(output, format)
        if any(output.exists() and os.path.exists(given) and output.samefile(given) for given in (audio, source)):
            raise ValueError(f"--output {output} is what is to be aligned; give another name")
    # after the paths, for these imports take seconds
    hide_loading()
    from hfasr.files import write_text
    from hfasr.inference.aligner import Aligner
    from hfasr.inference.writers import render

    aligner = Aligner(model, **options)
    found = aligner(audio, said)
    if output is not None:
        write_text(output, render(found, formats[0], name=output.stem, symbols=aligner.symbols))
        print(f"{len(found.words)} words, {len(found.symbols)} {aligner.symbols}: {output}")
    else:
        for word in found.words:
            confidence = "" if word.confidence is None else f"{word.confidence:.3f}"
            print(f"{word.start:.3f}\t{word.end:.3f}\t{confidence}\t{one_line(word.text)}")
    if (mean := _mean_confidence(found)) < _LEAST_CONFIDENCE:
        told = f"the mean confidence of its words is {mean:.2f}, that of right texts above {_LEAST_CONFIDENCE}"
        print(f"the text may not be what is said: {told}", file=sys.stderr)


def _align_all(recordings: list, output: Path, format: str | None, model: str, options: dict) -> None:
    from hfasr.files import make_folder
    from hfasr.inference.folder.files import output_stems
    from hfasr.inference.writers import check_formats, write_transcript

    formats = check_formats("textgrid" if format is None else format)
    if "txt" in formats:
        raise ValueError("--format names txt, but the texts are there already; give some of textgrid,ctm,srt,vtt,jsonl")
    make_folder(output)
    hide_loading()
    from hfasr.inference.aligner import Aligner

    aligner, failed, doubtful = Aligner(model, **options), [], []
    for recording, stem in zip(recordings, output_stems(recording.name for recording in recordings), strict=True):
        try:
            found = aligner(recording.path, _text_of(_beside(recording.path)))
        except (ValueError, FileNotFoundError) as error:  # one that cannot be aligned does not stop the others
            told = str(error).replace(recording.path, recording.shown)
            failed.append(as_utf8(told if recording.shown in told else f"{recording.shown}: {told}"))
        else:
            write_transcript(output / stem, found, formats, symbols=aligner.symbols)
            if (mean := _mean_confidence(found)) < _LEAST_CONFIDENCE:
                doubtful.append(as_utf8(f"{mean:.2f} {recording.shown}"))
    print(f"{len(recordings) - len(failed)} recordings aligned: {output}")
    if doubtful:
        told = f"the mean confidence of their words is not above {_LEAST_CONFIDENCE}, as that of right texts is"
        print(f"{len(doubtful)} texts may not be what is said, for {told}:", *doubtful, sep="\n  ", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(recordings)} recordings could not be aligned:", *failed, sep="\n  ", file=sys.stderr)
        raise typer.Exit(1)


def _mean_confidence(found) -> float:
    sure = [word.confidence for word in found.words if word.confidence is not None]
    return sum(sure) / len(sure) if sure else 1.0


def _formats_of(output: Path, format: str | None) -> tuple[str, ...]:
    from hfasr.inference.writers import check_formats

    if format is None and output.suffix.lower() not in _BY_ENDING:
        raise ValueError(f"--output {output} has no ending that tells a format; expected one of {', '.join(_BY_ENDING)}, or --format")
    formats = check_formats(_BY_ENDING[output.suffix.lower()] if format is None else format)
    if len(formats) > 1:
        raise ValueError(f"--format names {len(formats)} formats for one file; give one, or leave it out and choose by the file's ending")
    return formats


def _beside(path: str) -> str:
    beside = Path(path).with_suffix(".txt")
    if not beside.is_file():
        raise FileNotFoundError(f"{path}: there is no {beside.name} beside it with what is said")
    return str(beside)


def _text_of(text: str) -> str:
    """Return the text of a file, or what is no file as it is."""
    from hfasr.corpora.reading.tree import decode_text

    try:
        is_file = Path(text).is_file()
    except OSError:  # a text may be longer than a name
        is_file = False
    if is_file:
        return decode_text(Path(text).read_bytes(), text)
    if text.lower().endswith(".txt") and " " not in text:
        raise FileNotFoundError(f"{text}: no such text file")
    return text
