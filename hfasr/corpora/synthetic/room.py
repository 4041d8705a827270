"""The sound of a room and of the device that records in it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Device:
    """How a device hears a room.

    Attributes:
        echo_db: how much louder the echo is than for a device close to the mouth
        noise_db: how much louder the noise is than for the first device
        band_hz: where it begins and ends to hear; all that the sampling rate holds when None
    """

    echo_db: float = 0
    noise_db: float = 0
    band_hz: tuple[float, float] | None = None


def in_room(speech: np.ndarray, sampling_rate: int, out_hz: int, random: np.random.Generator, device: Device = Device()) -> np.ndarray:
    """Put speech into a small room with a background noise 20 to 40 dB below it.

    The room is a direct path and an exponentially decaying tail of 0.1 to 0.35 s, 6 to 20 dB below it. Echo and change of
    sampling rate are done on one spectrum. Equal generators give the same room, so that devices can stand in it side by side.

    Args:
        speech: waveform, float32 `(samples,)`
        sampling_rate: of it, Hz
        out_hz: sampling rate of the result
        random: chooses the room, the noise and the level
        device: what records

    Returns:
        A waveform, float32 `(samples,)` within ±0.9, with a pause before and after the speech.
    """
    before, after = (int(seconds * sampling_rate) for seconds in random.uniform([0.15, 0.2], [0.4, 0.5]))
    decay_seconds = random.uniform(0.1, 0.35)
    tail = random.standard_normal(int(decay_seconds * sampling_rate)) * np.logspace(0, -3, int(decay_seconds * sampling_rate))
    tail_db = random.uniform(-20, -6) + device.echo_db
    echo = np.concatenate([[1.0], tail * 10 ** (tail_db / 20) / np.linalg.norm(tail)])
    samples = before + len(speech) + after
    common = np.gcd(sampling_rate, out_hz)
    # the transform spans whole periods of both rates, and the echo of the end does not reach the start
    periods = _smooth(-(-(samples + len(echo)) * common // sampling_rate))
    size, size_out = periods * sampling_rate // common, periods * out_hz // common
    spectrum = np.fft.rfft(np.concatenate([np.zeros(before), speech]), size) * np.fft.rfft(echo, size)
    resampled = np.zeros(size_out // 2 + 1, np.complex128)
    kept = min(len(spectrum), len(resampled))
    resampled[:kept] = spectrum[:kept]
    clip = np.fft.irfft(resampled, size_out)[: samples * out_hz // sampling_rate] * (size_out / size)

    level = np.sqrt(np.mean(np.square(clip)) * samples / max(len(speech), 1))
    noise = _noise(len(clip), out_hz, random)
    clip += noise * level * 10 ** ((device.noise_db - random.uniform(20, 40)) / 20)
    clip *= 10 ** (random.uniform(-32, -20) / 20) / level
    if device.band_hz:
        clip = _in_band(clip, out_hz, *device.band_hz)
    return (clip * min(1, 0.9 / np.abs(clip).max())).astype(np.float32)


def _noise(samples: int, sampling_rate: int, random: np.random.Generator) -> np.ndarray:
    """Make noise of power 1 whose spectrum falls with a random slope from white to brown, `(samples,)`."""
    size = _smooth(samples)
    frequency = np.fft.rfftfreq(size, 1 / sampling_rate)
    slope = np.where(frequency < 60, 0, np.maximum(frequency, 60) ** -random.uniform(0, 1))
    noise = np.fft.irfft(slope * np.exp(2j * np.pi * random.random(len(slope))), size)[:samples]
    return noise / np.sqrt(np.mean(np.square(noise)))


def _in_band(waveform: np.ndarray, sampling_rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Take out what lies below and above a band, by the magnitude of a Butterworth filter of order 4 at each end, without delay."""
    size = _smooth(len(waveform) + sampling_rate // 10)
    frequency = np.fft.rfftfreq(size, 1 / sampling_rate)
    kept = 1 / np.sqrt((1 + (low_hz / np.maximum(frequency, 1)) ** 8) * (1 + (frequency / high_hz) ** 8))
    return np.fft.irfft(np.fft.rfft(waveform, size) * kept, size)[: len(waveform)]


def _smooth(least: int) -> int:
    """Return the next number with no prime factor above 5, for which a Fourier transform is fast."""
    number = least
    while True:
        rest = number
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 1
