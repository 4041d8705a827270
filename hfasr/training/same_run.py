"""Whether a command that resumes a run is of the same run."""

from pathlib import Path

from hfasr.text.vocabulary import check_target_record

# The place in the data of a resumed run follows from the number of updates, these, and the checkpoint's record of its batches.
_SAME_WHEN_RESUMED = (
    "batch_shapes", "consistency", "seed", "data_seed", "min_seconds", "max_seconds", "min_characters_per_second",
    "max_characters_per_second", "min_symbol_count", "stream", "stream_window",
)  # fmt: skip
# Trainer takes these from the checkpoint's optimiser, whatever the command says.
_OPTIMIZER = (
    "novograd", "optim", "optim_args", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "layer_decay",
)  # fmt: skip
# What these are decides which weights the checkpoint's optimiser knows.
_TRAINED = ("freeze_feature_encoder", "freeze_layers", "lora_rank", "lora_alpha", "adapter_language")


def check_same_run(folder: Path, before: dict, now: dict) -> None:
    """Refuse to resume where the rows already trained on could not be told, the weights would not fit, or numbers would have no effect.

    Args:
        folder: Of the run, for the message.
        before: What its recipe.json holds.
        now: What that of this command would.

    Raises:
        ValueError: Names the first difference and what to do.
    """
    for names, why in (
        (_SAME_WHEN_RESUMED, "it decides which rows come next"),
        (_OPTIMIZER, "the checkpoint's optimiser goes on with its own"),
        (_TRAINED, "it decides which weights are trained"),
        (("ema_decay",), "the average in its checkpoints was made so"),
    ):
        for name in names:
            old, new = (run["arguments"].get(name) for run in (before, now))
            # a fused optimiser has the state of the plain one
            if name in before["arguments"] and old != new and not (name == "optim" and _plain_name(old) == _plain_name(new)):
                raise ValueError(
                    f"{folder} was trained {_with(name, old)}, this command comes {_with(name, new)}; {why}. Resume with the same"
                )
    check_target_record(before.get("targets"), now["targets"], same_rows=True)
    for name in ("base_model", "model_type", "parameters", *(["processes"] if now["corpus"]["streamed"] else [])):
        if before.get(name) != now[name]:
            raise ValueError(f"{folder} was trained with {name} {before.get(name)}, this command has {now[name]}; resume with the same")
    if "rows_sha256" in before and before["rows_sha256"] != now["rows_sha256"]:
        raise ValueError(f"{folder} was trained on other rows than this command has: clips came, went or cannot be read; start a new run")


def _plain_name(optim: str) -> str:
    return str(optim).removesuffix("_fused")


def _with(name: str, value: object) -> str:
    return f"without {name}" if value is None else f"with {name} {value}"
