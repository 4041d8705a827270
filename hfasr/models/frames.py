"""Where in the audio the frames of a model's logits are."""

import math
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin, SequenceFeatureExtractor

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


def frame_grid(model: PreTrainedModel, processor: ProcessorMixin) -> FrameGrid:
    """Work out where a model's frames are, from its front end and its strides.

    A convolution without padding centres a frame on its window, one with symmetric padding on a multiple of its stride; of a
    family that is not known, frame 0 is taken to begin with the audio.

    Raises:
        ValueError: The family does not say how many frames its logits have, or they are not evenly spaced.
    """
    counts = output_lengths(model, input_lengths(processor, torch.tensor([_PROBE_SAMPLES, 2 * _PROBE_SAMPLES])))
    frames = max(1, int(counts[1] - counts[0]))
    stride = round(_PROBE_SAMPLES / frames)
    if abs(_PROBE_SAMPLES / stride - frames) > 1:
        raise ValueError(f"{type(model).__name__} has {_PROBE_SAMPLES / frames:.2f} samples a frame, expected a whole number")
    centre = _centre(model.config, processor.feature_extractor)
    return FrameGrid(stride, stride / 2 if centre is None else centre, processor.feature_extractor.sampling_rate)


def _centre(config: PreTrainedConfig, extractor: SequenceFeatureExtractor) -> float | None:
    """Return the sample on which frame 0 is centred; None of families that are not known."""
    if isinstance(extractor, MelFeatureExtractor) or config.model_type == "parakeet_ctc":
        return 0.0
    if config.model_type == "wav2vec2-bert":  # pairs of Kaldi's windows of 400 samples every 160
        return (400 + 160) / 2
    if config.model_type == "lasr_ctc":  # windows that begin with the audio, and two convolutions without padding
        encoder = config.encoder_config
        reach = (encoder.subsampling_conv_kernel_size - 1) * (1 + encoder.subsampling_conv_stride)
        return (extractor.win_length + reach * extractor.hop_length) / 2
    if config.model_type == "granite_speech5_ctc":  # pairs of mel frames, and of those, as often as it subsamples
        return extractor.hop_length * (extractor.frame_stacking * 2 ** len(config.encoder_config.subsample_layers) - 1) / 2
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if not kernels or not strides:
        return None
    # adapters behind them have symmetric padding
    return (1 + sum((kernel - 1) * math.prod(strides[:layer]) for layer, kernel in enumerate(kernels))) / 2
