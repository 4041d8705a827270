"""The bundled espeak-ng: what it lists, what it says, what it refuses, and its life beside phonemizer's copy."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from hfasr import Phonemizer, espeak

TEXT = "Балдар бүгүн мектепке барышты."

# both libraries at work in one process, in either order
TOGETHER = """
from hfasr import espeak
def speak():
    waveform, _ = espeak.speak({text!r}, "ky+f2")
    assert 1 < len(waveform) / 22050 < 4, len(waveform)
def phonemize():
    from phonemizer.backend import EspeakBackend
    from phonemizer.backend.espeak.wrapper import EspeakWrapper
    from phonemizer.separator import Separator
    EspeakWrapper.set_library(str(espeak.library_path()))
    EspeakWrapper.set_data_path(str(espeak.data_path()))
    backend = EspeakBackend("ky", language_switch="remove-flags")
    print(backend.version() == tuple(int(part) for part in espeak.version().split(".")))
    return backend.phonemize(["Ал келди."], separator=Separator(phone=" ", word=" | "), strip=True)[0]
{order}
"""


def pitch_hz(waveform: np.ndarray, sampling_rate: int) -> float:
    """Median pitch of the loud frames, by autocorrelation."""
    found = []
    for start in range(0, len(waveform) - 1500, 750):
        frame = waveform[start : start + 1500]
        if np.abs(frame).max() > 0.2:
            correlation = np.correlate(frame, frame, "full")[1499:]
            found.append(sampling_rate / (np.argmax(correlation[60:350]) + 60))
    return float(np.median(found))


def test_version_and_paths():
    assert espeak.version() == "1.52.0"
    assert espeak.library_path().is_file()
    assert (espeak.data_path() / "ky_dict").is_file()


def test_voices_are_those_phonemizer_lists():
    from phonemizer.backend.espeak.wrapper import EspeakWrapper

    EspeakWrapper.set_library(str(espeak.library_path()))
    EspeakWrapper.set_data_path(str(espeak.data_path()))
    listed = {voice.language for voice in EspeakWrapper().available_voices()}
    assert listed
    assert listed <= set(espeak.voices())
    assert espeak.voices()["ky"] == "Kyrgyz"
    assert {"f2", "klatt", "Mr serious"} <= set(espeak.variants())


def test_speech_is_a_waveform_at_22050_hz():
    waveform, sampling_rate = espeak.speak(TEXT, "ky+f2")
    assert sampling_rate == 22050
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert 1.5 < len(waveform) / sampling_rate < 3
    assert 0.1 < np.abs(waveform).max() <= 1


def test_rate_pitch_and_volume_do_what_they_say():
    with espeak.private_engine() as engine:
        slow, fast = engine.speak(TEXT, "ky", rate=100), engine.speak(TEXT, "ky", rate=250)
        low, high = engine.speak(TEXT, "ky+m3", pitch=30), engine.speak(TEXT, "ky+m3", pitch=80)
        woman = engine.speak(TEXT, "ky+f2")
        quiet, loud = engine.speak(TEXT, "ky", volume=30), engine.speak(TEXT, "ky", volume=90)
    assert 1.8 < len(slow) / len(fast) < 3
    assert pitch_hz(low, 22050) < pitch_hz(high, 22050) < pitch_hz(woman, 22050)
    assert 2 < np.sqrt(np.mean(loud**2) / np.mean(quiet**2)) < 4


def test_settings_of_one_call_do_not_reach_the_next():
    with espeak.private_engine() as engine:
        before = engine.speak(TEXT)
        engine.speak(TEXT, "ky+f5", rate=300, pitch=90, pitch_range=0, volume=10)
        after = engine.speak(TEXT)
    assert abs(len(before) - len(after)) < 0.02 * 22050
    assert np.mean(after**2) == pytest.approx(np.mean(before**2), rel=0.1)


def test_nothing_to_say_is_a_moment_of_silence():
    waveform, sampling_rate = espeak.speak("")
    assert len(waveform) < 0.1 * sampling_rate
    assert waveform.dtype == np.float32
    assert not waveform.any()


@pytest.mark.parametrize(
    ("voice", "message"),
    [("xx", "'xx'"), ("kyrgyz", "Did you mean ky"), ("", "language code ''"), ("ky+nobody", "variant 'nobody'"), ("en-xx", "en-us")],
)
def test_unknown_voices_are_refused(voice, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        espeak.speak(TEXT, voice)


@pytest.mark.parametrize("setting", [{"rate": 20}, {"rate": 500}, {"pitch": -1}, {"pitch_range": 101}, {"volume": 300}])
def test_values_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be from"):
        espeak.speak(TEXT, **setting)


def test_private_engines_repeat_themselves_whatever_else_speaks():
    def story(noise: bool) -> list[bytes]:
        with espeak.private_engine() as engine:
            said = []
            for variant in ("m3", "f2", "klatt", "Andy", "victor", "whisper"):
                if noise:
                    espeak.speak("Китеп кайда?", "ky+f5")
                said.append(engine.speak(TEXT, f"ky+{variant}").tobytes())
            return said

    alone = story(False)
    # breath noise has a seed that espeak-ng takes from the clock, in seconds
    time.sleep(1.1)
    with ThreadPoolExecutor(4) as pool:
        assert all(other == alone for other in pool.map(story, [True, False, True, False]))


def test_the_shared_engine_serves_several_threads():
    words = ["бир", "эки", "мектептердегилерге", "Биздин үй бийик тоонун жанында турат."] * 5
    alone = [len(espeak.speak(word)[0]) for word in words]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda word: len(espeak.speak(word)[0]), words))
    assert np.allclose(alone, together, atol=0.05 * 22050)


@pytest.mark.parametrize("order", ["speak(); print(phonemize()); speak()", "print(phonemize()); speak(); print(phonemize())"])
def test_speaking_and_phonemizing_in_one_process(order):
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER.format(text=TEXT, order=order)], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert set(done.stdout.split("\n")) == {"True", "ɑ l | k e l d[ i", ""}


def test_import_loads_nothing():
    code = "import sys, hfasr.espeak; print('espeakng_loader' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]


def test_timed_speech_is_the_same_speech():
    for voice in ("ky+f2", "ky+klatt", "en-us+m3"):
        with espeak.private_engine() as engine:
            plain = engine.speak(TEXT, voice, rate=150)
        with espeak.private_engine() as engine:
            timed = engine.speak_timed(TEXT, voice, rate=150)
            again = engine.speak(TEXT, voice, rate=150)
        assert timed.waveform.tobytes() == plain.tobytes()
        assert len(again) == pytest.approx(len(plain), rel=0.01)


def test_events_tell_phonemes_and_words():
    text = "Балдар бүгүн мектепке барышты, 25 ата келди. Ал үйдө."
    with espeak.private_engine() as engine:
        waveform, words, phonemes = engine.speak_timed(text, "ky+f3")
    assert [word.text for word in words] == ["Балдар", "бүгүн", "мектепке", "барышты", "25", "ата", "келди", "Ал", "үйдө"]
    assert [phoneme.text for phoneme in phonemes] == Phonemizer("ky", word_bars=False)(text).split()
    for sounds in (words, phonemes):
        assert all(0 <= sound.start < sound.end <= len(waveform) for sound in sounds)
        assert all(one.end <= other.start for one, other in pairwise(sounds))
    # each phoneme lies in the word that says it, but for the closure that a word begins with
    assert all(any(word.start <= (sound.start + sound.end) / 2 < word.end for word in words) for sound in phonemes)
    # the pauses after the comma and the sentence are silent, what is between them is not
    pauses = [(one.end, other.start) for one, other in pairwise(words) if other.start > one.end]
    assert [start for start, _ in pauses] == [words[3].end, words[6].end]
    loudness = np.sqrt(np.mean(waveform[words[0].start : words[3].end] ** 2))
    for start, end in pauses:
        assert 0.1 < (end - start) / 22050 < 0.5
        # what is left of the vowel fades in 20 ms
        assert np.sqrt(np.mean(waveform[start + 441 : end] ** 2)) < 0.05 * loudness


def test_an_empty_text_has_no_events():
    with espeak.private_engine() as engine:
        assert engine.speak_timed("", "ky")[1:] == ([], [])
