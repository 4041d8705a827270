"""The embedded corpora on disk: they look and load as the releases they imitate, are made once and are the same each time."""

import importlib
import os
import signal
import subprocess
import sys
import time

import filelock
import numpy as np
import pytest
import soundfile

from hfasr import corpora, espeak
from hfasr.corpora import embedded, is_embedded, load_embedded
from hfasr.corpora.reading.source import load_corpus
from hfasr.corpora.synthetic import release as module
from hfasr.corpora.synthetic.layouts import AISHELL2
from hfasr.corpora.synthetic.plan import LANGUAGES
from hfasr.corpora.synthetic.room import Device, in_room

SIZES = {
    "ky": {"train": 45, "dev": 6, "test": 9, "other": 2},
    "kk": {"train": 5, "dev": 2, "test": 2, "other": 1},
    "en": {"train": 5, "dev": 2, "test": 2, "other": 1},
    "zh": {"train": 6, "dev": 4, "test": 5},
}
COMMON_VOICE = [language for language in LANGUAGES if language != "zh"]
CHANNELS = ("iOS", "Android", "Mic")
CALL = """
import logging
logging.basicConfig(level="INFO")
from hfasr.corpora import embedded
print(embedded("ky", utterances={utterances!r}, cache_dir={folder!r}))
"""


def read(path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def pairs(path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())


def power_db(waveform: np.ndarray, low_hz: float, high_hz: float, sampling_rate: int = 16_000) -> float:
    frequency = np.fft.rfftfreq(len(waveform), 1 / sampling_rate)
    power = np.abs(np.fft.rfft(waveform)) ** 2
    return 10 * np.log10(power[(frequency >= low_hz) & (frequency < high_hz)].sum())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return lambda language: embedded(language, utterances=SIZES[language], cache_dir=cache)


# Common Voice


@pytest.mark.parametrize("language", COMMON_VOICE)
def test_it_is_laid_out_as_common_voice(language, small):
    folder, size = small(language), SIZES[language]
    assert folder.name == language
    assert folder.parent.name.startswith("cv-corpus-embedded-")
    tables = ("train", "dev", "test", "validated", "invalidated", "other", "clip_durations")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(f"{name}.tsv" for name in tables), "clips"])
    columns = "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment"
    for name in tables[:-1]:
        assert (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[0].split("\t") == columns.split()
    rows = {name: read(folder / f"{name}.tsv") for name in tables}
    assert {split: len(rows[split]) for split in size} == size
    key = lambda row: row["path"]
    assert sorted(rows["validated"], key=key) == sorted(rows["train"] + rows["dev"] + rows["test"], key=key)
    assert {row["clip"] for row in rows["clip_durations"]} == {path.name for path in (folder / "clips").iterdir()}
    for row in rows["validated"] + rows["other"]:
        assert (folder / "clips" / row["path"]).is_file()
        assert row["path"].startswith(f"common_voice_{language}_")
        assert len(row["client_id"]) == 128
        assert int(row["client_id"], 16)
        assert row["gender"] in ("male_masculine", "female_feminine")
        assert row["locale"] == language
        assert int(row["up_votes"]) > int(row["down_votes"]) or row in rows["other"]
    speakers = {split: {row["client_id"] for row in rows[split]} for split in ("train", "dev", "test")}
    assert not speakers["train"] & (speakers["dev"] | speakers["test"])
    assert not speakers["dev"] & speakers["test"]


@pytest.mark.parametrize("language", COMMON_VOICE)
def test_clips_are_sound_mp3_of_the_stated_duration(language, small):
    folder = small(language)
    for row in read(folder / "clip_durations.tsv"):
        path = folder / "clips" / row["clip"]
        info = soundfile.info(path)
        assert (info.format, info.samplerate, info.channels) == ("MP3", 48000, 1)
        waveform, _ = soundfile.read(path, dtype="float32")
        assert abs(1000 * len(waveform) / 48000 - int(row["duration[ms]"])) <= 1
        assert 1000 < int(row["duration[ms]"]) < 9000
        assert_is_speech(path, waveform, 48_000)


def assert_is_speech(path, waveform: np.ndarray, sampling_rate: int):
    assert np.abs(waveform).max() < 1
    level_db = 10 * np.log10(np.mean(waveform**2))
    assert -40 < level_db < -15, f"{path}: {level_db} dB"
    # speech stands out of the pause before it
    before, loud = waveform[: int(0.12 * sampling_rate)], np.sort(np.abs(waveform))[-len(waveform) // 10 :]
    assert 20 * np.log10(loud.mean() / np.sqrt(np.mean(before**2))) > 17


# AISHELL-2


def test_it_is_laid_out_as_aishell_2(small):
    folder, size = small("zh"), SIZES["zh"]
    assert folder.name.startswith("aishell2-embedded-")
    assert sorted(path.name for path in folder.iterdir()) == ["AISHELL-DEV-TEST-SET", "iOS"]
    parts = {"iOS/data": ("IC", size["train"])}
    parts |= {
        f"AISHELL-DEV-TEST-SET/{channel}/{split}": (f"{channel[0]}{split[0]}".upper(), size[split])
        for channel in CHANNELS
        for split in ("dev", "test")
    }
    for part, (letters, count) in parts.items():
        wavs, texts = pairs(folder / part / "wav.scp"), pairs(folder / part / "trans.txt")
        assert list(wavs) == sorted(texts)
        assert len(wavs) == count
        assert {path.relative_to(folder / part).as_posix() for path in (folder / part / "wav").rglob("*.wav")} == set(wavs.values())
        for id, wav in wavs.items():
            assert id[:2] == letters
            assert wav == f"wav/{id[1:6]}/{id}.wav"
            assert texts[id].isalpha()
    assert "IC0001W0001" in pairs(folder / "iOS/data/wav.scp")
    assert "AT0005W0001" in pairs(folder / "AISHELL-DEV-TEST-SET/Android/test/wav.scp")


def test_clips_are_sound_wav(small):
    for path in small("zh").rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 16000, 1)
        assert 1.2 < info.duration < 8
        assert_is_speech(path, soundfile.read(path, dtype="float32")[0], 16_000)


def test_three_devices_record_the_same_speech(small):
    top = small("zh") / "AISHELL-DEV-TEST-SET"
    for ios in sorted(top.glob("iOS/*/wav/*/*.wav")):
        part = ios.relative_to(top / "iOS").parent
        one, two, three = (soundfile.read(top / channel / part / f"{channel[0].upper()}{ios.name[1:]}")[0] for channel in CHANNELS)
        assert len(one) == len(two) == len(three)
        for other in (two, three):
            assert not np.allclose(one, other, atol=1e-3)
            assert np.corrcoef(one, other)[0, 1] > 0.6
        # the pause before the speech is noise alone
        pause = int(0.14 * 16_000)
        noise = [power_db(each[:pause], 300, 4000) - power_db(each, 300, 4000) for each in (one, two, three)]
        assert noise[1] - noise[0] == pytest.approx(5, abs=1.5)
        assert noise[2] - noise[0] == pytest.approx(-10, abs=2.5)
    texts = [pairs(top / channel / "test/trans.txt") for channel in CHANNELS]
    assert [{id[1:]: text for id, text in each.items()} for each in texts] == [{id[1:]: text for id, text in texts[0].items()}] * 3


def test_the_devices_hear_other_bands():
    speech = np.random.default_rng(0).standard_normal(22050).astype(np.float32) / 10
    clips = [in_room(speech, 22050, 16_000, np.random.default_rng(1), device) for device in AISHELL2._devices.values()]
    low, high = np.array([[power_db(clip, *band) - power_db(clip, 1000, 2000) for clip in clips] for band in ((0, 80), (7000, 8000))])
    assert low[1] < min(low[0], low[2]) - 10
    assert high[1] < min(high[0], high[2]) - 6


# The room


def test_the_noise_is_20_to_40_db_below_the_speech():
    speech = np.random.default_rng(0).standard_normal(44100).astype(np.float32) / 10
    found = []
    for seed in range(40):
        clip = in_room(speech, 22050, 48_000, np.random.default_rng(seed))
        noise, loud = clip[: int(0.145 * 48000)], clip[int(0.4 * 48000) : int(1.8 * 48000)]
        found.append(10 * np.log10(np.mean(loud**2) / np.mean(noise**2)))
    assert min(found) > 17
    assert max(found) < 43
    assert 27 < np.mean(found) < 33


@pytest.mark.parametrize("out_hz", [48_000, 16_000])
def test_the_room_keeps_the_speech_in_place_and_in_tune(out_hz):
    time_seconds = np.arange(22050) / 22050
    tone = np.sin(2 * np.pi * 1000 * time_seconds).astype(np.float32)
    clip = in_room(tone, 22050, out_hz, np.random.default_rng(3))
    spectrum = np.abs(np.fft.rfft(clip))
    assert np.fft.rfftfreq(len(clip), 1 / out_hz)[spectrum.argmax()] == pytest.approx(1000, abs=1)
    loud = np.flatnonzero(np.abs(clip) > 0.5 * np.abs(clip).max())
    assert 0.14 < loud[0] / out_hz < 0.21
    assert (loud[-1] - loud[0]) / out_hz == pytest.approx(1, abs=0.06)


def test_a_tone_above_the_new_rate_is_not_folded_back():
    # faded in and out, for a sudden start holds all frequencies
    tone = (np.hanning(22050) * np.sin(2 * np.pi * 9500 * np.arange(22050) / 22050)).astype(np.float32)
    clip = in_room(tone, 22050, 16_000, np.random.default_rng(3))
    assert power_db(clip, 6400, 6600) < power_db(clip, 5400, 5600) + 3


def test_a_device_further_away_hears_more_of_the_room():
    click = np.zeros(22050, np.float32)
    click[0] = 1
    tails = []
    for echo_db in (0, 6):
        clip = in_room(click, 22050, 22050, np.random.default_rng(3), Device(echo_db=echo_db, noise_db=-60))
        peak = np.abs(clip).argmax()
        tails.append(10 * np.log10(np.sum(clip[peak + 1 :] ** 2) / clip[peak] ** 2))
    assert -20.5 < tails[0] < -5.5
    assert tails[1] - tails[0] == pytest.approx(6, abs=0.3)


# Loading


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_loads_by_its_source_which_is_found_out(language, small, monkeypatch):
    folder, size = small(language), SIZES[language]
    monkeypatch.setattr(module, "embedded", small)
    loaded = load_embedded(language)
    if language == "zh":
        source = corpora.aishell2
        counts = {"train": size["train"]} | {f"{split}_{c.lower()}": size[split] for c in CHANNELS for split in ("dev", "test")}
    else:
        source = corpora.common_voice
        counts = {"train": size["train"], "validation": size["dev"], "test": size["test"], "other": size["other"]}
        counts["validated"] = counts["train"] + counts["validation"] + counts["test"]
    assert loaded.num_rows == counts
    for other in (source(folder), load_corpus(folder)):
        assert {split: rows["text"] for split, rows in other.items()} == {split: rows["text"] for split, rows in loaded.items()}
    assert load_embedded(language, splits=["train"]).num_rows == {"train": size["train"]}
    row = loaded["train"][0]
    assert row["duration"] == pytest.approx(len(row["audio"]["array"]) / 16_000, abs=0.01)
    speakers = {split: set(rows["speaker"]) for split, rows in loaded.items()}
    for split in set(loaded) - {"train", "validated", "other"}:
        assert not speakers["train"] & speakers[split]


def test_an_embedded_corpus_is_known_by_its_path(small):
    assert is_embedded("embedded")
    for language in LANGUAGES:
        assert is_embedded(small(language))
        assert is_embedded(f"/copies/{small(language).relative_to(small(language).parents[1])}.tar.gz")
    for other in ("cv-corpus-25.0/ky", "/data/AISHELL-2", "google/fleurs", ""):
        assert not is_embedded(other)


# Made once, and the same each time


def test_it_is_made_once(small, caplog):
    stamp = (small("ky") / "train.tsv").stat().st_mtime_ns
    with caplog.at_level("INFO", "hfasr"):
        folder = small("ky")
    assert not caplog.records
    assert (folder / "train.tsv").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("language", ["ky", "zh"])
def test_equal_seeds_give_equal_bytes(language, tmp_path, monkeypatch):
    size = {"train": 5, "dev": 1, "test": 1}
    first = embedded(language, utterances=size, cache_dir=tmp_path / "a")
    espeak.speak("Башка сөз.", "ky+m1")
    monkeypatch.setattr(module, "ThreadPoolExecutor", lambda _: importlib.import_module("concurrent.futures").ThreadPoolExecutor(1))
    second = embedded(language, utterances=size, cache_dir=tmp_path / "b")
    assert first.relative_to(tmp_path / "a") == second.relative_to(tmp_path / "b")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == {"ky": 7 + 7, "zh": 7 * 2 + 5 + 2 * 3}[language]
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_other_seeds_make_another_corpus(tmp_path):
    size = {"train": 1}
    assert len({embedded("ky", seed=seed, utterances=size, cache_dir=tmp_path) for seed in (0, 1)}) == 2


def test_processes_that_start_together_make_it_once(tmp_path):
    code = CALL.format(utterances={"train": 20}, folder=str(tmp_path))
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum(errors.count("making the embedded corpus") for _, errors in outputs) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_making_leaves_nothing_that_counts(tmp_path):
    size = {"train": 30, "test": 8}
    process = subprocess.Popen([sys.executable, "-c", CALL.format(utterances=size, folder=str(tmp_path))], stdout=-1, stderr=-1)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.mp3"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("embedded/cv-corpus-*"))
    assert len(list(tmp_path.glob("embedded/.*.partial"))) == 1
    # the making of any corpus clears away what the killed one left, but not what a living one is at work on
    alive = tmp_path / "embedded" / ".cv-corpus-embedded-1-0.partial"
    alive.mkdir()
    with filelock.FileLock(alive.with_suffix(".lock")):
        embedded("ky", utterances={"train": 1}, cache_dir=tmp_path)
    assert list(tmp_path.glob("embedded/.*.partial")) == [alive]
    folder = embedded("ky", utterances=size, cache_dir=tmp_path)
    assert len(read(folder / "train.tsv")) == 30
    assert len(list((folder / "clips").iterdir())) == 38
    assert not list(tmp_path.glob("embedded/.*.partial"))


def test_an_error_while_making_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "write", full)
        with pytest.raises(OSError, match="no space left"):
            embedded("ky", utterances={"train": 3}, cache_dir=tmp_path)
    assert not list(tmp_path.glob("embedded/cv-corpus-*"))
    assert embedded("ky", utterances={"train": 3}, cache_dir=tmp_path).is_dir()


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no embedded corpus of language 'xx', only of ky, kk, en, zh"):
        embedded("xx", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="no embedded corpus of language 'xx'"):
        load_embedded("xx")
    with pytest.raises(ValueError, match="clips of train, dev, test, got 3 of 'other'"):
        embedded("zh", utterances={"other": 3}, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="'validation'"):
        embedded("ky", utterances={"validation": 3}, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="got -1 of 'train'"):
        embedded("ky", utterances={"train": -1}, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_it_is_kept_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HFASR_CACHE", str(tmp_path))
    assert embedded("ky", utterances={"train": 2}).parents[1] == tmp_path / "embedded"


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_whole_corpus_has_its_minutes(language, tmp_path, monkeypatch):
    monkeypatch.setenv("HFASR_CACHE", str(tmp_path))
    minutes = {split: sum(rows["duration"]) / 60 for split, rows in load_embedded(language).items()}
    least, most = (90, 104) if language == "zh" else (45, 52)
    assert least < minutes["train"] < most
    assert 4 < minutes["dev_mic" if language == "zh" else "validation"] < 6
    assert 6 < minutes["test_mic" if language == "zh" else "test"] < 10
