"""Waveforms -> the input of a model: as fast as a data-loader worker can, or all rows at once where the model is.

Shapes: B utterances, S samples, F frames of the feature extractor, M bins.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor

from hfasr.audio import SAMPLING_RATE

from .fbank import has_known_fbank, stacked_fbank
from .mel import MelFeatureExtractor


def works_on_device(feature_extractor) -> bool:
    """Tell whether `extract_on_device` computes what a feature extractor does."""
    return isinstance(feature_extractor, MelFeatureExtractor) or _is_plain(feature_extractor)


def extract_on_device(waveforms: torch.Tensor, lengths: torch.Tensor, feature_extractor) -> tuple[str, torch.Tensor]:
    """Compute the input of a batch where its waveforms are, all rows at once.

    Args:
        waveforms: `(B, S)`, float32, zeros past the end of each row.
        lengths: Samples of each row `(B,)`, on the same device.
        feature_extractor: Of a kind that `works_on_device`.

    Returns:
        The name of the input, and `(B, S)` or `(B, F, M)`.
    """
    if isinstance(feature_extractor, MelFeatureExtractor):
        return "input_features", feature_extractor.padded_features(waveforms, lengths)
    inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
    if feature_extractor.do_normalize:
        waveforms = (waveforms - waveforms.sum(1, keepdim=True) / lengths[:, None]) * inside
        waveforms = waveforms / (waveforms.square().sum(1, keepdim=True) / lengths[:, None] + 1e-7).sqrt()
    return "input_values", waveforms.masked_fill(~inside, feature_extractor.padding_value)


def _is_plain(feature_extractor) -> bool:
    return type(feature_extractor) is Wav2Vec2FeatureExtractor and feature_extractor.padding_side == "right"


def extract(waveforms: Sequence[np.ndarray], feature_extractor) -> tuple[str, torch.Tensor, np.ndarray]:
    """Compute the padded input of a batch; equal to the feature extractor's own.

    Args:
        waveforms: `(S,)` each, float32 at 16 kHz.
        feature_extractor: Of any family. Those of wav2vec 2.0 and w2v-BERT are not called but done here, several times as fast.

    Returns:
        The name of the input; `(B, S)` or `(B, F, M)`, as wide as the longest row or a little wider; how much of each row is
        valid `(B,)`, int64. Each row is normalised over its own samples, also for models that are not told where it ends.
    """
    if _is_plain(feature_extractor):
        return "input_values", *_normalized(waveforms, feature_extractor)
    if has_known_fbank(feature_extractor):
        return "input_features", *stacked_fbank(waveforms, feature_extractor)
    if isinstance(feature_extractor, MelFeatureExtractor):
        rows = feature_extractor(list(waveforms), sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True)
        return "input_features", rows["input_features"], rows["attention_mask"].sum(-1).numpy()
    return _one_by_one(waveforms, feature_extractor)


def _one_by_one(waveforms: Sequence[np.ndarray], feature_extractor) -> tuple[str, torch.Tensor, np.ndarray]:
    """Compute the features of each row alone, for who knows whether an extractor lets padding into them: that of Granite Speech does."""
    rows = []
    for waveform in waveforms:
        features = dict(
            feature_extractor([waveform], sampling_rate=SAMPLING_RATE, padding=True, return_attention_mask=True, return_tensors="pt")
        )
        valid = int(features.pop("attention_mask").sum())
        ((name, values),) = features.items()
        rows.append(values[0, :valid])
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=feature_extractor.padding_value)
    return name, padded, lengths


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
