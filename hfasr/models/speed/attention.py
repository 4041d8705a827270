"""Attention whose mask costs nothing, and positions that are not computed on the host.

Transformers' own way with a mask asks the device whether anything is padded, which makes the host wait, and writes out
(B, 1, T, T). Each stand-in is equal in value to what it stands in for.

Shapes: B utterances, T frames, H hidden size, N heads.
"""

import functools
import math
import types

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function, sdpa_mask
from transformers.modeling_utils import AttentionInterface

# By this name of an attention implementation configurations find what follows; it is not saved with them.
KEY_MASK_SDPA = "hfasr_sdpa"


def key_mask(*, mask_function, attention_mask: torch.Tensor | None = None, **how) -> torch.Tensor | None:
    """Return the mask of scaled dot product attention, (B, 1, 1, T), True on keys to attend to; None without padding.

    Args:
        mask_function: what Transformers restricts attention by, besides padding.
        attention_mask: (B, T) bool; None when every frame is valid.
        how: the other arguments of Transformers' `sdpa_mask`, which makes the mask where attention is restricted.
    """
    if mask_function is not bidirectional_mask_function:
        return sdpa_mask(mask_function=mask_function, attention_mask=attention_mask, **how)
    # fused kernels take no other layout, and a compiler makes a graph for each
    return None if attention_mask is None else attention_mask.contiguous()[:, None, None, :]


def set_key_masks(model: PreTrainedModel) -> str | None:
    """Let a model attend with `key_mask`, if it uses PyTorch's scaled dot product attention by Transformers' interface.

    Returns:
        The name of the implementation that it had, for `set_attn_implementation`; None if nothing was changed.
    """
    before = model.config._attn_implementation
    if before != "sdpa" or needs_no_key_masks(model):  # WavLM and SEW-D, which attend their own way, are not "sdpa"
        return None
    AttentionInterface.register(KEY_MASK_SDPA, sdpa_attention_forward)
    AttentionMaskInterface.register(KEY_MASK_SDPA, key_mask)
    model.set_attn_implementation(KEY_MASK_SDPA)
    return before


def needs_no_key_masks(model: nn.Module) -> bool:
    """Tell whether a model makes no mask that costs anything: Granite Speech attends in blocks."""
    return any(getattr(getattr(module, "config", None), "model_type", "").startswith("granite_speech5") for module in model.modules())


@functools.cache
def with_fused_attention(attention: type[nn.Module]) -> type[nn.Module]:
    """Return WavLM's attention with PyTorch's fused kernel in place of a matrix of weights that nobody reads.

    Positions are those of Transformers 5.23; before it they were made on the host, and copied.
    """

    # a class, not a method for each layer: one compiled layer then serves them all
    def fused(self, hidden_states, attention_mask, gated_position_bias):
        rows, frames, _ = hidden_states.shape
        query, key, value = (
            project(hidden_states).view(rows, frames, self.num_heads, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = gated_position_bias.view(rows, self.num_heads, frames, frames).to(query.dtype)
        if attention_mask is not None:
            bias = bias.masked_fill(attention_mask.ne(1)[:, None, None, :], -math.inf)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=self.scaling)
        return self.out_proj(mixed.transpose(1, 2).reshape(rows, frames, self.embed_dim)), None

    def positions(self, query_length, key_length):
        device = self.rel_attn_embed.weight.device
        distance = torch.arange(key_length, device=device) - torch.arange(query_length, device=device)[:, None]
        return self.rel_attn_embed(self._relative_positions_bucket(distance)).permute(2, 0, 1)

    methods = {"torch_multi_head_self_attention": fused, "compute_bias": positions}
    return types.new_class(attention.__name__, (attention,), exec_body=lambda names: names.update(methods))


def relative_positions(encoder: nn.Module, hidden_states: torch.Tensor, query_states=None, relative_pos=None) -> torch.Tensor | None:
    """Return SEW-D's relative positions, in logarithmic buckets, (1, T, T): `build_relative_position` without copies to the device.

    Follows transformers/models/sew_d/modeling_sew_d.py (DeBERTa, He et al., 2021, arXiv:2006.03654).

    Args:
        encoder: `SEWDTransformerEncoder`.
        hidden_states: (B, T, H), the keys; `query_states` the queries, if others.
        relative_pos: given back as it is.
    """
    if not encoder.relative_attention or relative_pos is not None:
        return relative_pos
    device, keys = hidden_states.device, hidden_states.shape[-2]
    queries = keys if query_states is None else query_states.shape[-2]
    distance = torch.arange(queries, device=device)[:, None] - torch.arange(keys, device=device)
    buckets, farthest = encoder.position_buckets, encoder.max_relative_positions
    if buckets > 0 and farthest > 0:
        half = buckets // 2
        size = distance.abs().masked_fill(distance.abs() < half, half - 1)
        # a number in a tensor on the host, as Transformers has it: rounded to float32, and taken along without a copy
        base = torch.log(torch.tensor((farthest - 1) / half))
        far = torch.ceil(torch.log(size / half) / base * (half - 1)) + half
        distance = torch.where(size <= half, distance.to(far.dtype), far * torch.sign(distance))
    return distance.long()[None]


def rotary_positions(embedding: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """Return cosines and sines of rotary positions, (2, T, 1, 1, head size), computed on the device each time.

    Args:
        embedding: `Wav2Vec2BertRotaryPositionalEmbedding` or that of wav2vec2-conformer.
        hidden_states: (B, T, H).
    """
    time = torch.arange(hidden_states.shape[1], device=embedding.inv_freq.device, dtype=embedding.inv_freq.dtype)
    angles = time[:, None] * embedding.inv_freq
    angles = torch.cat((angles, angles), dim=-1)[:, None, None, :]
    return torch.stack([angles.cos(), angles.sin()]).type_as(hidden_states)
