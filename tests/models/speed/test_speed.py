"""What FastTraining puts in the place of Transformers' own: equal in value for every family, and without a hidden wait for the device."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import CONV, EACH_FAMILY, assert_equal, gradients, masking
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES
from transformers.models.unispeech.modeling_unispeech import _compute_mask_indices

from hfasr.models.speed.fast_training import FastTraining
from hfasr.models.speed.masks import draw_spans, feature_vector_mask
from hfasr.models.speed.trial import trial_inputs


def test_every_family_is_tested():
    """A family that Transformers adds is missed here first."""
    assert {family.removesuffix(" stable") for family in EACH_FAMILY} >= set(MODEL_FOR_CTC_MAPPING_NAMES)


def stock_masks(shape, mask_prob, mask_length, attention_mask=None, min_masks=0):
    """Masks that follow from the shape alone, for both sides of a comparison."""
    return np.random.default_rng(shape[0] * 1000 + shape[1]).random(shape) < 0.3


def our_masks(lengths, places, share, width, least=0, generator=None):
    return torch.from_numpy(stock_masks((len(lengths), places), share, width))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("family", EACH_FAMILY)
def test_equal_in_value_to_transformers(family, padded, monkeypatch):
    """Given the same masked frames, logits and gradients in training, and logits in evaluation, are Transformers'."""
    # WavLM's configuration lacks a field that Transformers' own masks of features ask for
    model = masking(family, **{"wavlm stable": {"mask_feature_prob": 0.0}, "wav2vec2 stable": {"adapter_attn_dim": 4}}.get(family, {}))
    monkeypatch.setattr("hfasr.models.speed.masks.draw_spans", our_masks)
    module = __import__(type(model).__module__, fromlist=["_"])
    monkeypatch.setattr(module, "_compute_mask_indices", stock_masks, raising=False)
    torch.manual_seed(1)
    inputs = trial_inputs(model)
    if not padded:
        inputs.pop("attention_mask")
    start = copy.deepcopy(model.state_dict())  # batch norms move
    stock = gradients(model, inputs)
    stock_eval = model.eval()(**inputs).logits.detach()
    model.load_state_dict(start)
    with FastTraining(model) as fast:
        assert_equal(gradients(model, inputs), stock)
        torch.testing.assert_close(model.eval()(**inputs).logits, stock_eval, atol=2e-5, rtol=2e-4)
    assert not fast.kept
    assert any(name in "\n".join(fast.replaced) for name in ("masks", "attention")) or family == "granite_speech5_ctc"


@pytest.mark.parametrize(
    ("family", "kind"), [("wav2vec2-bert", "rotary"), ("wav2vec2-conformer", "rotary"), ("wav2vec2-conformer", "relative")]
)
def test_positions_equal_in_value(family, kind):
    """The other kinds of positions, with which pretrained conformers come, are Transformers' too."""
    model = masking(family, position_embeddings_type=kind, mask_time_prob=0.0, mask_feature_prob=0.0)
    inputs = trial_inputs(model)
    stock = gradients(model, inputs)
    with FastTraining(model) as fast:
        assert ("rotary positions" in fast.replaced) == (kind == "rotary")
        assert_equal(gradients(model, inputs), stock)


def test_logarithmic_positions_of_sew_d_equal_in_value():
    """Distances on both sides of every bucket's edge fall into Transformers' buckets."""
    from transformers.models.sew_d.modeling_sew_d import build_relative_position

    model = masking("sew-d", position_buckets=16, max_position_embeddings=64)
    encoder = model.sew_d.encoder.encoder
    with FastTraining(model):
        ours = encoder.get_rel_pos(torch.zeros(1, 300, 32))
    assert torch.equal(ours, build_relative_position(300, 300, 16, encoder.max_relative_positions))


def test_frames_of_rows_that_are_too_short():
    """Rows of few samples or none attend as Transformers has them attend."""
    model = masking("wav2vec2 stable").wav2vec2
    mask = torch.arange(3000) < torch.tensor([[3000], [1500], [400], [399], [7], [0]])
    frames = int(model._get_feat_extract_output_lengths(torch.tensor(3000)))
    stock = model._get_feature_vector_attention_mask(frames, mask.long(), add_adapter=False)
    assert torch.equal(feature_vector_mask(model, frames, mask, add_adapter=False), stock)


@pytest.mark.parametrize(("share", "width", "least"), [(0.65, 4, 0), (0.1, 5, 2), (0.9, 1, 0)])
def test_spans_follow_the_law_of_transformers(share, width, least):
    """Over many draws, each frame is masked as often, and each row has as many masked frames, as by `_compute_mask_indices`."""
    lengths, places, times = [40, 23, 11, 3], 40, 1000
    mask = np.arange(places) < np.array(lengths)[:, None]
    np.random.seed(0)  # noqa: NPY002 (Transformers draws from it)
    stock = np.stack([_compute_mask_indices((4, places), share, width, torch.from_numpy(mask), least) for _ in range(times)])
    # a row without a span gets one on its last padded frame, which no model looks at
    stock &= mask
    torch.manual_seed(0)
    ours = np.stack([draw_spans(torch.tensor(lengths), places, share, width, least).numpy() for _ in range(times)])
    assert not (ours & ~mask).any()
    deviation = np.sqrt(0.5 / times)  # of a difference of two shares, at most
    assert np.abs(ours.mean(0) - stock.mean(0)).max() < 5 * deviation
    for row in range(4):
        ours_count, stock_count = (np.bincount(draws[:, row].sum(-1), minlength=places + 1) / times for draws in (ours, stock))
        assert np.abs(ours_count - stock_count).max() < 5 * deviation


def test_span_counts():
    """With spans of one frame the masked frames are the count itself: rounded alike in all rows, never more than fit."""
    for seed in range(30):
        torch.manual_seed(seed)
        counts = draw_spans(torch.tensor([30, 30, 10, 2, 0]), 30, 0.33, 1, 3).sum(-1).tolist()
        assert counts[0] == counts[1]
        assert counts[0] in (9, 10)
        assert counts[2:] == [counts[2], 2, 0]
        assert counts[2] in (3, 4)
    assert not draw_spans(torch.tensor([5, 4]), 5, 0.9, 10).any()  # no span fits


def test_masks_come_from_torchs_generator():
    """A resumed run restores torch's generators, so that its masks go on where they were."""
    model = masking("unispeech stable").train()
    inputs = trial_inputs(model)
    with FastTraining(model):
        drawn = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            drawn.append(model(**inputs).logits)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


class Waits(TorchDispatchMode):
    """Collect operators for which the host waits for a device: values read back, sizes that depend on values, copies between them."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor) and args[0].device.type == "cpu":
            return 0.5  # LayerDrop draws on the host
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique2", "_unique2", "item"):
            self.found.append(name)
        if name in ("_to_copy", "copy_") and len({t.device.type for t in tensors}) > 1:
            self.found.append("copy")
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            boolean = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
            number = name != "index" and args[2].numel() == 1 and args[2].device.type == "cpu"
            # by a boolean mask a number is filled in at once; by places it is copied to the device first
            if boolean != number and (boolean or number):
                self.found.append(f"{name} {'by a mask' if boolean else 'of a number'}")
        return out


def forward_on_fake_gpu(model):
    """Run a forward pass in training on CUDA tensors without values, as torch.compile makes them; return what the host waited for."""
    waits = Waits()
    with FakeTensorMode():
        weights = {
            name: torch.empty(t.shape, dtype=t.dtype, device="cuda", requires_grad=t.requires_grad)
            for name, t in [*model.named_parameters(), *model.named_buffers()]
        }
        inputs = {name: torch.empty(t.shape, dtype=t.dtype, device="cuda") for name, t in trial_inputs(model).items()}
        try:
            with waits:
                torch.func.functional_call(model.train(), weights, (), inputs)
        except torch._subclasses.fake_tensor.DataDependentOutputException as error:
            waits.found.append(str(error))
    return waits.found


@pytest.mark.parametrize("family", [*EACH_FAMILY, *CONV])
def test_the_host_never_waits(family):
    """Forward and backward ask the device for no value, and send it none but those of the batch."""
    model = masking(family)
    with FastTraining(model):
        assert forward_on_fake_gpu(model) == []
        logits = model(**trial_inputs(model)).logits
        with Waits() as waits:  # on the CPU, for a backward pass takes a GPU that is there
            logits.sum().backward()
    assert waits.found == []


def test_the_host_waits_for_transformers():
    """The check finds what it is there to find."""
    assert forward_on_fake_gpu(masking("wav2vec2 stable"))
    assert "copy" in forward_on_fake_gpu(masking("sew"))
    with Waits() as waits:
        masking("unispeech stable").train()(**trial_inputs(masking("unispeech stable"))).logits.sum().backward()
    assert {"_local_scalar_dense", "index_put_ by a mask", "index_put_ of a number"} <= set(waits.found)


@pytest.mark.gpu
@pytest.mark.parametrize("family", [*EACH_FAMILY, *CONV])
def test_the_host_never_waits_for_a_gpu(family):
    """CUDA itself tells of a wait, in a second step, when memory is there and kernels are chosen."""
    model = masking(family).cuda().train()
    inputs = trial_inputs(model, 4.0)
    with FastTraining(model):
        for mode in ("default", "error"):
            torch.cuda.set_sync_debug_mode(mode)
            try:
                with torch.autocast("cuda", torch.bfloat16):
                    logits = model(**inputs).logits
                logits.float().sum().backward()
            finally:
                torch.cuda.set_sync_debug_mode("default")
