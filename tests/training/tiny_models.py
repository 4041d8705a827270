"""Every family of AutoModelForCTC, as small as it goes."""

import torch
from transformers import AutoConfig, AutoModelForCTC, PreTrainedModel

_SHARED = {
    "vocab_size": 12, "pad_token_id": 0, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "output_hidden_size": 32,
}  # fmt: skip
_CONFORMER = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 24,
    "num_mel_bins": 16, "subsampling_conv_channels": 8,
}  # fmt: skip
_OWN = {
    "wav2vec2-conformer": {"conv_depthwise_kernel_size": 5},
    "wav2vec2-bert": {"conv_depthwise_kernel_size": 5, "feature_projection_input_dim": 32, "left_max_position_embeddings": 4,
                      "right_max_position_embeddings": 4},
    "sew": {"squeeze_factor": 2, "conv_dim": [8] * 13},
    "sew-d": {"squeeze_factor": 2, "conv_dim": [8] * 13},
    "parakeet_ctc": {"encoder_config": _CONFORMER, "vocab_size": 12, "pad_token_id": 0},
    "lasr_ctc": {"encoder_config": _CONFORMER, "vocab_size": 12, "pad_token_id": 0},
}  # fmt: skip
_ALONE = ("parakeet_ctc", "lasr_ctc")
_STABLE = ("wav2vec2", "hubert", "unispeech", "unispeech-sat", "wavlm")

FAMILIES = [
    *_STABLE, *(f"{name} stable" for name in _STABLE), "data2vec-audio", "sew", "sew-d", "wav2vec2-conformer", "wav2vec2-bert", *_ALONE,
]  # fmt: skip


def tiny(family: str, **changes) -> PreTrainedModel:
    """Build a model of a family with random weights, in evaluation mode.

    Args:
        family: One of FAMILIES.
        changes: Fields of its configuration.
    """
    name, _, stable = family.partition(" ")
    fields = {**({} if name in _ALONE else _SHARED), **_OWN.get(name, {}), **({"do_stable_layer_norm": True} if stable else {}), **changes}
    torch.manual_seed(0)
    return AutoModelForCTC.from_config(AutoConfig.for_model(name, **fields)).eval()


def inputs_of(model: PreTrainedModel, rows: int = 2) -> dict[str, torch.Tensor]:
    """Make half a second of noise for each row, as the model's main input."""
    random = torch.Generator().manual_seed(0)
    if model.main_input_name == "input_values":
        return {"input_values": torch.randn(rows, 8_000, generator=random)}
    return {"input_features": torch.randn(rows, 48, 32 if model.config.model_type == "wav2vec2-bert" else 16, generator=random)}
