"""Train a Mandarin recogniser that writes characters on AISHELL-2: Citrinet-1024 with gamma 0.25.

    accelerate launch recipes/zh_char.py
    accelerate launch --multi_gpu recipes/zh_char.py --corpus AISHELL-2

The first trains a small Citrinet on the embedded corpus, in minutes on two cores, to a CER near 18 %. AISHELL-2 comes as two
folders, iOS/data to train on and AISHELL-DEV-TEST-SET; `--corpus` is the folder above both. The run is evaluated on dev and test
of the three channels, which make the six results of the card.
"""

from dataclasses import dataclass, field

from hfasr import Normalizer
from hfasr.training.families import Preset, preset
from hfasr.training.fine_tune import fine_tune
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

# 128 utterances, an eighth of an update of NeMo's Citrinet: AISHELL-2's mean is 3.6 s.
BATCH_SECONDS = 460.0


def starting_point(recipe: ZhChar) -> str:
    return recipe.base_model or (SMALL if recipe.corpus == EMBEDDED else "citrinet-1024")


def fine_tuning(recipe: ZhChar) -> Preset:
    return preset(recipe, starting_point(recipe), hours=100, batch_seconds=BATCH_SECONDS)


def is_small(recipe: ZhChar) -> bool:
    return recipe.corpus == EMBEDDED or starting_point(recipe) == SMALL


def presets(recipe: ZhChar) -> dict:
    """Choose the numbers by what training starts from and on what; a flag on the command line wins over them."""
    numbers = ONE_HOUR if is_small(recipe) else fine_tuning(recipe).numbers
    return numbers | {"load_best_model_at_end": True, "metric_for_best_model": "cer"}


def main(recipe: ZhChar):
    """Train a Mandarin recogniser that writes characters."""
    fine_tune(
        recipe,
        Normalizer(LANGUAGE, numbers=recipe.numbers),
        name="zh_char",
        language=LANGUAGE,
        unit="character",
        base_model=starting_point(recipe),
        model_settings=SPEC_AUGMENT if is_small(recipe) else fine_tuning(recipe).settings,
    )


if __name__ == "__main__":
    run_recipe(main, ZhChar, presets)
