"""Train a Kazakh recogniser that writes letters on KSC2 or Common Voice, from an English QuartzNet or a multilingual transformer.

    accelerate launch recipes/kk_char.py
    accelerate launch --multi_gpu recipes/kk_char.py --corpus ISSAI_KSC2 --base_model stt_en_quartznet15x5.nemo
    accelerate launch --multi_gpu recipes/kk_char.py --corpus cv-corpus-25.0/kk --base_model facebook/wav2vec2-xls-r-300m

The first trains a small QuartzNet from scratch on the embedded corpus, in minutes on two cores, to a CER near 8 %. `--base_model`
takes a .nemo archive, a folder, or a name on the Hub such as facebook/mms-300m. Without it a QuartzNet15x5 starts from random
weights: NVIDIA's English one, from which the public Kazakh one was fine-tuned, is not on the Hub.
"""

from dataclasses import dataclass, field

from hfasr import Normalizer
from hfasr.training.families import Preset, family_of, is_convolutional, is_pretrained, preset
from hfasr.training.fine_tune import fine_tune
from hfasr.training.recipe import EMBEDDED, RecipeArguments
from hfasr.training.run import run_recipe

LANGUAGE = "kk"
SMALL = "quartznet-small"


@dataclass
class KkChar(RecipeArguments):
    numbers: str | None = field(default=None, metadata={"help": "Digits in transcripts: words, keep, drop the row, or error."})
    output_dir: str = field(default="runs/kk_char", metadata={"help": "Run folder."})


# For the embedded corpus: small batches for many updates, at half the rate of ky_char.py's, and light SpecAugment.
ONE_HOUR = {
    "learning_rate": 1e-3, "weight_decay": 1e-3, "tri_stage": [0.06, 0.44, 0.5], "tri_stage_final_scale": 0.02,
    "num_train_epochs": 16, "max_batch_seconds": 24.0, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 20,
}  # fmt: skip
SPEC_AUGMENT = {"freq_masks": 2, "freq_width": 12, "time_masks": 3, "time_width": 0.05, "rect_masks": 0}

# 32 utterances, as NeMo's QuartzNet takes at a time: KSC2's mean is near 6 s.
BATCH_SECONDS = 200.0
# From a trained QuartzNet: half the epochs, and a warm-up in which the new rows of the head catch up.
FROM_QUARTZNET = {"num_train_epochs": 50, "warmup_steps": 1_000}
# What the embedded corpus is worth of the numbers for a transformer on a hundred hours.
TRANSFORMER_ONE_HOUR = {
    "max_steps": 1_000, "freeze_encoder_updates": 100, "update_seconds": 0.0, "max_batch_seconds": 40.0, "eval_steps": 200,
    "save_steps": 200,
}  # fmt: skip

# Letters that a checkpoint may lack, and those that sound most like them: of Russian first, then of English. The first that the
# checkpoint has gives its row of the head; ъ and ь have no sound and start from the mean of all.
SOUNDS_LIKE = {
    "а": "a", "ә": "аa", "б": "b", "в": "v", "г": "g", "ғ": "гg", "д": "d", "е": "e", "ё": "еe", "ж": "j", "з": "z", "и": "i",
    "й": "иy", "к": "k", "қ": "кk", "л": "l", "м": "m", "н": "n", "ң": "нn", "о": "o", "ө": "оo", "п": "p", "р": "r", "с": "s",
    "т": "t", "у": "w", "ұ": "уu", "ү": "уu", "ф": "f", "х": "h", "һ": "хh", "ц": "сs", "ч": "шc", "ш": "s", "щ": "шs", "ы": "i",
    "і": "иi", "э": "еe", "ю": "уu", "я": "аa",
}  # fmt: skip


def starting_point(recipe: KkChar) -> str:
    return recipe.base_model or (SMALL if recipe.corpus == EMBEDDED else "quartznet-15x5")


def fine_tuning(recipe: KkChar) -> Preset:
    return preset(recipe, starting_point(recipe), hours=100, batch_seconds=BATCH_SECONDS)


def is_small(recipe: KkChar) -> bool:
    start = starting_point(recipe)
    return start == SMALL or (recipe.corpus == EMBEDDED and is_convolutional(start))


def presets(recipe: KkChar) -> dict:
    """Choose the numbers by what training starts from and on what; a flag on the command line wins over them."""
    start = starting_point(recipe)
    numbers = ONE_HOUR if is_small(recipe) else fine_tuning(recipe).numbers
    if not is_small(recipe) and family_of(start) == "quartznet" and is_pretrained(start):
        numbers = numbers | FROM_QUARTZNET
    if recipe.corpus == EMBEDDED and not is_convolutional(start):
        numbers = numbers | TRANSFORMER_ONE_HOUR
    return numbers | {"load_best_model_at_end": True, "metric_for_best_model": "cer"}


def main(recipe: KkChar):
    """Train a Kazakh recogniser that writes letters."""
    fine_tune(
        recipe,
        Normalizer(LANGUAGE, numbers=recipe.numbers),
        name="kk_char",
        language=LANGUAGE,
        unit="character",
        base_model=starting_point(recipe),
        model_settings=SPEC_AUGMENT if is_small(recipe) else fine_tuning(recipe).settings,
        symbol_pairs={letter: list(sounds) for letter, sounds in SOUNDS_LIKE.items()},
    )


if __name__ == "__main__":
    run_recipe(main, KkChar, presets)
