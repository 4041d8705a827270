"""Models as small as they go: of every family of AutoModelForCTC, and for `load_model`; and what of a training step is compared."""

import torch
from transformers import AutoConfig, AutoModelForCTC, PreTrainedModel

from hfasr.models import CitrinetConfig, QuartzNetConfig

# What makes wav2vec 2.0 and its relatives small; what makes them draw nothing at random; the blocks of a small QuartzNet.
SMALL = {
    "conv_dim": [8] * 7, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
STILL = {
    "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0,
    "final_dropout": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0,
}  # fmt: skip
BLOCKS = [{"filters": 16, "kernel": 11, "stride": 2}, {"filters": 24, "kernel": 5, "repeat": 2, "residual": True}]

_STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
_SQUEEZED = {"feat_extract_norm": "layer", "conv_stride": (5, 2, 2, 2, 2, 2, 2), "conv_kernel": (10, 3, 3, 3, 3, 2, 2)}
_SPECTRA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "num_mel_bins": 16}
_CONFORMER = {"conv_depthwise_kernel_size": 3, "feat_extract_norm": "layer"}
# by the names of Transformers; "stable" is the layout of the large models, with norms before attention
_FIELDS = {
    "data2vec-audio": SMALL | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3},
    "granite_speech5_ctc": {"encoder_config": _SPECTRA | {"vocab_size": 12, "context_size": 8, "subsample_layers": [1]}},
    "hubert": SMALL,
    "hubert stable": SMALL | _STABLE,
    "lasr_ctc": {"encoder_config": _SPECTRA | {"subsampling_conv_channels": 8, "num_key_value_heads": 2}},
    "parakeet_ctc": {"encoder_config": _SPECTRA | {"subsampling_conv_channels": 8, "num_key_value_heads": 2}},
    "sew": SMALL | _SQUEEZED,
    "sew-d": SMALL | _SQUEEZED,
    "unispeech": SMALL,
    "unispeech stable": SMALL | _STABLE,
    "unispeech-sat": SMALL,
    "unispeech-sat stable": SMALL | _STABLE,
    "wav2vec2": SMALL,
    "wav2vec2 stable": SMALL | _STABLE,
    "wav2vec2-bert": SMALL | _CONFORMER | {"feature_projection_input_dim": 16, "left_max_position_embeddings": 4,
                                           "right_max_position_embeddings": 4},
    "wav2vec2-conformer": SMALL | _CONFORMER,
    "wavlm": SMALL,
    "wavlm stable": SMALL | _STABLE | {"num_buckets": 8},
}  # fmt: skip
FAMILIES = [*_FIELDS]
# each family once, in the layout that is told where rows are padded
EACH_FAMILY = [family for family in FAMILIES if f"{family} stable" not in FAMILIES]

CONV = {"quartznet": QuartzNetConfig, "citrinet": CitrinetConfig}
_CONV_BLOCKS = [
    {"filters": 12, "kernel": 5, "stride": 2},
    {"filters": 12, "kernel": 5, "repeat": 2, "residual": True, "squeeze_excite": True},
]


def tiny(family: str, **changes) -> PreTrainedModel:
    """Build a model of a family with random weights, in evaluation mode.

    Args:
        family: One of FAMILIES or CONV.
        changes: Fields of its configuration, or of its encoder's where that has one of its own.
    """
    torch.manual_seed(0)
    if family in CONV:
        config = CONV[family](blocks=_CONV_BLOCKS, vocab_size=12, num_mel_bins=16, **changes)
    else:
        fields = _FIELDS[family]
        fields = {"encoder_config": fields["encoder_config"] | changes} if "encoder_config" in fields else fields | changes
        config = AutoConfig.for_model(family.partition(" ")[0], **{"vocab_size": 12, "pad_token_id": 0, "output_hidden_size": 32} | fields)
    return AutoModelForCTC.from_config(config).eval()


def masking(family: str, **changes) -> PreTrainedModel:
    """Build a model that draws masks over frames and features in training, and nothing else; others than `tiny` builds."""
    if family in CONV:
        return tiny(family, **changes)
    masks = {"mask_time_prob": 0.5, "mask_time_length": 3, "mask_feature_prob": 0.3, "mask_feature_length": 4}
    still = STILL | {"dropout": 0.0, "dropout_positions": 0.0, "conformer_conv_dropout": 0.0}
    return tiny(family, **still | (masks if "encoder_config" not in _FIELDS[family] else {}) | changes)


def inputs_of(model: PreTrainedModel, rows: int = 2) -> dict[str, torch.Tensor]:
    """Make half a second of noise for each row, as the model's main input."""
    random = torch.Generator().manual_seed(0)
    if model.main_input_name == "input_values":
        return {"input_values": torch.randn(rows, 8_000, generator=random)}
    return {"input_features": torch.randn(rows, 48, 64 if "granite" in model.config.model_type else 16, generator=random)}


def gradients(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return logits and every gradient of one training step."""
    model.train()
    model.zero_grad()
    logits = model(**inputs).logits
    (logits * torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits)).sum().backward()
    return {"logits": logits.detach()} | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(ours: dict[str, torch.Tensor], stock: dict[str, torch.Tensor]) -> None:
    """Compare what `gradients` returned, in float32."""
    assert ours.keys() == stock.keys()
    for name in stock:
        # sums in another order; the scale is the tensor's, for a bias before a norm has a gradient of nothing but rounding
        scale = max(stock[name].abs().max().item(), 1e-2)
        assert (ours[name] - stock[name]).abs().max().item() < 2e-5 * scale, name
