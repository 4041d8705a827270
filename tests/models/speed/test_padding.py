"""Rows of padded batches against the same rows alone, through plain Transformers models."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_models import CONV, FAMILIES, tiny

from hfasr.models.load import output_lengths
from hfasr.models.speed.fast_inference import FastInference
from hfasr.models.speed.padding import padding_is_exact

ADAPTER = {"add_adapter": True, "num_adapter_layers": 2}
CONFORMER = {"position_embeddings_type": "rotary"}
# what a family's configuration can have beside what tests/tiny_models.py gives it
VARIANTS = [
    ("wav2vec2", ADAPTER),
    ("wav2vec2", ADAPTER | {"output_hidden_size": 24, "adapter_stride": 3}),
    ("wav2vec2 stable", {"adapter_attn_dim": 4}),
    ("data2vec-audio", ADAPTER | {"num_conv_pos_embeddings": 4, "conv_pos_kernel_size": 4}),
    ("wav2vec2-bert", ADAPTER),
    ("wav2vec2-bert", {"position_embeddings_type": "relative"}),
    ("wav2vec2-conformer", ADAPTER | CONFORMER),
    ("wav2vec2-conformer", {"feat_extract_norm": "group", "position_embeddings_type": None}),
    ("hubert stable", {"conv_pos_batch_norm": True}),
    ("sew", {"squeeze_factor": 3}),
    ("sew-d", {"squeeze_factor": 3, "feat_extract_norm": "group"}),
    ("unispeech", {"num_conv_pos_embeddings": 7}),
]
ALL = [(family, {}) for family in [*FAMILIES, *CONV]] + VARIANTS


def shaken(family: str, **changes):
    """Build a tiny model whose biases and statistics are not 0 and 1, as after training; padding that is 0 by chance would leak no more."""
    model, random = tiny(family, **changes), torch.Generator().manual_seed(1)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(("bias", "running_mean")):
            value.data += 0.3 * torch.randn(value.shape, generator=random)
        elif name.endswith("running_var"):
            value.data *= 0.5 + torch.rand(value.shape, generator=random)
    return model


def rows_of(model) -> list[torch.Tensor]:
    """Make inputs of many lengths, among them neighbours: what a stride or a group leaves over is then of every size."""
    random = torch.Generator().manual_seed(0)
    if model.main_input_name == "input_values":
        return [torch.randn(length, generator=random) for length in (9_000, 1_600, 8_680, 8_360, 8_040, 3_333, 7_720, 9_000)]
    bins = 64 if "granite" in model.config.model_type else 16
    return [torch.randn(length, bins, generator=random) for length in (70, 24, 69, 68, 67, 66, 35, 41, 70)]


def padded(rows: list[torch.Tensor], behind: int = 0, value: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows in one tensor, with more padding behind the longest if wanted, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    tensor = torch.full((len(rows), int(lengths.max()) + behind, *rows[0].shape[1:]), value)
    for row, place in zip(rows, tensor, strict=True):
        place[: len(row)] = row
    return tensor, lengths


def batched(model, rows, **how) -> torch.Tensor:
    tensor, lengths = padded(rows, **how)
    mask = torch.arange(tensor.shape[1]) < lengths[:, None]
    return FastInference(model).logits({model.main_input_name: tensor, "attention_mask": mask}, lengths)


@pytest.mark.parametrize(("family", "changes"), ALL, ids=[f"{family} {'-'.join(changes)}" for family, changes in ALL])
@torch.inference_mode()
def test_a_row_gives_what_it_gives_alone(family, changes):
    model = shaken(family, **changes)
    assert padding_is_exact(model)
    rows, furthest = rows_of(model), 0.0
    # the network of a released model, run as its card says: no mask, nothing of ours
    alone = [model(**{model.main_input_name: row[None]}).logits[0].log_softmax(-1) for row in rows]
    frames = output_lengths(model, torch.tensor([len(row) for row in rows])).tolist()
    for behind in (0, 37):
        logits = batched(model, rows, behind=behind)
        for row, count, expected in zip(logits.log_softmax(-1), frames, alone, strict=True):
            assert count == len(expected)
            furthest = max(furthest, (row[:count] - expected).abs().max().item())
    assert furthest < 1e-5


def test_padding_may_hold_anything():
    """What the extractor of a convolutional model leaves past the end does not matter, not even a NaN."""
    for family in CONV:
        model = shaken(family)
        rows = rows_of(model)
        tensor, lengths = padded(rows, behind=5, value=float("nan"))
        mask = torch.arange(tensor.shape[1]) < lengths[:, None]
        with torch.inference_mode():
            logits = FastInference(model).logits({"input_features": tensor, "attention_mask": mask}, lengths)
            torch.testing.assert_close(logits[1, :12], model(input_features=rows[1][None]).logits[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["wav2vec2", "sew", "wavlm", "wav2vec2-conformer", "parakeet_ctc"])
def test_the_model_is_as_it_was(family):
    model = shaken(family, **(ADAPTER if family == "wav2vec2" else {}))
    rows = rows_of(model)

    def state():
        return [(type(module), {name: id(value) for name, value in vars(module).items()}) for module in model.modules()]

    before, attention, expected = state(), model.config._attn_implementation, model(**{model.main_input_name: rows[0][None]}).logits
    batched(model, rows)
    with pytest.raises(RuntimeError):  # in the middle of a batch that no model takes
        FastInference(model).logits({model.main_input_name: torch.zeros(2, 1)}, torch.tensor([1, 1]))
    assert state() == before
    assert model.config._attn_implementation == attention
    assert torch.equal(model(**{model.main_input_name: rows[0][None]}).logits, expected)


def test_two_threads_share_a_model():
    model = shaken("wav2vec2", **ADAPTER)
    network, rows = FastInference(model), rows_of(model)

    def compute(places: list[int]) -> torch.Tensor:
        tensor, lengths = padded([rows[place] for place in places])
        mask = torch.arange(tensor.shape[1]) < lengths[:, None]
        with torch.inference_mode():
            return network.logits({"input_values": tensor, "attention_mask": mask}, lengths)

    orders = [[0, 1, 2], [5, 4], [3, 6, 7, 1], [1]] * 3
    expected = [compute(places) for places in orders]
    with ThreadPoolExecutor(4) as threads:
        for found, one in zip(threads.map(compute, orders), expected, strict=True):
            assert torch.equal(found, one)


def test_who_is_not_known_is_not_called_exact():
    model = tiny("wav2vec2", **ADAPTER, adapter_kernel_size=5)
    assert not padding_is_exact(model)
    model = tiny("unispeech")
    model.config.model_type = "something-new"
    assert not padding_is_exact(model)


SLOW = [
    pytest.param(family, marks=pytest.mark.slow) for family in ("unispeech stable", "wav2vec2", "wavlm stable", "wav2vec2-conformer", "sew")
]


@pytest.mark.parametrize("family", ["quartznet", *SLOW])
@torch.inference_mode()
def test_compiled_is_equal(family):
    """Traced as for compiling: equal in value, one graph for all layers alike and for batches of all shapes, and nothing left behind."""
    torch._dynamo.reset()
    model = shaken(family, **({"num_hidden_layers": 3} if family not in CONV else {}))
    rows, graphs = rows_of(model), []
    expected = batched(model, rows)

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    network = FastInference(model, "dynamic", backend=backend)
    for first in (2, 1, 0):
        tensor, lengths = padded(rows[first:])
        mask = torch.arange(tensor.shape[1]) < lengths[:, None]
        logits = network.logits({model.main_input_name: tensor, "attention_mask": mask}, lengths)
        torch.testing.assert_close(logits[:, :11], expected[first:, :11], atol=1e-5, rtol=0)
        assert 2 <= len(graphs) <= 3
    assert all(module._compiled_call_impl is None for module in model.modules())
    before = len(graphs)
    model(**{model.main_input_name: rows[0][None]})
    assert len(graphs) == before


@torch.inference_mode()
def test_what_does_not_compile_runs_as_it_is(caplog):
    model = shaken("quartznet")
    rows = rows_of(model)
    tensor, lengths = padded(rows)
    inputs = {"input_features": tensor, "attention_mask": torch.arange(tensor.shape[1]) < lengths[:, None]}

    def backend(graph, inputs):
        raise OSError("no compiler")

    torch._dynamo.reset()
    network = FastInference(model, "dynamic", backend=backend)
    for _ in range(2):
        assert torch.equal(network.logits(inputs, lengths), batched(model, rows))
    assert caplog.text.count("goes on without compiling") == 1
    assert "no compiler" in caplog.text


@pytest.mark.parametrize("family", ["unispeech stable", "parakeet_ctc", "granite_speech5_ctc", "quartznet"])
@torch.inference_mode()
def test_the_head_stays_in_float32(family):
    """In bfloat16 logits would be whole multiples of 2 ** -7 of their size."""
    model = shaken(family)
    rows = rows_of(model)
    tensor, lengths = padded(rows)
    inputs = {model.main_input_name: tensor, "attention_mask": torch.arange(tensor.shape[1]) < lengths[:, None]}
    expected = FastInference(model).logits(inputs, lengths)
    logits = FastInference(model, autocast=torch.bfloat16).logits(inputs, lengths)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
    assert (logits - expected)[:, :6].abs().mean() < 0.02 * expected[:, :6].abs().mean() + 0.01


@pytest.mark.parametrize(
    ("family", "compiled"),
    [("wav2vec2", "off"), ("wav2vec2-conformer", "off"), ("sew-d", "off"), pytest.param("wav2vec2", "dynamic", marks=pytest.mark.slow)],
)
@torch.inference_mode()
def test_weights_in_bfloat16(family, compiled):
    """Stand-ins give back the type that they are given, traced or not."""
    model = shaken(family)
    rows = rows_of(model)
    expected = batched(model, rows)
    model.bfloat16()
    tensor, lengths = padded(rows)
    inputs = {"input_values": tensor.bfloat16(), "attention_mask": torch.arange(tensor.shape[1]) < lengths[:, None]}
    network = FastInference(model, compiled, backend="eager")
    found = network.logits(inputs, lengths)
    assert found.dtype == torch.float32
    assert bool(network._compiled) == (compiled != "off")
    assert (found - expected)[:, :10].abs().mean() < 0.1 * expected[:, :10].abs().mean()


@pytest.mark.gpu
@torch.inference_mode()
def test_compiling_begins_when_a_gpu_has_computed_for_a_while():
    model = shaken("unispeech stable").cuda()
    network, rows = FastInference(model), [row.cuda() for row in rows_of(model)]
    tensor, lengths = padded([row.cpu() for row in rows])
    mask = (torch.arange(tensor.shape[1]) < lengths[:, None]).cuda()
    inputs = {"input_values": tensor.cuda(), "attention_mask": mask}
    expected = network.logits(inputs, lengths)
    torch.cuda.synchronize()
    assert 0 < network._clock.seconds() < network._after
    assert not network._compiled
    network._after = network._clock.seconds() / 2
    torch.testing.assert_close(network.logits(inputs, lengths), expected, atol=1e-3, rtol=0)
    assert network._compiled
