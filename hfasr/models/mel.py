"""MelFeatureExtractor: waveform -> normalised log-mel, as NVIDIA NeMo computes it for QuartzNet and Citrinet.

Follows nemo/collections/asr/parts/preprocessing/features.py (FilterbankFeatures, NeMo 3.0.0) and, with `framing="nemo24"`, the same
file of NeMo 2.4.0 and older, which the published checkpoints were trained with.

Shapes: B utterances, S samples, F mel frames, M mel bins.
"""

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import logging

logger = logging.get_logger(__name__)

FRAMINGS = ("current", "nemo24")
NORMALIZATIONS = ("per_feature", "all_features", "none")
WINDOWS = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "bartlett": torch.bartlett_window,
    "ones": lambda length, periodic, device: torch.ones(length, device=device),
}
STD_GUARD = 1e-5
# frames per FFT call: the working set (about 4 kB a frame) stays in a core's cache
FRAMES_PER_CALL = 512
# on a GPU: few calls, each of some 100 MB
_FRAMES_PER_CALL_ON_GPU = 65_536


@lru_cache
def _mel_matrix(
    sampling_rate: int, n_fft: int, mel_bins: int, low_hz: float = 0.0, high_hz: float | None = None, mel_norm: str | None = "slaney"
) -> torch.Tensor:
    """Mel filters on Slaney's scale from `low_hz` to `high_hz` (None: half the sampling rate), float32 (n_fft // 2 + 1, M).

    Transformers' `mel_filter_bank` gives the same for even sampling rates only: it halves the rate to a whole number, librosa does not.
    """
    edges = np.linspace(*_mel(np.array([low_hz, sampling_rate / 2 if high_hz is None else high_hz])), mel_bins + 2)
    edges = np.where(edges < 15, edges * 200 / 3, 1000 * 6.4 ** ((edges - 15) / 27))
    rising = (np.arange(n_fft // 2 + 1)[:, None] * sampling_rate / n_fft - edges) / np.append(np.diff(edges), 1.0)
    falling = 1 - rising
    matrix = np.minimum(rising[:, :-2], falling[:, 1:-1]).clip(min=0)
    if mel_norm == "slaney":
        matrix *= 2 / (edges[2:] - edges[:-2])
    return torch.from_numpy(matrix).float()


@lru_cache
def _mel_matrix_on(device: torch.device, *options) -> torch.Tensor:
    """`_mel_matrix` on a device, where it stays: each copy would make the host wait for the device."""
    return _mel_matrix(*options).to(device)


def _mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale (Auditory Toolbox, 1998): 15 mel to 1 kHz, logarithmic above."""
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


class MelFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel energies with zero mean and unit variance per utterance and mel bin.

    Args:
        feature_size: mel bins M.
        sampling_rate: Hz; a call with another rate is refused.
        window_length: samples of the symmetric window (QuartzNet 320, Citrinet 400).
        hop_length: samples between frames.
        n_fft: samples of the Fourier transform, at least `window_length`.
        preemphasis: y[t] = x[t] - preemphasis * x[t - 1]; 0 turns it off.
        framing: "current" (NeMo 2.5 and newer: S // hop frames, zeros beyond the edges) or "nemo24" (NeMo 2.4 and older:
            S // hop + 1 frames, the signal reflected at its own edges).
        pad_to: the batch is padded to a multiple of this many frames. 1 (default) keeps a single utterance free of padding, which
            `pipeline()` needs because it decodes every frame it gets.
        padding_value: value of frames past the end; 0 is the mean after normalisation.
        window: "hann", "hamming", "blackman", "bartlett" or "ones".
        normalize: "per_feature" (each mel bin by itself), "all_features" (all bins together) or "none".
        low_hz, high_hz: edges of the mel filters; None is half the sampling rate.
        mel_norm: "slaney" gives the filters equal area, None equal height.
        log_guard: what is added before the logarithm.
        power: exponent of the magnitude spectrum, 1 or 2.

    Raises:
        ValueError: an option is out of range.
    """

    model_input_names = ["input_features", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 16_000,
        window_length: int = 320,
        hop_length: int = 160,
        n_fft: int = 512,
        preemphasis: float = 0.97,
        framing: str = "current",
        pad_to: int = 1,
        padding_value: float = 0.0,
        window: str = "hann",
        normalize: str = "per_feature",
        low_hz: float = 0.0,
        high_hz: float | None = None,
        mel_norm: str | None = "slaney",
        log_guard: float = 2.0**-24,
        power: float = 2.0,
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        for name, value, known in (
            ("framing", framing, FRAMINGS),
            ("window", window, tuple(WINDOWS)),
            ("normalize", normalize, NORMALIZATIONS),
            ("mel_norm", mel_norm, ("slaney", None)),
            ("power", power, (1, 2)),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(str, known))}")
        if not 1 < window_length <= n_fft:
            raise ValueError(f"window_length is {window_length} samples, expected 2 to n_fft = {n_fft}")
        if n_fft % 2:
            raise ValueError(f"n_fft is {n_fft} samples, expected an even number")
        if hop_length < 1 or pad_to < 1:
            raise ValueError(f"hop_length and pad_to must be at least 1, found {hop_length} and {pad_to}")
        if not 0 <= low_hz < (sampling_rate / 2 if high_hz is None else high_hz) <= sampling_rate / 2:
            raise ValueError(f"low_hz and high_hz are {low_hz} and {high_hz}, expected rising frequencies up to {sampling_rate / 2:g} Hz")
        if not log_guard > 0:
            raise ValueError(f"log_guard is {log_guard}, expected a small number above 0")
        self.window_length = window_length
        self.hop_length = hop_length
        self.n_fft = n_fft
        self.preemphasis = preemphasis
        self.framing = framing
        self.pad_to = pad_to
        self.window = window
        self.normalize = normalize
        self.low_hz = low_hz
        self.high_hz = high_hz
        self.mel_norm = mel_norm
        self.log_guard = log_guard
        self.power = power

    def __call__(
        self,
        raw_speech: np.ndarray | torch.Tensor | list,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        device: str | torch.device = "cpu",
    ) -> BatchFeature:
        """Compute the features of one utterance or a batch.

        Args:
            raw_speech: one waveform (S,) or several, as a list of waveforms or an array (B, S); float in [-1, 1].
            sampling_rate: Hz of the waveforms, checked against the extractor's.
            padding: True or "longest" pads to the longest row; False asks for rows of equal length.
            pad_to_multiple_of: frames; overrides `pad_to`.
            return_attention_mask: whether to add the mask; default the extractor's own setting (True).
            return_tensors: "pt" for torch tensors; "np" or None for NumPy arrays.
            device: where to compute.

        Returns:
            `input_features` float32 (B, F, M), and `attention_mask` int64 (B, F), 1 on valid frames.

        Raises:
            ValueError: wrong sampling rate, no waveform, a waveform too short for one frame, unequal rows without padding.
            TypeError: samples that are not floating point.
        """
        if sampling_rate is None:
            logger.warning_once(f"No sampling_rate was given; the waveforms are taken as {self.sampling_rate} Hz.")
        elif sampling_rate != self.sampling_rate:
            raise ValueError(f"sampling_rate is {sampling_rate} Hz, this model needs {self.sampling_rate} Hz. Resample the audio first.")
        if padding not in (True, False, "longest"):
            raise ValueError(f"padding is {padding!r}, expected True, 'longest' or False")
        rows = [row.to(device) for row in _as_rows(raw_speech)]
        frames = [self.frame_count(len(row)) for row in rows]
        self._check_lengths(rows, frames)
        if not padding and len(set(frames)) > 1:
            raise ValueError(f"padding is False, but the rows have {min(frames)} to {max(frames)} frames. Use padding=True.")
        multiple = pad_to_multiple_of or self.pad_to
        features = self._features(rows, frames, -(-max(frames) // multiple) * multiple)
        data = {"input_features": features}
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            frame_index = torch.arange(features.shape[1], device=features.device)
            data["attention_mask"] = (frame_index < torch.tensor(frames, device=features.device)[:, None]).long()
        if return_tensors != "pt":
            data = {name: value.cpu().numpy() for name, value in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)

    def padded_features(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Compute the features of waveforms that are padded already, all rows at once: for a GPU, where a call for each row costs.

        Args:
            waveforms: (B, S), zeros past the end of each row.
            lengths: samples of each row (B,), on the same device, each enough for a frame.

        Returns:
            `input_features` (B, F, M) on the device, those of a call but for rounding.
        """
        lead, window, hop = self._lead, self.window_length, self.hop_length
        rows, samples = waveforms.shape
        width = -(-(lead + samples + window) // hop) * hop
        inside = torch.arange(samples, device=waveforms.device) < lengths[:, None]
        signal = waveforms.new_zeros(rows * width + window)
        # a view, for rows lie one behind the other as in _joined_signal
        by_row = signal[: rows * width].view(rows, width)
        by_row[:, lead : lead + samples] = waveforms
        by_row[:, lead + 1 : lead + samples] -= self.preemphasis * waveforms[:, :-1]
        by_row[:, lead : lead + samples] *= inside
        if self.framing == "nemo24":
            by_row[:, :lead] = by_row[:, lead + 1 : 2 * lead + 1].flip(1)
            behind = torch.arange(window - lead, device=waveforms.device)
            ends = lead + lengths[:, None]
            by_row.scatter_(1, ends + behind, by_row.gather(1, ends - 2 - behind))
        frames = self.frame_count(samples)
        energies = self._log_energies(signal, _FRAMES_PER_CALL_ON_GPU)[: rows * width // hop].view(rows, -1, self.feature_size)[:, :frames]
        valid = (torch.arange(frames, device=waveforms.device) < self.frame_count(lengths)[:, None])[:, :, None]
        if self.normalize != "none":
            over = (1,) if self.normalize == "per_feature" else (1, 2)
            count = self.frame_count(lengths)[:, None, None] * (1 if self.normalize == "per_feature" else self.feature_size)
            energies = (energies - (energies * valid).sum(over, keepdim=True) / count) * valid
            deviation = (energies.square().sum(over, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
            energies = energies / (deviation + STD_GUARD)
        return energies.masked_fill(~valid, self.padding_value)

    def frame_count(self, samples: int | torch.Tensor) -> int | torch.Tensor:
        """Valid mel frames F of a waveform of `samples` samples, or those of several, as a tensor of counts."""
        return samples // self.hop_length + (self.framing == "nemo24")

    def window_samples(self, device: str | torch.device = "cpu") -> torch.Tensor:
        """The window, float32 (window_length,)."""
        return WINDOWS[self.window](self.window_length, periodic=False, device=device)

    def mel_filters(self, device: str | torch.device = "cpu") -> torch.Tensor:
        """The mel filters, float32 (n_fft // 2 + 1, M)."""
        options = (self.sampling_rate, self.n_fft, self.feature_size, self.low_hz, self.high_hz, self.mel_norm)
        return _mel_matrix_on(torch.device(device), *options)

    @property
    def _lead(self) -> int:
        """Samples by which the first window starts before the signal: frame t is centred on sample t * hop."""
        return self.n_fft // 2 - (self.n_fft - self.window_length) // 2

    def _check_lengths(self, rows: list[torch.Tensor], frames: list[int]) -> None:
        # reflection needs one sample more than it copies
        needed = self.hop_length if self.framing == "current" else self.window_length - self._lead + 1
        for index, row in enumerate(rows):
            if len(row) < needed or frames[index] < 1:
                raise ValueError(f"waveform {index} has {len(row)} samples, at least {needed} are needed for one frame")

    def _features(self, rows: list[torch.Tensor], frames: list[int], padded_frames: int) -> torch.Tensor:
        """Normalised log-mel (B, padded_frames, M) of waveforms (S,) with the given numbers of valid frames."""
        signal, first_frames = self._joined_signal(rows, frames)
        energies = self._log_energies(signal)
        features = signal.new_full((len(rows), padded_frames, self.feature_size), self.padding_value)
        for row, (start, count) in enumerate(zip(first_frames, frames, strict=True)):
            features[row, :count] = self._normalized(energies[start : start + count])
        return features

    def _normalized(self, energies: torch.Tensor) -> torch.Tensor:
        """Energies (F, M) of one utterance less their mean, over their unbiased deviation."""
        if self.normalize == "none":
            return energies
        if self.normalize == "all_features":
            return (energies - energies.mean()) / (energies.std() + STD_GUARD)
        # the deviation from the rounded mean, summed along frames: in digital silence only this rounding is left, and it is NeMo's
        centred = energies - energies.T.contiguous().sum(dim=1) / len(energies)
        # one frame has no variance: NeMo takes a deviation of 0 there
        deviation = (centred.square().sum(dim=0) / max(len(energies) - 1, 1)).sqrt()
        return centred / (deviation + STD_GUARD)

    def _joined_signal(self, rows: list[torch.Tensor], frames: list[int]) -> tuple[torch.Tensor, list[int]]:
        """Lay the pre-emphasised rows one behind the other, each with its own edges, starting on multiples of the hop.

        One Fourier transform then serves rows of any lengths, and no row sees another or its padding.

        Returns:
            signal (samples,), and for each row the index of its first frame in it.
        """
        lead, window, hop = self._lead, self.window_length, self.hop_length
        first_frames, total = [], 0
        for row, count in zip(rows, frames, strict=True):
            first_frames.append(total)
            total += -(-max(lead + len(row) + window, (count - 1) * hop + window) // hop)
        signal = rows[0].new_zeros(total * hop + window)
        for row, first in zip(rows, first_frames, strict=True):
            start = first * hop + lead
            end = start + len(row)
            signal[start:end] = row
            signal[start + 1 : end] -= self.preemphasis * row[:-1]
            if self.framing == "nemo24":
                tail = window - lead
                signal[start - lead : start] = signal[start + 1 : start + lead + 1].flip(0)
                signal[end : end + tail] = signal[end - 1 - tail : end - 1].flip(0)
        return signal, first_frames

    def _log_energies(self, signal: torch.Tensor, frames_per_call: int = FRAMES_PER_CALL) -> torch.Tensor:
        """Natural log of mel energies (frames, M) of a signal (samples,), one frame per hop."""
        window, mel = self.window_samples(signal.device), self.mel_filters(signal.device)
        before = (self.n_fft - self.window_length) // 2
        after = self.n_fft - self.window_length - before
        energies = []
        for frames in signal.unfold(0, self.window_length, self.hop_length).split(frames_per_call):
            # the place of the window changes no magnitude, but the rounding in near-silent frames: centred, it is NeMo's
            spectrum = torch.fft.rfft(functional.pad(frames * window, (before, after)))
            power = spectrum.real.square() + spectrum.imag.square()
            energies.append(torch.log((power if self.power == 2 else power.sqrt()) @ mel + self.log_guard))
        return torch.cat(energies)


def _as_rows(raw_speech: np.ndarray | torch.Tensor | list) -> list[torch.Tensor]:
    """Waveforms in any accepted form -> a list of float32 tensors (S,)."""
    if isinstance(raw_speech, (list, tuple)) and not (len(raw_speech) and np.isscalar(raw_speech[0])):
        rows = list(raw_speech)
    else:
        # a list of numbers, or an array whose first axis is the batch when there are two
        array = raw_speech if torch.is_tensor(raw_speech) else np.asarray(raw_speech)
        rows = [array] if array.ndim == 1 else list(array)
    if not rows:
        raise ValueError("no waveform was given")
    return [_as_waveform(row, index) for index, row in enumerate(rows)]


def _as_waveform(row: np.ndarray | torch.Tensor | list, index: int) -> torch.Tensor:
    waveform = row if torch.is_tensor(row) else torch.from_numpy(np.array(row, copy=None))
    if waveform.ndim != 1:
        raise ValueError(f"waveform {index} has shape {tuple(waveform.shape)}, expected mono (samples,)")
    if not waveform.is_floating_point():
        raise TypeError(f"waveform {index} holds {waveform.dtype}, expected floating point in [-1, 1]. Divide int16 samples by 32768.")
    return waveform.detach().float()
