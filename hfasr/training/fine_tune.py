"""The steps of a recipe, from a corpus to a run folder with checkpoint, report and card."""

from collections.abc import Mapping, Sequence

from hfasr.corpora.rows import iter_values
from hfasr.models.load import load_model
from hfasr.text.normalize import Normalizer
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer, evaluated_as, target_record
from hfasr.training.adapters import ADAPTER_WIDTH
from hfasr.training.families import start_config
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
    if recipe.adapter_language is not None:
        settings |= adapter_settings(base_model)
    model, processor = load_model(base_model, tokenizer, config_overrides=settings, symbol_pairs=symbol_pairs)
    corpus, bad = check_rows(recipe, corpus)

    trainer = CTCTrainer(model, recipe, processor, corpus["train"], corpus[recipe.validation_split], unit=evaluated_as(unit))
    record_run(trainer, corpus, left_out + bad, table=table, name=name, language=language, base_model=base_model)
    trainer.train(recipe.resume_from_checkpoint)
    return finish_run(trainer, corpus, splits=[recipe.validation_split, *recipe.test_splits])


def known_settings(base_model: str, settings: Mapping[str, object]) -> dict:
    """Return those of the settings that the configuration of a starting point has, and CTC's treatment of rows that cannot fit."""
    config = start_config(base_model)
    return {"ctc_zero_infinity": True} | {field: value for field, value in settings.items() if hasattr(config, field)}


def adapter_settings(base_model: str) -> dict:
    """Return what gives a wav2vec2 model adapter layers where it has none; another family's are refused by the trainer."""
    config = start_config(base_model)
    without = config.model_type == "wav2vec2" and config.adapter_attn_dim is None
    return {"adapter_attn_dim": ADAPTER_WIDTH} if without else {}
