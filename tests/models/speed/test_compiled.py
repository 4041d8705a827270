"""FastTraining: a model is put back, compiles in place, and is tried out without a trace."""

import copy
import logging
import math

import pytest
import torch
from tiny_models import CONV, EACH_FAMILY, assert_equal, gradients, masking

from hfasr.models.speed.fast_training import FastTraining, compile_mode, encoder_layers, feature_encoder, graphs_compiled, prepare_device
from hfasr.models.speed.trial import trial_inputs, try_out


def state_of(model):
    """Everything that FastTraining touches, to be found again."""
    return {
        "attention": model.config._attn_implementation,
        "config": model.config.to_json_string(),
        "classes": [type(module) for module in model.modules()],
        "own": [sorted(vars(module)) for module in model.modules()],
        "compiled": [module._compiled_call_impl for module in model.modules()],
        "asks": [getattr(module, "_requires_grad", None) for module in model.modules()],
        "limit": torch._dynamo.config.recompile_limit,
        "names": list(model.state_dict()),
    }


def warned(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("family", ["unispeech stable", "wavlm stable", "sew-d", "wav2vec2-bert", "parakeet_ctc", "quartznet"])
def test_a_model_is_put_back(family):
    """Afterwards, after an error too, the model is as before; meanwhile names and configuration are."""
    model = masking(family)
    before = state_of(model)
    with FastTraining(model) as fast:
        assert list(model.state_dict()) == before["names"]
        assert model.config.to_json_string() == before["config"]
    assert state_of(model) == before
    fast.restore()
    with pytest.raises(TypeError), FastTraining(model):
        model(no_such_input=1)
    assert state_of(model) == before
    with FastTraining(model), FastTraining(model):  # one within another, as of a budget measured in a training
        pass
    assert state_of(model) == before


def test_layers_and_feature_encoder_are_found():
    for family in [*EACH_FAMILY, *CONV]:
        model = masking(family)
        layers = encoder_layers(model)
        assert len(layers) == 2, family
        assert all(type(layer).__name__.endswith(("Layer", "Block", "LayerNorm")) for layer in layers)
        assert (feature_encoder(model) is not None) == (model.main_input_name == "input_values")
    assert encoder_layers(torch.nn.Linear(2, 2)) == []


def test_compiled_in_place(caplog):
    """One graph serves every shape in training; evaluation runs none; values, names and statistics are as without."""
    model = masking("quartznet", time_masks=1)
    before, weights, drawn = state_of(model), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    inputs = [trial_inputs(model, seconds) for seconds in (0.7, 2.0, 45.0)]
    torch.set_rng_state(drawn)
    plain = [gradients(model, batch)["logits"] for batch in inputs]
    model.load_state_dict(weights)
    count = graphs_compiled()
    with FastTraining(model, "dynamic", backend="eager") as fast:
        assert fast.compiled == 2
        assert (graphs := graphs_compiled()) > count
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
        assert list(model.state_dict()) == before["names"]
        torch.set_rng_state(drawn)
        for batch, stock in zip(inputs, plain, strict=True):
            torch.testing.assert_close(gradients(model, batch)["logits"], stock)
        model.eval()(**trial_inputs(model, 5.0))
        assert graphs_compiled() == graphs
    assert state_of(model) == before | {"own": state_of(model)["own"]}
    assert not warned(caplog)


def test_a_model_that_does_not_compile_is_trained_without(caplog):
    model = masking("citrinet")
    before = state_of(model)

    def broken(graph, example_inputs):
        raise NotImplementedError("no such operator")

    with FastTraining(model, "static", backend=broken) as fast:
        assert fast.compiled == 0
        assert "layers" in fast.kept
        gradients(model, trial_inputs(model))
    assert [record.name for record in warned(caplog)] == ["hfasr.models.speed.fast_training"]
    assert "no such operator" in warned(caplog)[0].getMessage()
    model.zero_grad()
    assert state_of(model) == before | {"own": state_of(model)["own"]}


def test_a_trial_leaves_no_trace():
    model = masking("parakeet_ctc").eval()
    torch.manual_seed(0)
    weights, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    kept = next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    try_out(model)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert next(model.parameters()).grad is kept
    assert not any(module.training for module in model.modules())


def test_compile_modes():
    assert compile_mode("auto", torch.device("cpu")) == "off"
    assert compile_mode("auto", torch.device("cuda", 1)) == "dynamic"
    assert compile_mode("static", torch.device("cpu")) == "static"
    with pytest.raises(ValueError, match="compile is 'yes', expected one of auto, dynamic, static, off"):
        compile_mode("yes", torch.device("cpu"))
    with pytest.raises(ValueError, match="compile is 'auto', expected one of dynamic, static, off"):
        FastTraining(masking("quartznet"), "auto")


def test_a_cpu_is_left_as_it_is():
    before = torch.get_float32_matmul_precision()
    prepare_device(torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.slow
@pytest.mark.parametrize("family", EACH_FAMILY)
def test_every_family_compiles(family, caplog):
    """All families trace without a fall back, few graphs serve many shapes, and gradients are those of Transformers' own code."""
    still = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0} if not family.endswith("_ctc") else {}
    model = masking(family, **still)
    inputs = [trial_inputs(model, seconds) for seconds in (0.9, 1.5, 33.0)]
    start = copy.deepcopy(model.state_dict())
    stock = [gradients(model, batch) for batch in inputs]
    model.load_state_dict(start)
    with FastTraining(model, "dynamic", backend="aot_eager") as fast:
        assert fast.compiled == len(encoder_layers(model)) + (feature_encoder(model) is not None)
        before = graphs_compiled()
        for batch, expected in zip(inputs, stock, strict=True):
            assert_equal(gradients(model, batch), expected)
        assert graphs_compiled() - before <= 1
    assert not warned(caplog)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
@pytest.mark.parametrize(("family", "frozen"), [("unispeech stable", True), ("unispeech stable", False), ("wav2vec2-bert", False)])
def test_compiling_goes_with_gradient_checkpointing(family, checkpointing, frozen):
    model = masking(family, mask_time_prob=0.0, mask_feature_prob=0.0)
    if frozen:
        model.freeze_feature_encoder()
    inputs = trial_inputs(model)
    stock = gradients(model, inputs)
    with FastTraining(model, "dynamic", backend="aot_eager") as fast:
        assert fast.compiled
        if checkpointing is not None:
            model.gradient_checkpointing_enable(checkpointing)
        assert_equal(gradients(model, inputs), stock)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["unispeech stable", "quartznet"])
def test_compiled_code_is_equal_in_value(family):
    """With the real compiler: equal in float32, and in bfloat16 as near to float32 as uncompiled code is."""
    model = masking(family, **({"mask_time_prob": 0.0, "mask_feature_prob": 0.0} if family == "unispeech stable" else {}))
    inputs, start, exact = trial_inputs(model, 2.0), copy.deepcopy(model.state_dict()), {}
    for kind in (None, torch.bfloat16):
        with torch.autocast("cpu", kind, enabled=kind is not None):
            model.load_state_dict(start)
            stock = gradients(model, inputs)
            model.load_state_dict(start)
            with FastTraining(model, "dynamic", autocast=kind, trial_seconds=2.0) as fast:
                assert fast.compiled
                graphs = graphs_compiled()
                ours = gradients(model, inputs)
                assert graphs_compiled() == graphs
        exact = exact or stock
        if kind is None:
            assert_equal(ours, stock)
        # over all tensors together: of a few numbers the rounding is luck
        error, stock_error = (math.hypot(*((side[name] - exact[name]).norm() for name in exact)) for side in (ours, stock))
        assert error <= 1.5 * stock_error + 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["unispeech stable", "wav2vec2-bert", "wavlm stable", "quartznet"])
@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_compiles_on_a_gpu(family, mode):
    prepare_device(torch.device("cuda"))
    model = masking(family, **({} if family == "quartznet" else {"mask_time_prob": 0.0, "mask_feature_prob": 0.0})).cuda()
    inputs, start = trial_inputs(model, 40.0), copy.deepcopy(model.state_dict())
    with torch.autocast("cuda", torch.bfloat16):
        stock = gradients(model, inputs)
        model.load_state_dict(start)
        with FastTraining(model, mode, autocast=torch.bfloat16, trial_seconds=40.0) as fast:
            assert fast.compiled
            ours = gradients(model, inputs)
    for name in stock:
        assert (ours[name] - stock[name]).norm() <= 0.1 * max(stock[name].norm(), 1e-2), name
