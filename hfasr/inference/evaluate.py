"""A model and a corpus -> error rates, predictions and a report, as training leaves them."""

import dataclasses
import logging
import os
import platform
from collections import Counter
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset, DatasetDict, Value
from transformers import PreTrainedTokenizerBase

from hfasr.corpora.rows import column, iter_values, plain, with_column
from hfasr.corpora.targets import add_target
from hfasr.decoding.beam import BeamDecoder
from hfasr.decoding.language_model import is_of_symbols, lm_words
from hfasr.evaluation.card import public_name
from hfasr.evaluation.results import made_by, utterances_of, write_results
from hfasr.files import make_folder, write_jsonl
from hfasr.inference.held_out import purpose
from hfasr.inference.transcriber import Decoder, Transcriber
from hfasr.inference.tune import HOTWORD_GRID, LM_GRID, TUNE_SECONDS, tune
from hfasr.text.normalize import Normalizer
from hfasr.text.phonemize import Phonemizer
from hfasr.text.targets import is_recorded, target_maker
from hfasr.text.vocabulary import missing_symbols, stored_record

logger = logging.getLogger(__name__)

_OURS = ("results.json", "predictions.jsonl", "report.html", "quarantine.jsonl")
# utterances are heard whole, as they were when training evaluated them
_WHOLE_SECONDS = 60.0
_MOST_NAMED = 20
_VERSIONS = ("hfasr", "torch", "transformers")


def evaluate_model(
    model: str | os.PathLike | tuple,
    corpus: Mapping[str, Dataset],
    output: str | os.PathLike,
    *,
    name: str = "",
    unit: str | None = None,
    language: str | None = None,
    lexicon: str | os.PathLike | None = None,
    beam: Mapping[str, object] | None = None,
    tune_on: Mapping[str, Dataset] | None = None,
    tune_seconds: float = TUNE_SECONDS,
    device: str | None = None,
    batch_seconds: float | None = None,
    replace: bool = False,
) -> dict:
    """Recognise the splits of a corpus, and write what training writes of its own: `results.json`, `predictions.jsonl`, `report.html`.

    References are what `target_maker` makes of the text: for a model of hfasr, what it was trained to emit. Text that another
    model writes is normalized as the references are, because nothing is known of its spelling; so is that of a model of phonemes
    that a lexicon makes write words.

    Args:
        model: What `Transcriber` takes.
        corpus: Rows of each split.
        output: Folder to write to; made if it does not exist.
        name: Of the corpus, for the report.
        unit: As `target_maker` takes it, and so are `language` and `lexicon`.
        beam: Options of a `BeamDecoder`; None takes the best path.
        tune_on: One split to develop on, by its name: alpha and beta are chosen that make the fewest errors there, and then the weight of
            the hotwords, in place of those of `beam`.
        tune_seconds: How much of that split is used, in seconds.
        device: As `Transcriber` takes it, and so is `batch_seconds`.
        replace: Whether an earlier evaluation in the folder may be replaced.

    Returns:
        What results.json holds: for each split the rates with confidence intervals, edit counts and groups; then what was evaluated.
        Rows whose audio cannot be read are left out, counted as "left_out", and listed with the reason in `quarantine.jsonl`.

    Raises:
        FileNotFoundError, OSError: There is no such model, or the folder cannot be written.
        ModuleNotFoundError: flashlight-text, for a beam search, is not installed.
        ValueError: The folder holds something else, the targets cannot be made, no row of a split can be read, or what was to be tuned
            cannot be, as on a split to test on.
    """
    folder = check_output(output, replace)
    check_tuning(tune_on, beam)
    decoder = None if beam is None else lambda engine: BeamDecoder(engine.tokenizer, engine.blank, **beam)
    transcriber = Transcriber(model, device=device, batch_seconds=batch_seconds, decoder=decoder, window_seconds=_WHOLE_SECONDS)
    tokenizer = transcriber.engine.tokenizer
    to_target, counted = target_maker(tokenizer, unit=unit, language=language, lexicon=lexicon), "character"
    if isinstance(to_target, Phonemizer):
        counted = "word" if _writes_words(tokenizer, beam or {}) else "phoneme"
    if counted == "word":
        to_target = to_target.normalizer or _normalizer(language or to_target.voice)
    normalize = to_target if counted == "word" or (counted == "character" and not is_recorded(tokenizer)) else None
    corpus = add_target(DatasetDict(corpus), to_target)
    missing = {} if counted == "word" else _missing(corpus, tokenizer, to_target)

    tuned = None
    if tune_on is not None:
        tuned = _tune(transcriber, add_target(DatasetDict(tune_on), to_target), beam, counted, normalize, tune_seconds)
    utterances, left_out = [], []
    for split, rows in corpus.items():
        rows, texts, unread = _recognise(transcriber, split, rows)
        left_out += unread
        utterances += utterances_of(split, rows, normalize(texts) if normalize else texts)
    evaluation = {
        "model": public_name(os.fspath(model)) if isinstance(model, str | os.PathLike) else None,
        "corpus": public_name(name),
        "targets": {"unit": counted, **{key: value for key, value in to_target.record.items() if value is not None}},
        "hypotheses_normalized": normalize is not None,
        "decoder": _decoding(transcriber.decoder, beam),
        "tuned": tuned,
        "missing_symbols": missing,
        "left_out": len(left_out),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _VERSIONS}},
    }
    results = write_results(folder, utterances, counted, title=folder.name, details=_details(evaluation), more={"evaluation": evaluation})
    write_jsonl(folder / "quarantine.jsonl", left_out)
    return results


def check_output(output: str | os.PathLike, replace: bool) -> Path:
    """Make the folder that an evaluation is written to.

    Raises:
        PermissionError: It cannot be written to.
        ValueError: It is a file, cannot be made, holds a model, a run or other files, or an evaluation that is not to be replaced.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder to write the evaluation to")
    if any((folder / name).exists() for name in ("config.json", "recipe.json")):
        raise ValueError(f"{folder} holds a model or a run, whose own results would be lost; give another folder")
    names = {file.name for file in folder.iterdir() if not file.name.startswith(".")} if folder.exists() else set()
    if not names <= set(_OURS) and not names >= {"results.json", "predictions.jsonl"}:
        raise ValueError(f"{folder} holds files that are no evaluation of hfasr; give a new folder, so that none is overwritten")
    if names and not replace:
        raise ValueError(f"{folder} holds an evaluation; give another folder, or replace it (--replace)")
    make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"cannot write to the folder {folder}")
    return folder


def check_tuning(tune_on: Collection[str] | None, beam: Mapping[str, object] | None) -> None:
    """Refuse to tune on a split to test on, on several, or what is not there.

    Raises:
        ValueError: That is asked for.
    """
    if tune_on is None:
        return
    if len(tune_on) != 1:
        raise ValueError(f"tuning takes one split to develop on, found {', '.join(tune_on) or 'none'}")
    if tested := [split for split in tune_on if purpose(split) == "test"]:
        raise ValueError(f"{tested[0]} is a split to test on: its result would say nothing of other speech. Tune on one to develop on")
    if not beam or not ({"lm", "lexicon", "hotwords"} & set(beam)):
        raise ValueError("there is nothing to tune: give a language model (--lm) or hotwords (--hotwords)")


def _writes_words(tokenizer: PreTrainedTokenizerBase, beam: Mapping[str, object]) -> bool:
    """Tell whether a beam search makes words of a model's phonemes."""
    return "lexicon" in beam or ("lm" in beam and not is_of_symbols(lm_words(Path(beam["lm"])), tokenizer))


def _normalizer(language: str | None) -> Normalizer:
    if language is None:
        raise ValueError("the model does not say of which language its words are; give it, such as --language ky")
    return Normalizer(language)


def _tune(
    transcriber: Transcriber,
    corpus: DatasetDict,
    beam: Mapping[str, object],
    unit: str,
    normalize: Normalizer | None,
    seconds: float,
) -> dict:
    """Give the transcriber's decoder the best weights; return them, and what was tried."""
    decoder = transcriber.decoder
    ((split, rows),) = corpus.items()
    grids = [LM_GRID] if {"lm", "lexicon"} & set(beam) else []
    grids += [HOTWORD_GRID] if "hotwords" in beam else []
    found = tune(transcriber.engine, rows, decoder, grids, unit=unit, to_text=normalize, seconds=seconds)
    return {"split": split, **found}


def _decoding(decoder: Decoder, beam: Mapping[str, object] | None) -> dict:
    """Say what decoded, with the weights that it has in the end."""
    if beam is None:
        return {"name": "best path"}
    weights = {name: getattr(decoder, name) for name in ("alpha", "beta", "hotword_weight")}
    options = {**beam, **{name: value for name, value in weights.items() if name in beam or name != "hotword_weight"}}
    return {
        "name": "beam search",
        **{name: public_name(str(value)) if isinstance(value, str | Path) else value for name, value in options.items()},
    }


def _recognise(transcriber: Transcriber, split: str, rows: Dataset) -> tuple[Dataset, list[str], list[dict]]:
    """Transcribe a split; return the rows that can be read, with their decoded durations, their texts, and why others cannot."""
    # of a transcript only what is needed is kept: its words and symbols take far more
    found = {
        place: dataclasses.replace(transcript, words=(), symbols=(), readings=())
        for place, transcript in transcriber.iter(row["audio"] for row in plain(rows).select_columns("audio"))
    }
    transcripts = [found[place] for place in range(len(rows))]
    good = [place for place, found in enumerate(transcripts) if not found.error]
    ids = column(rows, "id").to_pylist()
    unread = [
        {"split": split, "id": ids[place], "path": found.path, "reason": found.error}
        for place, found in enumerate(transcripts)
        if found.error
    ]
    if not good:
        reason = f"none of the {len(rows)} clips can be read, for example {unread[0]['reason']}" if unread else "it has no rows"
        raise ValueError(f"split {split!r} cannot be evaluated: {reason}")
    seconds = [transcripts[place].duration for place in good]
    return with_column(rows.select(good), "duration", seconds, Value("float64")), [transcripts[place].text for place in good], unread


def _missing(corpus: DatasetDict, tokenizer: PreTrainedTokenizerBase, to_target: Normalizer | Phonemizer) -> dict[str, dict[str, int]]:
    """Count by split the symbols of the references that the model can never write, and tell them."""
    found = {}
    for split, rows in corpus.items():
        if is_recorded(tokenizer) or isinstance(to_target, Phonemizer):
            unit = stored_record(tokenizer).get("unit", "phoneme")
            counts = missing_symbols(iter_values(rows, "target"), tokenizer, unit)
        else:
            symbols = sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))  # "<unk>" is no u, n and k
            # a normalizer takes a lone apostrophe away, which stands inside words
            known = {" ", *"".join(to_target(symbols)), *(symbol.lower() for symbol in symbols)}
            counts = Counter(symbol for target in iter_values(rows, "target") for symbol in target)
            counts = Counter({symbol: count for symbol, count in counts.items() if symbol not in known})
        if counts:
            named = ", ".join(f"{symbol} ({count})" for symbol, count in counts.most_common(_MOST_NAMED))
            logger.warning("%s holds %d symbols that the model lacks: %s", split, len(counts), named)
            found[split] = dict(counts.most_common())
    return found


def _details(evaluation: Mapping) -> dict[str, str]:
    recognised = ", of the recognised text too" if evaluation["hypotheses_normalized"] else ""
    return {
        "Model": evaluation["model"] or "a model in memory",
        "Corpus": f"{evaluation['corpus'] or 'rows in memory'}, {evaluation['left_out']} left out",
        "Decoding": _described(evaluation["decoder"], evaluation["tuned"]),
        "Targets": made_by(evaluation["targets"]) + recognised,
    }


def _described(decoder: Mapping, tuned: Mapping | None) -> str:
    numbers = [f"{name} {value}" if name != "name" else value for name, value in decoder.items()]
    return ", ".join([*numbers, *([f"tuned on {tuned['split']}"] if tuned else [])])
