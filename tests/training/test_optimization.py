"""Learning rates by depth, and frozen layers: for every family, and within CTCTrainer."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import FAMILIES, inputs_of, tiny

from hfasr.corpora import common_voice
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.models.speed.fast_training import encoder_layers
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.optimization import freeze_layers, parameter_depths, parameter_groups
from hfasr.training.processes import check_sharding
from hfasr.training.trainer import CTCTrainer

LAYERS = 2


@pytest.fixture(scope="module")
def corpus(toy_release):
    return add_target(common_voice(toy_release, splits=["train"]), Phonemizer("ky", word_bars=False))


def build(corpus, folder, **changes):
    torch.manual_seed(0)
    model, processor = load_model(tiny("wav2vec2 stable", layerdrop=0.0).config, build_tokenizer(corpus["train"]["target"]))
    arguments = {
        "max_batch_seconds": 20, "max_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
        "learning_rate": 0.1, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "cpu_threads": 1,
    }  # fmt: skip
    return CTCTrainer(model, CTCTrainingArguments(output_dir=str(folder), **(arguments | changes)), processor, corpus["train"])


def steps_taken(trainer) -> dict[str, torch.Tensor]:
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    return {name: value.detach() - before[name] for name, value in trainer.model.named_parameters()}


# Granite Speech's head runs between its layers too
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "granite_speech5_ctc"])
def test_depth_is_the_order_in_which_parts_run(family):
    model = tiny(family)
    layers, seen, place = encoder_layers(model), {}, [0.0]  # in layer n place is n, after it n + 0.5
    assert len(layers) == LAYERS
    for number, layer in enumerate(layers, start=1):
        layer.register_forward_pre_hook(lambda module, inputs, number=number: place.__setitem__(0, number))
        layer.register_forward_hook(lambda module, inputs, output: place.__setitem__(0, place[0] + 0.5))

    def note(module, inputs):
        seen.setdefault(module, place[0])

    for module in model.modules():
        module.register_forward_pre_hook(note)
    with torch.no_grad():
        model(**inputs_of(model))
    depths = parameter_depths(model)
    checked = set()
    for name, depth in depths.items():
        ran = seen.get(model.get_submodule(name.rpartition(".")[0]))
        if ran is None:
            continue  # read without being called, as WavLM's projections and the embedding of a mask
        checked.add(depth)
        expected = LAYERS + 1 if ran < 1 else 0 if ran == LAYERS + 0.5 else LAYERS + 1 - ran
        assert depth == expected, (name, ran)
    assert checked == set(range(LAYERS + 2))


def test_the_layers_of_convolutional_models_are_their_blocks():
    model, _ = load_model("quartznet-small", build_tokenizer(["a b"]))
    depths = parameter_depths(model)
    blocks = len(model.quartznet.blocks)
    assert {depth for name, depth in depths.items() if name.startswith("quartznet.blocks.0.")} == {blocks}
    assert {depth for name, depth in depths.items() if name.startswith(f"quartznet.blocks.{blocks - 1}.")} == {1}
    assert depths["lm_head.weight"] == 0


def test_groups_hold_every_trained_parameter_once():
    model = tiny("unispeech stable")
    model.freeze_feature_encoder()
    matrices = {name for name, value in model.named_parameters() if value.dim() > 1}
    groups = parameter_groups(model, learning_rate=2.0, weight_decay=0.3, layer_decay=0.5, decayed=matrices)
    names = {id(value): name for name, value in model.named_parameters()}
    held = [names[id(value)] for group in groups for value in group["params"]]
    assert sorted(held) == sorted(name for name, value in model.named_parameters() if value.requires_grad)
    rate = {names[id(value)]: (group["lr"], group["weight_decay"]) for group in groups for value in group["params"]}
    assert rate["lm_head.weight"] == (2.0, 0.3)
    assert rate["unispeech.encoder.layer_norm.weight"] == (2.0, 0.0)
    assert rate["unispeech.encoder.layers.1.attention.q_proj.weight"] == (1.0, 0.3)
    assert rate["unispeech.encoder.layers.0.attention.q_proj.bias"] == (0.5, 0.0)
    assert rate["unispeech.feature_projection.projection.weight"] == (0.25, 0.3)
    assert groups[0]["lr"] == 2.0  # the rate that the log shows


def test_a_step_is_as_much_smaller_as_its_layer_is_lower(corpus, tmp_path):
    whole = steps_taken(build(corpus, tmp_path, optim="sgd"))
    trainer = build(corpus, tmp_path, optim="sgd", layer_decay=0.5)
    less, depths = steps_taken(trainer), parameter_depths(trainer.model)
    assert whole["wav2vec2.encoder.layers.0.attention.v_proj.weight"].abs().max() > 1e-3
    for name, step in whole.items():
        torch.testing.assert_close(less[name], step * 0.5 ** depths[name], atol=2e-7, rtol=1e-5)


def test_with_novograd_three_stages_and_a_frozen_layer_it_resumes_bitwise(corpus, tmp_path):
    choices = {
        "layer_decay": 0.7, "novograd": [0.8, 0.25], "learning_rate": 0.01, "weight_decay": 1e-3, "tri_stage": [0.2, 0.4, 0.4],
        "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "freeze_layers": 1, "logging_steps": 1,
    }  # fmt: skip
    whole = build(corpus, tmp_path, **choices)
    before = {name: value.detach().clone() for name, value in whole.model.named_parameters()}
    whole.train()
    rates = [entry["learning_rate"] for entry in whole.state.log_history if "loss" in entry]
    assert max(rates) == 0.01
    for name, value in whole.model.named_parameters():
        low = ".layers.0." in name or not (".layers." in name or name.startswith(("lm_head", "wav2vec2.encoder.layer_norm")))
        assert torch.equal(value, before[name]) == low, name
    resumed = build(corpus, tmp_path, **choices)
    resumed.train(str(tmp_path / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_frozen_blocks_keep_their_batch_statistics():
    model, _ = load_model("quartznet-small", build_tokenizer(["a b"]))
    freeze_layers(model, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model(input_features=torch.randn(2, 50, model.config.num_mel_bins)).logits.sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1).step()
    for name, value in model.state_dict().items():
        frozen = name.startswith(("quartznet.blocks.0.", "quartznet.blocks.1."))
        assert torch.equal(value, before[name]) == frozen, name


def test_more_layers_than_there_are():
    model = tiny("hubert")
    with pytest.raises(ValueError, match="freeze_layers is 3, but this hubert has 2 layers; give at most that"):
        freeze_layers(model, 3)
    assert freeze_layers(model, 0) == []
    assert all(value.requires_grad for value in model.parameters())
    freeze_layers(model, 2)
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["lm_head.weight", "lm_head.bias"]


def test_an_optimiser_with_groups_of_its_own_is_refused(corpus, tmp_path, monkeypatch):
    trainer = build(corpus, tmp_path, layer_decay=0.9)
    monkeypatch.setattr(trainer, "get_optimizer_cls_and_kwargs", lambda args, model: (torch.optim.SGD, {"params": []}))
    with pytest.raises(ValueError, match="makes groups of parameters of its own"):
        trainer.create_optimizer()


def test_an_optimiser_of_deepspeeds_configuration_is_refused(tmp_path):
    args = CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, layer_decay=0.9)
    check_sharding(args, None, SimpleNamespace(zero_stage=2, deepspeed_config={}))
    with pytest.raises(ValueError, match="an optimizer of DeepSpeed's configuration does not get"):
        check_sharding(args, None, SimpleNamespace(zero_stage=2, deepspeed_config={"optimizer": {"type": "AdamW"}}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer_decay": 0.0}, "layer_decay is 0.0; give a factor above 0, at most 1"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"freeze_layers": -1}, "freeze_layers is -1; it counts from 0 up"),
    ],
)
def test_wrong_arguments(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **values)
