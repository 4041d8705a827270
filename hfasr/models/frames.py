"""Where in the audio the frames of a model's logits are."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from .load import input_lengths, output_lengths
from .mel import MelFeatureExtractor

# long enough that frames at both ends weigh nothing in the stride
_PROBE_SAMPLES = 1_600_000


@dataclass(frozen=True)
class FrameGrid:
    """Output frame t is centred on sample `centre + t * stride` of a 16 kHz waveform."""

    stride: int
    """Samples from one frame to the next."""
    centre: float
    """Sample on which frame 0 is centred."""
    sampling_rate: int = 16_000

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.stride / self.sampling_rate

    def seconds(self, frame: float) -> float:
        """Return where frame `frame` begins, half a stride before its centre, but not before the audio; an end is where the next begins."""
        return max(0.0, (self.centre + (frame - 0.5) * self.stride) / self.sampling_rate)

    def frame_at(self, seconds: float) -> int:
        """Return the frame, counted from 0, whose centre is nearest; it may lie past the end."""
        return max(0, round((seconds * self.sampling_rate - self.centre) / self.stride))


def frame_grid(model: PreTrainedModel, processor: ProcessorMixin) -> FrameGrid:
    """Work out where a model's frames are, from its front end and its strides.

    A convolution without padding centres a frame on its window, one with symmetric padding on a multiple of its stride; of a
    family that does not show which it has, frame 0 is taken to begin with the audio.

    Raises:
        ValueError: The family does not say how many frames its logits have, or they are not evenly spaced.
    """
    counts = output_lengths(model, input_lengths(processor, torch.tensor([_PROBE_SAMPLES, 2 * _PROBE_SAMPLES])))
    step = _PROBE_SAMPLES / max(1, int(counts[1] - counts[0]))
    stride = round(step)
    if not 0.99 < step / stride < 1.01:
        raise ValueError(f"{type(model).__name__} has {step:.2f} samples a frame, expected a whole number")
    rate, config = processor.feature_extractor.sampling_rate, model.config
    if isinstance(processor.feature_extractor, MelFeatureExtractor):
        return FrameGrid(stride, 0.0, rate)
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if config.model_type == "wav2vec2-bert":  # pairs of Kaldi's windows of 400 samples every 160
        return FrameGrid(stride, (400 + 160) / 2, rate)
    if kernels and strides and stride == int(np.prod(strides)):
        reach = 1 + sum((kernel - 1) * int(np.prod(strides[:layer])) for layer, kernel in enumerate(kernels))
        return FrameGrid(stride, reach / 2, rate)
    return FrameGrid(stride, stride / 2, rate)
