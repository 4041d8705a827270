"""Audio in any form to 16 kHz mono float32, and back to a file.

Decoding is libsndfile's (WAV, FLAC, MP3, OGG Vorbis, Opus), resampling torchaudio's, or an FFT's at odd rates. Files are read whole
and opened by content, so a wrong extension does not matter, and a file cut short is refused rather than silently shortened.
"""

import io
import math
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from hfasr.files import temporary_beside
from hfasr.paths import archived, read_bytes, segment_of, without_segment

SAMPLING_RATE = 16_000

# WAV writers that stream leave the data size open with one of these.
_OPEN_WAV_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF - 36)

# torchaudio's kernel grows with the square of the reduced rates: 44.1 kHz is 441 to 160, but 44,099 Hz would take gigabytes.
_KERNEL_LIMIT = 1000

# How much earlier than announced a recording may end: manifests round their seconds.
_SEGMENT_SLACK_SECONDS = 0.1


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
    if _cut_short(data):
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
    return np.ascontiguousarray(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)), rate


def _segment(name: str, frames: int, rate: int) -> tuple[int, int]:
    """Return the first sample and the one past the last of the segment that a name tells; of all samples when it tells none."""
    if (segment := segment_of(name)) is None:
        return 0, frames
    start = round(segment[0] * rate)
    end = frames if segment[1] is None else round(segment[1] * rate)
    if start >= min(end, frames) or end > frames + _SEGMENT_SLACK_SECONDS * rate:
        raise AudioError(f"{name}: the recording lasts only {frames / rate:.2f} s; is its manifest of another file?")
    return start, min(end, frames)


def _cut_short(data: bytes) -> bool:
    """Tell whether the container announces more bytes than there are.

    libsndfile reads what is left of a shortened WAV or Ogg file without a word.
    """
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        position = 12
        while position + 8 <= len(data):
            size = int.from_bytes(data[position + 4 : position + 8], "little")
            if data[position : position + 4] == b"data":
                return size not in _OPEN_WAV_SIZES and position + 8 + size > len(data)
            position += 8 + size + size % 2
        return True
    if data[:4] == b"OggS":
        page = data.rfind(b"OggS")
        if page + 27 > len(data):
            return True
        segments = data[page + 26]
        table = data[page + 27 : page + 27 + segments]
        return len(table) < segments or page + 27 + segments + sum(table) > len(data)
    if data[:3] == b"ID3" or (data[0] == 0xFF and len(data) > 1 and data[1] & 0xE0 == 0xE0):
        return _mp3_cut_short(data)
    return False


def _mp3_cut_short(data: bytes) -> bool:
    """Compare the byte count of a Xing or Info header, which most encoders write, with the bytes there are."""
    start = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    head = data[start : start + 200]
    tag = max(head.find(b"Xing"), head.find(b"Info"))
    if tag < 0 or tag + 16 > len(head):
        return False
    flags = int.from_bytes(head[tag + 4 : tag + 8], "big")
    if not flags & 2:
        return False
    field = tag + 8 + (4 if flags & 1 else 0)
    return start + int.from_bytes(head[field : field + 4], "big") > len(data)


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
    return AudioError(f"{name}: not audio that libsndfile can read ({str(error).rpartition(': ')[2].strip().rstrip('.')})")


def _name(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "<bytes>"))
