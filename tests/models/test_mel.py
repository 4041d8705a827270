"""MelFeatureExtractor against NeMo's stored tensors and a float64 definition."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from hfasr.models.mel import MelFeatureExtractor, _mel_matrix

FRONT_ENDS = {"quartznet5x1_en": {}, "citrinet_tiny_zh": {"feature_size": 80, "window_length": 400}}


def features_of(extractor, waveform):
    return extractor(waveform, sampling_rate=16_000, return_tensors="np").input_features


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_mel_matrix_is_the_one_in_nemos_checkpoint(name, nemo_reference):
    stored = nemo_reference(name)["mel_fb"][0]
    assert np.abs(_mel_matrix(16_000, 512, len(stored)).numpy().T - stored).max() < 1e-8


@pytest.mark.parametrize("clip", range(4))
@pytest.mark.parametrize(("framing", "prefix"), [("current", "pad0"), ("nemo24", "legacy24")])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_equals_nemo(name, framing, prefix, clip, nemo_reference):
    reference = nemo_reference(name)
    length = int(reference[f"{prefix}_mel_len_{clip}"])
    features = features_of(MelFeatureExtractor(framing=framing, **FRONT_ENDS[name]), reference[f"wav_{clip}"])
    assert features.shape[1] == length
    assert np.abs(features[0].T - reference[f"{prefix}_mel_{clip}"][:, :length]).max() < 1e-4


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_padded_batch_equals_nemo(name, nemo_reference):
    reference = nemo_reference(name)
    batch = MelFeatureExtractor(**FRONT_ENDS[name])([reference[f"wav_{i}"] for i in range(3)], sampling_rate=16_000, return_tensors="np")
    assert batch.attention_mask.sum(-1).tolist() == reference["pad0_batch_mel_len"].tolist()
    # NeMo keeps one frame more, which it always sets to zero
    assert np.abs(batch.input_features.transpose(0, 2, 1) - reference["pad0_batch_mel"][:, :, :-1]).max() < 1e-4


@pytest.mark.parametrize("framing", ["current", "nemo24"])
def test_padded_row_equals_row_alone(framing, waveforms):
    extractor = MelFeatureExtractor(framing=framing, pad_to=16)
    batch = extractor(waveforms, sampling_rate=16_000, return_tensors="np")
    assert batch.input_features.shape[1] % 16 == 0
    for row, mask, waveform in zip(batch.input_features, batch.attention_mask, waveforms, strict=True):
        alone = extractor(waveform, sampling_rate=16_000, return_tensors="np", pad_to_multiple_of=1).input_features[0]
        assert mask.sum() == len(alone)
        assert mask[: len(alone)].all()
        assert np.abs(row[: len(alone)] - alone).max() < 1e-5
        assert not row[len(alone) :].any()


def slow_log_mel(waveform, bins, window_length, hop, n_fft, framing):
    """The definition, frame by frame in float64."""
    signal = waveform.astype(np.float64)
    signal = np.concatenate([signal[:1], signal[1:] - 0.97 * signal[:-1]])
    signal = np.pad(signal, n_fft // 2, mode="reflect" if framing == "nemo24" else "constant")
    window = np.zeros(n_fft)
    left = (n_fft - window_length) // 2
    window[left : left + window_length] = np.hanning(window_length)
    mel = mel_filter_bank(n_fft // 2 + 1, bins, 0.0, 8_000.0, 16_000, norm="slaney", mel_scale="slaney")
    count = len(waveform) // hop + (framing == "nemo24")
    power = [np.abs(np.fft.rfft(window * signal[t * hop : t * hop + n_fft])) ** 2 for t in range(count)]
    energies = np.log(np.array(power) @ mel + 2.0**-24)
    return (energies - energies.mean(0)) / (energies.std(0, ddof=1) + 1e-5)


@pytest.mark.parametrize("framing", ["current", "nemo24"])
@pytest.mark.parametrize(("bins", "window", "hop", "n_fft"), [(40, 320, 160, 320), (64, 301, 120, 512), (80, 400, 200, 1024)])
def test_other_windows_equal_the_definition(framing, bins, window, hop, n_fft, waveforms):
    extractor = MelFeatureExtractor(feature_size=bins, window_length=window, hop_length=hop, n_fft=n_fft, framing=framing)
    expected = slow_log_mel(waveforms[1], bins, window, hop, n_fft, framing)
    assert np.abs(features_of(extractor, waveforms[1])[0] - expected).max() < 1e-4


def test_odd_sampling_rate_has_nemos_filters():
    # librosa.filters.mel spaces bins over the whole of the rate, where transformers halves it to a whole number
    freqs = np.arange(257) * 11_025 / 512
    edges = np.linspace(0, 15 + 27 * np.log(5.5125) / np.log(6.4), 42)
    hz = np.where(edges < 15, edges * 200 / 3, 1000 * np.exp(np.log(6.4) * (edges - 15) / 27))
    expected = [np.interp(freqs, hz[m : m + 3], [0, 2 / (hz[m + 2] - hz[m]), 0]) for m in range(40)]
    assert np.abs(_mel_matrix(11_025, 512, 40).numpy().T - np.array(expected)).max() < 1e-8


def test_digital_silence_is_nemos():
    # NeMo 3.0.0's value: what is left of a constant after its mean was rounded to float32
    features = features_of(MelFeatureExtractor(), np.zeros(16_000, dtype=np.float32))
    assert features.shape == (1, 100, 64)
    assert np.abs(features - -0.160).max() < 1e-3


def test_one_frame_is_all_zero():
    # one value less its own mean, over a deviation of 0 + 1e-5
    features = features_of(MelFeatureExtractor(), np.ones(160, dtype=np.float32))
    assert features.shape == (1, 1, 64)
    assert not features.any()


def test_input_forms_agree(waveforms):
    extractor = MelFeatureExtractor()
    expected = features_of(extractor, waveforms[0])
    forms = [waveforms[0].tolist(), torch.from_numpy(waveforms[0]), waveforms[0].astype(np.float64), waveforms[0][None], [waveforms[0]]]
    for form in forms:
        assert np.array_equal(features_of(extractor, form), expected)


def test_mask_and_tensor_options(waveforms):
    extractor = MelFeatureExtractor()
    batch = extractor(waveforms, sampling_rate=16_000, return_attention_mask=False, return_tensors="pt")
    assert list(batch) == ["input_features"]
    assert batch.input_features.dtype == torch.float32
    assert isinstance(extractor(waveforms, sampling_rate=16_000)["attention_mask"], np.ndarray)
    assert "attention_mask" not in MelFeatureExtractor(return_attention_mask=False)(waveforms, sampling_rate=16_000)


@pytest.mark.parametrize(
    ("waveform", "options", "message"),
    [
        (np.zeros(16_000, np.float32), {"sampling_rate": 8_000}, "8000 Hz, this model needs 16000"),
        (np.zeros(159, np.float32), {"sampling_rate": 16_000}, "waveform 0 has 159 samples, at least 160"),
        ([], {"sampling_rate": 16_000}, "no waveform"),
        (np.zeros((1, 2, 16_000), np.float32), {"sampling_rate": 16_000}, r"shape \(2, 16000\), expected mono"),
        ([np.zeros(400, np.float32), np.zeros(800, np.float32)], {"sampling_rate": 16_000, "padding": False}, "rows have 2 to 5 frames"),
        (np.zeros(16_000, np.float32), {"sampling_rate": 16_000, "padding": "max_length"}, "padding is 'max_length'"),
    ],
)
def test_bad_calls(waveform, options, message):
    with pytest.raises(ValueError, match=message):
        MelFeatureExtractor()(waveform, **options)


def test_integer_samples_are_refused():
    with pytest.raises(TypeError, match="int16"):
        MelFeatureExtractor()(np.zeros(16_000, np.int16), sampling_rate=16_000)


@pytest.mark.parametrize("options", [{"framing": "nemo2"}, {"window_length": 600}, {"hop_length": 0}, {"pad_to": 0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MelFeatureExtractor(**options)


def test_survives_saving(tmp_path, waveforms):
    extractor = MelFeatureExtractor(feature_size=80, window_length=400, framing="nemo24")
    extractor.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is MelFeatureExtractor
    assert np.array_equal(features_of(loaded, waveforms[0]), features_of(extractor, waveforms[0]))
