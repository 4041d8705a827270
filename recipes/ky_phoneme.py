"""Fine-tune a Kyrgyz phoneme recogniser on Common Voice.

    accelerate launch recipes/ky_phoneme.py
    accelerate launch recipes/ky_phoneme.py --corpus cv-corpus-25.0/ky --base_model microsoft/unispeech-large-multi-lingual-1500h-cv
    accelerate launch --multi_gpu recipes/ky_phoneme.py --corpus cv-corpus-25.0-ky.tar.gz --split_lists unispeech_ky/

The first trains a small QuartzNet from scratch on the embedded corpus, in minutes on two cores: a proof that everything
works, not a recogniser. The last is the 1 h protocol of the UniSpeech paper (Wang et al. 2021, arXiv 2101.07597).
"""

import os
from dataclasses import dataclass, field

import torch

from hfasr import CTCTrainer, CTCTrainingArguments, Phonemizer, add_target, build_tokenizer, corpora, keep_durations, load_model
from hfasr.corpora.rows import check_audio
from hfasr.text.vocabulary import target_record
from hfasr.training.run import finish_run, record_run, run_recipe, start_run


@dataclass
class KyPhoneme(CTCTrainingArguments):
    corpus: str = field(default="embedded", metadata={"help": "Common Voice release: folder or archive; 'embedded' is made on the spot."})
    split_lists: str | None = field(default=None, metadata={"help": "Folder with lists of the clips of train, validation and test."})
    validated_rest: bool = field(default=False, metadata={"help": "Train on all validated clips outside dev and test."})
    base_model: str = field(default="quartznet-small", metadata={"help": "Hub name, folder, or a built-in name to train from scratch."})
    voice: str = field(default="ky", metadata={"help": "espeak-ng voice of the targets."})
    word_bars: bool = field(default=False, metadata={"help": "Also learn the bar between words (not in the paper's protocol)."})
    min_seconds: float = field(default=0.5, metadata={"help": "Shortest utterance."})
    max_seconds: float = field(default=20.0, metadata={"help": "Longest utterance."})
    output_dir: str = field(default="runs/ky_phoneme", metadata={"help": "Run folder."})


FROM_SCRATCH = dict(
    learning_rate=5e-3, tri_stage=[0.1, 0.3, 0.6], tri_stage_final_scale=0.01, num_train_epochs=16, max_batch_seconds=80, weight_decay=1e-3,
    eval_strategy="epoch", save_strategy="epoch", logging_steps=10, dataloader_num_workers=1,
)  # fmt: skip


def presets(base_model: str) -> dict:
    return FROM_SCRATCH


def main(recipe: KyPhoneme):
    """Fine-tune a Kyrgyz phoneme recogniser on Common Voice."""
    start_run(recipe)
    phonemizer = Phonemizer(recipe.voice, word_bars=recipe.word_bars)
    path = corpora.embedded("ky", seed=0) if recipe.corpus == "embedded" else recipe.corpus
    corpus = corpora.common_voice(path, validated_rest=recipe.validated_rest, split_lists=recipe.split_lists)
    corpus = add_target(keep_durations(corpus, recipe.min_seconds, recipe.max_seconds), phonemizer)
    record = target_record(corpus["train"]["target"], voice=recipe.voice, espeak_version=phonemizer.espeak_version)
    tokenizer = build_tokenizer(corpus["train"]["target"], "phoneme", record=record)
    model, processor = load_model(recipe.base_model, tokenizer)
    corpus, quarantined = check_audio(corpus)
    trainer = CTCTrainer(model, recipe, processor, corpus["train"], corpus["validation"])
    record_run(trainer, corpus, quarantined, name="ky_phoneme", language="ky", base_model=recipe.base_model, synthetic=recipe.corpus == "embedded")
    trainer.train(recipe.resume_from_checkpoint)
    finish_run(trainer, corpus)


if __name__ == "__main__":
    run_recipe(main, KyPhoneme, presets)
