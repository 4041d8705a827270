"""How much audio a batch and an update hold: what a command says, or what was measured, now or before, shared out over an update."""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from hfasr.cache import cache_folder
from hfasr.corpora.rows import column
from hfasr.files import write_json
from hfasr.training.arguments import AUTO, CTCTrainingArguments

logger = logging.getLogger(__name__)

# Where memory is not measured, on a CPU: a batch that two cores take some seconds for.
CPU_SECONDS = 160.0
# A stream does not tell its longest row, and few corpora cut longer ones; nor its labels: phonemes of fast speech.
STREAM_SECONDS, STREAM_LABELS_PER_SECOND = 30.0, 15
# The fields that memory depends on, beside the model.
_FIELDS = ("bf16", "fp16", "optim", "optim_args", "novograd", "gradient_checkpointing", "torch_compile", "consistency", "ema_decay")


def longest_row(rows: Dataset | None, args: CTCTrainingArguments) -> tuple[float, int]:
    """Return the seconds of the longest training row, and the labels that a row may have.

    Args:
        rows: With `duration` and `labels`; None for a stream.
        args: Of a recipe, which limits the rows of a stream.
    """
    if rows is None:
        seconds = getattr(args, "max_seconds", math.inf)
        seconds = seconds if seconds < math.inf else STREAM_SECONDS
        return seconds, math.ceil(seconds * STREAM_LABELS_PER_SECOND)
    labels = pyarrow.compute.max(pyarrow.compute.list_value_length(column(rows, "labels"))).as_py()
    return float(column(rows, "duration").to_numpy().max()), labels


def budget_facts(model: PreTrainedModel, args: CTCTrainingArguments, longest_seconds: float) -> dict:
    """Return what a measured budget depends on, as JSON takes it."""
    unused = {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "_name_or_path", "transformers_version"}
    unused |= {"kept_symbols", "paired_symbols", "mean_symbols"}
    config = {name: value for name, value in model.config.to_dict().items() if name not in unused}
    device = torch.cuda.get_device_properties(args.device) if args.device.type == "cuda" else None
    return {
        "model": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16],
        "model_type": model.config.model_type,
        "outputs": 2 ** math.ceil(math.log2(max(2, model.config.vocab_size))),
        "trained_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "device": device_name(args.device),
        "memory_gib": round(device.total_memory / 2**30) if device else 0,
        "longest_seconds": math.ceil(longest_seconds),
        "several_processes": args.world_size > 1,
        **{name: str(getattr(args, name)) for name in _FIELDS},
        "torch": torch.__version__,
    }


def device_name(device: torch.device) -> str:
    """Return the kind of a device, such as "NVIDIA H200"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def remembered_budget(facts: dict) -> float | None:
    """Return the budget that was found under the same facts, if one was."""
    found = _budgets().get(_key(facts))
    return float(found["seconds"]) if found else None


def remember_budget(facts: dict, seconds: float) -> None:
    """Keep a budget for later runs, in `budgets.json` of the cache folder."""
    path = _budgets_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    budgets = _budgets() | {_key(facts): {"seconds": seconds, **facts}}
    write_json(path, budgets)


def lower_budget(facts: dict, seconds: float) -> None:
    """Lower the remembered budget, where there is one, after it turned out to be too large."""
    if (before := remembered_budget(facts)) is not None and seconds < before:
        remember_budget(facts, seconds)


def settle_batches(args: CTCTrainingArguments, longest_seconds: float, facts: dict, measure: Callable[[], float]) -> int:
    """Settle `max_batch_seconds` and `gradient_accumulation_steps` of the arguments; return the batches of an update.

    With `update_seconds` an update is made of as few batches as can hold so much, equal in size: more processes, or larger
    GPUs, come to fewer steps and not to larger updates.

    Args:
        args: The run's numbers, which are changed.
        longest_seconds: Of a row, all its views counted.
        facts: What a measured budget depends on.
        measure: Measures a budget. It is called for "auto" on a GPU, where none is remembered, on each process; the least of
            theirs is taken.

    Raises:
        ValueError: An update is too short for the longest row.
    """
    if args.max_batch_seconds == AUTO:
        args.max_batch_seconds = _auto_budget(args, facts, measure)
    if not args.update_seconds:
        return args.world_size * args.gradient_accumulation_steps
    if longest_seconds > args.update_seconds:
        raise ValueError(
            f"update_seconds is {args.update_seconds:g} but the longest row takes {longest_seconds:.1f} s; raise it, or filter with a "
            "smaller max_seconds"
        )
    accumulation = math.ceil(args.update_seconds / (args.world_size * args.max_batch_seconds) - 1e-9)
    # each batch must hold the longest row, so that of very many processes some have none
    batches = min(args.world_size * accumulation, int(args.update_seconds / longest_seconds))
    if batches < args.world_size:
        logger.warning("update_seconds %g makes %d batches an update, for %d processes", args.update_seconds, batches, args.world_size)
    args.gradient_accumulation_steps = math.ceil(batches / args.world_size)
    args.max_batch_seconds = min(args.max_batch_seconds, args.update_seconds / batches)
    return batches


def _auto_budget(args: CTCTrainingArguments, facts: dict, measure: Callable[[], float]) -> float:
    if args.device.type != "cuda":
        logger.info("max_batch_seconds auto is %g s on a %s, whose memory is not measured", CPU_SECONDS, args.device.type)
        return CPU_SECONDS
    seconds, source = remembered_budget(facts), "as remembered"
    if seconds is None:
        seconds, source = measure(), "as measured"
        if args.local_process_index == 0:
            remember_budget(facts, seconds)
    if torch.distributed.is_initialized():
        least = torch.tensor(seconds, device=args.device)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        seconds = float(least)
    logger.info("max_batch_seconds auto is %g s on %s, %s; %s", seconds, facts["device"], source, _budgets_path())
    return seconds


def _key(facts: dict) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _budgets_path() -> Path:
    return cache_folder() / "budgets.json"


def _budgets() -> dict:
    path = _budgets_path()
    try:
        budgets = json.loads(path.read_text(encoding="utf-8"))
        if not all(float(entry["seconds"]) > 0 for entry in budgets.values()):
            raise ValueError("a budget is not positive")
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is left aside, it is damaged: %s", path, error)
        return {}
    return budgets
