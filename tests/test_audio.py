import io

import numpy as np
import pytest
import soundfile

from hfasr.audio import AudioError, Resampler, audio_duration, iter_blocks, load_audio, resample, write_audio
from hfasr.paths import archive_path


def tone(rate: int, seconds: float = 1.0, hz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def encoded(waveform, rate, format, subtype=None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=format, subtype=subtype)
    return file.getvalue()


def loudest_hz(waveform: np.ndarray) -> float:
    middle = waveform[len(waveform) // 4 : len(waveform) * 3 // 4]
    return float(np.argmax(np.abs(np.fft.rfft(middle * np.hanning(len(middle))))) * 16_000 / len(middle))


@pytest.mark.parametrize(
    ("format", "subtype", "rate"),
    [
        ("WAV", "PCM_U8", 8_000), ("WAV", "PCM_16", 16_000), ("WAV", "PCM_24", 44_100), ("WAV", "PCM_32", 22_050), ("WAV", "FLOAT", 48_000),
        ("WAV", "ULAW", 8_000), ("FLAC", None, 16_000), ("FLAC", None, 48_000), ("MP3", None, 48_000), ("MP3", None, 32_000),
        ("OGG", "VORBIS", 44_100), ("OGG", "OPUS", 48_000), ("OGG", "OPUS", 16_000),
    ],
)  # fmt: skip
def test_every_format_and_rate_keeps_the_tone(format, subtype, rate):
    waveform = load_audio(encoded(tone(rate), rate, format, subtype))
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert len(waveform) == pytest.approx(16_000, abs=800)  # lossy codecs pad
    assert loudest_hz(waveform) == pytest.approx(440, abs=3)
    assert np.sqrt(np.mean(waveform[4000:12000] ** 2)) == pytest.approx(0.4 / np.sqrt(2), abs=0.02)


def test_every_kind_of_source_gives_the_same(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, tone(16_000))
    expected = load_audio(path)
    data = path.read_bytes()
    (tmp_path / "archive.tar").write_bytes(b"x" * 512 + data + b"y" * 100)
    sources = [
        str(path), data, io.BytesIO(data), {"path": str(path), "bytes": None}, {"path": "elsewhere.wav", "bytes": data}, {"array": expected,
        "sampling_rate": 16_000}, expected, archive_path(tmp_path / "archive.tar", "clips/a.wav", 512, len(data)),
    ]  # fmt: skip
    for source in sources:
        np.testing.assert_array_equal(load_audio(source), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_audio(file), expected)


def test_channels_are_averaged_and_integers_scaled():
    stereo = np.stack([tone(16_000), -tone(16_000)], axis=1)
    assert np.abs(load_audio(encoded(stereo, 16_000, "WAV", "FLOAT"))).max() < 1e-6
    assert np.abs(load_audio(stereo.T)).max() < 1e-6
    np.testing.assert_allclose(load_audio((tone(16_000) * 32768).astype(np.int16)), tone(16_000), atol=1 / 32768)


def test_resampling_equals_torchaudio():
    import torch
    import torchaudio

    noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    expected = torchaudio.functional.resample(torch.from_numpy(noise), 48_000, 16_000).numpy()
    np.testing.assert_allclose(resample(noise, 48_000), expected, atol=1e-6)


@pytest.mark.parametrize("rate", [44_099, 15_999, 22_254, 11_027])
def test_odd_rates_keep_the_tone_with_little_memory(rate):
    waveform = resample(tone(rate, 2.0, hz=3_000), rate)
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(32_000, abs=2)
    expected = tone(16_000, 2.0, hz=3_000)[: len(waveform)]
    np.testing.assert_allclose(waveform[500 : len(expected) - 500], expected[500:-500], atol=2e-3)
    assert np.abs(resample(np.zeros(rate, np.float32), rate)).max() == 0
    back = resample(tone(16_000, hz=3_000), 16_000, rate)
    np.testing.assert_allclose(back[500 : rate // 2], tone(rate, hz=3_000)[500 : rate // 2], atol=2e-3)


def test_odd_rates_do_not_wrap_around():
    click = np.zeros(44_099, np.float32)
    click[-1] = 1
    assert np.abs(resample(click, 44_099)[:8_000]).max() < 1e-3


def test_short_clips_at_odd_rates():
    for samples in (1, 2, 7):
        assert len(resample(np.ones(samples, np.float32), 44_099)) == np.ceil(samples * 16_000 / 44_099)


def test_duration_of_other_sources(tmp_path):
    write_audio(tmp_path / "a.wav", tone(8_000, 2.5), 8_000)
    with (tmp_path / "a.wav").open("rb") as file:
        assert audio_duration(file) == 2.5
    assert audio_duration({"path": None, "bytes": (tmp_path / "a.wav").read_bytes()}) == 2.5
    assert audio_duration({"path": str(tmp_path / "a.wav")}) == 2.5
    assert audio_duration({"array": tone(8_000, 2.5), "sampling_rate": 8_000}) == 2.5
    assert audio_duration({"array": np.zeros((2, 8_000)), "sampling_rate": 8_000}) == 1
    with pytest.raises(TypeError, match="needs 'array', 'bytes' or 'path'"):
        audio_duration({"path": None})
    with pytest.raises(TypeError, match="duration of int"):
        audio_duration(3)


def test_duration_comes_from_the_header(tmp_path):
    for ending, rate in (("wav", 8_000), ("flac", 16_000), ("mp3", 48_000), ("ogg", 16_000)):
        write_audio(tmp_path / f"a.{ending}", tone(rate, 2.5), rate)
        assert audio_duration(tmp_path / f"a.{ending}") == pytest.approx(2.5, abs=0.06)


def damaged():
    """Yield a name, the bytes and what the message must hold."""
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
    for format, subtype in (("WAV", None), ("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")):
        whole = encoded(noise, 16_000, format, subtype)
        for share in (0.3, 0.6, 0.95):
            yield f"{subtype or format} cut at {share}", whole[: int(share * len(whole))], "cut short|not audio|no samples"
        yield f"{subtype or format} zeroed", b"\0" * len(whole), "not audio"
    yield "empty", b"", "empty"
    yield "text", "Ал келди.\n".encode() * 300, "not audio"
    yield "random", np.random.default_rng(1).bytes(20_000), "not audio"
    yield "header only", encoded(noise[:0], 16_000, "WAV"), "no samples"
    yield "NaN", encoded(np.where(np.arange(32_000) == 9, np.nan, noise), 16_000, "WAV", "FLOAT"), "NaN"


@pytest.mark.parametrize(("name", "data", "message"), [pytest.param(*case, id=case[0]) for case in damaged()])
def test_damaged_files_are_refused_by_name(tmp_path, name, data, message):
    path = tmp_path / "clip_17.mp3"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(path)
    assert "clip_17.mp3" in str(caught.value)


def test_what_is_said_of_a_cut_file_is_true(tmp_path):
    noise = np.random.default_rng(0).standard_normal(64_000).astype(np.float32) * 0.1
    flac, mp3 = (encoded(noise, 16_000, format) for format in ("FLAC", "MP3"))
    (tmp_path / "a.flac").write_bytes(flac[: int(0.6 * len(flac))])
    (tmp_path / "a.mp3").write_bytes(mp3[: int(0.6 * len(mp3))])
    for load in (load_audio, lambda path: list(iter_blocks(path))):
        with pytest.raises(AudioError, match=r"a.flac: damaged or cut short \(.*lost sync\); copy or download it again"):
            load(tmp_path / "a.flac")
        with pytest.raises(AudioError, match=r"a.mp3: cut short(; | after 2\.)"):  # of 4 s
            load(tmp_path / "a.mp3")


@pytest.mark.parametrize("load", [load_audio, audio_duration])
def test_wrong_rates_dicts_and_files(load, tmp_path):
    for rate in (0, -16_000):
        with pytest.raises(ValueError, match=f"sampling rate of {rate} Hz"):
            load({"array": tone(16_000), "sampling_rate": rate})
    for audio in ({"array": tone(16_000)}, {"array": tone(16_000), "sampling_rate": None}):
        with pytest.raises(TypeError, match="needs 'sampling_rate' too"):
            load(audio)
    (tmp_path / "a.wav").write_text("RIFF")
    with (tmp_path / "a.wav").open() as file, pytest.raises(TypeError, match=r"a\.wav: opened as text; .* 'rb'"):
        load(file)
    with pytest.raises(TypeError, match="opened as text"):
        load(io.StringIO("RIFF"))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="sampling rate of 0 Hz"):
        load_audio(tone(16_000), sampling_rate=0)
    with pytest.raises(FileNotFoundError, match="nowhere.wav"):
        load_audio("nowhere.wav")
    with pytest.raises(TypeError, match="int"):
        load_audio(3)
    with pytest.raises(TypeError, match="dtype"):
        load_audio(np.array(["a"]))
    with pytest.raises(ValueError, match="shape"):
        load_audio(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="XYZ"):
        write_audio(io.BytesIO(), tone(16_000), format="XYZ")
    with pytest.raises(ValueError, match="44100"):
        write_audio(io.BytesIO(), tone(44_100), 44_100, format="OPUS")


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="44100"):
        write_audio(tmp_path / "a.opus", tone(44_100), 44_100)
    assert list(tmp_path.iterdir()) == []


def varied(rate: int, seconds: float) -> np.ndarray:
    rng = np.random.default_rng(rate)
    return (rng.standard_normal(int(rate * seconds)) * 0.1 * np.abs(np.sin(np.arange(int(rate * seconds)) / 900))).astype(np.float32)


@pytest.mark.parametrize(
    ("format", "rate", "channels"),
    [("WAV", 16_000, 1), ("FLAC", 48_000, 2), ("MP3", 32_000, 1), ("OGG", 44_100, 1), ("WAV", 8_000, 2), ("WAV", 11_025, 1)],
)
def test_blocks_join_to_what_is_loaded_whole(format, rate, channels, tmp_path):
    waveform = np.stack([varied(rate, 5.43)] * channels, axis=1)
    path = tmp_path / "a"
    soundfile.write(path, waveform, rate, format=format)
    data = path.read_bytes()
    (tmp_path / "archive.tar").write_bytes(b"x" * 512 + data + b"y" * 100)
    inside = archive_path(tmp_path / "archive.tar", "a", 512, len(data))
    sources = [path, data, inside, {"path": str(path), "bytes": None}, io.BytesIO(data), f"{path}#t=1.2,4.5", f"{inside}#t=3.1"]
    for source in sources:
        blocks = list(iter_blocks(source, 1))
        if isinstance(source, io.BytesIO):
            source.seek(0)
        expected = load_audio(source)
        assert len(blocks) >= len(expected) // 16_000
        assert max(map(len, blocks)) <= 2 * 16_000
        np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-5, rtol=0)


def test_blocks_of_arrays_and_odd_rates():
    waveform = varied(22_050, 4.2)
    for source, rate in ((waveform, 22_050), ({"array": waveform, "sampling_rate": 22_050}, 16_000)):
        np.testing.assert_allclose(np.concatenate(list(iter_blocks(source, 1, rate))), resample(waveform, 22_050), atol=1e-6, rtol=0)
    # the FFT of the whole reaches from end to end, that of a block does not
    tones = tone(44_099, 4.2)
    np.testing.assert_allclose(np.concatenate(list(iter_blocks(tones, 1, 44_099))), resample(tones, 44_099), atol=1e-3, rtol=0)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 44_099])
def test_a_stream_is_resampled_whatever_its_pieces(rate):
    waveform, resampler = tone(rate, 3.3), Resampler(rate)
    cuts = np.sort(np.random.default_rng(0).integers(0, len(waveform), 50))
    fed = [resampler.feed(piece) for piece in np.split(waveform, cuts)]
    resampled = np.concatenate([*fed, resampler.finish()])
    np.testing.assert_allclose(resampled, resample(waveform, rate), atol=1e-6 if rate != 44_099 else 1e-3, rtol=0)
    if rate != 44_099:
        assert len(np.concatenate(fed)) > len(resampled) - 200  # a few milliseconds wait for what follows


def test_blocks_refuse_what_load_audio_refuses(tmp_path):
    whole = encoded(varied(16_000, 3.0), 16_000, "WAV")
    damaged = np.frombuffer(encoded(varied(16_000, 3.0), 16_000, "WAV", "FLOAT"), np.uint8).copy()
    damaged[-8:-4] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    ogg = encoded(varied(48_000, 3.0), 48_000, "OGG", "VORBIS")
    cases = [
        b"",
        b"no audio at all",
        whole[:50_000],
        ogg[:-1000],
        damaged.tobytes(),
        encoded(np.zeros(0), 16_000, "WAV"),
        tmp_path / "none",
    ]
    for place, data in enumerate(cases):
        if isinstance(data, bytes):
            (path := tmp_path / f"{place}.wav").write_bytes(data)
        else:
            path = data
        with pytest.raises((AudioError, FileNotFoundError)) as loading:
            load_audio(path)
        with pytest.raises(type(loading.value)) as reading:
            list(iter_blocks(path, 1))
        assert str(reading.value) == str(loading.value)
    with pytest.raises(AudioError, match="lasts only 3.00 s"):
        list(iter_blocks(f"{tmp_path / '4.wav'}#t=5,6"))
    with pytest.raises(TypeError, match="cannot load audio from int"):
        list(iter_blocks(5))
    with pytest.raises(ValueError, match=r"block_seconds is 0\.5"):
        next(iter_blocks(whole, 0.5))


def test_headers_without_a_length_and_with_no_rate_of_speech(tmp_path):
    write_audio(tmp_path / "a.flac", tone(16_000))
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # the number of samples, which an encoder does not know in a pipe
    (tmp_path / "a.flac").write_bytes(data)
    soundfile.write(tmp_path / "b.wav", np.zeros(100), 1)
    for name, message in (("a.flac", "does not say how long it is"), ("b.wav", "1 samples a second")):
        for read in (load_audio, audio_duration, lambda path: list(iter_blocks(path))):
            with pytest.raises(AudioError, match=rf"{name}.*{message}"):
                read(tmp_path / name)
