"""Where something is heard in a recording of any length, by its energy alone, so that no other model has to be had.

A network that normalises what it hears makes noise as loud as speech: given minutes of silence it says something, and a word among
them comes out too quiet. So long silences are left out, and what is between them is heard by itself, as utterances are in training.

Shapes: S samples, L levels, one for every 10 ms.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from hfasr.audio import SAMPLING_RATE

PAUSE_SECONDS = 0.7
PAD_SECONDS = 0.3
_HOP = SAMPLING_RATE // 100
_PREEMPHASIS = 0.97  # hum and rumble weigh little then, as in the networks' spectra
# The threshold lies above the noise by so many dB, or by this share of the way from the noise to the loud if that is more. Noise and
# loud are percentiles of the levels of the last half minute. Of less than a second they tell little.
_LEAST_DB, _SHARE = 6.0, 0.2
_NOISE, _LOUD = 5, 95
_MEMORY, _UNKNOWN = 3_000, 100
_FLOOR_DB = -100.0
# a level is the median over so many to either side, so that a click is nothing
_SIDE = 3


class SpeechGate:
    """Leaves the silences of a stream out.

    Silence is what stays near the noise of the last half minute for longer than a pause.

    Args:
        pause_seconds: Silences up to this long are kept; `math.inf` keeps all.
        pad_seconds: What is kept of a longer one at either end, at most half a pause.
        multiple: What comes after a silence begins on a multiple of so many samples.

    Attributes:
        samples: How many were taken so far.
        open: Whether the silence before what comes next is shorter than a pause.

    Raises:
        ValueError: The pads are longer than the pause.
    """

    def __init__(self, pause_seconds: float = PAUSE_SECONDS, pad_seconds: float = PAD_SECONDS, multiple: int = 1):
        if not 0 <= 2 * pad_seconds <= pause_seconds:
            raise ValueError(f"pause_seconds is {pause_seconds:g}, expected at least {2 * pad_seconds:g}, for so much of a silence is kept")
        self.samples = 0
        self._pause, self._pad, self._multiple = pause_seconds * 100, round(pad_seconds * 100), multiple
        self._held, self._begin, self._before = np.zeros(0, np.float32), 0, np.float32(0)
        self._heard, self._measured, self._decided = np.zeros(0, np.float32), 0, 0  # levels; their numbers since the beginning
        self.open, self._active_end = False, 0

    def feed(self, samples: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Take the next samples `(S,)` float32 at 16 kHz, and return what is kept of those that are decided.

        Returns:
            The sample of the stream with which each piece begins, and the piece `(S',)`. One that begins where the piece before it
            ended goes on; another comes after a silence.
        """
        self.samples += len(samples)
        if self._pause == math.inf:
            self.open = True
            return [(self.samples - len(samples), samples)] if len(samples) else []
        self._held = np.concatenate([self._held, samples])
        self._measure()
        return self._decide(self._measured - _SIDE)

    def finish(self) -> list[tuple[int, np.ndarray]]:
        """Return what is kept of the rest; the stream is at its end."""
        if not self._decided and self._measured < _UNKNOWN:  # too short to tell
            return [(self._begin, self._held)] if len(self._held) else []
        self._heard = np.append(self._heard, np.repeat(self._heard[-1:], _SIDE))
        self._measured += _SIDE
        pieces = self._decide(self._measured - _SIDE)
        if self.open and len(self._held):
            pieces.append((self._begin, self._held))
        return pieces

    def _measure(self) -> None:
        """Measure the levels of the whole frames that have none yet."""
        fresh = self._held[self._measured * _HOP - self._begin :]
        fresh = fresh[: len(fresh) // _HOP * _HOP]
        if not len(fresh):
            return
        rises = fresh.copy()
        rises[1:] -= _PREEMPHASIS * fresh[:-1]
        rises[0] -= _PREEMPHASIS * self._before
        self._before = fresh[-1]
        measured = levels(rises)
        if not self._measured:
            self._heard = np.repeat(measured[:1], _SIDE)
        self._heard = np.concatenate([self._heard, measured])
        self._measured += len(measured)

    def _decide(self, until: int) -> list[tuple[int, np.ndarray]]:
        """Give out what is kept up to a frame, and forget what is not."""
        if until <= self._decided:
            return []
        first = self._decided - self._measured + len(self._heard)
        around = self._heard[first - _SIDE : first + until - self._decided + _SIDE]
        active = np.median(np.lib.stride_tricks.sliding_window_view(around, 2 * _SIDE + 1), axis=-1) >= self._threshold()
        if not self._decided and until < _UNKNOWN and not active.any():
            return []  # speech from the first sample on shows when the first pause between its sounds does
        pieces = []
        for begin, end in (runs(active) + self._decided).tolist():
            pieces += self._close(begin)
            if not self.open:
                self._forget(begin - self._pad)
                self.open = True
            self._active_end = end
        pieces += self._close(until)
        if self.open:
            pieces += self._give(min(until, self._active_end + self._pad))
        else:
            self._forget(until - self._pad)
        self._decided, self._heard = until, self._heard[-_MEMORY:]
        return pieces

    def _threshold(self) -> float:
        noise, loud = np.percentile(self._heard, (_NOISE, _LOUD))
        return noise + max(_LEAST_DB, _SHARE * (loud - noise))

    def _close(self, frame: int) -> list[tuple[int, np.ndarray]]:
        """End what is kept if it has been silent for longer than a pause before a frame."""
        if not self.open or frame - self._active_end <= self._pause:
            return []
        self.open = False
        return self._give(self._active_end + self._pad)

    def _give(self, frame: int) -> list[tuple[int, np.ndarray]]:
        begin, count = self._begin, frame * _HOP - self._begin
        if count <= 0:
            return []
        piece, self._held, self._begin = self._held[:count], self._held[count:], begin + count
        return [(begin, piece)]

    def _forget(self, frame: int) -> None:
        begin = max(frame * _HOP // self._multiple, -(-self._begin // self._multiple)) * self._multiple
        self._held, self._begin = self._held[begin - self._begin :], begin


def split_at_silences(
    blocks: Iterable[np.ndarray], *, max_seconds: float, pause_seconds: float = PAUSE_SECONDS, multiple: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a recording into utterances, without the silences between them.

    Args:
        blocks: The recording in pieces `(S,)` of any lengths, 16 kHz.
        max_seconds: Longest utterance. What goes on for longer without a pause is cut in the quietest 0.1 s of the second half.
        pause_seconds: Shortest silence that ends an utterance.
        multiple: Utterances begin on multiples of so many samples.

    Yields:
        The sample that an utterance begins with, and its waveform `(S,)`.

    Raises:
        ValueError: `max_seconds` is not above 1, or `pause_seconds` is shorter than what is kept of a silence.
    """
    check_utterances(max_seconds)
    longest = int(max_seconds * SAMPLING_RATE) // multiple * multiple
    held, begin = np.zeros(0, np.float32), 0
    for first, piece in heard(blocks, pause_seconds=pause_seconds, multiple=multiple):
        if first != begin + len(held):
            if len(held):
                yield begin, held
            held, begin = piece, first
        else:
            held = np.concatenate([held, piece])
        while len(held) > longest:
            half = longest // 2
            cut = max(1, (half + _quietest(held[half:longest])) // multiple) * multiple
            yield begin, held[:cut]
            held, begin = held[cut:], begin + cut
    if len(held):
        yield begin, held


def check_utterances(max_seconds: float) -> None:
    """Refuse a longest utterance for `split_at_silences`.

    Raises:
        ValueError: It is not above 1.
    """
    if not 1 < max_seconds < math.inf:
        raise ValueError(f"utterances of at most {max_seconds:g} s were asked for, expected more than 1 s, such as 20 s")


def heard(blocks: Iterable[np.ndarray], *, pause_seconds: float = PAUSE_SECONDS, multiple: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Leave the long silences of a recording out.

    Args:
        blocks: The recording in pieces `(S,)` of any lengths, 16 kHz.
        pause_seconds, multiple: As of `SpeechGate`.

    Yields:
        Pieces as `SpeechGate.feed` returns them, and an empty one where the recording ends.
    """
    gate = SpeechGate(pause_seconds, min(PAD_SECONDS, pause_seconds / 2), multiple)
    for block in blocks:
        # in half minutes, so that the same is kept however the recording comes
        for start in range(0, len(block), _MEMORY * _HOP):
            yield from gate.feed(block[start : start + _MEMORY * _HOP])
    yield from gate.finish()
    yield gate.samples, np.zeros(0, np.float32)


def levels(waveform: np.ndarray) -> np.ndarray:
    """Return the power of a waveform `(S,)` in dB of full scale for every whole 10 ms, (L,) float32."""
    frames = waveform[: len(waveform) // _HOP * _HOP].reshape(-1, _HOP)
    power = np.einsum("ls,ls->l", frames, frames) / _HOP
    return np.maximum(10 * np.log10(power + 1e-20), _FLOOR_DB).astype(np.float32)


def runs(active: np.ndarray) -> np.ndarray:
    """Return begins and ends, (n, 2), of the runs of True."""
    return np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)


def longest_run(active: np.ndarray) -> tuple[int, int]:
    """Return begin and end of the longest run of True; (0, 0) without one."""
    edges = runs(active)
    return tuple(edges[np.argmax(edges[:, 1] - edges[:, 0])].tolist()) if len(edges) else (0, 0)


def _quietest(waveform: np.ndarray) -> int:
    """Return the middle of the quietest 0.1 s, in samples."""
    measured = levels(waveform)
    return (int(np.convolve(measured, np.ones(10), mode="valid").argmin()) + 5) * _HOP
