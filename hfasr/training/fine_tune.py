"""The steps of a recipe, from a corpus to a run folder with checkpoint, report and card."""

import os
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from transformers import PreTrainedConfig

from hfasr.corpora.rows import iter_values
from hfasr.models.encoder import ConvEncoderConfig
from hfasr.models.load import BUILT_IN, load_model, model_config
from hfasr.text.normalize import Normalizer
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer, evaluated_as, target_record
from hfasr.training.recipe import RecipeArguments, check_rows, filter_rows, open_corpus, training_table, with_targets
from hfasr.training.run import finish_run, record_run, start_run
from hfasr.training.trainer import CTCTrainer


def fine_tune(
    recipe: RecipeArguments,
    to_target: Normalizer | Phonemizer,
    *,
    name: str,
    language: str,
    unit: str,
    base_model: str,
    model_settings: Mapping[str, object],
    alphabet: str | None = None,
    symbol_pairs: Mapping[str, str | Sequence[str]] | None = None,
    corpus_options: Mapping[str, object] | None = None,
) -> dict:
    """Train a model on a corpus and write its run folder.

    Args:
        recipe: The run's numbers.
        to_target: From transcripts to what the model must emit.
        name: Of the recipe.
        language: Its code; that of the embedded corpus too.
        unit: Of the tokenizer, as in `build_tokenizer`.
        base_model: What `load_model` starts from.
        model_settings: Configuration fields to change, of those that the model's family has; `--model_config` wins.
        alphabet: As in `build_tokenizer`.
        symbol_pairs: As in `load_model`.
        corpus_options: More for the source's function; None among them stands for its default.

    Returns:
        What results.json holds.

    Raises:
        FileNotFoundError, ValueError: Corpus, model or numbers cannot be used; the message says why.
    """
    start_run(recipe)
    corpus = open_corpus(recipe, language, **{option: value for option, value in (corpus_options or {}).items() if value is not None})
    corpus, left_out = filter_rows(recipe, corpus)
    corpus = with_targets(corpus, to_target)

    table = training_table(recipe, corpus, to_target)
    record = target_record(iter_values(table, "target"), **to_target.record)
    targets = iter_values(table, "target")
    tokenizer = build_tokenizer(targets, unit, min_count=recipe.min_symbol_count, alphabet=alphabet, record=record)
    settings = known_settings(base_model, model_settings) | recipe.config_overrides
    model, processor = load_model(base_model, tokenizer, config_overrides=settings, symbol_pairs=symbol_pairs)
    corpus, bad = check_rows(recipe, corpus)

    trainer = CTCTrainer(model, recipe, processor, corpus["train"], corpus[recipe.validation_split], unit=evaluated_as(unit))
    record_run(trainer, corpus, left_out + bad, table=table, name=name, language=language, base_model=base_model)
    trainer.train(recipe.resume_from_checkpoint)
    return finish_run(trainer, corpus, splits=[recipe.validation_split, *recipe.test_splits])


def known_settings(base_model: str, settings: Mapping[str, object]) -> dict:
    """Return those of the settings that the configuration of a starting point has, and CTC's treatment of rows that cannot fit."""
    config = _start_config(base_model)
    return {"ctc_zero_infinity": True} | {field: value for field, value in settings.items() if hasattr(config, field)}


def is_convolutional(base_model: str) -> bool:
    """Tell whether a starting point is a QuartzNet or a Citrinet, and not a transformer.

    Raises:
        FileNotFoundError, OSError, ValueError: As `load_model`.
    """
    return isinstance(_start_config(base_model), ConvEncoderConfig)


@cache
def _start_config(base_model: str) -> PreTrainedConfig:
    """Read a starting point's configuration once a run: a packed .nemo archive is unpacked whole for it."""
    return model_config(base_model)


def is_pretrained(base_model: str) -> bool:
    """Tell whether there is something to fine-tune, rather than a built-in configuration with random weights."""
    return base_model not in BUILT_IN


def by_processes(processes: int) -> dict:
    """Return the numbers that follow from the machine: bf16 where it has it, and as many batches an update as `processes` would make."""
    accumulation = max(1, round(processes / int(os.environ.get("WORLD_SIZE", "1"))))
    return {"gradient_accumulation_steps": accumulation, "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported()}
