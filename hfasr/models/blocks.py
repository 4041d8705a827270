"""Building blocks of QuartzNet and Citrinet: masked time-channel separable convolutions, SpecAugment, CTC loss.

Follows nemo/collections/asr/parts/submodules/jasper.py (MaskedConv1d, JasperBlock) and spectr_augment.py, NeMo 3.0.0.

Shapes: B utterances, F mel frames, M mel bins, T frames, C channels, V vocabulary, L labels. Inside the blocks `hidden` is
(B, C, 1, T) in channels-last memory, which is (B, T, C) row by row: on a CPU depthwise convolutions run several times faster in
this layout than as 1-d convolutions over (B, C, T), and pointwise ones somewhat faster.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

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
            hidden = hidden * mask
            # with an odd kernel and "same" padding n valid frames give ceil(n / stride)
            mask = mask[..., ::stride]
        # in evaluation the plain operator, which torch.export keeps free of guards on the length
        if self.training and dilation > 1 and stride == 1 and self.groups > 1:
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


class Block(GradientCheckpointingLayer):
    """`repeat` convolutions with ReLU and dropout between them, and a residual branch around them all (Jasper block).

    Args:
        in_channels: C of the input.
        filters: C of the output.
        kernel: odd number of frames.
        repeat: number of convolutions.
        stride: frames, in every convolution of the block.
        dilation: frames between taps.
        residual: whether to add a pointwise convolution of the block's input.
        separable: whether the convolutions are depthwise and pointwise ones.
        dropout: probability.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel: int,
        repeat: int,
        stride: int,
        dilation: int,
        residual: bool,
        separable: bool,
        dropout: float,
    ):
        super().__init__()
        widths = [in_channels] + [filters] * repeat
        self.layers = nn.ModuleList(ConvNorm(before, after, kernel, stride, dilation, separable) for before, after in pairwise(widths))
        self.residual = ConvNorm(in_channels, filters, 1, 1, 1, separable=False) if residual else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, 1, T) and its mask -> (B, filters, 1, T') and its mask."""
        block_input, input_mask = hidden, mask
        for index, layer in enumerate(self.layers):
            if index:
                hidden = self.dropout(functional.relu(hidden))
            hidden, mask = layer(hidden, mask)
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
