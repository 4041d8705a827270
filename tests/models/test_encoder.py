"""QuartzNet and Citrinet against PyTorch's CTC loss and their own definition; test_nemo.py has NeMo's tensors."""

import copy

import pytest
import torch
from torch.nn import functional

from hfasr.models.blocks import MaskedConv, SqueezeExcite, spec_augment
from hfasr.models.citrinet import CitrinetConfig, CitrinetForCTC, scaled_kernel
from hfasr.models.mel import MelFeatureExtractor
from hfasr.models.quartznet import QuartzNetConfig, QuartzNetForCTC, QuartzNetModel

CUTOUT = {"freq_masks": 2, "freq_width": 8, "time_masks": 2, "time_width": 0.1, "rect_masks": 3, "rect_freq": 10, "rect_time": 20}


def citrinet_blocks(**options) -> list[dict]:
    """A Citrinet of every kind of block: strided, with and without residual branch."""
    blocks = [
        {"filters": 12, "kernel": 5},
        {"filters": 12, "kernel": 7, "repeat": 2, "residual": True, "stride": 2, "stride_last": True},
        {"filters": 16, "kernel": 3, "repeat": 3, "residual": True, "se_reduction": 4},
        {"filters": 20, "kernel": 5, "repeat": 2, "residual": True, "stride": 2, "stride_last": True},
        {"filters": 20, "kernel": 11},
    ]
    return [{"squeeze_excite": True, **block, **options} for block in blocks]


@pytest.fixture(params=["quartznet", "citrinet"])
def model(request, small_blocks):
    torch.manual_seed(0)
    options = {"vocab_size": 7, "pad_token_id": 0, "num_mel_bins": 64}
    if request.param == "quartznet":
        return QuartzNetForCTC(QuartzNetConfig(blocks=small_blocks, **options)).eval()
    return CitrinetForCTC(CitrinetConfig(blocks=citrinet_blocks(), **options)).eval()


@pytest.fixture(scope="module")
def batch(waveforms):
    return MelFeatureExtractor()(waveforms, sampling_rate=16_000, return_tensors="pt")


@pytest.mark.parametrize(("outputs", "parameters"), [(29, 18_924_381), (43, 18_938_731)])
def test_parameters_of_15x5(outputs, parameters):
    with torch.device("meta"):
        model = QuartzNetForCTC(QuartzNetConfig.from_name("15x5", vocab_size=outputs))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(("name", "outputs", "millions"), [("5x1", 29, 2.57), ("5x3", 29, 4.64), ("10x5", 29, 12.82), ("small", 43, 0.70)])
def test_parameters_of_the_other_names(name, outputs, millions):
    with torch.device("meta"):
        model = QuartzNetForCTC(QuartzNetConfig.from_name(name, vocab_size=outputs))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize(
    ("name", "outputs", "parameters"),
    [("1024-gamma-0.25", 5001, 145_299_737), ("1024-gamma-0.25", 1025, 141_224_337), ("512", 1025, 36_994_321), ("384", 257, 20_980_241)],
)
def test_parameters_of_citrinets(name, outputs, parameters):
    with torch.device("meta"):
        model = CitrinetForCTC(CitrinetConfig.from_name(name, vocab_size=outputs))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert (model.config.inputs_to_logits_ratio, model.config.num_mel_bins) == (1280, 80)


def test_padding_changes_nothing(model, batch):
    model = model.double()
    features, mask = batch.input_features.double(), batch.attention_mask
    with torch.no_grad():
        padded = model(functional.pad(features, (0, 0, 0, 37), value=torch.nan), functional.pad(mask, (0, 37))).logits
        for row, frames in enumerate(mask.sum(-1).tolist()):
            alone = model(features[row : row + 1, :frames]).logits[0]
            assert (padded[row, : len(alone)] - alone).abs().max() < 1e-10


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kernel", "dilation", "frames"), [(11, 2, 40), (11, 2, 41), (5, 3, 7), (87, 2, 10), (3, 2, 1)])
def test_dilated_depthwise_convolution_equals_pytorchs(kernel, dilation, frames, training):
    torch.manual_seed(0)
    convolution = MaskedConv(8, 8, kernel, dilation=dilation, groups=8).train(training)
    hidden = torch.randn(2, 8, frames)
    expected = functional.conv1d(hidden, convolution.weight, None, 1, dilation * (kernel - 1) // 2, dilation, 8)
    assert torch.allclose(convolution(hidden[:, :, None], None)[0][:, :, 0], expected, atol=1e-6)


def test_lengths_are_those_of_the_logits(small_blocks):
    blocks = [{**small_blocks[0], "stride": 3}, *small_blocks[1:], {"filters": 4, "kernel": 3, "stride": 2, "repeat": 2}]
    model = QuartzNetModel(QuartzNetConfig(blocks=blocks)).eval()
    assert model.config.inputs_to_logits_ratio == 160 * 3 * 2 * 2
    for frames in range(1, 30):
        hidden = model(torch.zeros(1, frames, 64)).last_hidden_state
        assert hidden.shape == (1, int(model._get_feat_extract_output_lengths(torch.tensor(frames))), 4)


def test_hidden_states(model, batch):
    outputs = model(**batch, output_hidden_states=True)
    assert [state.shape[2] for state in outputs.hidden_states] == [64, *(block["filters"] for block in model.config.blocks)]
    assert torch.equal(outputs.hidden_states[0], batch.input_features)
    length = model._get_feat_extract_output_lengths(batch.attention_mask.sum(-1))
    for row, frames in enumerate(length):
        assert torch.equal(model.lm_head(outputs.hidden_states[-1])[row, :frames], outputs.logits[row, :frames])
        assert (outputs.logits[row, frames:].argmax(-1) == model.config.pad_token_id).all()
    assert model(**batch).hidden_states is None


def test_tuple_output(model, batch):
    expected = model(**batch).logits
    assert torch.equal(model(**batch, return_dict=False)[0], expected)
    model.config.return_dict = False
    assert torch.equal(model(**batch)[0], expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_is_that_of_other_ctc_heads(model, batch, reduction):
    model.config.ctc_loss_reduction = reduction
    labels = torch.tensor([[1, 2, 2, 3], [4, 5, -100, -100], [6, 1, 1, -100]])
    outputs = model(**batch, labels=labels)
    lengths = model._get_feat_extract_output_lengths(batch.attention_mask.sum(-1)).tolist()
    rows = []
    for row, (length, target) in enumerate(zip(lengths, labels, strict=True)):
        target = target[target >= 0]
        log_probs = outputs.logits[row, :length].log_softmax(-1)
        loss = functional.ctc_loss(log_probs, target[None], torch.tensor([length]), torch.tensor([len(target)]), reduction="sum")
        rows.append(loss / len(target) if reduction == "mean" else loss)
    expected = sum(rows) / 3 if reduction == "mean" else sum(rows)
    assert outputs.loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_blank_need_not_be_zero_and_infinity_can_be_zeroed(small_blocks, batch):
    config = QuartzNetConfig(blocks=small_blocks, vocab_size=7, pad_token_id=6, ctc_zero_infinity=True)
    model = QuartzNetForCTC(config)
    too_long = torch.ones(3, 200, dtype=torch.long)
    assert model(**batch, labels=too_long).loss == 0
    labels = torch.tensor([[0, 1], [0, -100], [2, 6]])
    with_ignored = labels.masked_fill(labels == 6, -100)
    model.eval()
    assert model(**batch, labels=labels).loss == model(**batch, labels=with_ignored).loss


@pytest.mark.parametrize("every", [1, 2])
def test_gradient_checkpointing_changes_nothing(model, batch, every):
    labels = torch.tensor([[1, 2], [3, 4], [5, 6]])
    plain, checkpointed = model.train(), copy.deepcopy(model).train()
    checkpointed.activation_checkpointing_enable(every_n_layers=every)
    for each in (plain, checkpointed):
        each(**batch, labels=labels).loss.backward()
    for (name, expected), actual in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.allclose(expected.grad, actual.grad, atol=1e-6), name
    # the second forward pass of a checkpointed block must not move the running statistics further
    for (name, expected), actual in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert name.endswith("num_batches_tracked") or torch.allclose(expected, actual, atol=1e-6), name
    checkpointed.activation_checkpointing_disable()
    assert {module.momentum for module in checkpointed.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {0.1}


def test_initial_weights(small_blocks):
    model = QuartzNetForCTC(QuartzNetConfig(blocks=small_blocks))
    depthwise = model.quartznet.blocks[1].layers[0].depthwise.weight
    pointwise = model.quartznet.blocks[1].layers[0].pointwise.weight
    # Glorot and Bengio 2010: uniform within sqrt(6 / (fan in + fan out))
    for weight, bound in ((depthwise, (6 / (7 + 12 * 7)) ** 0.5), (pointwise, (6 / 24) ** 0.5)):
        assert 0.8 * bound < weight.abs().max() <= bound
    assert not model.lm_head.bias.any()
    assert {module.eps for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {1e-3}


@pytest.fixture
def augmented(small_blocks):
    """Both models with all that is random in training."""
    options = {"dropout": 0.1, "num_mel_bins": 64, **CUTOUT}
    quartznet = QuartzNetForCTC(QuartzNetConfig(blocks=[*small_blocks[:2], small_blocks[3]], **options))
    return [quartznet, CitrinetForCTC(CitrinetConfig(blocks=citrinet_blocks(se_context=10)[1:4:2], **options))]


def test_forward_asks_nothing_of_the_device(augmented):
    # a meta tensor has no values: any .item() or data-dependent shape would raise
    for model in augmented:
        model = model.to("meta").train()
        with torch.device("meta"):
            logits = model(torch.zeros(2, 100, 64), torch.ones(2, 100, dtype=torch.long)).logits
        assert logits.shape == (2, 100 * 160 // model.config.inputs_to_logits_ratio, 29)


@pytest.mark.parametrize(("family", "training"), [(1, True), (0, False)])
def test_compiles_as_one_graph(augmented, batch, family, training):
    model = augmented[family].train(training)
    # "eager" runs what was traced as it is: a graph break raises, a wrong trace differs
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    logits = []
    for each in (model, compiled):
        torch.manual_seed(3)
        with torch.no_grad():
            logits.append(each(**batch).logits)
    torch._dynamo.reset()
    assert torch.allclose(*logits, atol=1e-5)


def test_half_precision_is_near(model, batch):
    with torch.no_grad():
        expected = model(**batch).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(**batch).logits
        halved = copy.deepcopy(model).bfloat16()
        pure = halved(batch.input_features.bfloat16(), batch.attention_mask).logits
    assert mixed.dtype == pure.dtype == torch.bfloat16
    for logits in (mixed, pure):
        assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_squeeze_excitation_is_its_definition():
    torch.manual_seed(0)
    module = SqueezeExcite(8, 4).double()
    hidden, lengths = torch.randn(3, 8, 1, 9, dtype=torch.double), [9, 4, 1]
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None])[:, None, None].double()
    found = module(hidden, mask)
    for row, length in enumerate(lengths):
        mean = hidden[row, :, 0, :length].mean(-1)
        gate = 1 / (1 + torch.exp(-(module.up.weight @ (module.down.weight @ mean).clamp(min=0))))
        assert torch.allclose(found[row, :, 0, :length], hidden[row, :, 0, :length] * gate[:, None])
    assert torch.allclose(module(hidden[:1], None), found[:1])


def test_context_of_the_mean_is_a_random_window_in_training_only():
    """The mean of a ramp over `context` frames tells where the window was."""
    module = SqueezeExcite(1, 1, context=4)
    for weight in (module.down.weight, module.up.weight):
        torch.nn.init.ones_(weight)
    ramp = torch.arange(20.0)[None, None, None].expand(300, 1, 1, 20) / 20
    mask = (torch.arange(20) < torch.tensor([12, 3]).repeat(150)[:, None])[:, None, None].float()
    means = {}
    for training in (True, False):
        module.train(training)
        gate = module(torch.ones_like(ramp) * ramp, mask)[..., 1] / ramp[..., 1]
        means[training] = torch.logit(gate.flatten()) * 20
    starts = means[True][0::2] - 1.5
    assert torch.allclose(starts, starts.round(), atol=1e-3)
    assert set(starts.round().int().tolist()) == set(range(9))
    for found, expected in ((means[True][1::2], 1.0), (means[False][0::2], 5.5), (means[False][1::2], 1.0)):
        assert torch.allclose(found, torch.full_like(found, expected), atol=1e-3)


def test_kernels_of_gamma():
    # parity_facts.md
    for kernel, scaled in {11: 3, 13: 3, 15: 3, 17: 5, 25: 7, 39: 9, 41: 11}.items():
        assert scaled_kernel(kernel, 0.25) == scaled
    config = CitrinetConfig.from_name("1024", kernel_size_factor=0.25)
    assert config.blocks == CitrinetConfig.from_name("1024-gamma-0.25").blocks == CitrinetConfig().blocks
    assert [scaled_kernel(kernel, 1.0) for kernel in (11, 12)] == [11, 13]


def test_augmentation_is_reproducible_and_for_training_only(small_blocks, batch):
    model = QuartzNetForCTC(QuartzNetConfig(blocks=small_blocks, **CUTOUT))
    encoder, seen = model.quartznet, []
    encoder.blocks[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].squeeze(2).transpose(1, 2)))
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model.train()(**batch)
    model.eval()(**batch)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], batch.input_features)
    assert torch.equal(seen[3], batch.input_features)


def test_augmentation_is_off_by_default(model, batch):
    state = torch.get_rng_state()
    model.train()(**batch)
    assert torch.equal(state, torch.get_rng_state())


def masked_cells(lengths, **options):
    off = {"freq_masks": 0, "freq_width": 1, "time_masks": 0, "time_width": 1, "rect_masks": 0, "rect_freq": 1, "rect_time": 1}
    features = torch.ones(len(lengths), 100, 64)
    return spec_augment(features, torch.tensor(lengths), **{**off, **options}) == 0


def test_masks_keep_their_sizes_and_places():
    torch.manual_seed(0)
    lengths = [100, 40, 7] * 300
    time = masked_cells(lengths, time_masks=1, time_width=10)
    assert torch.equal(time.any(-1), time.all(-1))
    counts = time.any(-1).sum(-1)
    assert counts[torch.tensor(lengths) > 7].unique().tolist() == list(range(11))
    assert all(not row[length:].any() for row, length in zip(time, lengths, strict=True))
    share = masked_cells(lengths, time_masks=1, time_width=0.1).any(-1).sum(-1)
    assert [int(share[i::3].max()) for i in range(3)] == [10, 4, 0]
    freq = masked_cells(lengths, freq_masks=1, freq_width=5)
    assert freq.any(1).sum(-1).unique().tolist() == list(range(6))
    rect = masked_cells(lengths, rect_masks=1, rect_freq=9, rect_time=20)
    heights, widths = rect.any(1).sum(-1), rect.any(2).sum(-1)
    assert torch.equal(rect.sum((1, 2)), heights * widths)
    assert int(heights.max()) == 9
    assert int(widths.max()) == 20
    # every frame and bin is reached, the edges too
    assert time[::3].any(-1).any(0).all()
    assert freq.any(1).any(0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [{"filters": 8, "kernel": 4}]}, "block 0 has an even kernel of 4"),
        ({"blocks": [{"filters": 8, "kernel": 3, "se": True}]}, "block 0 has filters, kernel, se"),
        ({"blocks": [{"kernel": 3}]}, "needs filters and kernel"),
        ({"blocks": [{"filters": 8, "kernel": 3, "stride": 2, "repeat": 2, "residual": True}]}, "strides 2 times by 2, but its residual"),
        ({"ctc_loss_reduction": "none"}, "expected 'mean' or 'sum'"),
        ({"blocks": []}, "blocks is empty"),
        ({"dropout": 3}, "dropout is 3, expected a share"),
        ({"dropout": "little"}, "dropout is 'little', expected a share"),
        ({"time_width": 2.5}, r"time_width is 2\.5, expected a share"),
        ({"time_width": "all"}, "time_width is 'all', expected a whole number"),
        ({"freq_masks": -1}, "freq_masks is -1, expected a whole number"),
        ({"rect_masks": "many"}, "rect_masks is 'many', expected a whole number"),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises(ValueError, match=message):
        QuartzNetConfig(**options)


def test_unknown_name():
    with pytest.raises(ValueError, match="no QuartzNet is named '15x3'"):
        QuartzNetConfig.from_name("15x3")
