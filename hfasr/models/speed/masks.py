"""Masks over frames and features, drawn and made on the device instead of by way of the host.

They stand in for `_mask_hidden_states` and `_get_feature_vector_attention_mask` of Transformers' wav2vec2 and its relatives, which
draw in NumPy, copy, and index by a boolean mask: each makes the host wait for a GPU.

Shapes: B utterances, S samples, T frames, H hidden size.
"""

import math

import torch
from torch import nn


def draw_spans(
    lengths: torch.Tensor, places: int, share: float, width: int, least: int = 0, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw spans to mask, by the law of `_compute_mask_indices` (transformers/models/wav2vec2/modeling_wav2vec2.py).

    A row of length n has floor(share * n / width + u) spans, u one uniform number for all rows; at least `least` of them, and
    no more than fit. Their starts are drawn without replacement from those with which the span ends inside the row; spans may overlap.

    Args:
        lengths: (B,), valid places of each row, on the device to draw on.
        places: T (or H), the width of the mask; as many as the longest row has, or more.
        share: upper bound of the share of places masked, from 0 up.
        width: places of a span, from 1 up.
        least: spans that every row has where they fit.
        generator: of the device; None for torch's own.

    Returns:
        (B, places), True where masked. Nothing is masked where not one span fits (Transformers raises when `width` exceeds `places`).
    """
    rows, device = lengths.shape[0], lengths.device
    most = min(max(math.floor(share * places / width + 1), least), places // width)
    if most == 0:
        return torch.zeros(rows, places, dtype=torch.bool, device=device)
    rounding = torch.rand((), device=device, generator=generator, dtype=torch.float64)
    starts = (lengths - (width - 1)).clamp(min=0)  # (B,), how many there are to choose from
    count = (share * lengths.double() / width + rounding).floor().long().clamp(min=least, max=places // width)
    count = torch.minimum(count, starts)
    # the places with the `count` smallest of independent uniform numbers are a sample without replacement
    place = torch.arange(places, device=device)
    draws = torch.rand(rows, places, device=device, generator=generator).masked_fill(place >= starts[:, None], 2.0)
    # sorted stably, for equal numbers must come in the same order again in a run that is resumed
    chosen = draws.sort(dim=-1, stable=True).indices[:, :most]
    begins = torch.zeros(rows, places, dtype=torch.int32, device=device)
    begins.scatter_(1, chosen, (place[:most] < count[:, None]).int())
    begun = begins.cumsum(-1)
    ended = nn.functional.pad(begun, (width, 0))[:, :places]
    return begun > ended


def mask_hidden_states(
    model: nn.Module,
    hidden_states: torch.Tensor,
    mask_time_indices: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Replace masked frames by the learned vector and masked features by 0 (SpecAugment, Park et al., 2019, arXiv:1904.08779).

    Args:
        model: base model of wav2vec2 or a relative, with its `config` and `masked_spec_embed`.
        hidden_states: (B, T, H).
        mask_time_indices: (B, T), True on frames to mask; None to draw them in training.
        attention_mask: (B, T), 1 on valid frames; None when every frame is.

    Returns:
        (B, T, H), a new tensor where anything is masked.
    """
    config = model.config
    if not getattr(config, "apply_spec_augment", True):
        return hidden_states
    rows, frames, features = hidden_states.shape
    if mask_time_indices is None and config.mask_time_prob > 0 and model.training:
        if attention_mask is None:
            lengths = torch.full((rows,), frames, device=hidden_states.device)
        else:
            lengths = attention_mask.detach().sum(-1)
        mask_time_indices = draw_spans(
            lengths, frames, config.mask_time_prob, config.mask_time_length, getattr(config, "mask_time_min_masks", 0)
        )
    if mask_time_indices is not None:
        vector = model.masked_spec_embed.to(hidden_states.dtype)
        hidden_states = torch.where(mask_time_indices[:, :, None].bool(), vector, hidden_states)
    if config.mask_feature_prob > 0 and model.training:
        lengths = torch.full((rows,), features, device=hidden_states.device)
        least = getattr(config, "mask_feature_min_masks", 0)
        masked = draw_spans(lengths, features, config.mask_feature_prob, config.mask_feature_length, least)
        hidden_states = hidden_states.masked_fill(masked[:, None, :], 0.0)
    return hidden_states


def feature_vector_mask(
    model: nn.Module, feature_vector_length: int, attention_mask: torch.Tensor, add_adapter: bool | None = None
) -> torch.Tensor:
    """Attention mask of the frames, from that of the samples.

    Args:
        model: base model with `_get_feat_extract_output_lengths`.
        feature_vector_length: T.
        attention_mask: (B, S), 1 on valid samples.
        add_adapter: whether frames are those behind the convolutional adapter; None leaves it to the configuration.

    Returns:
        (B, T), True on valid frames. As in Transformers, a row of no frame has all: attention to nothing would be NaN.
    """
    options = {} if add_adapter is None else {"add_adapter": add_adapter}
    lengths = model._get_feat_extract_output_lengths(attention_mask.sum(-1), **options).long()
    lengths = torch.where(lengths > 0, lengths, lengths + feature_vector_length)
    return torch.arange(feature_vector_length, device=attention_mask.device) < lengths[:, None]
