"""Audio in any form to 16 kHz mono float32, and back to a file.

Decoding is libsndfile's (WAV, FLAC, MP3, OGG Vorbis, Opus), resampling torchaudio's, or an FFT's at odd rates. Files are read whole
and opened by content, so a wrong extension does not matter, and a file cut short is refused rather than silently shortened.
"""

import io
import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from hfasr.files import temporary_beside
from hfasr.paths import archived, open_bytes, read_bytes, segment_of, without_segment

SAMPLING_RATE = 16_000

# WAV writers that stream leave the data size open with one of these; sox the second, arecord the fourth.
OPEN_WAV_SIZES = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 36)

# bytes: 27 and a table of 255 before 255 times 255
_LARGEST_OGG_PAGE = 65_307

# torchaudio's kernel grows with the square of the reduced rates: 44.1 kHz is 441 to 160, but 44,099 Hz would take gigabytes.
_KERNEL_LIMIT = 1000

# How much earlier than announced a recording may end: manifests round their seconds.
_SEGMENT_SLACK_SECONDS = 0.1


# A damaged header that says less would make minutes of a moment, and hours of those: gigabytes.
_LEAST_HZ = 1_000

# What libsndfile says of a length that it does not know.
_UNKNOWN_FRAMES = 2**62


class AudioError(ValueError):
    """Audio that cannot be used; the message names the file and the reason."""


def load_audio(source: str | os.PathLike | bytes | BinaryIO | np.ndarray | dict, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Load one utterance as a mono waveform at 16 kHz.

    Args:
        source: Path (or `archive_path`, or `segment_path`), encoded bytes, binary file object, array, or a `datasets` audio dict
            (`{"path", "bytes"}` or `{"array", "sampling_rate"}`). An array is `(samples,)` or two-dimensional with channels on
            the shorter axis, float in [-1, 1] or any signed integer type.
        sampling_rate: Rate in Hz of an array source; files and dicts carry their own.

    Returns:
        Waveform `(samples,)`, float32, 16 kHz, the mean of all channels.

    Raises:
        FileNotFoundError: The path does not exist.
        AudioError: Empty, cut short, not audio, shorter than its segment, or with NaN or infinite samples. It is a ValueError.
        ValueError: The sampling rate is not positive.
        TypeError: `source` is none of the above.
    """
    waveform, rate, name = _decode(source, sampling_rate)
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; re-export it from the original recording")
    return resample(waveform, rate)


def iter_blocks(
    source: str | os.PathLike | bytes | BinaryIO | np.ndarray | dict, block_seconds: int = 30, sampling_rate: int = SAMPLING_RATE
) -> Iterator[np.ndarray]:
    """Load a recording of any length in blocks, in the memory that a few of them take.

    Args:
        source: What `load_audio` takes. A file on disk or in an archive is read as the blocks are taken.
        block_seconds: Length of the blocks, a whole number of seconds.
        sampling_rate: Rate in Hz of an array source.

    Yields:
        Waveforms `(samples,)`, float32, 16 kHz, mono, about `block_seconds` long: joined they are what `load_audio` returns.

    Raises:
        FileNotFoundError, AudioError, ValueError, TypeError: As `load_audio`, when what is wrong is come upon.
    """
    if block_seconds != int(block_seconds) or block_seconds < 1:
        raise ValueError(f"block_seconds is {block_seconds}, expected a whole number of seconds from 1 up")
    if isinstance(source, dict) and source.get("array") is None:
        encoded, path = _encoded(source), source.get("path")
        blocks = _file_blocks(encoded, _name(path or encoded), int(block_seconds))
    elif isinstance(source, dict | np.ndarray) or not (
        isinstance(source, str | os.PathLike | bytes | bytearray) or hasattr(source, "read")
    ):
        blocks = _array_blocks(*_decode(source, sampling_rate), int(block_seconds))
    else:
        blocks = _file_blocks(_read_file(source) if hasattr(source, "read") else source, _name(source), int(block_seconds))
    resampler = None
    for block, rate, name in blocks:
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: holds NaN or infinite samples; re-export it from the original recording")
        resampler = resampler or Resampler(rate)
        if len(resampled := resampler.feed(block)):
            yield resampled
    if resampler and len(rest := resampler.finish()):
        yield rest


def try_audio(audio: dict) -> tuple[np.ndarray | None, str, bool]:
    """Load an audio dict of a row whatever is wrong with it: one clip ends no run.

    Returns:
        The waveform `(samples,)`, or None where it cannot be used; the reason, "" without one; and whether another try would
        end the same, which it may not after a read error or with too little memory.
    """
    try:
        waveform = load_audio(audio)
    except (ValueError, FileNotFoundError, TypeError) as error:
        return None, str(error), True
    except Exception as error:  # also whatever a damaged header leads to
        return None, f"{audio['path']}: {type(error).__name__}: {error}", False
    if not waveform.any():
        return None, f"{audio['path']}: silent, every sample is zero", True
    return waveform, "", True


def audio_duration(source: str | os.PathLike | bytes | BinaryIO | dict) -> float:
    """Read the duration in seconds from a file's header, without decoding; of an array dict, from its length.

    Raises:
        FileNotFoundError: The path does not exist.
        AudioError: Empty or not audio.
        ValueError: The sampling rate of an array is not positive.
        TypeError: `source` is none of the above.
    """
    if isinstance(source, dict):
        if source.get("array") is not None:
            waveform, rate, _ = _decode_array(source)
            return len(waveform) / _positive(rate)
        return _encoded_duration(_encoded(source), _name(source.get("path") or source.get("bytes")))
    return _encoded_duration(source, _name(source))


def _encoded_duration(source: str | os.PathLike | bytes | BinaryIO, name: str) -> float:
    if isinstance(source, bytes | bytearray | memoryview):
        file = io.BytesIO(source)
    elif hasattr(source, "read"):
        file = io.BytesIO(_read_file(source))
    elif not isinstance(source, str | os.PathLike):
        raise TypeError(f"cannot tell the duration of {type(source).__name__}; give a path, bytes, a binary file or an audio dict")
    elif archived(source):
        file = io.BytesIO(read_bytes(source))
    elif not os.path.isfile(path := without_segment(source)):
        raise FileNotFoundError(f"{name}: no such audio file")
    else:
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    with file:
        try:
            info = soundfile.info(file)
        except soundfile.SoundFileError as error:
            raise _not_audio(name, error) from None
    if info.frames <= 0:
        raise AudioError(f"{name}: holds no samples")
    start, end = _segment(name, info.frames, info.samplerate)
    return (end - start) / info.samplerate


def resample(waveform: np.ndarray, from_hz: int, to_hz: int = SAMPLING_RATE) -> np.ndarray:
    """Resample a waveform `(samples,)` with torchaudio's sinc interpolation; the kernel is kept per pair of rates.

    Pairs of rates with a small common divisor, whose kernel would not fit in memory, go through an FFT.

    Raises:
        ValueError: A rate is not positive.
    """
    if _positive(from_hz) == _positive(to_hz):
        return waveform
    if max(from_hz, to_hz) > _KERNEL_LIMIT * math.gcd(from_hz, to_hz):
        return _resample_by_fft(waveform, from_hz, to_hz)
    import torch

    with torch.inference_mode():
        return _resampler(from_hz, to_hz)(torch.from_numpy(np.ascontiguousarray(waveform))).numpy()


class Resampler:
    """Resamples a stream to what `resample` makes of the whole of it.

    It lags by a few samples that the kernel reaches into what follows; at rates that go through an FFT by 1 to 2 s, and there what
    leaves is within 1e-3 of the whole's.

    Raises:
        ValueError: A rate is not positive.
    """

    def __init__(self, from_hz: int, to_hz: int = SAMPLING_RATE):
        divisor = math.gcd(_positive(from_hz), _positive(to_hz))
        self._rates = from_hz, to_hz
        # so many samples in are so many out, without a fraction
        self._in, self._out = from_hz // divisor, to_hz // divisor
        by_fft = max(self._in, self._out) > _KERNEL_LIMIT
        self._reach = from_hz if by_fft else 0 if from_hz == to_hz else _resampler(from_hz, to_hz).width
        self._lead = self._in * -(-self._reach // self._in)
        self._held, self._before = np.zeros(0, np.float32), 0

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples `(S,)` float32, and return those `(S',)` that no later ones can change."""
        if self._in == self._out:
            return samples
        self._held = np.concatenate([self._held, samples])
        groups = (len(self._held) - self._before - self._reach) // self._in
        if groups < 1:
            return self._held[:0]
        settled = self._before + groups * self._in
        resampled = resample(self._held[: settled + self._reach], *self._rates)
        resampled = resampled[self._before // self._in * self._out :][: groups * self._out]
        begin = max(0, settled - self._lead)
        self._held, self._before = self._held[begin:], settled - begin
        return resampled

    def finish(self) -> np.ndarray:
        """Return the samples `(S',)` that are left; the stream is at its end."""
        if len(self._held) == self._before:
            return self._held[:0]
        resampled = resample(self._held, *self._rates)[self._before // self._in * self._out :]
        self._held, self._before = self._held[:0], 0
        return resampled


def long_enough(waveform: np.ndarray) -> np.ndarray:
    """Lengthen a 16 kHz waveform `(S,)` to 0.1 s by silence, since a model without a single frame raises an error for the whole batch."""
    return np.pad(waveform, (0, max(0, SAMPLING_RATE // 10 - len(waveform))))


def write_audio(
    target: str | os.PathLike | BinaryIO, waveform: np.ndarray, sampling_rate: int = SAMPLING_RATE, format: str | None = None
) -> None:
    """Write a waveform `(samples,)` or `(samples, channels)` in [-1, 1] to a file or file object.

    Args:
        target: A path, written under a temporary name and then renamed, or a binary file object.
        waveform: Float samples; WAV and FLAC hold them as 16-bit.
        sampling_rate: Hz. Opus takes 8, 16 and 48 kHz.
        format: "WAV", "FLAC", "MP3", "OGG" (Vorbis) or "OPUS"; from the path's extension when None.

    Raises:
        ValueError: The format is unknown, or it does not take this rate.
    """
    if format is None:
        if not isinstance(target, str | os.PathLike):
            raise ValueError("write_audio to a file object needs format=, one of WAV, FLAC, MP3, OGG, OPUS")
        format = Path(target).suffix.lstrip(".").upper()
    container, subtype = {"OPUS": ("OGG", "OPUS")}.get(format.upper(), (format.upper(), None))
    if container not in soundfile.available_formats():
        raise ValueError(f"audio format {format!r} is not known here; use WAV, FLAC, MP3, OGG or OPUS")
    try:
        if not isinstance(target, str | os.PathLike):
            soundfile.write(target, waveform, sampling_rate, format=container, subtype=subtype)
            return
        temporary = temporary_beside(target)
        try:
            soundfile.write(temporary, waveform, sampling_rate, format=container, subtype=subtype)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except soundfile.SoundFileError as error:
        raise ValueError(f"cannot write {format} at {sampling_rate} Hz: {error}") from None


@lru_cache(maxsize=8)
def _resampler(from_hz: int, to_hz: int):
    import torchaudio

    return torchaudio.transforms.Resample(from_hz, to_hz)


def _resample_by_fft(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    # zeros keep the end from leaking into the start; their number is the one for which the padded clip comes nearest to a
    # whole number of new samples, so that the rate is right
    lengths = len(waveform) + 1024 + np.arange(2**16)
    rests = lengths * to_hz % from_hz
    length = int(lengths[np.argmin(np.minimum(rests, from_hz - rests))])
    new_length = max(round(length * to_hz / from_hz), 1)
    resampled = np.fft.irfft(np.fft.rfft(waveform, length), new_length) * (new_length / length)
    return resampled[: math.ceil(len(waveform) * to_hz / from_hz)].astype(np.float32)


def _positive(rate: int) -> int:
    if rate <= 0:
        raise ValueError(f"a sampling rate of {rate} Hz is not possible; give the samples per second, such as {SAMPLING_RATE}")
    return rate


def _decode(source: Any, sampling_rate: int) -> tuple[np.ndarray, int, str]:
    """Return (mono float32 `(samples,)`, rate in Hz, a name for messages)."""
    if isinstance(source, dict):
        if source.get("array") is not None:
            return _decode_array(source)
        encoded, path = _encoded(source), source.get("path")
        if source.get("bytes") is None:
            return _decode_path(os.fspath(path))
        return _decode_bytes(encoded, str(path) if path else "<bytes>")
    if isinstance(source, str | os.PathLike):
        return _decode_path(os.fspath(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode_bytes(bytes(source), "<bytes>")
    if isinstance(source, np.ndarray):
        return _mono_array(source, "array"), sampling_rate, "array"
    if hasattr(source, "read"):
        return _decode_bytes(_read_file(source), _name(source))
    raise TypeError(f"cannot load audio from {type(source).__name__}; give a path, bytes, a binary file, a NumPy array or an audio dict")


def _decode_array(audio: dict) -> tuple[np.ndarray, int, str]:
    if audio.get("sampling_rate") is None:
        raise TypeError(f"an audio dict with 'array' needs 'sampling_rate' too, found keys {', '.join(audio)}")
    return _mono_array(np.asarray(audio["array"]), "array"), int(audio["sampling_rate"]), "array"


def _encoded(audio: dict) -> bytes | str | os.PathLike:
    """Return the bytes of an audio dict without an array, or its path."""
    source = audio["bytes"] if audio.get("bytes") is not None else audio.get("path")
    if source is None:
        raise TypeError(f"an audio dict needs 'array', 'bytes' or 'path' with a value, found keys {', '.join(audio)}")
    return source


def _read_file(file: BinaryIO) -> bytes:
    data = b"" if isinstance(file, io.TextIOBase) else file.read()
    if isinstance(file, io.TextIOBase) or isinstance(data, str):
        raise TypeError(f"{_name(file)}: opened as text; open an audio file with mode 'rb'")
    return data


def _decode_path(path: str) -> tuple[np.ndarray, int, str]:
    file = without_segment(path)
    if file == path or archived(path):
        return _decode_bytes(_read(path), path)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{path}: no such audio file")
    return *_samples(file, path), path  # from the middle of a long recording only the segment is read


def _read(path: str) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such audio file") from None


def _decode_bytes(data: bytes, name: str) -> tuple[np.ndarray, int, str]:
    if not data:
        raise AudioError(f"{name}: the file is empty (0 bytes)")
    waveform, rate = _samples(io.BytesIO(data), name)
    if _cut_short(io.BytesIO(data)):
        raise AudioError(f"{name}: cut short after {len(waveform) / rate:.2f} s; copy or download it again")
    return waveform, rate, name


def _samples(file: str | BinaryIO, name: str) -> tuple[np.ndarray, int]:
    """Decode a file, or the segment that its name tells, to mono float32."""
    try:
        with soundfile.SoundFile(file) as opened:
            rate = opened.samplerate
            start, end = _segment(name, opened.frames, rate)
            if start:
                opened.seek(start)
            samples = opened.read(end - start, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise _not_audio(name, error) from None
    if len(samples) == 0:
        raise AudioError(f"{name}: holds no samples")
    if len(samples) < end - start:
        raise AudioError(f"{name}: cut short after {len(samples) / rate:.2f} s; copy or download it again")
    # libsndfile's MP3 decoder can return a block of NaN for damaged frames; load_audio checks.
    return _mono(samples), rate


def _mono(samples: np.ndarray) -> np.ndarray:
    """(samples, channels) -> (samples,)."""
    return np.ascontiguousarray(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1))


def _segment(name: str, frames: int, rate: int) -> tuple[int, int]:
    """Return the first sample and the one past the last of the segment that a name tells; of all samples when it tells none."""
    if rate < _LEAST_HZ:
        raise AudioError(f"{name}: says that it has {rate} samples a second, expected {_LEAST_HZ} or more; is its header damaged?")
    if frames >= _UNKNOWN_FRAMES:
        raise AudioError(f"{name}: does not say how long it is, as of FLAC that was written to a pipe; convert it to a file once more")
    if (segment := segment_of(name)) is None:
        return 0, frames
    start = round(segment[0] * rate)
    end = frames if segment[1] is None else round(segment[1] * rate)
    if start >= min(end, frames) or end > frames + _SEGMENT_SLACK_SECONDS * rate:
        raise AudioError(f"{name}: the recording lasts only {frames / rate:.2f} s; is its manifest of another file?")
    return start, min(end, frames)


def _file_blocks(source: str | os.PathLike | bytes, name: str, block_seconds: int) -> Iterator[tuple[np.ndarray, int, str]]:
    """Decode a file to blocks of mono float32 `(samples,)`, each with its rate and the name of the file."""
    try:
        file = open_bytes(source) if isinstance(source, str | os.PathLike) else io.BytesIO(source)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such audio file") from None
    with file:
        if not file.read(1):
            raise AudioError(f"{name}: the file is empty (0 bytes)")
        cut_short = segment_of(name) is None and _cut_short(file)
        file.seek(0)
        # libsndfile reads a file on disk by itself several times faster than through Python
        plain = isinstance(source, str | os.PathLike) and not archived(source)
        try:
            with soundfile.SoundFile(without_segment(source) if plain else file) as opened:
                rate = opened.samplerate
                start, end = _segment(name, opened.frames, rate)
                if start:
                    opened.seek(start)
                if cut_short:  # told before hours of what is left were worked on
                    # the header of an MP3 tells the frames of the whole
                    after = "" if opened.format == "MP3" else f" after {opened.frames / rate:.2f} s"
                    raise AudioError(f"{name}: cut short{after}; copy or download it again")
                place = start
                while place < end:
                    samples = opened.read(min(end - place, block_seconds * rate), dtype="float32", always_2d=True)
                    if not len(samples):
                        break
                    place += len(samples)
                    yield _mono(samples), rate, name
        except soundfile.SoundFileError as error:
            raise _not_audio(name, error) from None
    if place == start:
        raise AudioError(f"{name}: holds no samples")
    if place < end:
        raise AudioError(f"{name}: cut short after {(place - start) / rate:.2f} s; copy or download it again")


def _array_blocks(waveform: np.ndarray, rate: int, name: str, block_seconds: int) -> Iterator[tuple[np.ndarray, int, str]]:
    for start in range(0, len(waveform), block_seconds * _positive(rate)):
        yield waveform[start : start + block_seconds * rate], rate, name


def _cut_short(file: BinaryIO) -> bool:
    """Tell whether the container announces more bytes than there are.

    libsndfile reads what is left of a shortened WAV or Ogg file without a word.
    """
    size = file.seek(0, os.SEEK_END)
    head = _bytes_at(file, 0, 12)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        position = 12
        while position + 8 <= size:
            chunk = _bytes_at(file, position, 8)
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                return length not in OPEN_WAV_SIZES and position + 8 + length > size
            position += 8 + length + length % 2
        return True
    if head[:4] == b"OggS":
        tail = _bytes_at(file, max(0, size - _LARGEST_OGG_PAGE), _LARGEST_OGG_PAGE)
        page = tail.rfind(b"OggS")
        if page < 0 or page + 27 > len(tail):
            return True
        segments = tail[page + 26]
        table = tail[page + 27 : page + 27 + segments]
        return len(table) < segments or page + 27 + segments + sum(table) > len(tail)
    if head[:3] == b"ID3" or (head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        return _mp3_cut_short(file, head, size)
    return False


def _mp3_cut_short(file: BinaryIO, start: bytes, size: int) -> bool:
    """Compare the byte count of a Xing or Info header, which most encoders write, with the bytes there are."""
    first = 0
    if start[:3] == b"ID3" and size >= 10:
        first = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
    head = _bytes_at(file, first, 200)
    tag = max(head.find(b"Xing"), head.find(b"Info"))
    if tag < 0 or tag + 16 > len(head):
        return False
    flags = int.from_bytes(head[tag + 4 : tag + 8], "big")
    if not flags & 2:
        return False
    field = tag + 8 + (4 if flags & 1 else 0)
    return first + int.from_bytes(head[field : field + 4], "big") > size


def _bytes_at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _mono_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(f"{name}: shape {array.shape} is not a waveform; expected (samples,) or two dimensions with channels")
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array.astype(np.float32) / -float(np.iinfo(array.dtype).min)
    elif not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name}: dtype {array.dtype} is not audio; expected floats in [-1, 1] or signed integers")
    if array.ndim == 2:
        array = array.mean(axis=int(np.argmin(array.shape)))
    return np.ascontiguousarray(array, dtype=np.float32)


def _not_audio(name: str, error: Exception) -> AudioError:
    reason = str(error).rpartition(": ")[2].strip().rstrip(".")
    if "lost sync" in reason:  # FLAC that begins well
        return AudioError(f"{name}: damaged or cut short ({reason}); copy or download it again")
    return AudioError(f"{name}: not audio that libsndfile can read ({reason})")


def _name(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "<bytes>"))
