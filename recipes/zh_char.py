"""Train a Mandarin recogniser that writes characters on AISHELL-2: Citrinet-1024 with gamma 0.25.

    accelerate launch recipes/zh_char.py
    accelerate launch --multi_gpu recipes/zh_char.py --corpus AISHELL-2

The first trains a small Citrinet on the embedded corpus, in minutes on two cores, to a CER near 18 %. AISHELL-2 comes as two
folders, iOS/data to train on and AISHELL-DEV-TEST-SET; `--corpus` is the folder above both. The run is evaluated on dev and test
of the three channels, which make the six results of the card.
"""

from dataclasses import dataclass, field

from hfasr import Normalizer
from hfasr.training.fine_tune import by_processes, fine_tune, is_pretrained
from hfasr.training.recipe import EMBEDDED, RecipeArguments
from hfasr.training.run import run_recipe

LANGUAGE = "zh"
SMALL = "citrinet-small"
CHANNELS = ("ios", "android", "mic")


@dataclass
class ZhChar(RecipeArguments):
    validation_split: str = field(default="dev_ios", metadata={"help": "Split to evaluate on during training."})
    test_splits: list[str] = field(
        default_factory=lambda: [f"{kind}_{channel}" for kind in ("dev", "test") for channel in CHANNELS],
        metadata={"help": "Splits to evaluate on at the end."},
    )
    numbers: str | None = field(default=None, metadata={"help": "Digits in transcripts: words, keep, drop the row, or error."})
    output_dir: str = field(default="runs/zh_char", metadata={"help": "Run folder."})


# For the embedded corpus, 95 minutes of it, and 0.75 M parameters: small batches for many updates, and light SpecAugment.
ONE_HOUR = {
    "learning_rate": 1.5e-3, "weight_decay": 1e-3, "tri_stage": [0.06, 0.44, 0.5], "tri_stage_final_scale": 0.02,
    "num_train_epochs": 14, "max_batch_seconds": 30.0, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 20,
}  # fmt: skip
SPEC_AUGMENT = {"freq_masks": 2, "freq_width": 12, "time_masks": 3, "time_width": 0.05}

# NeMo's examples/asr/conf/citrinet/citrinet_1024.yaml, with its 100 epochs. What differs here:
# - An update takes the file's 1,024 utterances as 8 batches of 460 s (AISHELL-2's mean is 3.6 s), for a machine of 8 GPUs; there 32
#   GPUs take 32 utterances each.
# - bf16 on a GPU that has it (float32 there, with the same 5,000 updates of warm-up that the file advises for mixed precision).
# - Weight decay leaves biases and norms alone; no dither is added.
# - The loss is per label, there per utterance. NovoGrad scales each layer's gradient by its own norm, so that changes nothing.
NEMO = {
    "novograd": [0.8, 0.25], "learning_rate": 0.05, "weight_decay": 1e-3, "warmup_steps": 5_000,
    "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5},
    "num_train_epochs": 100, "max_seconds": 20.0, "max_batch_seconds": 460.0, "max_grad_norm": 0.0,
    "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 50, "dataloader_num_workers": 8,
}  # fmt: skip
NEMO_PROCESSES = 8
NEMO_SPEC_AUGMENT = {"freq_masks": 2, "freq_width": 27, "time_masks": 10, "time_width": 0.05}
# A trained encoder keeps what it knows at a tenth of the rate, after a shorter warm-up.
FINE_TUNING = {"learning_rate": 5e-3, "warmup_steps": 1_000}


def starting_point(recipe: ZhChar) -> str:
    return recipe.base_model or (SMALL if recipe.corpus == EMBEDDED else "citrinet-1024")


def presets(recipe: ZhChar) -> dict:
    """Choose the numbers by what training starts from and on what; a flag on the command line wins over them."""
    start = starting_point(recipe)
    if start == SMALL or recipe.corpus == EMBEDDED:
        numbers = ONE_HOUR
    else:
        numbers = NEMO | by_processes(NEMO_PROCESSES) | (FINE_TUNING if is_pretrained(start) else {})
    return numbers | {"load_best_model_at_end": True, "metric_for_best_model": "cer"}


def main(recipe: ZhChar):
    """Train a Mandarin recogniser that writes characters."""
    start = starting_point(recipe)
    fine_tune(
        recipe,
        Normalizer(LANGUAGE, numbers=recipe.numbers),
        name="zh_char",
        language=LANGUAGE,
        unit="character",
        base_model=start,
        model_settings=SPEC_AUGMENT if start == SMALL or recipe.corpus == EMBEDDED else NEMO_SPEC_AUGMENT,
    )


if __name__ == "__main__":
    run_recipe(main, ZhChar, presets)
