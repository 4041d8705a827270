"""Building blocks of QuartzNet and Citrinet: masked time-channel separable convolutions, squeeze-and-excitation, SpecAugment, CTC loss.

Follows nemo/collections/asr/parts/submodules/jasper.py (MaskedConv1d, SqueezeExcite, JasperBlock) and spectr_augment.py, NeMo 3.0.0.

Shapes: B utterances, F mel frames, M mel bins, T frames, C channels, V vocabulary, L labels. Inside the blocks `hidden` is
(B, C, 1, T) in channels-last memory, which is (B, T, C) row by row: on a CPU depthwise convolutions run several times faster in
this layout than as 1-d convolutions over (B, C, T), and pointwise ones somewhat faster.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import maybe_autocast

BATCH_NORM_MOMENTUM = 0.1


class MaskedConv(nn.Conv1d):
    """1-d convolution with "same" padding that sets frames past the end to zero before it convolves.

    Its weight has the shape of `nn.Conv1d`, as in NeMo.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1, groups: int = 1, bias: bool = False
    ):
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Convolve.

        Args:
            hidden: (B, C, 1, T).
            mask: (B, 1, 1, T), 1 on valid frames; None when no row is padded.

        Returns:
            hidden (B, C', 1, ceil(T / stride)) and its mask.
        """
        stride, dilation = self.stride[0], self.dilation[0]
        if mask is not None:
            hidden = hidden * mask.to(hidden.dtype)
            # with an odd kernel and "same" padding n valid frames give ceil(n / stride)
            mask = mask[..., ::stride]
        # the plain operator in evaluation, which torch.export keeps free of guards on the length, and where a compiler sees any length
        if self.training and dilation > 1 and stride == 1 and self.groups > 1 and not torch.compiler.is_compiling():
            return self._dilated(hidden), mask
        kernel = self.weight.unsqueeze(2)
        hidden = functional.conv2d(hidden, kernel, self.bias, (1, stride), (0, self.padding[0]), (1, dilation), self.groups)
        return hidden, mask

    def _dilated(self, hidden: torch.Tensor) -> torch.Tensor:
        """Convolve every d-th frame by itself, d the dilation: the same sums as the dilated convolution, ten times faster on a CPU."""
        dilation, frames = self.dilation[0], hidden.shape[-1]
        by_frame = functional.pad(hidden.squeeze(2).transpose(1, 2), (0, 0, 0, -frames % dilation))
        phases = by_frame.unflatten(1, (-1, dilation)).transpose(1, 2).contiguous().permute(0, 3, 1, 2)
        phases = functional.conv2d(phases, self.weight.unsqueeze(2), self.bias, 1, (0, self.padding[0] // dilation), 1, self.groups)
        return phases.permute(0, 3, 2, 1).flatten(1, 2)[:, :frames].transpose(1, 2).unsqueeze(2)


class ConvNorm(nn.Module):
    """Convolution and batch norm. A separable one is a depthwise and a pointwise convolution with nothing between them."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, dilation: int, separable: bool):
        super().__init__()
        if separable:
            self.depthwise = MaskedConv(in_channels, in_channels, kernel_size, stride, dilation, groups=in_channels)
            self.pointwise = MaskedConv(in_channels, out_channels, 1)
        else:
            self.conv = MaskedConv(in_channels, out_channels, kernel_size, stride, dilation)
        self.separable = separable
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=BATCH_NORM_MOMENTUM)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, 1, T) and its mask -> (B, C', 1, T') and its mask."""
        if self.separable:
            hidden, mask = self.depthwise(hidden, mask)
            hidden, mask = self.pointwise(hidden, mask)
        else:
            hidden, mask = self.conv(hidden, mask)
        return self.norm(hidden), mask


class SqueezeExcite(nn.Module):
    """Weigh channels by their means over time (Hu et al., 2018, arXiv:1709.01507; for speech Han et al., 2020, arXiv:2005.03191).

    Mean and gate are computed in float32 or better, also under autocast, as in NeMo.

    Args:
        channels: C.
        reduction: C over the width of the bottleneck.
        context: frames of the mean in training: a random window for each utterance; -1 for the whole utterance, which evaluation
            always takes.
    """

    def __init__(self, channels: int, reduction: int, context: int = -1):
        super().__init__()
        self.down = nn.Linear(channels, channels // reduction, bias=False)
        self.up = nn.Linear(channels // reduction, channels, bias=False)
        self.context = context

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, C, 1, T) and its mask (B, 1, 1, T) -> (B, C, 1, T)."""
        if self.training and self.context > 0:
            mask = self._random_window(hidden, mask)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        if mask is None:
            mean = hidden.mean(dim=(2, 3), dtype=dtype)
        else:
            mask = mask.to(hidden.dtype)
            mean = (hidden * mask).sum(dim=(2, 3), dtype=dtype) / mask.sum(dim=(2, 3), dtype=dtype).clamp(min=1)
        with maybe_autocast(hidden.device.type, enabled=False):
            narrow = functional.relu(functional.linear(mean, self.down.weight.to(dtype)))
            gate = functional.linear(narrow, self.up.weight.to(dtype)).sigmoid()
        return hidden * gate.to(hidden.dtype)[:, :, None, None]

    def _random_window(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Mask (B, 1, 1, T) of `context` valid frames of each utterance, or of all where there are fewer."""
        rows, _, _, frames = hidden.shape
        valid = hidden.new_full((rows,), frames) if mask is None else mask.sum(dim=(1, 2, 3))
        start = (torch.rand(rows, device=hidden.device) * (valid - self.context + 1).clamp(min=1)).floor()
        place = torch.arange(frames, device=hidden.device)
        window = ((place >= start[:, None]) & (place < start[:, None] + self.context))[:, None, None, :]
        return window if mask is None else window * mask


class Block(GradientCheckpointingLayer):
    """`repeat` convolutions with ReLU and dropout between them, their channels weighed, and a residual branch around them (Jasper block).

    Args:
        in_channels: C of the input.
        filters: C of the output.
        kernel: odd number of frames.
        repeat: number of convolutions.
        stride: frames, in every convolution of the block, and in the residual branch.
        stride_last: whether only the last convolution strides.
        dilation: frames between taps.
        residual: whether to add a pointwise convolution of the block's input.
        separable: whether the convolutions are depthwise and pointwise ones.
        dropout: probability.
        squeeze_excite: whether channels are weighed after the last convolution.
        se_reduction, se_context: of SqueezeExcite.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel: int,
        repeat: int,
        stride: int,
        stride_last: bool,
        dilation: int,
        residual: bool,
        separable: bool,
        dropout: float,
        squeeze_excite: bool,
        se_reduction: int,
        se_context: int,
    ):
        super().__init__()
        widths = [in_channels] + [filters] * repeat
        strides = [1] * (repeat - 1) + [stride] if stride_last else [stride] * repeat
        self.layers = nn.ModuleList(
            ConvNorm(before, after, kernel, step, dilation, separable)
            for (before, after), step in zip(pairwise(widths), strides, strict=True)
        )
        self.squeeze_excite = SqueezeExcite(filters, se_reduction, se_context) if squeeze_excite else None
        self.residual = ConvNorm(in_channels, filters, 1, stride, 1, separable=False) if residual else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, 1, T) and its mask -> (B, filters, 1, T') and its mask."""
        block_input, input_mask = hidden, mask
        for index, layer in enumerate(self.layers):
            if index:
                hidden = self.dropout(functional.relu(hidden))
            hidden, mask = layer(hidden, mask)
        if self.squeeze_excite is not None:
            hidden = self.squeeze_excite(hidden, mask)
        if self.residual is not None:
            hidden = hidden + self.residual(block_input, input_mask)[0]
        return self.dropout(functional.relu(hidden)), mask


def match_norm_momentum(model: nn.Module) -> None:
    """Make a training step move the running statistics of a checkpointed block as far as those of any other block.

    Gradient checkpointing runs the block's forward pass twice per step: 1 - (1 - m)^2 = BATCH_NORM_MOMENTUM.
    """
    for block in model.modules():
        if isinstance(block, Block):
            momentum = 1.0 - (1.0 - BATCH_NORM_MOMENTUM) ** 0.5 if block.gradient_checkpointing else BATCH_NORM_MOMENTUM
            for layer in [*block.layers, block.residual]:
                if layer is not None:
                    layer.norm.momentum = momentum


def spec_augment(
    features: torch.Tensor,
    lengths: torch.Tensor,
    freq_masks: int,
    freq_width: int,
    time_masks: int,
    time_width: int | float,
    rect_masks: int,
    rect_freq: int,
    rect_time: int,
) -> torch.Tensor:
    """Set random bands, spans and rectangles of a normalised log-mel to 0, its mean.

    SpecAugment (Park et al., 2019, arXiv:1904.08779) and SpecCutout (DeVries and Taylor, 2017, arXiv:1708.04552), every size drawn
    uniformly from 0 to its maximum and every place from those inside the row. Draws from torch's generator of the features' device.

    Args:
        features: (B, F, M).
        lengths: (B,), valid frames.
        freq_masks, freq_width: bands of mel bins per row, and their largest width in bins.
        time_masks, time_width: spans of frames per row, and their largest width: frames if int, a fraction of the row if float.
        rect_masks, rect_freq, rect_time: rectangles per row, and their largest height in bins and width in frames.

    Returns:
        (B, F, M), a new tensor.
    """
    _, frames, bins = features.shape
    all_bins = torch.full_like(lengths, bins)
    time_limit = (time_width * lengths).floor() if isinstance(time_width, float) else torch.full_like(lengths, time_width)
    hidden = _random_spans(all_bins, freq_masks, torch.full_like(lengths, freq_width), bins).any(dim=1)[:, None, :]
    hidden = hidden | _random_spans(lengths, time_masks, time_limit, frames).any(dim=1)[:, :, None]
    if rect_masks:
        heights = _random_spans(all_bins, rect_masks, torch.full_like(lengths, rect_freq), bins)
        widths = _random_spans(lengths, rect_masks, torch.full_like(lengths, rect_time), frames)
        # a cell is hidden when any rectangle covers both its frame and its bin
        hidden = hidden | (widths.transpose(1, 2).float() @ heights.float() > 0)
    return features.masked_fill(hidden, 0.0)


def _random_spans(sizes: torch.Tensor, count: int, widest: torch.Tensor, places: int) -> torch.Tensor:
    """Boolean (B, count, places): one random span each, inside the first `sizes` (B,) places and at most `widest` (B,) long."""
    draws = torch.rand(2, len(sizes), count, device=sizes.device)
    width = (draws[0] * (torch.minimum(widest, sizes)[:, None] + 1)).floor()
    start = (draws[1] * (sizes[:, None] - width + 1)).floor()
    place = torch.arange(places, device=sizes.device)
    return (place >= start[..., None]) & (place < (start + width)[..., None])


def ctc_loss(
    logits: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor, blank: int, reduction: str, zero_infinity: bool
) -> torch.Tensor:
    """CTC loss with the meaning it has in Transformers' own CTC models.

    Args:
        logits: (B, T, V).
        labels: (B, L), padded on the right with -100 or the blank.
        lengths: (B,), valid frames.
        blank: id of the blank.
        reduction: "mean" (each row divided by its number of labels, then averaged) or "sum".
        zero_infinity: whether rows whose labels do not fit their frames count as zero.

    Returns:
        Scalar, float32.
    """
    log_probs = functional.log_softmax(logits, dim=-1, dtype=torch.float32).transpose(0, 1)
    label_counts = ((labels >= 0) & (labels != blank)).sum(dim=-1)
    with torch.backends.cudnn.flags(enabled=False):
        return functional.ctc_loss(log_probs, labels, lengths, label_counts, blank, reduction, zero_infinity)
