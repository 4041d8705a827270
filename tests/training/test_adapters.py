"""LoRA and language adapters: what is trained, what is saved, and that peft and Transformers load it."""

import json
import shutil

import pytest
import recipe_runs
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import FAMILIES, inputs_of, tiny
from transformers import AutoModelForCTC, Wav2Vec2ForCTC

from hfasr.corpora import common_voice
from hfasr.corpora.targets import add_target
from hfasr.evaluation.hub import files_to_push
from hfasr.models.load import BUILT_IN, load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.adapters import add_lora, load_lora, merged_state_dict, train_language_adapter
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.fine_tune import adapter_settings
from hfasr.training.trainer import CTCTrainer


@pytest.fixture(scope="module")
def corpus(toy_release):
    return add_target(common_voice(toy_release, splits=["train", "test"]), Phonemizer("ky", word_bars=False))


def build(corpus, folder, base=None, evaluated=False, **changes):
    torch.manual_seed(0)
    model, processor = load_model(base or tiny("wav2vec2 stable", layerdrop=0.0).config, build_tokenizer(corpus["train"]["target"]))
    arguments = {
        "max_batch_seconds": 20, "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "report_to": "none", "use_cpu": True,
        "disable_tqdm": True, "learning_rate": 0.01, "lr_scheduler_type": "constant", "cpu_threads": 1, "save_total_limit": None,
    }  # fmt: skip
    args = CTCTrainingArguments(output_dir=str(folder), **(arguments | changes))
    return CTCTrainer(model, args, processor, corpus["train"], corpus["test"] if evaluated else None)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(**inputs_of(model)).logits


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def filled(model, rank=4, alpha=None):
    """Add LoRA whose updates are not zero."""
    add_lora(model, rank, alpha)
    random = torch.Generator().manual_seed(1)
    for name, value in model.named_parameters():
        if ".lora_B." in name:
            value.data = torch.randn(value.shape, generator=random) * 0.1
    return model


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "granite_speech5_ctc"])
def test_every_update_of_lora_is_trained_and_merged(family):
    """Against the plain model: with the merged weights it says the same."""
    model, plain = tiny(family), tiny(family)
    names = set(plain.state_dict())
    filled(model)
    model(**inputs_of(model)).logits.square().sum().backward()
    for name, value in model.named_parameters():
        assert value.requires_grad == (".lora_" in name or name.startswith(("lm_head.", "ctc_head."))), name
        assert not value.requires_grad or value.grad.abs().max() > 0, name
    merged = merged_state_dict(model)
    assert set(merged) == names
    assert (logits(plain) - logits(model)).abs().max() > 1e-3
    plain.load_state_dict(merged)
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=1e-4)


def test_updates_are_scaled_by_alpha_over_rank():
    plain, model = tiny("hubert"), filled(tiny("hubert"), rank=2, alpha=6.0)
    place = "hubert.encoder.layers.1.feed_forward.output_dense"
    down, up = (model.get_parameter(f"{place}.lora_{part}.default.weight") for part in "AB")
    assert down.shape[0] == up.shape[1] == 2
    expected = plain.get_parameter(f"{place}.weight") + 3.0 * up @ down
    torch.testing.assert_close(merged_state_dict(model)[f"{place}.weight"], expected)
    assert model.peft_config["default"].r == 2
    assert filled(tiny("hubert"), rank=2).peft_config["default"].lora_alpha == 4


@pytest.fixture(scope="module")
def lora_run(corpus, tmp_path_factory):
    """Train four updates, with checkpoints at two and four."""
    folder = tmp_path_factory.mktemp("lora")
    trainer = build(corpus, folder, lora_rank=4, layer_decay=0.8)
    base = weights(trainer.model)
    trainer.train()
    trainer.save_model()
    return trainer, base, folder


def test_lora_trains_only_updates_and_head(lora_run):
    trainer, base, _ = lora_run
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, base[name]) != (".lora_" in name or name.startswith("lm_head.")), name
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {0.01 * 0.8**depth for depth in range(3)}


def test_what_lora_leaves_is_a_checkpoint_of_transformers_and_an_adapter_of_peft(lora_run):
    trainer, base, folder = lora_run
    expected = logits(trainer.model)
    for path in (folder, folder / "checkpoint-4"):
        model, report = AutoModelForCTC.from_pretrained(path, output_loading_info=True)
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-4)
        plain = Wav2Vec2ForCTC(trainer.model.config)
        plain.load_state_dict({name.replace(".base_layer.", "."): value for name, value in base.items() if ".lora_" not in name})
        adapted = PeftModel.from_pretrained(plain, path / "lora")
        torch.testing.assert_close(logits(adapted.base_model.model), expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(logits(adapted.merge_and_unload()), expected, atol=1e-5, rtol=1e-4)


def test_lora_resumes_bitwise(corpus, lora_run):
    whole, _, folder = lora_run
    resumed = build(corpus, folder, lora_rank=4, layer_decay=0.8)
    resumed.train(str(folder / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_best_checkpoint_of_lora_comes_back(corpus, tmp_path):
    best = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    trainer = build(corpus, tmp_path, evaluated=True, lora_rank=2, learning_rate=30.0, **best)
    trainer.train()
    first = tmp_path / "checkpoint-2"
    assert trainer.state.best_model_checkpoint == str(first)  # at this rate all is lost after it
    head = load_file(first / "lora" / "adapter_model.safetensors")["base_model.model.lm_head.weight"]
    assert torch.equal(trainer.model.lm_head.weight, head)
    torch.testing.assert_close(logits(trainer.model), logits(AutoModelForCTC.from_pretrained(first)), atol=1e-4, rtol=1e-3)


def test_lora_trains_through_gradient_checkpointing():
    gradients = []
    for checkpointing in (False, True):
        still = dict.fromkeys(("layerdrop", "attention_dropout", "hidden_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
        model = filled(tiny("wav2vec2", mask_time_prob=0.0, final_dropout=0.0, **still)).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**inputs_of(model)).logits.square().sum().backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_a_checkpoint_of_another_lora_is_refused(lora_run, tmp_path):
    _, _, folder = lora_run
    config = AutoModelForCTC.from_pretrained(folder).config
    fresh = lambda rank, alpha=None: filled(Wav2Vec2ForCTC(config), rank, alpha)
    with pytest.raises(ValueError, match="LoRA of r 4, this command has 8; resume with the same"):
        load_lora(fresh(8), folder)
    with pytest.raises(ValueError, match="LoRA of lora_alpha 8, this command has 1"):
        load_lora(fresh(4, 1), folder)
    other = fresh(4)
    torch.nn.init.normal_(other.wav2vec2.feature_projection.projection.weight)
    with pytest.raises(ValueError, match="another base model than this one: wav2vec2"):
        load_lora(other, folder)
    with pytest.raises(ValueError, match="was not trained with LoRA"):
        load_lora(fresh(4), tmp_path)
    with pytest.raises(ValueError, match="has adapters of peft already"):
        add_lora(other, 4)


@pytest.mark.parametrize("name", ["quartznet-small", "citrinet-small"])
def test_lora_is_for_transformers(name):
    model, _ = load_model(BUILT_IN[name](), build_tokenizer(["a b"]))
    with pytest.raises(ValueError, match="lora_rank is for transformers"):
        add_lora(model, 4)


def test_lora_leaves_no_head_that_is_half_trained():
    with pytest.raises(ValueError, match="head of this granite_speech5_ctc is a part of its encoder too"):
        add_lora(tiny("granite_speech5_ctc"), 4)


@pytest.fixture(scope="module")
def mms(corpus, tmp_path_factory):
    """Return a base with adapter layers, a run that trained them for Kyrgyz, and its trainer."""
    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("mms")
    model, processor = load_model(tiny("wav2vec2 stable", adapter_attn_dim=4).config, build_tokenizer(["n y p"]))
    model.save_pretrained(base)
    processor.save_pretrained(base)
    trainer = build(corpus, folder, base=base, adapter_language="kir")
    before = weights(trainer.model)
    trainer.train()
    trainer.save_model()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    return base, folder, trainer, changed


def test_only_adapters_and_head_are_trained(mms):
    _, folder, trainer, changed = mms
    assert changed == set(load_file(folder / "adapter.kir.safetensors")) == set(trainer.model._get_adapters())
    assert len(changed) == 2 * 6 + 2


def test_transformers_loads_the_language_adapter(mms, tmp_path):
    base, folder, trainer, _ = mms
    expected = logits(trainer.model)
    for path in (folder, folder / "checkpoint-4"):
        assert torch.equal(logits(AutoModelForCTC.from_pretrained(path)), expected)
        assert torch.equal(logits(Wav2Vec2ForCTC.from_pretrained(path, target_lang="kir")), expected)
    shutil.copytree(base, tmp_path / "base")
    shutil.copy(folder / "adapter.kir.safetensors", tmp_path / "base")
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path / "base")
    assert model.config.vocab_size != trainer.model.config.vocab_size
    model.load_adapter("kir")
    assert torch.equal(logits(model), expected)


def test_families_without_language_adapters_are_told():
    for family in ("hubert stable", "wav2vec2", "wav2vec2-bert"):
        with pytest.raises(ValueError, match="has no language adapters: use --lora_rank"):
            train_language_adapter(tiny(family))
    with pytest.raises(ValueError, match=r'no adapter layers; load it with config_overrides=\{"adapter_attn_dim": 16\}'):
        train_language_adapter(tiny("wav2vec2 stable"))


def test_adapter_layers_are_added_where_a_checkpoint_has_none(mms, tmp_path):
    for family in ("wav2vec2 stable", "hubert"):
        tiny(family).config.save_pretrained(tmp_path / family)
    assert adapter_settings(str(tmp_path / "wav2vec2 stable")) == {"adapter_attn_dim": 16}
    assert adapter_settings(str(mms[0])) == adapter_settings(str(tmp_path / "hubert")) == {}


BRIEF = [
    "--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "--cpu_threads", "1", "--max_steps", "1", "--max_batch_seconds", "30",
    "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false", "--decode_check", "false",
    "--model_config", '{"mask_feature_prob": 0.0}',
]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "files", "said"),
    [
        (["--lora_rank", "2"], ["lora/adapter_config.json", "lora/adapter_model.safetensors"], "LoRA of rank 2"),
        pytest.param(
            ["--adapter_language", "kir"], ["adapter.kir.safetensors"], "Only the language adapter and the head", marks=pytest.mark.slow
        ),
    ],
)
def test_a_recipe_trains_few_weights(flags, files, said, toy_release, tmp_path):
    base, folder = tmp_path / "base", tmp_path / "run"
    model, processor = load_model(tiny("wav2vec2 stable").config, build_tokenizer(["n y p"]))
    model.save_pretrained(base)
    processor.save_pretrained(base)
    recipe_runs.run("ky_phoneme", *BRIEF, "--corpus", toy_release, "--base_model", base, "--output_dir", folder, *flags)
    for name in files:
        assert (folder / name).is_file()
        assert folder / name in files_to_push(folder)
    assert said in (folder / "README.md").read_text()
    recipe, saved = json.loads((folder / "recipe.json").read_text()), load_file(folder / "model.safetensors")
    assert recipe["parameters"] == sum(value.numel() for value in saved.values())
    assert 0 < recipe["trained_parameters"] < recipe["parameters"] / 2
    assert recipe["arguments"][flags[0].strip("-")] in (2, "kir")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_rank": -1}, "lora_rank is -1; it counts from 0 up"),
        ({"lora_alpha": 8.0}, "lora_alpha is 8.0; give a positive number, and lora_rank with it"),
        ({"lora_rank": 4, "lora_alpha": 0.0}, "lora_alpha is 0.0"),
        ({"lora_rank": 4, "adapter_language": "kir"}, "give one of them"),
        ({"lora_rank": 4, "freeze_layers": 2}, "lora_rank freezes all layers already"),
        ({"lora_rank": 4, "average_checkpoints": 2, "save_total_limit": 2}, "use ema_decay with LoRA"),
        ({"adapter_language": "../kir"}, r"adapter_language is '\.\./kir'; give a code such as kir"),
        ({"adapter_language": ""}, "adapter_language is ''"),
    ],
)
def test_wrong_arguments(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **values)
