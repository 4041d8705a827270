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
from hfasr.training.fine_tune import by_processes, fine_tune, is_convolutional, is_pretrained
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

# NeMo's examples/asr/conf/quartznet/quartznet_15x5.yaml, as in en_char.py, which lists what differs; but 32 utterances a batch are
# 200 s here (KSC2's mean is near 6 s).
NEMO = {
    "novograd": [0.8, 0.5], "learning_rate": 0.01, "weight_decay": 1e-3, "lr_scheduler_type": "cosine",
    "num_train_epochs": 100, "max_seconds": 16.7, "max_batch_seconds": 200.0, "max_grad_norm": 0.0,
    "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 50, "dataloader_num_workers": 8,
}  # fmt: skip
NEMO_PROCESSES = 8
SPEC_CUTOUT = {"freq_masks": 0, "time_masks": 0, "rect_masks": 5, "rect_freq": 50, "rect_time": 120}
# A trained encoder keeps what it knows at a tenth of the rate, once the new rows of the head have caught up.
FROM_QUARTZNET = {"learning_rate": 1e-3, "num_train_epochs": 50, "warmup_steps": 1_000}

# fairseq's examples/wav2vec/config/finetuning/vox_100h.yaml, for models as large on 100 h and more: 80,000 updates of
# 4 x 5 x 1,280,000 samples, the encoder frozen for 10,000.
TRANSFORMER = {
    "learning_rate": 3e-5, "adam_beta2": 0.98, "weight_decay": 0.0, "tri_stage": [0.1, 0.4, 0.5], "tri_stage_final_scale": 0.05,
    "max_steps": 80_000, "freeze_encoder_updates": 10_000, "max_batch_seconds": 80.0, "max_grad_norm": 0.0,
    "eval_strategy": "steps", "eval_steps": 2_000, "save_strategy": "steps", "save_steps": 2_000, "logging_steps": 50,
    "dataloader_num_workers": 8,
}  # fmt: skip
FAIRSEQ_PROCESSES = 20
# What the embedded corpus is worth of it.
TRANSFORMER_ONE_HOUR = {
    "max_steps": 1_000, "freeze_encoder_updates": 100, "gradient_accumulation_steps": 1, "max_batch_seconds": 40.0,
    "eval_steps": 200, "save_steps": 200, "dataloader_num_workers": 0,
}  # fmt: skip
DROPOUT = {
    "mask_time_prob": 0.5, "mask_time_length": 10, "mask_feature_prob": 0.5, "mask_feature_length": 64, "layerdrop": 0.1,
    "activation_dropout": 0.1, "attention_dropout": 0.0, "hidden_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
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


def presets(recipe: KkChar) -> dict:
    """Choose the numbers by what training starts from and on what; a flag on the command line wins over them."""
    start = starting_point(recipe)
    if not is_convolutional(start):
        numbers = TRANSFORMER | by_processes(FAIRSEQ_PROCESSES) | (TRANSFORMER_ONE_HOUR if recipe.corpus == EMBEDDED else {})
    elif start == SMALL or recipe.corpus == EMBEDDED:
        numbers = ONE_HOUR
    else:
        numbers = NEMO | by_processes(NEMO_PROCESSES) | (FROM_QUARTZNET if is_pretrained(start) else {})
    return numbers | {"load_best_model_at_end": True, "metric_for_best_model": "cer"}


def main(recipe: KkChar):
    """Train a Kazakh recogniser that writes letters."""
    start = starting_point(recipe)
    fine_tune(
        recipe,
        Normalizer(LANGUAGE, numbers=recipe.numbers),
        name="kk_char",
        language=LANGUAGE,
        unit="character",
        base_model=start,
        model_settings=DROPOUT | (SPEC_AUGMENT if start == SMALL or recipe.corpus == EMBEDDED else SPEC_CUTOUT),
        symbol_pairs={letter: list(sounds) for letter, sounds in SOUNDS_LIKE.items()},
    )


if __name__ == "__main__":
    run_recipe(main, KkChar, presets)
