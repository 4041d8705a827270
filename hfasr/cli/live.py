"""`hfasr transcribe --stream -`: what comes on the standard input, printed while it is spoken."""

import math
import os
import queue
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from hfasr.audio import OPEN_WAV_SIZES
from hfasr.cli.shared import hide_loading
from hfasr.inference.transcript import one_line

_EXAMPLE = "arecord -f S16_LE -r 16000 -t raw | hfasr transcribe --model MODEL --stream -"
# format tag and bits of a WAV file -> type of a sample and its full scale
_WAV_SAMPLES = {(1, 8): ("u1", 128), (1, 16): ("<i2", 2**15), (1, 32): ("<i4", 2**31), (3, 32): ("<f4", 1), (3, 64): ("<f8", 1)}
_EXTENSIBLE = 0xFFFE
_COMPRESSED = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"\x1aE\xdf\xa3": "WebM"}
_COMPRESSED |= dict.fromkeys((b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2"), "MP3")
# minutes of speech wait in memory while a model loads or a machine is slow
_WAITING, _READ_BYTES = 512, 1 << 15


def live(settings, *, device: str | None, rate: int | None) -> None:
    """Print finals as lines, and on a terminal what is said so far below them, until the input ends or Ctrl-C.

    Args:
        settings: Which model, and its decoder.
        device: As for `Transcriber`.
        rate: Hz of raw samples, 16-bit little-endian, one channel; 16000 when None. A WAV header tells its own.

    Raises:
        ValueError: There is no audio, it is in another format, or an option is not for live audio.
    """
    if settings.options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in settings.options)
        raise ValueError(f"{names}: not for live audio; leave it out with --stream")
    if rate is not None and rate <= 0:
        raise ValueError(f"--rate is {rate}, expected samples per second, such as 16000")
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError(f"the standard input is a terminal or closed, expected audio from a pipe: {_EXAMPLE}")
    arriving = _Pipe(sys.stdin.fileno())  # read while the model loads, or a recorder would lose what it cannot write
    told, blocks = read_pcm(arriving, rate or 16_000)
    if rate is not None and told != rate:
        print(f"the WAV header on the standard input says {told} Hz; that is taken, not --rate {rate}", file=sys.stderr)
    from hfasr.inference.long.streaming import Streamer

    hide_loading()
    transcriber = settings.build(device=device)
    streamer = Streamer(transcriber.engine, decoder=transcriber.decoder, sampling_rate=told)
    try:
        for samples in blocks:
            _show(streamer.feed(samples))
    except KeyboardInterrupt:  # how one stops speaking; what was said is still told
        pass
    _show(streamer.finish())
    _show_partial("")


class _Pipe:
    """A pipe that a thread empties; `read1` as of a file, with all that was read since where the reader is late."""

    def __init__(self, descriptor: int):
        self._queue: queue.Queue[bytes] = queue.Queue(_WAITING)
        self._ended = False
        threading.Thread(target=self._fill, args=(descriptor,), daemon=True).start()

    def _fill(self, descriptor: int) -> None:
        data = b"?"
        while data:
            try:
                data = os.read(descriptor, _READ_BYTES)
            except OSError:  # as of a connection that was reset: the end
                data = b""
            self._queue.put(data)

    def read1(self, _: int = -1) -> bytes:
        """Return what there is, and wait where there is nothing; b"" at the end."""
        if self._ended:
            return b""
        parts = [self._queue.get()]
        while parts[-1] and not self._queue.empty():
            parts.append(self._queue.get())
        self._ended = not parts[-1]
        return b"".join(parts)


def read_pcm(file: BinaryIO | _Pipe, rate: int) -> tuple[int, Iterator[np.ndarray]]:
    """Read samples from a pipe that may end anywhere.

    Args:
        file: Raw 16-bit little-endian samples of one channel, or a WAV file of any number of channels, whose header need not tell
            a length.
        rate: Hz of raw samples.

    Returns:
        The rate, and blocks of samples `(S,)`, float32 in [-1, 1], as they come.

    Raises:
        ValueError: There is nothing, or no samples that can be read.
    """
    start = _at_least(file, b"", 12)
    if not start:
        raise ValueError(f"the standard input holds no audio, expected some from a pipe: {_EXAMPLE}")
    if name := next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None):
        raise ValueError(f"the standard input is {name}, expected raw samples or WAV: ffmpeg -i - -f wav - | hfasr transcribe --stream -")
    if start[:4] != b"RIFF" or start[8:12] != b"WAVE":
        return rate, _samples(file, start, "<i2", 2**15, 1)
    return _read_wav(file, start)


def _read_wav(file: BinaryIO | _Pipe, data: bytes) -> tuple[int, Iterator[np.ndarray]]:
    format_, position = b"", 12
    while True:
        data = _at_least(file, data, position + 8)
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        if len(data) < position or (name != b"data" and size > _READ_BYTES * _WAITING):
            raise ValueError("the standard input is a WAV file without samples, expected a data chunk after its header")
        if name == b"data":
            break
        data = _at_least(file, data, position + size + size % 2)
        if name == b"fmt ":
            format_ = data[position : position + size]
        position += size + size % 2
    tag, channels, rate, bits = (int.from_bytes(format_[a:b], "little") for a, b in ((0, 2), (2, 4), (4, 8), (14, 16)))
    if tag == _EXTENSIBLE:
        tag = int.from_bytes(format_[24:26], "little")
    if (tag, bits) not in _WAV_SAMPLES or not channels or not rate:
        raise ValueError(
            f"the WAV file on the standard input has {bits} bits of format {tag}, {channels} channels and {rate} Hz; "
            "give integers of 8, 16 or 32 bits or floats: ffmpeg -i - -f wav -c:a pcm_s16le -"
        )
    length = math.inf if size in OPEN_WAV_SIZES else size
    return rate, _samples(file, data[position:], *_WAV_SAMPLES[tag, bits], channels, length)


def _samples(file: BinaryIO | _Pipe, data: bytes, kind: str, scale: int, channels: int, length: float = math.inf) -> Iterator[np.ndarray]:
    """Yield samples of so many bytes, or of all there are; what a WAV file has behind them is none."""
    frame = np.dtype(kind).itemsize * channels
    while True:
        data = data[: min(len(data), length)]
        whole = len(data) // frame * frame
        if whole:
            samples = np.frombuffer(data[:whole], kind).astype(np.float32).reshape(-1, channels).mean(axis=1)
            yield ((samples - scale if kind == "u1" else samples) / scale).astype(np.float32)
        length -= whole
        if length < frame or not (more := file.read1(_READ_BYTES)):
            return  # what is left of a sample is nothing
        data = data[whole:] + more


def _at_least(file: BinaryIO | _Pipe, data: bytes, count: int) -> bytes:
    while len(data) < count and (more := file.read1(_READ_BYTES)):
        data += more
    return data


def _show(results: list) -> None:
    for result in results:
        if result.final:
            _show_partial("")
            if result.text:
                print(one_line(result.text), flush=True)
        else:
            _show_partial(one_line(result.text))


def _show_partial(text: str) -> None:
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text[-width:]}", end="", file=sys.stderr, flush=True)
