import numpy as np
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor

from hfasr.models.fbank import has_known_fbank, stacked_fbank


def speech_like(samples: int, seed: int) -> np.ndarray:
    """Voiced and silent stretches, low-passed, as 16-bit samples: bins of very unlike energy, and frames of nothing."""
    draw = np.random.default_rng(seed)
    noise = np.convolve(draw.standard_normal(samples), np.hanning(9) / 4, mode="same")
    loudness = np.repeat(draw.choice([0.0, 0.001, 0.3], -(-samples // 1600)), 1600)[:samples]
    return (np.round(noise * loudness * 8000) / 32768).astype(np.float32)


@pytest.mark.parametrize("settings", [{"padding_value": 1.0}, {"num_mel_bins": 40, "feature_size": 40}])
def test_equals_transformers(settings):
    extractor = SeamlessM4TFeatureExtractor(**settings)
    assert has_known_fbank(extractor)
    waveforms = [speech_like(samples, seed) for seed, samples in enumerate((16_000, 45_000, 1_040, 30_123, 101_000))]
    features, lengths = stacked_fbank(waveforms, extractor)
    expected = extractor(waveforms, sampling_rate=16_000, return_tensors="pt")
    assert lengths.tolist() == expected.attention_mask.sum(-1).tolist()
    assert features.shape == (5, lengths.max(), 2 * extractor.num_mel_bins)
    for row, length, theirs in zip(features, lengths, expected.input_features, strict=True):
        torch.testing.assert_close(row[:length], theirs[:length], atol=1e-4, rtol=0)
        assert (row[length:] == extractor.padding_value).all()


def test_silence_and_a_single_frame_are_finite():
    extractor = SeamlessM4TFeatureExtractor()
    features, lengths = stacked_fbank([np.zeros(8000, np.float32), speech_like(500, 0)], extractor)
    assert lengths.tolist() == [24, 0]
    assert features.isfinite().all()
    with pytest.raises(ValueError, match="399 samples, at least 400"):
        stacked_fbank([np.zeros(399, np.float32)], extractor)


def test_a_derived_extractor_is_left_to_itself():
    class Other(SeamlessM4TFeatureExtractor):
        pass

    assert not has_known_fbank(Other())
    assert not has_known_fbank(SeamlessM4TFeatureExtractor(padding_side="left"))
    assert not has_known_fbank(SeamlessM4TFeatureExtractor(stride=3))
