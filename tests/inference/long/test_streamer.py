"""Live audio against the same utterances transcribed at once."""

import math
from itertools import pairwise

import numpy as np
import pytest

from hfasr.audio import resample
from hfasr.decoding.greedy import GreedyDecoder, labels_to_text
from hfasr.inference.engine import TorchEngine
from hfasr.inference.long.streaming import Streamer


@pytest.fixture(scope="module")
def engines(build_model):
    """Of several families; "local" has no normalisation over the utterance, so that what comes later changes little."""
    found = {family: TorchEngine(build_model(family)) for family in ("quartznet", "unispeech", "wav2vec2-group")}
    model, processor = build_model("quartznet")
    processor.feature_extractor.normalize = "none"
    for block in model.base_model.blocks:
        block.squeeze_excite = None
    return found | {"local": TorchEngine((model, processor))}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    places = np.arange(int(seconds * 16_000))
    return (np.random.default_rng(seed).standard_normal(len(places)) * 0.1 * np.abs(np.sin(places / 3000))).astype(np.float32)


def at_once(engine, waveform: np.ndarray) -> str:
    tokens = GreedyDecoder(engine.blank).decode(*engine.log_probs([waveform]))[0][0].tokens
    return labels_to_text([token.id for token in tokens], engine.tokenizer)


def fed(streamer: Streamer, samples: np.ndarray, piece: int) -> list:
    results = [result for start in range(0, len(samples), piece) for result in streamer.feed(samples[start : start + piece])]
    return results + streamer.finish()


@pytest.mark.parametrize("family", ["quartznet", "unispeech", "wav2vec2-group"])
def test_with_enough_lookahead_it_is_what_the_whole_says(family, engines):
    engine, waveform = engines[family], noise(3.21)
    expected = at_once(engine, waveform)
    assert len(expected) > 10
    for piece in (1600, 333, 10**6):
        results = fed(Streamer(engine, lookahead_seconds=10, endpoint_silence_seconds=math.inf), waveform, piece)
        assert [result.text for result in results if result.final] == [expected]
        assert len(results) > (1 if piece == 10**6 else 5)
        final = results[-1]
        assert (final.start, final.end, final.settled) == (0.0, pytest.approx(3.21), pytest.approx(3.21))
        assert " ".join(word.text for word in final.words) == " ".join(expected.split())


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_any_rate_and_sixteen_bits(rate, engines):
    engine = engines["quartznet"]
    samples = (resample(noise(2.5), 16_000, rate).clip(-0.9, 0.9) * 2**15).astype(np.int16)
    expected = at_once(engine, resample(samples.astype(np.float32) / 2**15, rate))
    streamer = Streamer(engine, sampling_rate=rate, lookahead_seconds=10, endpoint_silence_seconds=math.inf)
    assert fed(streamer, samples, rate // 10)[-1].text == expected


def test_what_is_settled_stays_and_finals_are_never_taken_back(engines):
    waveform = noise(9.0)
    results = fed(Streamer(engines["local"], lookahead_seconds=0.5, context_seconds=2.0), waveform, 1600)
    assert sum(result.final for result in results) == 1
    assert max(result.settled for result in results) > 7
    for place, result in enumerate(results):
        stays = [word for word in result.words if word.end < result.settled - 0.5]
        for later in results[place:]:
            assert [(word.text, word.start) for word in later.words][: len(stays)] == [(word.text, word.start) for word in stays]
    # frames that saw half a second on both sides are those of the whole
    assert results[-1].text == at_once(engines["local"], waveform)


def test_an_utterance_ends_with_a_silence(engines):
    recording = np.zeros(30 * 16_000, np.float32)
    for seed, start in enumerate((3, 8, 20)):
        recording[start * 16_000 :][: 3 * 16_000] = noise(3.0, seed)
    streamer, finals, arrived = Streamer(engines["quartznet"], lookahead_seconds=10), [], []
    for start in range(0, len(recording), 1600):
        for result in streamer.feed(recording[start : start + 1600]):
            if result.final:
                finals.append(result)
                arrived.append((start + 1600) / 16_000)
    assert streamer.finish() == []
    assert [round(final.start) for final in finals] == [3, 8, 20]
    for final, now, begin in zip(finals, arrived, (3, 8, 20), strict=True):
        assert now - (begin + 3) < 0.8 + 0.3 + 0.1 + 0.05  # the silence, a chunk, a piece, and a few levels to be sure
        assert all(begin - 0.4 < word.start <= word.end < begin + 3.4 for word in final.words)
        # all of the utterance was within the context
        start = round(final.start * 16_000)
        assert final.text == at_once(engines["quartznet"], recording[start : round(final.end * 16_000)])


def test_half_a_minute_without_a_silence_is_an_utterance(engines):
    results = fed(Streamer(engines["local"], context_seconds=1.0, lookahead_seconds=0.5, chunk_seconds=1.0), noise(70.0), 16_000)
    finals = [result for result in results if result.final]
    assert 3 <= len(finals) <= 6
    assert finals[0].start == 0
    for before, after in pairwise(finals):
        assert after.start == pytest.approx(before.end)
    assert finals[-1].end == pytest.approx(70)


def test_much_at_once_is_computed_at_once(engines):
    recording, engine = np.zeros(60 * 16_000, np.float32), engines["quartznet"]
    for seed in range(10):
        recording[(6 * seed + 1) * 16_000 :][: 3 * 16_000] = noise(3.0, seed)
    one, many = Streamer(engine), Streamer(engine)
    whole = [result.text for result in fed(one, recording, 10**9) if result.final]
    pieces = [result.text for result in fed(many, recording, 1600) if result.final]
    assert len(whole) == len(pieces) == 10


def test_what_is_refused(engines):
    engine = engines["quartznet"]
    for option, value in (
        ("chunk_seconds", 0), ("context_seconds", -1), ("lookahead_seconds", math.inf), ("endpoint_silence_seconds", 0.0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{option} is"):
            Streamer(engine, **{option: value})
    with pytest.raises(ValueError, match="sampling rate of 0 Hz"):
        Streamer(engine, sampling_rate=0)
    with pytest.raises(TypeError, match="samples are int64"):
        Streamer(engine).feed(np.zeros(10, np.int64))
    with pytest.raises(ValueError, match=r"shape \(10, 2\)"):
        Streamer(engine).feed(np.zeros((10, 2), np.float32))
    with pytest.raises(ValueError, match="NaN"):
        Streamer(engine).feed(np.full(10, np.nan, np.float32))
    assert Streamer(engine).finish() == []


def test_nothing_is_computed_in_a_silence(engines, monkeypatch):
    engine, heard = engines["local"], []
    quiet = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * 1e-4
    compute = engine.log_probs
    monkeypatch.setattr(engine, "log_probs", lambda waveforms: heard.append(len(waveforms[0])) or compute(waveforms))
    fed(Streamer(engine), np.concatenate([quiet, noise(1.5), quiet, noise(1.5), quiet]), 1600)
    assert len(heard) > 5
    assert min(heard) > 0
