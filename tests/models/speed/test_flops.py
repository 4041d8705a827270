import time
from types import SimpleNamespace

import pytest
import torch
from tiny_models import EACH_FAMILY, SMALL, inputs_of, tiny
from torch import nn
from transformers import AutoModelForCTC, UniSpeechConfig, UniSpeechForCTC

from hfasr.models.load import encoder_of
from hfasr.models.quartznet import QuartzNetConfig
from hfasr.models.speed.flops import count_flops, peak_flops


def unispeech() -> UniSpeechForCTC:
    return UniSpeechForCTC(UniSpeechConfig(**SMALL, vocab_size=12))


def parts_of_unispeech(samples: int) -> tuple[int, int, int]:
    """FLOPs of one forward, by hand: the first convolution, the other six, everything after them."""
    kernels, strides, frames, convolutions = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2], samples, []
    for place, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
        frames = (frames - kernel) // stride + 1
        convolutions.append(2 * frames * 8 * kernel * (8 if place else 1))
    maps = 8 * 32 + 2 * (4 * 32 * 32 + 2 * 32 * 24) + 32 * 12
    position = 2 * (frames + 1) * 8 * 32 * 16  # an even kernel gives one frame more; 32 channels in groups of 16
    attention = 2 * 2 * 2 * frames * frames * 32
    return convolutions[0], sum(convolutions[1:]), 2 * frames * maps + position + attention


def test_a_transformer_costs_what_its_layers_cost():
    inputs = {"input_values": torch.zeros(1, 32_000)}
    first, convolutions, rest = parts_of_unispeech(32_000)
    model = unispeech()
    # the first convolution needs no gradient of its input, the waveform
    assert count_flops(model, inputs) == 2 * first + 3 * convolutions + 3 * rest
    model.freeze_feature_encoder()
    assert count_flops(model, inputs) == first + convolutions + 3 * rest
    head = count_flops(model, inputs, frozen=encoder_of(model)) - first - convolutions - rest
    assert head == 2 * 99 * 32 * 12  # the gradient of the head's weight, and nothing below
    model.requires_grad_(False)
    assert count_flops(model, inputs) == first + convolutions + rest


def test_a_grouped_convolution_costs_as_much_each_way():
    blocks = [
        {"filters": 16, "kernel": 5, "stride": 2},
        {"filters": 16, "kernel": 7, "repeat": 2, "residual": True},
        {"filters": 24, "kernel": 1, "separable": False},
    ]
    model = AutoModelForCTC.from_config(QuartzNetConfig(blocks, vocab_size=10, num_mel_bins=12))
    frames = 50
    depthwise = 12 * 5 + 2 * 16 * 7
    pointwise = 12 * 16 + 2 * 16 * 16 + 16 * 16 + 16 * 24 + 24 * 10
    first = 2 * frames * 12 * 5
    assert count_flops(model, {"input_features": torch.zeros(1, 100, 12)}) == 3 * 2 * frames * (depthwise + pointwise) - first


def test_a_frozen_part_above_trained_weights_costs_the_gradient_of_its_input():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.Linear(4, 5), nn.Linear(5, 6)

        def forward(self, features):
            return SimpleNamespace(logits=self.high(self.low(features)))

    model, inputs = Model(), {"features": torch.zeros(7, 4)}
    low, high = 2 * 7 * 4 * 5, 2 * 7 * 5 * 6
    assert count_flops(model, inputs) == 2 * low + 3 * high
    assert count_flops(model, inputs, frozen=model.high) == 2 * low + 2 * high
    assert count_flops(model, inputs, frozen=model.low) == low + 2 * high


@pytest.mark.parametrize(
    ("family", "changes"),
    [*((family, {}) for family in EACH_FAMILY), ("wav2vec2-conformer", {"position_embeddings_type": "rotary"})],
)
def test_counting_leaves_a_model_of_any_family_as_it_is(family, changes):
    model = tiny(family, **changes)
    wave = inputs_of(model, rows=1)
    with torch.no_grad():
        before = model(**wave).logits
    model.train()
    state = torch.get_rng_state()
    counted = count_flops(model, {name: value.repeat(1, 3, *[1] * (value.ndim - 2)) for name, value in wave.items()})
    assert counted > 10**6
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None and parameter.device.type == "cpu" for parameter in model.parameters())
    with torch.no_grad():
        assert torch.equal(model.eval()(**wave).logits, before)


def test_layers_compiled_in_place_are_counted_without_compiling():
    model, inputs = unispeech(), {"input_values": torch.zeros(1, 16_000)}
    plain = count_flops(model, inputs)
    for layer in model.unispeech.encoder.layers:
        layer.compile(backend=lambda graph, example: pytest.fail("a graph was compiled"))
    assert count_flops(model, inputs) == plain


def test_the_peak_is_that_of_matrix_products():
    state = torch.get_rng_state()
    peak = peak_flops(torch.device("cpu"), torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    left, right = torch.randn(384, 384), torch.randn(384, 384)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    # other processes of the machine take their part of either measurement
    assert 1 / 10 < 2 * 384**3 / min(seconds) / peak < 10


@pytest.mark.gpu
def test_the_peak_of_a_gpu_is_measured_without_leaving_memory_behind():
    before = torch.cuda.memory_allocated()
    assert peak_flops(torch.device("cuda"), torch.bfloat16) > peak_flops(torch.device("cuda"), torch.float32) > 1e12
    assert torch.cuda.memory_allocated() - before < 2**25  # cuBLAS keeps a workspace
