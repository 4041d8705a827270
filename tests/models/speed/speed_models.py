"""Every CTC family as small as it goes, and one training step of each to compare."""

import torch
from transformers import AutoConfig, AutoModelForCTC

from hfasr.models import CitrinetConfig, QuartzNetConfig

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 7, "pad_token_id": 0}
_SMALL |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "layerdrop": 0.0}
_STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0}
_MASKS = {"mask_time_prob": 0.5, "mask_time_length": 3, "mask_feature_prob": 0.3, "mask_feature_length": 4}
_WAVEFORM = _SMALL | _STILL | _MASKS | {"conv_dim": (8,) * 7}
_SPECTRA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "num_mel_bins": 16}
_SPECTRA |= {"dropout": 0.0, "dropout_positions": 0.0, "layerdrop": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0}
_BLOCKS = [{"filters": 12, "kernel": 5, "stride": 2}, {"filters": 12, "kernel": 5, "repeat": 2, "residual": True, "squeeze_excite": True}]
FAMILIES = {
    "data2vec-audio": _WAVEFORM | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3},
    "granite_speech5_ctc": {"encoder_config": _SPECTRA | {"vocab_size": 7, "context_size": 8, "subsample_layers": [1]}},
    "hubert": _WAVEFORM | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},
    "lasr_ctc": {"encoder_config": _SPECTRA | {"subsampling_conv_channels": 8}},
    "parakeet_ctc": {"encoder_config": _SPECTRA | {"subsampling_conv_channels": 8}},
    "sew": _WAVEFORM | {"conv_stride": (5, 2, 2, 2, 2, 2, 2), "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "feat_extract_norm": "layer"},
    "sew-d": _WAVEFORM | {"conv_stride": (5, 2, 2, 2, 2, 2, 2), "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "feat_extract_norm": "layer"},
    "unispeech": _WAVEFORM | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},
    "unispeech-sat": _WAVEFORM | {"feat_extract_norm": "layer"},
    "wav2vec2": _WAVEFORM | {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "adapter_attn_dim": 4},
    "wav2vec2-bert": _WAVEFORM | {"feature_projection_input_dim": 16, "conv_depthwise_kernel_size": 3, "conformer_conv_dropout": 0.0},
    "wav2vec2-conformer": _WAVEFORM | {"feat_extract_norm": "layer", "conv_depthwise_kernel_size": 3, "conformer_conv_dropout": 0.0},
    "wavlm": _WAVEFORM | {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "num_buckets": 8},
}
CONV = {"quartznet": QuartzNetConfig, "citrinet": CitrinetConfig}


def build(family: str, **changes):
    torch.manual_seed(0)
    if family in CONV:
        config = CONV[family](blocks=_BLOCKS, vocab_size=7, num_mel_bins=16, **changes)
    else:
        fields = FAMILIES[family]
        fields = {**fields, "encoder_config": {**fields["encoder_config"], **changes}} if "encoder_config" in fields else fields | changes
        config = AutoConfig.for_model(family, **({"vocab_size": 7, "pad_token_id": 0} | fields))
    return AutoModelForCTC.from_config(config)


def gradients(model, inputs):
    """Logits and every gradient of one training step."""
    model.train()
    model.zero_grad()
    logits = model(**inputs).logits
    (logits * torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits)).sum().backward()
    return {"logits": logits.detach()} | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(ours, stock):
    assert ours.keys() == stock.keys()
    for name in stock:
        # sums in another order; the scale is the tensor's, for a bias before a norm has a gradient of nothing but rounding
        scale = max(stock[name].abs().max().item(), 1e-2)
        assert (ours[name] - stock[name]).abs().max().item() < 2e-5 * scale, name
