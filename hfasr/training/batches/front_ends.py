"""Waveforms -> the input of a model, as fast as a data-loader worker can."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor

from hfasr.audio import SAMPLING_RATE
from hfasr.models.fbank import has_known_fbank, stacked_fbank


def extract(waveforms: Sequence[np.ndarray], feature_extractor) -> tuple[str, torch.Tensor, np.ndarray]:
    """Compute the padded input of a batch; equal to the feature extractor's own.

    Args:
        waveforms: `(S,)` each, float32 at 16 kHz.
        feature_extractor: Of any family. Those of wav2vec 2.0 and w2v-BERT are not called but done here, several times as fast.

    Returns:
        The name of the input; `(B, S)` or `(B, F, M)`, as wide as the longest row or a little wider; how much of each row is
        valid `(B,)`, int64. Each row is normalised over its own samples, also for models that are not told where it ends.
    """
    if type(feature_extractor) is Wav2Vec2FeatureExtractor and feature_extractor.padding_side == "right":
        return "input_values", *_normalized(waveforms, feature_extractor)
    if has_known_fbank(feature_extractor):
        return "input_features", *stacked_fbank(waveforms, feature_extractor)
    features = dict(
        feature_extractor(list(waveforms), sampling_rate=SAMPLING_RATE, padding=True, return_attention_mask=True, return_tensors="pt")
    )
    mask = features.pop("attention_mask")
    ((name, values),) = features.items()
    return name, values, mask.sum(-1).numpy().astype(np.int64)


def _normalized(waveforms: Sequence[np.ndarray], feature_extractor: Wav2Vec2FeatureExtractor) -> tuple[torch.Tensor, np.ndarray]:
    lengths = np.array([len(waveform) for waveform in waveforms], dtype=np.int64)
    values = torch.full((len(waveforms), int(lengths.max())), feature_extractor.padding_value, dtype=torch.float32)
    for row, waveform in zip(values.numpy(), waveforms, strict=True):
        if feature_extractor.do_normalize:
            np.subtract(waveform, waveform.mean(), out=row[: len(waveform)])
            row[: len(waveform)] /= np.sqrt(waveform.var() + 1e-7)  # Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm
        else:
            row[: len(waveform)] = waveform
    return values, lengths
