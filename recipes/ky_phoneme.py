"""Fine-tune a Kyrgyz phoneme recogniser on Common Voice.

    accelerate launch recipes/ky_phoneme.py
    accelerate launch recipes/ky_phoneme.py --corpus cv-corpus-25.0/ky --base_model microsoft/unispeech-large-multi-lingual-1500h-cv
    accelerate launch --multi_gpu recipes/ky_phoneme.py --corpus cv-corpus-25.0-ky.tar.gz --split_lists unispeech_ky/

The first trains a small QuartzNet from scratch on the embedded corpus, in minutes on two cores: a proof that everything
works, not a recogniser of people. The last is the 1 h protocol of the UniSpeech paper (Wang et al. 2021, arXiv 2101.07597).
"""

import os
from dataclasses import dataclass, field

import torch

from hfasr import CTCTrainer, Normalizer, Phonemizer, build_tokenizer, load_model
from hfasr.corpora.rows import iter_values
from hfasr.models.load import BUILT_IN, model_config
from hfasr.text.vocabulary import evaluated_as, target_record
from hfasr.training.recipe import (
    EMBEDDED,
    RecipeArguments,
    check_rows,
    filter_rows,
    open_corpus,
    training_table,
    with_targets,
)
from hfasr.training.run import finish_run, record_run, run_recipe, start_run

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
QUARTZNET = {"freq_masks": 2, "freq_width": 12, "time_masks": 3, "time_width": 0.05}

# The paper's, from fairseq's finetuning configuration: 20,000 updates of 4 x 1,000,000 samples, the encoder frozen for 2,000.
FINE_TUNING = {
    "learning_rate": 2e-5, "adam_beta2": 0.98, "weight_decay": 0.0, "tri_stage": [0.1, 0.4, 0.5], "tri_stage_final_scale": 0.05,
    "max_steps": 20_000, "freeze_encoder_updates": 2_000, "max_batch_seconds": 62.5, "max_grad_norm": 0.0,
    "eval_strategy": "steps", "eval_steps": 500, "save_strategy": "steps", "save_steps": 500, "logging_steps": 50,
    "dataloader_num_workers": 4,
}  # fmt: skip
PAPER_PROCESSES = 4
WAV2VEC2_FAMILY = {
    "mask_time_prob": 0.75, "mask_time_length": 10, "mask_feature_prob": 0.25, "mask_feature_length": 64, "layerdrop": 0.1,
    "hidden_dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1, "feat_proj_dropout": 0.1, "final_dropout": 0.1,
}  # fmt: skip


def starting_point(recipe: Kyrgyz) -> str:
    return recipe.base_model or ("quartznet-small" if recipe.corpus == EMBEDDED else UNISPEECH)


def presets(recipe: Kyrgyz, metric: str = "per") -> dict:
    """Choose the numbers by what training starts from; a flag on the command line wins over them."""
    best = {"load_best_model_at_end": True, "metric_for_best_model": metric}
    if starting_point(recipe) in BUILT_IN:
        return best | FROM_SCRATCH
    # as near to the paper's seconds per update as the number of processes allows
    accumulation = max(1, round(PAPER_PROCESSES / int(os.environ.get("WORLD_SIZE", "1"))))
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return best | FINE_TUNING | {"gradient_accumulation_steps": accumulation, "bf16": bf16}


def model_settings(base_model: str) -> dict:
    """Choose the configuration fields to change, of those the family has: SpecAugment, and dropout for what is fine-tuned."""
    config = model_config(base_model)
    chosen = QUARTZNET if config.model_type == "quartznet" else {} if base_model in BUILT_IN else WAV2VEC2_FAMILY
    return {"ctc_zero_infinity": True} | {name: value for name, value in chosen.items() if hasattr(config, name)}


def main(recipe: KyPhoneme):
    """Fine-tune a Kyrgyz phoneme recogniser."""
    normalizer = Normalizer(LANGUAGE) if recipe.normalize else None
    phonemizer = Phonemizer(LANGUAGE, word_bars=recipe.word_bars, lexicon=recipe.lexicon, normalizer=normalizer)
    train(recipe, "ky_phoneme", "phoneme", phonemizer)


def train(recipe: Kyrgyz, name: str, unit: str, to_target):
    start_run(recipe)
    base_model = starting_point(recipe)
    corpus = open_corpus(recipe, LANGUAGE, **common_voice_options(recipe))
    corpus, left_out = filter_rows(recipe, corpus)
    corpus = with_targets(corpus, to_target)

    table = training_table(recipe, corpus, to_target)
    record = target_record(iter_values(table, "target"), **to_target.record)
    tokenizer = build_tokenizer(iter_values(table, "target"), unit, record=record, min_count=recipe.min_symbol_count)
    model, processor = load_model(base_model, tokenizer, config_overrides=model_settings(base_model) | recipe.config_overrides)
    corpus, bad = check_rows(recipe, corpus)

    trainer = CTCTrainer(model, recipe, processor, corpus["train"], corpus["validation"], unit=evaluated_as(unit))
    record_run(trainer, corpus, left_out + bad, table=table, name=name, language=LANGUAGE, base_model=base_model)
    trainer.train(recipe.resume_from_checkpoint)
    finish_run(trainer, corpus, splits=("validation", *recipe.test_splits))


def common_voice_options(recipe: Kyrgyz) -> dict:
    given = {"split_lists": recipe.split_lists, "validated_rest": recipe.validated_rest}
    return {name: value for name, value in given.items() if value}


if __name__ == "__main__":
    run_recipe(main, KyPhoneme, presets)
