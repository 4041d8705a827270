"""Fine-tune a Kyrgyz phoneme recogniser on Common Voice.

    accelerate launch recipes/ky_phoneme.py
    accelerate launch recipes/ky_phoneme.py --corpus cv-corpus-25.0/ky --base_model microsoft/unispeech-large-multi-lingual-1500h-cv
    accelerate launch --multi_gpu recipes/ky_phoneme.py --corpus cv-corpus-25.0-ky.tar.gz --split_lists unispeech_ky/

The first trains a small QuartzNet from scratch on the embedded corpus, in minutes on two cores: a proof that everything
works, not a recogniser of people. The last is the 1 h protocol of the UniSpeech paper (Wang et al. 2021, arXiv 2101.07597).
"""

from dataclasses import dataclass, field

from hfasr import Normalizer, Phonemizer
from hfasr.training.families import Preset, is_pretrained, preset
from hfasr.training.fine_tune import fine_tune
from hfasr.training.recipe import EMBEDDED, RecipeArguments
from hfasr.training.run import run_recipe

UNISPEECH = "microsoft/unispeech-large-multi-lingual-1500h-cv"
LANGUAGE = "ky"


@dataclass
class Kyrgyz(RecipeArguments):
    split_lists: str | None = field(default=None, metadata={"help": "Folder with lists of the clips of train, validation and test."})
    validated_rest: bool = field(default=False, metadata={"help": "Train on all validated clips outside dev and test."})


@dataclass
class KyPhoneme(Kyrgyz):
    word_bars: bool = field(default=False, metadata={"help": "Also learn the bar between words; the paper does not."})
    lexicon: str | None = field(
        default=None, metadata={"help": "Pronunciations, a file of word<TAB>phonemes; espeak-ng reads other words."}
    )
    normalize: bool = field(default=False, metadata={"help": "Mend look-alikes, read digits and drop remarks first; the paper does not."})
    output_dir: str = field(default="runs/ky_phoneme", metadata={"help": "Run folder."})


# 0.7 M parameters, 48 minutes of synthetic speech: small batches for many updates, a high peak that batch norm allows, and
# light SpecAugment, without which the model learns the training voices by heart.
FROM_SCRATCH = {
    "learning_rate": 5e-3, "weight_decay": 1e-3, "tri_stage": [0.06, 0.44, 0.5], "tri_stage_final_scale": 0.02,
    "num_train_epochs": 16, "max_batch_seconds": 40.0, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 20,
}  # fmt: skip
SPEC_AUGMENT = {"freq_masks": 2, "freq_width": 12, "time_masks": 3, "time_width": 0.05}


def starting_point(recipe: Kyrgyz) -> str:
    return recipe.base_model or ("quartznet-small" if recipe.corpus == EMBEDDED else UNISPEECH)


def fine_tuning(recipe: Kyrgyz, start: str) -> Preset:
    """Return the paper's numbers, which are those of an hour; a convolutional model takes 32 utterances an update."""
    return preset(recipe, start, hours=1, batch_seconds=160.0, batches=1)


def presets(recipe: Kyrgyz, metric: str = "per") -> dict:
    """Choose the numbers by what training starts from; a flag on the command line wins over them."""
    start = starting_point(recipe)
    numbers = fine_tuning(recipe, start).numbers if is_pretrained(start) else FROM_SCRATCH
    return numbers | {"load_best_model_at_end": True, "metric_for_best_model": metric}


def train(recipe: Kyrgyz, name: str, unit: str, to_target: Normalizer | Phonemizer) -> None:
    start = starting_point(recipe)
    fine_tune(
        recipe,
        to_target,
        name=name,
        language=LANGUAGE,
        unit=unit,
        base_model=start,
        model_settings=SPEC_AUGMENT | (fine_tuning(recipe, start).settings if is_pretrained(start) else {}),
        corpus_options={"split_lists": recipe.split_lists, "validated_rest": recipe.validated_rest or None},
    )


def main(recipe: KyPhoneme):
    """Fine-tune a Kyrgyz phoneme recogniser."""
    normalizer = Normalizer(LANGUAGE) if recipe.normalize else None
    phonemizer = Phonemizer(LANGUAGE, word_bars=recipe.word_bars, lexicon=recipe.lexicon, normalizer=normalizer)
    train(recipe, "ky_phoneme", "phoneme", phonemizer)


if __name__ == "__main__":
    run_recipe(main, KyPhoneme, presets)
