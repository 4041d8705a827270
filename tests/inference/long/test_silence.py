"""SpeechGate and split_at_silences on noise bursts whose places are known."""

import math

import numpy as np
import pytest

from hfasr.inference.long.silence import SpeechGate, heard, split_at_silences

RATE = 16_000


def planted(spans: list[tuple[float, float]], seconds: float, noise: float = 1e-3, loud: float = 0.1) -> np.ndarray:
    """White noise with louder stretches, whose loudness changes as that of syllables does."""
    rng = np.random.default_rng(0)
    waveform = rng.standard_normal(int(seconds * RATE)) * noise
    for begin, end in spans:
        places = np.arange(int(begin * RATE), int(end * RATE))
        waveform[places] += rng.standard_normal(len(places)) * loud * np.abs(np.sin(places / 1500))
    return waveform.astype(np.float32)


def islands(pieces) -> list[tuple[int, int]]:
    """Begin and end, in samples, of what is kept between two silences."""
    found: list[tuple[int, int]] = []
    for begin, piece in pieces:
        if found and found[-1][1] == begin:
            found[-1] = found[-1][0], begin + len(piece)
        elif len(piece):
            found.append((begin, begin + len(piece)))
    return found


SPANS = [(2.0, 4.5), (5.0, 6.0), (9.0, 9.3), (14.0, 30.0), (40.0, 41.0)]


@pytest.mark.parametrize("noise", [0.0, 1e-4, 3e-3])
@pytest.mark.parametrize("piece", [700, 16_000, 10**9])
def test_what_is_louder_than_the_noise_is_kept_with_its_edges(piece, noise):
    waveform = planted(SPANS, 50.0, noise)
    gate = SpeechGate(0.7, 0.3, 320)
    pieces = [kept for start in range(0, len(waveform), piece) for kept in gate.feed(waveform[start : start + piece])] + gate.finish()
    found = islands(pieces)
    expected = [(2.0, 6.0), (9.0, 9.3), (14.0, 30.0), (40.0, 41.0)]  # half a second between two is no silence
    assert len(found) == len(expected)
    for (begin, end), (first, last) in zip(found, expected, strict=True):
        assert begin % 320 == 0
        assert begin / RATE == pytest.approx(first - 0.3, abs=0.08)
        assert end / RATE == pytest.approx(last + 0.3, abs=0.08)
    for begin, kept in pieces:
        np.testing.assert_array_equal(kept, waveform[begin : begin + len(kept)])
    assert gate.samples == len(waveform)


def test_clicks_are_silence_and_a_quieter_speaker_is_not():
    waveform = planted([(2.0, 5.0)], 20.0) + planted([(10.0, 13.0)], 20.0, 0.0, 0.01)
    waveform[16 * RATE : 16 * RATE + 100] = 0.9
    assert [round(begin / RATE) for begin, _ in islands(heard([waveform]))] == [2, 10]


def test_speech_from_the_first_sample_on_is_kept():
    waveform = planted([(0.0, 2.0)], 6.0)
    gate = SpeechGate(0.7, 0.3)
    pieces = [kept for start in range(0, len(waveform), 1600) for kept in gate.feed(waveform[start : start + 1600])]
    assert islands(pieces)[0][0] == 0


def test_too_little_to_tell_and_all_kept():
    waveform = planted([], 0.9)
    assert islands(heard([waveform])) == [(0, len(waveform))]
    assert islands(heard([planted([], 9.0)])) == []
    waveform = planted(SPANS, 50.0)
    assert islands(heard([waveform[:70_000], waveform[70_000:]], pause_seconds=math.inf)) == [(0, len(waveform))]
    assert [begin for begin, _ in heard([waveform])][-1] == len(waveform)


def test_long_utterances_are_cut_where_it_is_quietest():
    waveform = planted([(1.0, 11.0), (13.0, 14.0)], 16.0)
    waveform[int(7.2 * RATE) : int(7.4 * RATE)] *= 0.01  # too short for a silence
    found = list(split_at_silences([waveform], max_seconds=8.0, multiple=320))
    assert [round(begin / RATE, 1) for begin, _ in found] == [0.7, 7.3, 12.7]
    for begin, utterance in found:
        assert begin % 320 == 0
        assert len(utterance) <= 8 * RATE
        np.testing.assert_array_equal(utterance, waveform[begin : begin + len(utterance)])


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"at most 0\.5 s"):
        list(split_at_silences([planted([], 2.0)], max_seconds=0.5))
    with pytest.raises(ValueError, match=r"pause_seconds is 0\.2, expected at least 0\.6"):
        SpeechGate(0.2, 0.3)
