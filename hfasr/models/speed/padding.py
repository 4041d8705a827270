"""Batches in which padding changes nothing: what an utterance gives there is what it gives alone.

Transformers' models let what lies behind the end of a row into its frames where they normalise over time, or convolve over time
without a mask. Each stand-in sees a row as it is alone: normalised over its own frames, with zeros behind its end.

Shapes: B utterances, S samples, T frames, C channels, H hidden size.
"""

import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from .trial import transformers_models

# Families of which rows in padded batches were compared with rows alone; of others nobody knows.
_COMPARED = {
    "citrinet", "data2vec-audio", "granite_speech5_ctc", "hubert", "lasr_ctc", "parakeet_ctc", "quartznet", "sew", "sew-d", "unispeech",
    "unispeech-sat", "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "wavlm",
}  # fmt: skip
_ADAPTERS = ("Wav2Vec2Adapter", "Wav2Vec2BertAdapter", "Wav2Vec2ConformerAdapter", "Data2VecAudioAdapter")


@dataclass(frozen=True)
class Leak:
    """A module through which padding gets into the frames of a row."""

    module: nn.Module
    stand_in: type[nn.Module]
    """Class that it must have while it computes a padded batch, with `ends` set to what `lengths` gives, on its device."""
    lengths: Callable[[torch.Tensor], torch.Tensor]
    """Valid lengths of the rows, as the attention mask counts them `(B,)` -> valid frames of what the module takes `(B,)`."""


def padding_is_exact(model: PreTrainedModel) -> bool:
    """Tell whether rows of any lengths may share a batch, once the leaks of a model are stopped."""
    config = model.config
    # Transformers counts the frames behind an adapter as if its kernels were of 3 frames
    counted = not getattr(config, "add_adapter", False) or config.adapter_kernel_size == 3
    return counted and config.model_type in _COMPARED


def find_leaks(model: nn.Module) -> list[Leak]:
    """Find what must be replaced in a CTC model of any family; nothing in those that are exact by themselves."""
    leaks, frames = [], None
    for owner in transformers_models(model):
        if not hasattr(owner, "_get_feat_extract_output_lengths"):
            continue
        options = {"add_adapter": False} if hasattr(owner.config, "add_adapter") else {}
        frames = partial(owner._get_feat_extract_output_lengths, **options)
    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith("GroupNormConvLayer") and module.layer_norm.num_groups == module.layer_norm.num_channels:
            leaks.append(Leak(module.layer_norm, _rows_apart(type(module.layer_norm)), partial(_frames_of, module.conv)))
        elif kind == "Wav2Vec2ConformerConvolutionModule":
            leaks.append(Leak(module.depthwise_conv, _zeros_behind(type(module.depthwise_conv)), frames))
        # several convolutions one behind the other; one behind a batch norm, which makes something of zeros
        elif kind == "Data2VecAudioPositionalConvLayer" or (
            kind.endswith("PositionalConvEmbedding") and getattr(module, "batch_norm", None)
        ):
            leaks.append(Leak(module.conv, _zeros_behind(type(module.conv)), frames))
        elif kind in ("SEWEncoder", "SEWDEncoder"):
            leaks.append(Leak(module, _without_rest(type(module)), frames))
            leaks.append(Leak(module.pos_conv_embed, _given_beforehand(type(module.pos_conv_embed)), frames))
        elif kind in _ADAPTERS:
            lengths = frames
            for layer in module.layers:
                convs = [conv for conv in layer.children() if isinstance(conv, nn.Conv1d)]
                leaks += [Leak(conv, _zeros_behind(type(conv)), lengths) for conv in convs]
                lengths = partial(_behind, lengths, convs[0])
    return leaks


def stop_leaks(leaks: list[Leak], lengths: torch.Tensor, device: torch.device) -> Iterator[tuple[nn.Module, str, object]]:
    """Yield what stops the leaks for one batch: a module, the name of an attribute, and the value it must have.

    Args:
        leaks: Of the model.
        lengths: Of the rows, as the attention mask counts them `(B,)`, int64, on the host.
        device: Where the model is.
    """
    ends: dict[int, torch.Tensor] = {}
    for leak in leaks:
        if id(leak.lengths) not in ends:
            ends[id(leak.lengths)] = to_device(leak.lengths(lengths), device)
        yield leak.module, "__class__", leak.stand_in
        yield leak.module, "ends", ends[id(leak.lengths)]
        if isinstance(leak.module, nn.GroupNorm):
            yield leak.module, "row_ends", leak.lengths(lengths).tolist()


def to_device(numbers: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a few numbers from the host to a device, without the host waiting until the device has done what it was given before."""
    numbers = torch.as_tensor(numbers)
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def _frames_of(conv: nn.Conv1d, lengths: torch.Tensor) -> torch.Tensor:
    return torch.div(lengths + 2 * conv.padding[0] - conv.kernel_size[0], conv.stride[0], rounding_mode="floor") + 1


def _behind(before: Callable[[torch.Tensor], torch.Tensor], conv: nn.Conv1d, lengths: torch.Tensor) -> torch.Tensor:
    return _frames_of(conv, before(lengths))


def _valid(hidden: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Return the mask `(B, T)` of what is `(…, T)`."""
    return torch.arange(hidden.shape[-1], device=hidden.device) < ends[:, None]


# Each stand-in is a class, not a method for each module: one compiled layer then serves them all.


@functools.cache
def _zeros_behind(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a convolution over time that takes what is behind the end of a row for zeros."""

    def forward(self, hidden):
        return kind.forward(self, hidden.masked_fill(~_valid(hidden, self.ends)[:, None], 0.0))

    return _derived(kind, forward)


@functools.cache
def _rows_apart(kind: type[nn.GroupNorm]) -> type[nn.GroupNorm]:
    """Return a norm of each channel over the valid frames of a row: a group norm with groups of one channel."""

    def forward(self, hidden):
        if torch.compiler.is_compiling():
            return _masked_norm(hidden, self.ends, self)
        # row by row, which takes little memory, with the very kernel that normalises a row alone
        normed = None
        for row, end in enumerate(self.row_ends):
            own = functional.group_norm(hidden[row : row + 1, :, :end], self.num_groups, self.weight, self.bias, self.eps)
            normed = own.new_zeros(hidden.shape) if normed is None else normed
            normed[row, :, :end] = own[0]
        return normed

    return _derived(kind, forward)


def _masked_norm(hidden: torch.Tensor, ends: torch.Tensor, norm: nn.GroupNorm) -> torch.Tensor:
    """Normalise `(B, C, T)` all rows at once, which a compiler makes fast, and to which lengths are no constants."""
    valid, count, dtype = _valid(hidden, ends)[:, None], ends[:, None, None], hidden.dtype
    hidden = hidden.float()
    centred = (hidden - (hidden * valid).sum(-1, keepdim=True) / count) * valid
    scale = (centred.square().sum(-1, keepdim=True) / count + norm.eps).rsqrt()
    return (centred * scale * norm.weight.float()[:, None] + norm.bias.float()[:, None]).to(dtype)


@functools.cache
def _without_rest(kind: type[nn.Module]) -> type[nn.Module]:
    """Return SEW's encoder, which squeezes groups of frames, without the frames at the end of a row that make no whole group.

    Alone they have no place among the squeezed frames, only in the positional convolution, and come out as zeros.
    """

    def forward(self, hidden_states, attention_mask=None, **options):
        by_time = hidden_states.transpose(1, 2)
        self.pos_conv_embed.given = by_time.masked_fill(~_valid(by_time, self.ends)[:, None], 0.0)
        factor = self.config.squeeze_factor
        whole = _valid(by_time, self.ends // factor * factor)
        encoded = kind.forward(self, hidden_states, whole, **options)
        del self.pos_conv_embed.given
        encoded.last_hidden_state = encoded.last_hidden_state.masked_fill(~whole[:, :, None], 0.0)
        return encoded

    return _derived(kind, forward)


@functools.cache
def _given_beforehand(kind: type[nn.Module]) -> type[nn.Module]:
    """Return SEW's positional convolution over what the stand-in of the encoder gave it."""
    return _derived(kind, lambda self, hidden: kind.forward(self, self.given))


def _derived(kind: type[nn.Module], forward: Callable) -> type[nn.Module]:
    return types.new_class(kind.__name__, (kind,), exec_body=lambda names: names.update(forward=forward))
