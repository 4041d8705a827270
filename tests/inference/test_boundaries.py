"""Lag and boundaries against sounds whose parts are known by construction."""

from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
import torchaudio

from hfasr import espeak
from hfasr.audio import resample
from hfasr.inference.boundaries import Spectrum, lag_seconds, place_boundaries


def log_mel_of(waveform: np.ndarray) -> np.ndarray:
    spectrum = Spectrum()
    assert sum(map(len, spectrum.listen([waveform]))) == len(waveform)
    return spectrum.log_mel()


def tones(parts: list[tuple[float | None, float]]) -> np.ndarray:
    """Tones of (hertz, seconds), None for a pause, with a little noise under all."""
    rng = np.random.default_rng(0)
    sound = [
        np.zeros(round(16_000 * s)) if hz is None else 0.3 * np.sin(2 * np.pi * hz * np.arange(round(16_000 * s)) / 16_000)
        for hz, s in parts
    ]
    waveform = np.concatenate(sound)
    return (waveform + 1e-3 * rng.standard_normal(len(waveform))).astype(np.float32)


@pytest.mark.parametrize("blocks", [[16_000], [1, 80, 79, 513, 5000], [300]])
def test_blocks_make_no_difference(blocks):
    waveform = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    cuts = np.cumsum(blocks)[:-1] if len(blocks) > 1 else np.arange(blocks[0], len(waveform), blocks[0])
    spectrum = Spectrum()
    passed = list(spectrum.listen(np.split(waveform, cuts)))
    assert np.array_equal(np.concatenate(passed), waveform)
    assert spectrum.samples == 16_000
    mel = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=512, win_length=320, hop_length=80, n_mels=20, f_min=60, f_max=7600, pad_mode="constant"
    )
    whole = mel(torch.from_numpy(waveform)).T.log().numpy()
    assert spectrum.log_mel().shape == whole.shape
    np.testing.assert_allclose(spectrum.log_mel(), whole, atol=1e-3)


def test_boundaries_are_where_the_sound_changes():
    parts = [(None, 0.2), (400, 0.1), (1500, 0.08), (700, 0.15), (None, 0.3), (2500, 0.06), (900, 0.12), (None, 0.2)]
    edges = [0, *accumulate(seconds for _, seconds in parts)]
    said = [(start, end) for (hz, _), (start, end) in zip(parts, pairwise(edges), strict=True) if hz]
    # sure in 20 ms near the begin of each, as CTC is
    firsts = np.array([start + 0.02 for start, _ in said])
    starts, ends = place_boundaries(log_mel_of(tones(parts)), firsts, firsts + 0.02)
    np.testing.assert_allclose(starts, [start for start, _ in said], atol=0.0126)
    np.testing.assert_allclose(ends, [end for _, end in said], atol=0.0126)
    assert ends[2] < starts[3] - 0.2


def test_a_far_neighbour_takes_nothing():
    waveform = tones([(None, 1.0), (400, 0.1), (None, 3.0), (800, 0.1), (None, 1.0)])
    starts, ends = place_boundaries(log_mel_of(waveform), np.array([1.03, 4.13]), np.array([1.05, 4.15]))
    np.testing.assert_allclose(starts, [1.0, 4.1], atol=0.0126)
    np.testing.assert_allclose(ends, [1.1, 4.2], atol=0.0126)


def test_silence_and_shortness_are_no_error():
    for waveform in (np.zeros(4000, np.float32), np.zeros(100, np.float32), tones([(400, 0.3)])):
        log_mel = log_mel_of(waveform)
        assert -0.25 <= lag_seconds(log_mel, np.array([0.1, 0.15])) <= 0.25
        starts, ends = place_boundaries(log_mel, np.array([0.0, 0.02]), np.array([0.0, 5.0]))
        assert (starts <= ends).all()
        assert ends[0] <= starts[1]
    assert lag_seconds(log_mel_of(np.zeros(16_000, np.float32)), np.array([0.1, 0.15])) == 0


@pytest.mark.parametrize("lag", [-0.08, 0.0, 0.16])
def test_the_lag_of_a_model_is_found_by_ear(lag):
    with espeak.private_engine() as engine:
        waveform, _, phonemes = engine.speak_timed("Балдар бүгүн мектепке барышты, ата-энеси үйдө калды.", "ky+f3")
        centres = np.array([(phoneme.start + phoneme.end) / 2 for phoneme in phonemes]) / engine.sampling_rate
        waveform = np.concatenate([np.zeros(4800, np.float32), resample(waveform, engine.sampling_rate), np.zeros(4800, np.float32)])
    assert lag_seconds(log_mel_of(waveform), 0.3 + centres + lag) == pytest.approx(lag, abs=0.025)
