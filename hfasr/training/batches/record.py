"""What decides a run's updates, kept in its checkpoints, so that another machine or number of processes goes on with the same."""

import hashlib
import json
import logging
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel

from hfasr.corpora.rows import column, iter_values
from hfasr.files import write_json
from hfasr.training.arguments import CTCTrainingArguments

logger = logging.getLogger(__name__)

_FILE = "batches.json"

# As a command gives them; what they come to follows from the machine (auto) and the processes.
_GIVEN = ("max_batch_seconds", "gradient_accumulation_steps", "update_seconds")


@dataclass(frozen=True)
class BatchRecord:
    """The numbers that a run's updates follow from, the same from its start to its end.

    Args:
        max_batch_seconds: Padded audio of a batch, as settled.
        batches_per_update: Of all processes and accumulation steps.
        batch_shapes: As in `DurationBatchSampler`.
        seed: Of the order.
        processes: That wrote the checkpoint; they may change.
        given: What the run's first command said.
        facts: What else must be equal where a run goes on, see `run_facts`.
    """

    max_batch_seconds: float
    batches_per_update: int
    batch_shapes: int
    seed: int
    processes: int
    given: dict[str, str | float]
    facts: dict[str, str | float] = field(default_factory=dict)


def run_facts(model: PreTrainedModel, rows: Dataset | None, args: CTCTrainingArguments) -> dict[str, str | float]:
    """Return what must be as it was for weights, optimiser and place in the data of a checkpoint to fit.

    Args:
        model: With what is frozen frozen.
        rows: That are trained on; None for a stream.
        args: The run's numbers.
    """
    digest = hashlib.sha256()
    if rows is not None:
        digest.update("\n".join(iter_values(rows, "id")).encode())
        digest.update(column(rows, "duration").to_numpy().tobytes())
    return {
        "training rows (hash)": digest.hexdigest()[:16],
        "model_type": model.config.model_type,
        "trained_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        **{name: getattr(args, name) for name in ("consistency", "ema_decay", "layer_decay")},
    }


def given_numbers(args: CTCTrainingArguments) -> dict[str, str | float]:
    """Return what a command says about its batches, before any of it is settled."""
    return {name: getattr(args, name) for name in _GIVEN}


def batch_record(args: CTCTrainingArguments, given: dict[str, str | float]) -> BatchRecord:
    """Return the record of a run that starts, its budget and accumulation settled."""
    return BatchRecord(
        max_batch_seconds=args.max_batch_seconds,
        batches_per_update=args.world_size * args.gradient_accumulation_steps,
        batch_shapes=args.batch_shapes,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        processes=args.world_size,
        given=given,
    )


def write_record(folder: str | os.PathLike, record: BatchRecord) -> None:
    """Write a record into a checkpoint, whole or not at all."""
    write_json(Path(folder, _FILE), asdict(record))


def read_record(folder: str | os.PathLike) -> BatchRecord:
    """Read the record of a checkpoint.

    Raises:
        ValueError: It has none, or one of another version of hfasr.
    """
    path = Path(folder, _FILE)
    if not path.is_file():
        raise ValueError(f"{folder} has no {_FILE}: an earlier hfasr wrote it, whose batches came in another order; start a new run")
    try:
        return BatchRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); resume from another checkpoint") from error


def accumulation_steps(batches_per_update: int, processes: int) -> int:
    """Return how many batches each process takes in an update, the empty ones at its end included."""
    return math.ceil(batches_per_update / processes)


def go_on(folder: str | os.PathLike, args: CTCTrainingArguments) -> BatchRecord:
    """Set the budget and the accumulation of `args` to what a checkpoint's run goes on with, and return its record.

    Args:
        folder: Of the checkpoint.
        args: Of the command that resumes; its numbers may be those of the run's first command, or what they came to.

    Raises:
        ValueError: The command asks for other batches than the run has, or the checkpoint has no record.
    """
    record = read_record(folder)
    steps = accumulation_steps(record.batches_per_update, args.world_size)
    settled = {"max_batch_seconds": record.max_batch_seconds, "gradient_accumulation_steps": steps}
    for name, value in given_numbers(args).items():
        first = record.given[name]
        if value not in (first, settled.get(name, first)):
            follows = f", or with {settled[name]}, to which it comes on {_processes(args.world_size)}" if name in settled else ""
            raise ValueError(
                f"{folder} is of a run with {name} {first}, this command has {value}; it decides which rows come next. "
                f"Resume with the same{follows}"
            )
    if args.deepspeed_plugin is not None and record.processes != args.world_size:
        raise ValueError(
            f"{folder} was written by {_processes(record.processes)} of DeepSpeed, which cuts the optimizer into as many parts, and "
            f"this run has {args.world_size}; resume with as many"
        )
    if getattr(args, "hf_deepspeed_config", None) is not None and args.gradient_accumulation_steps != steps:
        raise ValueError(f"DeepSpeed has read its configuration already; give --gradient_accumulation_steps {steps}")
    args.max_batch_seconds, args.gradient_accumulation_steps = record.max_batch_seconds, steps
    return replace(record, processes=args.world_size)


def draws_anew(folder: str | os.PathLike, processes: int, process: int) -> bool:
    """Tell whether a checkpoint lacks what a process drew its random numbers from, and say in the log why.

    It does after it was written by another number of processes, or by one for all of them.

    Args:
        folder: Of the checkpoint.
        processes: That go on.
        process: Which of them this is.
    """
    record = read_record(folder)
    if record.processes == processes:
        if Path(folder, "rng_state.pth" if processes == 1 else f"rng_state_{process}.pth").is_file():
            return False
        logger.info("%s holds no random numbers of process %d, which draws anew", folder, process)
        return True
    steps = accumulation_steps(record.batches_per_update, processes)
    logger.info(
        "a run of %s goes on with %d: of the %d batches of an update each takes up to %d; random numbers are drawn anew",
        _processes(record.processes), processes, record.batches_per_update, steps,
    )  # fmt: skip
    if (idle := processes - record.batches_per_update) > 0:
        logger.warning("an update has %d batches, so that %s too many take empty ones", record.batches_per_update, _processes(idle))
    return True


def check_record(folder: str | os.PathLike, mine: BatchRecord) -> None:
    """Refuse to go on from a checkpoint whose updates are others than those that were settled at the start.

    Raises:
        ValueError: Says what differs, and which flag makes it equal.
    """
    before = read_record(folder)
    if before.batches_per_update != mine.batches_per_update:
        raise ValueError(
            f"{folder} has updates of {before.batches_per_update} batches, this run's have {mine.batches_per_update}; give "
            f"gradient_accumulation_steps {accumulation_steps(before.batches_per_update, mine.processes)}, or the checkpoint as "
            "resume_from_checkpoint of the arguments, before the trainer is made"
        )
    for name in ("max_batch_seconds", "batch_shapes", "seed"):
        if getattr(before, name) != getattr(mine, name):
            raise ValueError(
                f"{folder} is of a run with {name} {getattr(before, name)}, this one has {getattr(mine, name)}; "
                "it decides which rows come next. Resume with the same"
            )
    for name, value in mine.facts.items():
        if before.facts.get(name) != value:
            raise ValueError(f"{folder} is of a run with {name} {before.facts.get(name)}, this one has {value}; resume with the same")


def process_seed(seed: int, place: int, process: int) -> int:
    """Return what one process draws its random numbers from after an update or an epoch; another for each of the three."""
    return int(np.random.SeedSequence((seed, place, process)).generate_state(1)[0])


def _processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"
