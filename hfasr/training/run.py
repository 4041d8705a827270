"""A recipe's frame: flags to a recipe, the run folder at the start, results and pages at the end.

The run folder is the checkpoint itself, with `recipe.json` (every value, versions, commit), `quarantine.jsonl` (rows left
out), `results.json`, `predictions.jsonl`, `report.html` and `README.md`, the model card.
"""

import dataclasses
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict, IterableDataset, disable_progress_bars
from transformers import HfArgumentParser, set_seed
from transformers.utils import logging as transformers_logging

from hfasr.corpora import is_embedded
from hfasr.corpora.inspection.summary import describe
from hfasr.corpora.leaks import Leaks, leaks
from hfasr.corpora.rows import iter_values
from hfasr.errors import user_errors
from hfasr.evaluation.card import public_name, write_card
from hfasr.evaluation.hub import check_push, push_run
from hfasr.evaluation.results import made_by, rate_lines, utterances_of, write_results
from hfasr.files import write_json, write_jsonl
from hfasr.text.vocabulary import missing_symbols
from hfasr.training.adapters import saved_parameters
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.record import go_on
from hfasr.training.checkpoints import resume_folder
from hfasr.training.processes import wait_for_others
from hfasr.training.recovery import resume_after_restart
from hfasr.training.same_run import check_same_run
from hfasr.training.trainer import CTCTrainer

logger = logging.getLogger("hfasr.run")

_VERSIONS = ("hfasr", "torch", "torchaudio", "transformers", "accelerate", "datasets", "phonemizer", "espeakng-loader", "soundfile")


def run_recipe(
    main: Callable[[CTCTrainingArguments], None],
    recipe_class: type,
    presets: Callable[[CTCTrainingArguments], dict] | None = None,
    arguments: list[str] | None = None,
) -> None:
    """Parse the command line into a recipe and run it; a wrong value ends with one sentence and exit status 2.

    Args:
        main: The recipe's steps.
        recipe_class: Dataclass of its numbers, a `CTCTrainingArguments`.
        presets: From the parsed flags to other defaults, for a recipe whose numbers depend on what it starts from.
        arguments: Command line; that of the process when None.
    """
    log_to_terminal()
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = HfArgumentParser(recipe_class, description=main.__doc__, allow_abbrev=False)
    with user_errors():
        named = _named(arguments, recipe_class)
        preset = presets(parser.parse_args(arguments)) if presets is not None else {}
        _check_optimizer(named, preset.get("novograd"))
        parser.set_defaults(**_without_rivals(preset, named))
        (recipe,) = parser.parse_args_into_dataclasses(arguments, look_for_args_file=False)
        main(recipe)


def _named(arguments: list[str], recipe_class: type) -> set[str]:
    """Return the names of the fields that a command line sets."""
    flags = {argument.partition("=")[0].lstrip("-").replace("-", "_") for argument in arguments if argument.startswith("--")}
    return flags & {field.name for field in dataclasses.fields(recipe_class)}


def _without_rivals(preset: dict, named: set[str]) -> dict:
    """Drop the preset values that would silently win over a flag of the same purpose."""
    rivals = {
        "max_steps": {"num_train_epochs"},
        "num_train_epochs": {"max_steps"},
        "tri_stage": {"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"},
        "lr_scheduler_kwargs": {"lr_scheduler_type", "tri_stage"},
        "lr_scheduler_type": {"tri_stage"},
        "warmup_steps": {"tri_stage"},
        "novograd": {"optim"},
        "update_seconds": {"gradient_accumulation_steps"},
        "load_best_model_at_end": {"average_checkpoints"},
        "metric_for_best_model": {"average_checkpoints"},
        "gradient_accumulation_steps": {"update_seconds"},
    }
    return {name: value for name, value in preset.items() if not rivals.get(name, set()) & named}


def _check_optimizer(named: set[str], preset_novograd: list[float] | None) -> None:
    """Refuse flags that leave open which optimiser is meant, or give it a learning rate that was chosen for another."""
    if {"optim", "novograd"} <= named:
        raise ValueError("optim and novograd each choose the optimiser; give one of them")
    changes = "optim" in named if preset_novograd else "novograd" in named
    if changes and "learning_rate" not in named:
        raise ValueError(
            "novograd takes about ten times the learning rate of others, and this command changes between them; give --learning_rate too"
        )


def start_run(recipe: CTCTrainingArguments) -> None:
    """Seed, set up the log, and refuse an output folder that holds another run, before any long work.

    Raises:
        ValueError: The folder holds a run and `resume_from_checkpoint` is not given, or a push cannot work.
    """
    folder = Path(recipe.output_dir)
    resume_after_restart(recipe)
    # recipe.json alone is left by a run that was refused or stopped before its first checkpoint
    holds = any((folder / name).exists() for name in ("config.json", "results.json")) or any(folder.glob("checkpoint-*"))
    ours = (folder / "recipe.json").exists()
    if holds and not (ours and recipe.resume_from_checkpoint):
        raise ValueError(
            f"{folder} holds another run or model; choose another --output_dir"
            + (", or go on with it by --resume_from_checkpoint" if ours else "")
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir {folder} is a file; give a folder")
    # a wrong checkpoint is told now, not after the corpus was read
    if checkpoint := resume_folder(folder, recipe.resume_from_checkpoint):
        go_on(checkpoint, recipe)
    if recipe.push_to_hub:
        check_push(recipe.hub_model_id, recipe.hub_token)
    wait_for_others()  # none writes into the folder before all have looked
    folder.mkdir(parents=True, exist_ok=True)
    disable_progress_bars()
    if not recipe.should_log:
        logging.getLogger("hfasr").setLevel(logging.ERROR)
        transformers_logging.set_verbosity_error()
    if recipe.device.type == "cpu":
        torch.set_num_threads(recipe.cpu_threads or max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    set_seed(recipe.seed)


def record_run(
    trainer: CTCTrainer,
    corpus: Mapping[str, Dataset | IterableDataset],
    left_out: list[dict],
    *,
    table: Dataset | None = None,
    name: str,
    language: str,
    base_model: str,
) -> None:
    """Print what training shares with the other splits, write `recipe.json` and `quarantine.jsonl`; refuse to resume on other targets.

    Args:
        trainer: Holds the arguments, the processor and the rows it dropped.
        corpus: The rows as they are trained on and evaluated.
        left_out: Rows that filters and `check_audio` set aside.
        table: For a stream, a table of what is trained on, if there is one.
        name: Of the recipe.
        language: Language code.
        base_model: What training started from.
    """
    recipe, folder = trainer.args, Path(trainer.args.output_dir)
    targets = trainer.processing_class.tokenizer.init_kwargs["hfasr"]
    tables = DatasetDict({split: rows for split, rows in corpus.items() if isinstance(rows, Dataset)})
    train = trainer.train_dataset if "train" in tables else table
    described = DatasetDict({"train": train, **{split: rows for split, rows in tables.items() if split != "train"}} if train else tables)
    rows_sha256 = _rows_digest(trainer, tables)
    shared = leaks(described) if train else None
    if shared:
        logger.warning("what training shares with the splits that it is tested on:\n%s", shared)
    elif shared is not None:
        logger.info("training shares no sentence, speaker or recording with the other splits")
    content = {
        "recipe": name,
        "language": language,
        "unit": trainer.unit,
        "corpus": {
            "name": getattr(recipe, "corpus", ""),
            "splits": describe(described),
            "streamed": "train" not in tables,
            "left_out": len(left_out) + len(trainer.dropped),
            "leaks": None if shared is None else _counts(shared),
        },
        "base_model": base_model,
        "model_type": trainer.model.config.model_type,
        "parameters": saved_parameters(trainer.model),
        "trained_parameters": sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad),
        "synthetic": is_embedded(getattr(recipe, "corpus", "")),
        "targets": targets,
        "rows_sha256": rows_sha256,
        "missing_symbols": _missing_symbols(trainer, tables),
        "arguments": _plain_arguments(recipe),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _VERSIONS}},
        "git_commit": _git_commit(),
        "hardware": _hardware(recipe),
        "processes": recipe.world_size,
    }
    if recipe.resume_from_checkpoint:
        checkpoint = resume_folder(folder, recipe.resume_from_checkpoint)
        origin = Path(checkpoint).parent if checkpoint else folder  # a checkpoint may be of another folder's run
        if (before := origin / "recipe.json").is_file():
            check_same_run(origin, json.loads(before.read_text(encoding="utf-8")), content)
    if not recipe.should_save:
        return
    folder.mkdir(parents=True, exist_ok=True)
    quarantine = folder / "quarantine.jsonl"
    met_before = quarantine.read_text(encoding="utf-8").splitlines() if recipe.resume_from_checkpoint and quarantine.is_file() else []
    write_jsonl(quarantine, _deduplicated([*map(json.loads, met_before), *left_out, *trainer.dropped]))
    write_json(folder / "recipe.json", content)


def _rows_digest(trainer: CTCTrainer, tables: DatasetDict) -> str:
    """Return a hash of the rows that are trained on and evaluated.

    Raises:
        ValueError: Processes do not agree on them, as after a read error that only some have met.
    """
    digest = hashlib.sha256()
    for split, rows in sorted({**tables, **({"train": trainer.train_dataset} if "train" in tables else {})}.items()):
        digest.update(split.encode())
        for name in iter_values(rows, "id"):
            digest.update(name.encode() + b"\n")
    wait_for_others()
    number = torch.tensor([int.from_bytes(digest.digest()[:7], "big")], device=trainer.args.device)
    if len(set(trainer.accelerator.gather(number).tolist())) > 1:
        raise ValueError(
            "processes hold different rows, perhaps after a read error that some of them met; look at the disk and start again"
        )
    return digest.hexdigest()


def _counts(shared: Leaks) -> dict[str, dict]:
    """Return what is shared without the sentences: recipe.json is pushed with the run."""
    return {split: {name: value for name, value in leak.items() if name != "examples"} for split, leak in shared.as_dict().items()}


def _missing_symbols(trainer: CTCTrainer, corpus: DatasetDict) -> dict[str, dict[str, int]]:
    """Count, by split, the symbols that the vocabulary lacks and the model can therefore never get right."""
    found = {}
    tokenizer = trainer.processing_class.tokenizer
    for split, rows in corpus.items():
        if missing := missing_symbols(iter_values(rows, "target"), tokenizer, tokenizer.init_kwargs["hfasr"]["unit"]):
            logger.warning(
                "%s holds symbols that the model lacks: %s", split, ", ".join(f"{symbol} ({n})" for symbol, n in missing.items())
            )
            found[split] = dict(missing)
    return found


def finish_run(trainer: CTCTrainer, corpus: DatasetDict, splits: Iterable[str] = ("validation", "test")) -> dict:
    """Save the model, recognise the splits, and write results, predictions, report and card; push when asked.

    Args:
        trainer: After training, with the best weights loaded if it was to.
        corpus: Rows with `target`.
        splits: Which of them to evaluate, each once; those the corpus lacks are left out.

    Returns:
        What `results.json` holds: for each split the rates with confidence intervals and edit counts, and the run's times.
    """
    recipe, folder = trainer.args, Path(trainer.args.output_dir)
    trainer.save_model(_internal_call=True)  # the push comes last, with report and card
    utterances, splits = [], dict.fromkeys(splits)
    for split in splits:
        if split in corpus and len(corpus[split]):
            utterances += utterances_of(split, corpus[split], trainer.transcribe(corpus[split]))
    # a process that ends while another still waits for its last answer breaks the connection under it
    trainer.accelerator.wait_for_everyone()
    if not recipe.should_save:
        return {}
    quarantine = folder / "quarantine.jsonl"
    write_jsonl(quarantine, _deduplicated([json.loads(line) for line in quarantine.read_text(encoding="utf-8").splitlines()]))
    run = {
        "espeak_version": trainer.processing_class.tokenizer.init_kwargs["hfasr"].get("espeak_version"),
        "train_seconds": round(trainer.train_seconds, 1),
        "updates": trainer.state.global_step,
        "speed": trainer.speed,
    }
    results = write_results(folder, utterances, trainer.unit, title=folder.name, details=_details(folder, run), more=run)
    write_card(folder)
    if recipe.push_to_hub:
        push_run(folder, recipe.hub_model_id, private=bool(recipe.hub_private_repo), token=recipe.hub_token)
    for line in rate_lines(results):
        logger.info("%s", line)
    logger.info("trained in %.0f s; checkpoint, report.html and README.md are in %s", trainer.train_seconds, folder)
    return results


def _details(folder: Path, run: dict) -> dict[str, str]:
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    train = recipe["corpus"]["splits"].get("train")
    corpus = "embedded (synthetic speech)" if recipe["synthetic"] else public_name(recipe["corpus"]["name"])
    size = f"{train['hours']:.2f} h of training speech in {train['utterances']} utterances" if train else "training speech streamed"
    return {
        "Model": f"{recipe['model_type']}, {recipe['parameters'] / 1e6:.2f} M parameters, from {public_name(recipe['base_model'])}",
        "Corpus": f"{corpus}, {size}, {recipe['corpus']['left_out']} left out",
        "Targets": made_by(recipe["targets"]),
        "Training": f"{run['updates']} updates in {run['train_seconds'] / 60:.1f} minutes, {recipe['hardware']}",
    }


def _deduplicated(records: list[dict]) -> list[dict]:
    """Workers of several processes and epochs may have met the same clip."""
    return list({(record["id"], record["reason"]): record for record in reversed(records)}.values())[::-1]


def _plain_arguments(recipe: CTCTrainingArguments) -> dict:
    """Return every field as JSON takes it, tokens masked by `TrainingArguments.to_dict`."""
    values = recipe.to_dict()
    return {field.name: json.loads(json.dumps(values.get(field.name), default=str)) for field in dataclasses.fields(recipe)}


def _git_commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, cwd=Path(sys.argv[0]).resolve().parent
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _hardware(recipe: CTCTrainingArguments) -> str:
    if torch.cuda.is_available() and recipe.device.type == "cuda":
        return f"{recipe.world_size} x {torch.cuda.get_device_name()}"
    return f"{recipe.world_size} process{'es' if recipe.world_size > 1 else ''} on {os.cpu_count()} CPU cores"


def log_to_terminal() -> None:
    """Show hfasr's own log lines, from INFO up, on standard error."""
    package = logging.getLogger("hfasr")
    package.setLevel(logging.INFO)
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        package.addHandler(handler)
        package.propagate = False
