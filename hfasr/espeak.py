"""The espeak-ng library bundled with espeakng-loader: where it is, which voices it has, and speaking with it.

Nothing is loaded until a function is called. espeak-ng keeps its state in globals of the loaded library, so the functions
here share one `Engine`, initialised once and guarded by a lock. phonemizer loads a copy of the file and is not disturbed.
"""

import ctypes
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np

# values of espeak-ng's speak_lib.h
_SYNCHRONOUS = 2  # espeak_Synth returns when the callback has had all samples
_DONT_EXIT = 0x8000  # missing data gives an error instead of ending the process
_PHONEME_EVENTS, _IPA_EVENTS = 1, 2  # they change nothing of the sound
_END_OF_EVENTS, _WORD, _PHONEME = 0, 1, 7
_STRESS = str.maketrans("", "", "ˈˌ-")  # marks of stress, and the hyphen that phonemizer takes out too
_CHARACTER_POSITION, _UTF8 = 1, 1
_PARAMETERS = {"rate": (1, 80, 450), "volume": (2, 0, 200), "pitch": (3, 0, 100), "pitch_range": (4, 0, 100)}

_shared_lock = threading.RLock()


class _Voice(ctypes.Structure):
    """espeak_VOICE of speak_lib.h."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; its union is taken for the name of a phoneme."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


# int callback(short *samples, int count, espeak_EVENT *events)
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Sound(NamedTuple):
    """A word or phoneme in speech: the samples from `start` to `end`, end exclusive."""

    text: str
    start: int
    end: int


class Timed(NamedTuple):
    """Speech, and what is said when."""

    waveform: np.ndarray
    """float32 `(samples,)` in [-1, 1]."""
    words: list[Sound]
    """As they are written; pauses belong to none."""
    phonemes: list[Sound]
    """In the voice's symbols without stress, as `Phonemizer` writes them."""


class Engine:
    """One loaded and initialised espeak-ng. Its methods may be called from any thread.

    Args:
        library: a shared library of espeak-ng; each file is loaded once per process, so equal paths share their state

    Attributes:
        sampling_rate: of all its speech, Hz

    Raises:
        OSError: if the library cannot be loaded.
        RuntimeError: if it does not find its data.
    """

    def __init__(self, library: pathlib.Path):
        self._lock = threading.Lock()
        self._chunks: list[np.ndarray] = []
        # type, position in the text and length there in characters, sample, name
        self._events: list[tuple[int, int, int, int, str]] | None = None
        self._library = ctypes.CDLL(str(library))
        self._library.espeak_Info.restype = ctypes.c_char_p
        self._library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        options = _DONT_EXIT | _PHONEME_EVENTS | _IPA_EVENTS
        self.sampling_rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data_path()).encode(), options)
        if self.sampling_rate <= 0:
            raise RuntimeError(f"espeak-ng could not read its data in {data_path()}; reinstall espeakng-loader")
        # it seeds its breath noise with the time of day
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        # the library keeps only the address, so the callback must live as long as the engine
        self._callback = _CALLBACK(self._keep)
        self._library.espeak_SetSynthCallback(self._callback)

    def _keep(self, samples, count: int, events) -> int:
        if samples and count:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        if self._events is not None and events:
            place = 0
            while (event := events[place]).type != _END_OF_EVENTS:
                name = event.name.decode(errors="replace") if event.type == _PHONEME else ""
                self._events.append((event.type, event.text_position, event.length, event.sample, name))
                place += 1
        return 0

    def version(self) -> str:
        """Return the version of the library, such as `1.52.0`."""
        return self._library.espeak_Info(None).decode()

    def list_voices(self, kind: str | None = None) -> list[tuple[str, str, list[str]]]:
        """Return name, file and language codes of all voices of a language, or of the voice variants (kind `variant`)."""
        wanted = ctypes.byref(_Voice(languages=ctypes.cast(ctypes.c_char_p(kind.encode()), ctypes.c_void_p))) if kind else None
        with self._lock:
            listed, found = self._library.espeak_ListVoices(wanted), []
            while pointer := listed[len(found)]:
                voice = pointer.contents
                found.append((voice.name.decode(), voice.identifier.decode(), list(_language_codes(voice.languages))))
        return found

    def speak(
        self, text: str, voice: str = "ky", *, rate: int = 175, pitch: int = 50, pitch_range: int = 50, volume: int = 100
    ) -> np.ndarray:
        """Speak a text; see the function `speak` for the arguments. The waveform is float32 `(samples,)` at `sampling_rate`."""
        return self._speak(text, voice, {"rate": rate, "pitch": pitch, "pitch_range": pitch_range, "volume": volume}, False)[0]

    def speak_timed(
        self, text: str, voice: str = "ky", *, rate: int = 175, pitch: int = 50, pitch_range: int = 50, volume: int = 100
    ) -> Timed:
        """Speak a text and tell where its words and phonemes are, by espeak-ng's events; the arguments are those of `speak`.

        A word begins at its event, and ends where the next word or a pause begins; so does a phoneme. A text that espeak-ng splits
        further, such as at a hyphen, has the parts as words.
        """
        waveform, events = self._speak(text, voice, {"rate": rate, "pitch": pitch, "pitch_range": pitch_range, "volume": volume}, True)
        return Timed(waveform, *_sounds(text, events, len(waveform)))

    def _speak(self, text: str, voice: str, values: dict[str, int], timed: bool) -> tuple[np.ndarray, list]:
        """Return waveform and events."""
        check_voice(voice)
        for name, value in values.items():
            _, low, high = _PARAMETERS[name]
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        encoded = text.encode() + b"\0"
        size = ctypes.c_size_t(len(encoded))
        with self._lock:
            self._chunks.clear()
            self._events = [] if timed else None
            self._call("espeak_SetVoiceByName", voice.encode())
            for name, value in values.items():
                self._call("espeak_SetParameter", _PARAMETERS[name][0], value, 0)
            self._call("espeak_Synth", encoded, size, 0, _CHARACTER_POSITION, 0, _UTF8, None, None)
            samples, events = np.concatenate([np.zeros(0, np.int16), *self._chunks]), self._events
        return samples.astype(np.float32) / 32768, events

    def close(self) -> None:
        """Free what the library holds. The engine must not be used afterwards."""
        with self._lock:
            self._library.espeak_Terminate()

    def _call(self, function: str, *arguments) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RuntimeError(f"{function}{arguments} of espeak-ng failed with error {status}")


def _sounds(text: str, events: list[tuple[int, int, int, int, str]], samples: int) -> tuple[list[Sound], list[Sound]]:
    """Return words and phonemes of what the events tell: each begins at its own, and the next one of its kind or a pause ends it."""
    words, phonemes, word, phoneme = [], [], None, None
    for kind, position, length, sample, name in [*events, (_PHONEME, 0, 0, samples, "")]:
        symbol = name.translate(_STRESS).strip() if kind == _PHONEME else ""
        if kind == _PHONEME and phoneme is not None:
            phonemes.append(Sound(*phoneme, sample))
            phoneme = None
        if word is not None and (kind == _WORD or (kind == _PHONEME and not symbol)):
            words.append(Sound(*word, sample))
            word = None
        if kind == _WORD:
            word = text[position - 1 : position - 1 + length], sample
        if symbol:
            phoneme = symbol, sample
    return words, phonemes


def _language_codes(address: int | None) -> Iterator[str]:
    # a list of entries, each a priority byte and a NUL-terminated code, ended by a zero byte
    while address and ctypes.c_ubyte.from_address(address).value:
        code = ctypes.string_at(address + 1)
        yield code.decode()
        address += len(code) + 2


def library_path() -> pathlib.Path:
    """Return the shared library inside espeakng-loader."""
    import espeakng_loader

    return pathlib.Path(espeakng_loader.get_library_path())


def data_path() -> pathlib.Path:
    """Return the folder espeak-ng-data inside espeakng-loader."""
    import espeakng_loader

    return pathlib.Path(espeakng_loader.get_data_path())


def version() -> str:
    """Return the version of the bundled espeak-ng, such as `1.52.0`."""
    return _shared().version()


@cache
def voices() -> dict[str, str]:
    """Return the name of the voice of each language code, such as `{"ky": "Kyrgyz", …}`."""
    listed = _shared().list_voices()
    return dict(sorted((code, name) for name, _, codes in reversed(listed) for code in codes))


@cache
def variants() -> tuple[str, ...]:
    """Return what may follow a language code and `+` in a voice, such as `f2` or `klatt`."""
    return tuple(sorted(pathlib.PurePosixPath(file.replace("\\", "/")).name for _, file, _ in _shared().list_voices("variant")))


def check_voice(voice: str) -> None:
    """Raise ValueError unless `voice` is a language code of `voices()`, alone or followed by `+` and one of `variants()`."""
    language, plus, variant = voice.partition("+")
    if language not in voices():
        near = [code for code in voices() if code[:2] == language[:2].lower()]
        hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(voices())}."
        raise ValueError(f"espeak-ng {version()} has no voice for the language code {language!r}. {hint}")
    # espeak-ng itself takes an unknown variant in silence and speaks without it
    if plus and variant not in variants():
        raise ValueError(f"espeak-ng {version()} has no variant {variant!r} for the voice {voice!r}. It has {', '.join(variants())}.")


def speak(
    text: str, voice: str = "ky", *, rate: int = 175, pitch: int = 50, pitch_range: int = 50, volume: int = 100
) -> tuple[np.ndarray, int]:
    """Speak a text.

    The waveform of a text differs a little from call to call, because espeak-ng carries the phase of its voice on from one
    text to the next; `private_engine` is for speech that must be the same again.

    Args:
        text: what to say
        voice: a language code, alone or followed by `+` and a variant: `ky`, `ky+f2`
        rate: words per minute, 80 to 450
        pitch: 0 to 100; 50 is the natural pitch of the voice
        pitch_range: 0 (monotone) to 100; 50 is natural
        volume: 0 to 200; above 100 loud vowels may clip

    Returns:
        The waveform, float32 `(samples,)` in [-1, 1], and its sampling rate in Hz. An empty text gives a moment of silence.

    Raises:
        ValueError: for a voice that espeak-ng does not have, or a value outside its range.
    """
    engine = _shared()
    return engine.speak(text, voice, rate=rate, pitch=pitch, pitch_range=pitch_range, volume=volume), engine.sampling_rate


@contextmanager
def private_engine() -> Iterator[Engine]:
    """Yield an engine of its own: equal calls in equal order give equal samples, whatever else speaks in this process.

    It costs about 2 ms and 1 MB, and several work side by side in threads.
    """
    # the loader shares a library among all who load the same file; a copy has globals of its own
    with tempfile.TemporaryDirectory(prefix="hfasr-espeak-", ignore_cleanup_errors=True) as folder:
        engine = Engine(shutil.copy(library_path(), folder))
        try:
            yield engine
        finally:
            engine.close()


def _shared() -> Engine:
    # functools.cache alone would let two threads make two engines
    with _shared_lock:
        return _make_shared()


@cache
def _make_shared() -> Engine:
    return Engine(library_path())
