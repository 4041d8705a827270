"""Presets: the numbers of the published configurations, for each family, and what flags change."""

import json

import pytest
from recipe_runs import REPOSITORY, parsed
from transformers import AutoConfig

from hfasr.models.load import model_config
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.families import family_of, is_convolutional, is_pretrained, preset


@pytest.fixture
def checkpoint(tmp_path):
    """Save the configuration of a family, in the size of its released model."""

    def save(model_type: str, **fields) -> str:
        folder = tmp_path / f"{model_type}-{'-'.join(map(str, fields.values()))}"
        AutoConfig.for_model(model_type, **fields).save_pretrained(folder)
        return str(folder)

    return save


def recipe(**changes) -> CTCTrainingArguments:
    return CTCTrainingArguments(output_dir="unused", use_cpu=True, **changes)


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}


@pytest.mark.parametrize(
    ("model_type", "fields", "family"),
    [
        ("unispeech", LARGE, "large"),
        ("wav2vec2", LARGE, "large"),
        ("wav2vec2", {"hidden_size": 1280, "adapter_attn_dim": 16}, "large"),
        ("hubert", LARGE, "large"),
        ("wavlm", LARGE, "large"),
        ("parakeet_ctc", {}, "large"),
        ("wav2vec2", {}, "base"),
        ("hubert", {}, "base"),
        ("wav2vec2-bert", {"hidden_size": 1024}, "w2v-bert"),
    ],
)
def test_families(checkpoint, model_type, fields, family):
    start = checkpoint(model_type, **fields)
    assert family_of(start) == family
    assert is_pretrained(start)
    assert not is_convolutional(start)
    for hours in (1, 100):
        found = preset(recipe(), start, hours=hours, batch_seconds=400.0)
        recipe(**{**found.numbers, "max_batch_seconds": 80.0, "bf16": False})  # every number is a field, and within its range


def test_convolutional_families():
    for name, family in (("quartznet-15x5", "quartznet"), ("citrinet-1024", "citrinet")):
        assert family_of(name) == family
        assert is_convolutional(name)
        assert not is_pretrained(name)
        known = model_config(name).to_dict()
        assert set(preset(recipe(), name, hours=100, batch_seconds=400.0).settings) <= set(known)


def test_an_update_holds_as_much_as_fairseqs(checkpoint):
    """max_tokens x GPUs x update_freq of its configurations, in seconds of 16,000 samples."""
    start = checkpoint("unispeech", **LARGE)
    hour, more = (preset(recipe(), start, hours=hours, batch_seconds=1.0) for hours in (1, 100))
    assert hour.numbers["update_seconds"] == 1_000_000 * 4 / 16_000
    assert more.numbers["update_seconds"] == 1_280_000 * 4 * 5 / 16_000
    assert (hour.numbers["learning_rate"], hour.numbers["max_steps"], hour.numbers["freeze_encoder_updates"]) == (2e-5, 20_000, 2_000)
    assert (more.numbers["learning_rate"], more.numbers["max_steps"], more.numbers["freeze_encoder_updates"]) == (3e-5, 80_000, 10_000)
    assert (hour.settings["mask_time_prob"], hour.settings["mask_feature_prob"]) == (0.75, 0.25)
    assert (more.settings["mask_time_prob"], more.settings["mask_feature_prob"]) == (0.5, 0.5)
    assert {hour.settings[name] for name in hour.settings if name.endswith("dropout")} == {0.1}


def test_smaller_and_other_transformers(checkpoint):
    base, bert = checkpoint("wavlm"), checkpoint("wav2vec2-bert")
    hour, more = (preset(recipe(), base, hours=hours, batch_seconds=1.0) for hours in (1, 100))
    assert (hour.numbers["learning_rate"], hour.settings["mask_time_prob"], hour.settings["mask_feature_prob"]) == (5e-5, 0.65, 0.25)
    assert (more.numbers["freeze_encoder_updates"], more.settings["mask_time_prob"], more.settings["mask_feature_prob"]) == (0, 0.65, 0.5)
    found = preset(recipe(), bert, hours=100, batch_seconds=1.0)
    assert found.numbers["learning_rate"] == 5e-5
    assert set(found.settings.values()) == {0.0, 10, 64}


def test_few_trained_weights_take_higher_rates(checkpoint):
    start = checkpoint("wav2vec2", hidden_size=1280, adapter_attn_dim=16)
    whole = preset(recipe(), start, hours=1, batch_seconds=1.0)
    lora = preset(recipe(lora_rank=8), start, hours=1, batch_seconds=1.0)
    assert lora.numbers == {**whole.numbers, "learning_rate": pytest.approx(2e-4)}
    adapter = preset(recipe(adapter_language="kir"), start, hours=1, batch_seconds=1.0)
    assert (adapter.numbers["learning_rate"], adapter.numbers["max_steps"], adapter.numbers["freeze_encoder_updates"]) == (1e-3, 2_000, 0)
    assert adapter.settings["layerdrop"] == 0.0


def test_recipes_follow_the_family(checkpoint):
    """`parsed` runs a recipe's presets as its command line does."""
    large, bert = checkpoint("wav2vec2", **LARGE), checkpoint("wav2vec2-bert", hidden_size=1024)
    names = ("learning_rate", "max_steps", "update_seconds", "gradient_accumulation_steps")
    values = lambda name, *flags: tuple(getattr(parsed(name, *flags), number) for number in names)
    assert values("ky_phoneme", "--base_model", large) == (2e-5, 20_000, 250.0, 1)
    assert values("ky_phoneme", "--base_model", bert) == (5e-5, 20_000, 250.0, 1)
    assert values("kk_char", "--base_model", large, "--corpus", "ksc2") == (3e-5, 80_000, 1600.0, 1)
    assert values("kk_char", "--base_model", large) == (3e-5, 1_000, 0.0, 1)
    assert values("en_char", "--base_model", bert, "--corpus", "LibriSpeech") == (5e-5, 80_000, 1600.0, 1)
    assert values("kk_char", "--base_model", large, "--corpus", "ksc2", "--gradient_accumulation_steps", "3") == (3e-5, 80_000, 0.0, 3)
    assert values("kk_char", "--base_model", large, "--corpus", "ksc2", "--lora_rank", "8") == (pytest.approx(3e-4), 80_000, 1600.0, 1)
    assert values("zh_char", "--corpus", "AISHELL-2") == (0.05, -1, 8 * 460.0, 1)
    assert values("kk_char", "--corpus", "ksc2", "--base_model", "citrinet-1024") == (0.05, -1, 1600.0, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ky_phoneme", (5e-3, 40.0, 16, 0.02)),
        ("ky_char", (2e-3, 40.0, 16, 0.02)),
        ("kk_char", (1e-3, 24.0, 16, 0.02)),
        ("en_char", (7e-4, 12.0, 14, 0.02)),
        ("zh_char", (1.5e-3, 30.0, 14, 0.02)),
    ],
)
def test_the_embedded_jobs_keep_their_numbers(name, expected, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "recipes")  # ky_char imports ky_phoneme, as a script there does
    found = parsed(name)
    assert (found.learning_rate, found.max_batch_seconds, found.num_train_epochs, found.tri_stage_final_scale) == expected
    assert (found.update_seconds, found.gradient_accumulation_steps, found.weight_decay, found.tri_stage) == (0, 1, 1e-3, [0.06, 0.44, 0.5])


def test_a_starting_point_without_a_configuration(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="bert models have no CTC head"):
        preset(recipe(), str(tmp_path), hours=1, batch_seconds=1.0)
