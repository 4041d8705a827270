"""`hfasr transcribe --stream -` on pipes."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from hfasr.cli.live import _Pipe, read_pcm

RATE = 16_000


def wav(samples: np.ndarray, subtype: str = "PCM_16", rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


class Trickle(io.BytesIO):
    """A pipe that gives a few bytes at a time."""

    def read1(self, _=-1):
        return super().read1(7)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    places = np.arange(3 * RATE)
    waveform = np.random.default_rng(0).standard_normal(len(places)) * 0.1 * np.abs(np.sin(places / 3000))
    return np.round(waveform * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files_of_several_kinds(subtype, channels, samples):
    stereo = np.stack([samples[:500], samples[500:1000]][:channels], axis=1) / 2**15
    rate, blocks = read_pcm(Trickle(wav(stereo, subtype, 44_100)), RATE)
    expected = stereo.mean(axis=1)
    assert rate == 44_100
    np.testing.assert_allclose(np.concatenate(list(blocks)), expected, atol=8e-3 if subtype == "PCM_U8" else 1e-6)


def test_headers_with_other_chunks_and_no_length(samples):
    data = wav(samples)
    listed = data[:12] + b"LIST\x05\0\0\0abcde\0" + data[12:36] + b"data\xff\xff\xff\xff" + data[44:]
    rate, blocks = read_pcm(Trickle(listed), 8_000)
    assert rate == RATE
    np.testing.assert_array_equal(np.concatenate(list(blocks)), samples.astype(np.float32) / 2**15)


def test_a_pipe_may_end_anywhere(samples):
    for cut in range(20):
        data = samples.tobytes()[: 100 + cut]
        _, blocks = read_pcm(Trickle(data), RATE)
        np.testing.assert_array_equal(np.concatenate(list(blocks)) * 2**15, samples[: len(data) // 2])
    _, blocks = read_pcm(Trickle(wav(samples)[:51]), RATE)
    assert len(np.concatenate(list(blocks))) == 3
    _, blocks = read_pcm(Trickle(b"\1"), RATE)
    assert list(blocks) == []


def test_what_follows_the_samples_of_a_wav_is_none(samples):
    data = wav(samples)
    listed = data + b"LIST" + (4000).to_bytes(4, "little") + b"INFO" * 1000
    _, blocks = read_pcm(Trickle(listed), RATE)
    assert len(np.concatenate(list(blocks))) == len(samples)
    place = data.index(b"data") + 4
    _, blocks = read_pcm(Trickle(data[:place] + b"\xff" * 4 + listed[place + 4 :]), RATE)  # of a size that nobody knew
    assert len(np.concatenate(list(blocks))) == len(samples) + 2004


def test_a_connection_that_fails_is_the_end(monkeypatch):
    def read(_, size):
        if answers:
            return answers.pop()
        raise ConnectionResetError

    answers = [b"\1\0" * 20]
    monkeypatch.setattr(os, "read", read)
    pipe = _Pipe(0)
    assert len(pipe.read1() + pipe.read1()) == 40


def test_what_is_refused(samples):
    flac = io.BytesIO()
    soundfile.write(flac, samples, RATE, format="FLAC")
    for data, message in (
        (b"", "holds no audio"),
        (flac.getvalue(), "is FLAC, expected raw samples or WAV"),
        (wav(samples)[:30], "without samples"),
        (wav(samples, "PCM_24"), "24 bits of format 1"),
        (wav(samples, "ULAW"), "8 bits of format 7"),
    ):
        with pytest.raises(ValueError, match=message):
            read_pcm(Trickle(data), RATE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    import torch

    from hfasr.models.load import load_model
    from hfasr.models.quartznet import QuartzNetConfig
    from hfasr.text.vocabulary import build_tokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    config = QuartzNetConfig(blocks=[{"filters": 24, "kernel": 5, "stride": 2}, {"filters": 24, "kernel": 7}])
    model, processor = load_model(config, build_tokenizer(["ал ээр келди бтсогө"], "character"))
    model.lm_head.bias.data[model.config.pad_token_id] = -0.5
    processor.feature_extractor.normalize = "none"  # so that the text does not depend on how much arrives at once
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def test_the_verb_prints_finals_and_shows_partials_on_a_terminal(checkpoint, samples):
    from hfasr.inference.engine import TorchEngine
    from hfasr.inference.long.streaming import Streamer

    recording = np.concatenate([np.zeros(RATE, np.int16), samples, np.zeros(2 * RATE, np.int16), samples])
    streamer = Streamer(TorchEngine(checkpoint, device="cpu"))
    expected = [result.text for result in [*streamer.feed(recording), *streamer.finish()] if result.final]
    assert len(expected) == 2
    command = [sys.executable, "-m", "hfasr.cli", "transcribe", "--model", checkpoint, "--device", "cpu", "--stream", "-"]
    terminal, stderr = os.openpty()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=False) as process:
        os.close(stderr)
        process.stdin.write(recording.tobytes() + b"\1")
        process.stdin.close()
        lines = process.stdout.read().decode().splitlines()
        assert process.wait() == 0
    shown = os.read(terminal, 100_000).decode(errors="replace")
    os.close(terminal)
    assert lines == expected
    assert "\r\x1b[K" in shown


def test_a_header_of_another_rate_is_taken(verb, checkpoint, samples, monkeypatch):
    for rate, told in ((8_000, "says 16000 Hz; that is taken, not --rate 8000\n"), (RATE, "")):
        reading, writing = os.pipe()
        os.write(writing, wav(samples[:8_000]))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            monkeypatch.setattr(sys, "stdin", pipe)
            status, _, err = verb("transcribe", "--model", checkpoint, "--device", "cpu", "--stream", "-", "--rate", rate)
            assert (status, err.endswith(told), "header" in err) == (0, True, bool(told))


def test_no_audio_is_one_sentence(checkpoint):
    command = [sys.executable, "-m", "hfasr.cli", "transcribe", "--model", checkpoint, "--stream", "-"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the standard input holds no audio")
    ended = subprocess.run([*command, "--split", "silence"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "--split: not for live audio" in ended.stderr
