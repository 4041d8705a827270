"""Frames of a CTC path and the sound itself -> where symbols begin and end.

CTC says where a symbol is sure, in a frame or two, not where it begins and ends; and a model may say all symbols early or late by the
same time, up to 0.2 s, for nothing in CTC's training keeps it from that. So the sound decides. First the lag of the model is found: the
shift at which symbols lie where it is loud, and the middles between neighbours where the spectrum changes. Then each boundary is put
where the spectrum changes between two neighbours, or where a pause begins and ends. tests/benchmarks/alignment.py compares this with
rules that only look at the frames.

Shapes: S samples, N spectra, M mel bins, L symbols.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from hfasr.audio import SAMPLING_RATE
from hfasr.inference.long.silence import longest_run

HOP_SECONDS = 0.005
_HOP, _FFT, _WINDOW, _BINS = 80, 512, 320, 20
# 60 dB below the loudest is as good as silence
_RANGE = 1e-6

_MOST_LAG_SECONDS = 0.25
# what 0.1 s of lag must gain in the mean over all symbols, times their number: few symbols prove little
_LAG_COST = 1.5
# quiet is what is nearer to the quietest twentieth of a recording than to its symbols, in this proportion of decibels
_QUIET = 0.4
_PAUSE_SECONDS = 0.1
# how far from the frames where it is sure a symbol may begin or end when there is no neighbour
_REACH_SECONDS = 0.3


class Spectrum:
    """Log-mel spectrum of a recording, every 5 ms, computed while its blocks go by."""

    def __init__(self):
        # one array that doubles: many small ones among those of the transform would keep the heap from being used again
        self._powers, self._count = np.empty((1 << 14, _BINS), np.float32), 0
        self.samples = 0
        """How many have gone by."""

    def listen(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the blocks `(S,)`, 16 kHz, as they are."""
        import torchaudio

        mel = torchaudio.transforms.MelSpectrogram(
            SAMPLING_RATE, n_fft=_FFT, win_length=_WINDOW, hop_length=_HOP, n_mels=_BINS, f_min=60, f_max=7600, center=False
        )

        def take(waveform: np.ndarray) -> np.ndarray:
            if (count := (len(waveform) - _FFT) // _HOP + 1) < 1:
                return waveform
            if self._count + count > len(self._powers):
                self._powers = np.concatenate([self._powers, np.empty((max(len(self._powers), count), _BINS), np.float32)])
            with torch.inference_mode():
                self._powers[self._count : self._count + count] = mel(torch.from_numpy(waveform)).T.numpy()
            self._count += count
            return waveform[count * _HOP :]

        held = np.zeros(_FFT // 2, np.float32)
        for block in blocks:
            self.samples += len(block)
            held = take(np.concatenate([held, block]))
            yield block
        take(np.concatenate([held, np.zeros(_FFT // 2, np.float32)]))

    def log_mel(self) -> np.ndarray:
        """Return the spectra of what has gone by `(N, M)`, the n-th of 20 ms around sample 80 n."""
        powers = self._powers[: self._count]
        powers = np.maximum(powers, max(float(powers.max(initial=0)) * _RANGE, 1e-20))
        return np.log(powers, out=powers)


def lag_seconds(log_mel: np.ndarray, centres: np.ndarray) -> float:
    """Find how much later a model says its symbols than they are heard.

    Args:
        log_mel: `(N, M)`, of `Spectrum`.
        centres: Seconds of the middle of the frames of each symbol `(L,)`, in order.

    Returns:
        Seconds from -0.25 to 0.25; above 0 where the model is late.
    """
    most = round(_MOST_LAG_SECONDS / HOP_SECONDS)
    shifts = np.arange(-most, most + 1) * HOP_SECONDS
    scores = -_LAG_COST / max(1, len(centres)) * np.abs(shifts) / 0.1
    for values, times, weight in ((log_mel.mean(1), centres, 1.0), (_change(log_mel), (centres[1:] + centres[:-1]) / 2, 0.5)):
        if len(times) and (spread := values.std()) > 0:
            places = np.arange(len(values)) * HOP_SECONDS
            scores += [weight * float(np.interp(times - shift, places, values).mean() / spread) for shift in shifts]
    return float(shifts[np.argmax(scores)])


def _change(log_mel: np.ndarray) -> np.ndarray:
    """Return how much the spectrum changes at each place `(N,)`: the distance of the means of the 15 ms before and after."""
    change = np.zeros(len(log_mel), np.float32)
    if len(log_mel) < 6:
        return change
    for values in log_mel.T:  # one by one, for all of 3 h would take a gigabyte
        sums = values[:-2] + values[1:-1] + values[2:]
        change[3:-2] += ((sums[3:] - sums[:-3]) / 3) ** 2
    return np.sqrt(change, out=change)


def place_boundaries(log_mel: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find where symbols begin and end.

    Between two neighbours the boundary is where the spectrum is best split in two parts that are each alike (least squares). Where it is
    quiet for 0.1 s or longer in between, or neighbours are further apart than a symbol may be long, each ends for itself.

    Args:
        log_mel: `(N, M)`, of `Spectrum`.
        firsts, lasts: Seconds between which each symbol is sure to be heard `(L,)`, in order, first up to last.

    Returns:
        Seconds of the begin and the end of each symbol, two of `(L,)`; none overlaps another.
    """
    loudness, ends = log_mel.mean(1), len(log_mel)
    at = np.clip(np.rint(np.stack([firsts, lasts]) / HOP_SECONDS).astype(np.int64), 0, max(0, ends - 1))
    floor, level = np.percentile(loudness, 5), np.median(loudness[at])
    quiet = loudness < floor + _QUIET * (level - floor)
    pause, reach = round(_PAUSE_SECONDS / HOP_SECONDS), round(_REACH_SECONDS / HOP_SECONDS)
    starts, stops = np.empty(len(firsts)), np.empty(len(firsts))
    for place in range(len(firsts) + 1):
        left = at[1][place - 1] if place else None
        right = at[0][place] + 1 if place < len(firsts) else None
        if left is not None and right is not None and right - left <= 2 * reach:
            first, last = longest_run(quiet[left:right])
            if last - first >= pause:
                stops[place - 1], starts[place] = left + first - 0.5, left + last - 0.5
            else:
                stops[place - 1] = starts[place] = left + _split(log_mel[left:right]) - 0.5
            continue
        if left is not None:
            part = quiet[left : left + reach]
            stops[place - 1] = left + longest_run(part)[0] - 0.5 if part.any() else left + 1
        if right is not None:
            begin = max(0, right - reach)
            part = quiet[begin:right]
            starts[place] = begin + longest_run(part)[1] - 0.5 if part.any() else right - 2
    return np.clip(starts, 0, ends) * HOP_SECONDS, np.clip(stops, 0, ends) * HOP_SECONDS


def _split(log_mel: np.ndarray) -> int:
    """Return before which spectrum of `(N, M)` to split, so that the squared distances to the means of both parts are least."""
    count = len(log_mel)
    if count < 3:
        return (count + 1) // 2
    sums, places = np.cumsum(log_mel, axis=0, dtype=np.float64), np.arange(1, count)
    left, right = (sums[:-1] ** 2).sum(1) / places, ((sums[-1] - sums[:-1]) ** 2).sum(1) / (count - places)
    return 1 + int(np.argmax(left + right))
