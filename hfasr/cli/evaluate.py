"""The verb that scores a model on a corpus, or two systems against each other: evaluate."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hfasr.cli.app import app
from hfasr.cli.shared import (
    Alpha,
    AudioRoot,
    BeamSize,
    Beta,
    Hotwords,
    HotwordWeight,
    LanguageModel,
    Lexicon,
    Options,
    SourceName,
    beam_options,
    hide_loading,
    source_options,
    split_names,
)


@app.command()
def evaluate(
    model: Annotated[str | None, typer.Option(help="Folder of a checkpoint, name on the Hub, or .nemo file.", show_default=False)] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Folder, archive or file of a corpus, name on the Hub, or 'embedded'; that of the model's recipe.json when left out.",
            show_default=False,
        ),
    ] = None,
    splits: Annotated[
        str | None, typer.Option("--split", "--splits", help="These splits: test,dev. Those to develop and test on.", show_default=False)
    ] = None,
    source: SourceName = None,
    audio_root: AudioRoot = None,
    options: Options = "{}",
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to; runs/<model>-on-<corpus> when left out.", show_default=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier evaluation in the folder.")] = False,
    unit: Annotated[
        str | None, typer.Option(metavar="phoneme|character", help="What a model that hfasr did not train emits.", show_default=False)
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Of the text (ky, kk) of a model that hfasr did not train, or of 'embedded'.", show_default=False)
    ] = None,
    target_lexicon: Annotated[
        Path | None, typer.Option(help="Pronunciations that the targets were made with, if they were.", show_default=False)
    ] = None,
    lm: LanguageModel = None,
    lexicon: Lexicon = None,
    alpha: Alpha = None,
    beta: Beta = None,
    hotwords: Hotwords = None,
    hotword_weight: HotwordWeight = None,
    beam_size: BeamSize = None,
    tune: Annotated[bool, typer.Option("--tune", help="First find alpha, beta and the weight of hotwords on --tune-split.")] = False,
    tune_split: Annotated[
        str | None, typer.Option(help="Split to tune on, never one to test on; the first to develop on.", show_default=False)
    ] = None,
    tune_seconds: Annotated[float, typer.Option(help="How much of it is used.")] = 600.0,
    batch_seconds: Annotated[float | None, typer.Option(help="Seconds of audio in a batch, padding included.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU if there is one.", show_default=False)] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="RUN RUN", help="Compare what two folders of runs or evaluations hold, instead.", show_default=False),
    ] = None,
) -> None:
    """Score a model on a corpus: error rates with intervals by split and group, predictions and a report. Exit status 1 when a clip could
    not be read. With --compare RUN RUN: how far two systems differ on the same utterances, and how sure that is."""
    if compare is not None:
        if model is not None or corpus is not None:
            raise ValueError("--compare reads what two folders hold; leave --model and --corpus out, or evaluate each model first")
        _compare(*compare, output, replace)
        return
    if model is None:
        raise ValueError("give a model to evaluate (--model), or two folders to compare (--compare RUN RUN)")

    from hfasr.inference.evaluate import check_output, check_tuning, evaluate_model
    from hfasr.inference.held_out import first_to_develop_on, load_splits

    beam = beam_options(
        lm=lm, lexicon=lexicon, alpha=alpha, beta=beta, hotwords=hotwords, hotword_weight=hotword_weight, beam_size=beam_size
    )
    # told before a corpus is read, which may take minutes
    check_tuning([tune_split or "dev"] if tune else None, beam)
    if output is not None:
        check_output(output, replace)
    load = partial(load_splits, model=model, source=source, language=language, options=source_options(options, audio_root))
    name, rows = load(corpus, None if splits is None else split_names(splits))
    tune_on = None if not tune else load(corpus, [tune_split])[1] if tune_split else first_to_develop_on(load(corpus)[1])
    if corpus is None:
        print(f"on {name}, as {model} was trained on it: {', '.join(rows)}")
    hide_loading()
    folder = output or Path("runs", f"{_short(model)}-on-{_short(name)}")
    results = evaluate_model(
        model, rows, folder, name=name, unit=unit, language=language, lexicon=target_lexicon, beam=beam, tune_on=tune_on,
        tune_seconds=tune_seconds, device=device, batch_seconds=batch_seconds, replace=replace,
    )  # fmt: skip

    from hfasr.evaluation.results import rate_lines

    if tuned := results["evaluation"]["tuned"]:
        best = ", ".join(f"{weight} {value:g}" for weight, value in tuned["best"].items())
        print(f"tuned on {tuned['split']}, {tuned['utterances']} utterances: {best}")
    print(*rate_lines(results), sep="\n")
    print(f"written: {folder / 'report.html'}, results.json, predictions.jsonl")
    if left_out := results["evaluation"]["left_out"]:
        print(f"{left_out} clips could not be read: {folder / 'quarantine.jsonl'}")
        raise typer.Exit(1)


def _compare(first: Path, second: Path, output: Path | None, replace: bool) -> None:
    from hfasr.evaluation.comparison import compare_runs, comparison_lines
    from hfasr.files import make_folder, write_json

    results = compare_runs(first, second)
    file = (output or Path("runs", f"{_short(first)}-against-{_short(second)}")) / "comparison.json"
    if file.exists() and not replace:
        raise ValueError(f"{file} exists; give another folder (--output), or replace it (--replace)")
    make_folder(file.parent)
    write_json(file, {"first": str(first), "second": str(second), "splits": results})
    print(*comparison_lines(results), sep="\n")
    print(f"written: {file}")


def _short(name: str | Path) -> str:
    """The last part of a path or a name, or of a release of Common Voice the last two, as part of a file's name."""
    parts = [part for part in re.split(r"[\\/]+", str(name)) if part not in ("", ".", "..")]
    several = len(parts) > 1 and parts[-2].startswith("cv-corpus")
    return re.sub(r"[^\w.-]+", "_", "-".join(parts[-2:] if several else parts[-1:])) or "here"
