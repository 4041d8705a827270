"""The embedded corpora: Kyrgyz that is Kyrgyz, a release that looks like Common Voice, made once and the same each time."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from random import Random

import filelock
import numpy as np
import pytest
import soundfile

from hfasr import espeak
from hfasr.corpora import embedded_ky_grammar as grammar

# the package exports the function under the same name
module = importlib.import_module("hfasr.corpora.embedded_release")
embedded = module.embedded

SMALL = {"train": 45, "dev": 6, "test": 9, "other": 2}
CALL = """
import logging
logging.basicConfig(level="INFO")
from hfasr.corpora.embedded_release import embedded
print(embedded("ky", utterances={utterances!r}, cache_dir={folder!r}))
"""


def read(path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def bare(sentence: str) -> str:
    return " ".join("".join(c if c.isalpha() else " " for c in sentence.lower()).split())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return embedded("ky", utterances=SMALL, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def plan():
    return module._plan("ky", 0, module._LANGUAGES["ky"].utterances)


# Kyrgyz


@pytest.mark.parametrize(
    ("noun", "many", "to", "of", "at", "from_", "accusative"),
    [
        ("китеп", "китептер", "китепке", "китептин", "китепте", "китептен", "китепти"),
        ("үй", "үйлөр", "үйгө", "үйдүн", "үйдө", "үйдөн", "үйдү"),
        ("бала", "балдар", "балага", "баланын", "балада", "баладан", "баланы"),
        ("көл", "көлдөр", "көлгө", "көлдүн", "көлдө", "көлдөн", "көлдү"),
        ("тоо", "тоолор", "тоого", "тоонун", "тоодо", "тоодон", "тоону"),
        ("мектеп", "мектептер", "мектепке", "мектептин", "мектепте", "мектептен", "мектепти"),
        ("суу", "суулар", "сууга", "суунун", "сууда", "суудан", "сууну"),
        ("кыз", "кыздар", "кызга", "кыздын", "кызда", "кыздан", "кызды"),
        ("шаар", "шаарлар", "шаарга", "шаардын", "шаарда", "шаардан", "шаарды"),
        ("колдонуучу", "колдонуучулар", "колдонуучуга", "колдонуучунун", "колдонуучуда", "колдонуучудан", "колдонуучуну"),
        ("эже", "эжелер", "эжеге", "эженин", "эжеде", "эжеден", "эжени"),
        ("күн", "күндөр", "күнгө", "күндүн", "күндө", "күндөн", "күндү"),
        ("актёр", "актёрлор", "актёрго", "актёрдун", "актёрдо", "актёрдон", "актёрду"),
        ("станция", "станциялар", "станцияга", "станциянын", "станцияда", "станциядан", "станцияны"),
        ("борщ", "борщтор", "борщко", "борщтун", "борщто", "борщтон", "борщту"),
        ("роль", "ролдор", "ролго", "ролдун", "ролдо", "ролдон", "ролду"),
    ],
)
def test_plural_and_cases(noun, many, to, of, at, from_, accusative):
    assert grammar.plural(noun) == many
    cases = ("dative", "genitive", "locative", "ablative", "accusative")
    assert [grammar.inflect(noun, case) for case in cases] == [to, of, at, from_, accusative]


@pytest.mark.parametrize(
    ("noun", "case", "owner", "expected"),
    [
        ("китеп", "", "1", "китебим"), ("китеп", "", "3", "китеби"), ("үй", "dative", "3", "үйүнө"), ("үй", "dative", "1", "үйүмө"),
        ("үй", "dative", "1p", "үйүбүзгө"), ("бала", "", "3", "баласы"), ("бала", "accusative", "3", "баласын"), ("тоо", "", "3", "тоосу"),
        ("жүрөк", "", "3", "жүрөгү"), ("кулак", "locative", "3", "кулагында"), ("токой", "", "3", "токою"),
        ("кол", "ablative", "3", "колунан"),
        ("ата", "genitive", "1", "атамдын"), ("дос", "dative", "2", "досуңа"), ("үй", "", "2p", "үйүңүз"), ("банк", "", "3", "банкы"),
        ("суу", "dative", "3", "суусуна"), ("көз", "locative", "3", "көзүндө"),
    ],
)  # fmt: skip
def test_possession(noun, case, owner, expected):
    assert grammar.inflect(noun, case, owner) == expected


@pytest.mark.parametrize(
    ("verb", "past", "not_past", "present", "not_present", "converb", "name"),
    [
        ("бар", "барды", "барбады", "барат", "барбайт", "барып", "баруу"),
        ("кел", "келди", "келбеди", "келет", "келбейт", "келип", "келүү"),
        ("бол", "болду", "болбоду", "болот", "болбойт", "болуп", "болуу"),
        ("көр", "көрдү", "көрбөдү", "көрөт", "көрбөйт", "көрүп", "көрүү"),
        ("айт", "айтты", "айтпады", "айтат", "айтпайт", "айтып", "айтуу"),
        ("ук", "укту", "укпады", "угат", "укпайт", "угуп", "угуу"),
        ("оку", "окуду", "окубады", "окуйт", "окубайт", "окуп", "окуу"),
        ("иште", "иштеди", "иштебеди", "иштейт", "иштебейт", "иштеп", "иштөө"),
        ("сүйлө", "сүйлөдү", "сүйлөбөдү", "сүйлөйт", "сүйлөбөйт", "сүйлөп", "сүйлөө"),
        ("ойно", "ойноду", "ойнободу", "ойнойт", "ойнобойт", "ойноп", "ойноо"),
        ("кой", "койду", "койбоду", "коёт", "койбойт", "коюп", "коюу"),
        ("тап", "тапты", "таппады", "табат", "таппайт", "таап", "табуу"),
        ("чык", "чыкты", "чыкпады", "чыгат", "чыкпайт", "чыгып", "чыгуу"),
        ("күт", "күттү", "күтпөдү", "күтөт", "күтпөйт", "күтүп", "күтүү"),
        ("сатып ал", "сатып алды", "сатып албады", "сатып алат", "сатып албайт", "сатып алып", "сатып алуу"),
    ],
)
def test_verbs(verb, past, not_past, present, not_present, converb, name):
    assert [grammar.past(verb), grammar.past(verb, negative=True)] == [past, not_past]
    assert [grammar.present(verb), grammar.present(verb, negative=True)] == [present, not_present]
    assert [grammar.converb(verb), grammar.verbal_noun(verb)] == [converb, name]


def test_persons():
    persons = ("1", "2", "2p", "3", "1p", "3p")
    assert [grammar.past("көр", p) for p in persons] == ["көрдүм", "көрдүң", "көрдүңүз", "көрдү", "көрдүк", "көрүштү"]
    assert [grammar.present("бар", p) for p in persons] == ["барам", "барасың", "барасыз", "барат", "барабыз", "барышат"]
    assert [grammar.present("оку", p) for p in persons] == ["окуймун", "окуйсуң", "окуйсуз", "окуйт", "окуйбуз", "окушат"]
    assert grammar.present("кел", "3p", negative=True) == "келишпейт"
    asked = [grammar.suffix(word, "БЫ") for word in ("келди", "окуйбуз", "китеп", "көрдүң")]
    assert asked == ["келдиби", "окуйбузбу", "китеппи", "көрдүңбү"]
    assert [grammar.suffix(verb, "ГАн") for verb in ("бар", "кет", "көр", "ук")] == ["барган", "кеткен", "көргөн", "уккан"]


# The plan, without sound


def test_counts_and_lengths(plan):
    counts = Counter(utterance.split for utterance in plan)
    assert counts == module._LANGUAGES["ky"].utterances
    assert counts["train"] >= 900
    assert counts["test"] >= 120
    lengths = [len(bare(utterance.sentence).split()) for utterance in plan]
    assert min(lengths) >= 3
    assert max(lengths) <= 10
    for utterance in plan:
        assert utterance.sentence[0].isupper()
        assert utterance.sentence[-1] in ".?!"
        assert not set("\t\n_") & set(utterance.sentence)


def test_no_sentence_and_no_voice_is_in_two_splits(plan):
    sentences = Counter(bare(utterance.sentence) for utterance in plan)
    assert max(sentences.values()) == 1
    voices = {split: {u.voice for u in plan if u.split == split} for split in ("train", "dev", "test")}
    assert [len(voices[split]) for split in ("train", "dev", "test")] == [44, 4, 7]
    assert not voices["train"] & voices["dev"] | voices["train"] & voices["test"] | voices["dev"] & voices["test"]
    assert {voice.removeprefix("ky+") for used in voices.values() for voice in used} <= set(espeak.variants())


def test_training_has_every_letter_and_most_words(plan):
    words = {split: [word for u in plan if u.split == split for word in bare(u.sentence).split()] for split in ("train", "test")}
    assert set("".join(words["train"])) == set("абвгдеёжзийклмнңоөпрстуүфхцчшщъыьэюя")
    unknown = sum(word not in set(words["train"]) for word in words["test"]) / len(words["test"])
    assert 0 < unknown < 0.25


def test_letters_are_covered_by_small_trainings_too():
    for seed in range(3):
        train = [u.sentence for u in module._plan("ky", seed, {"train": 40}) if u.split == "train"]
        assert set("абвгдеёжзийклмнңоөпрстуүфхцчшщъыьэюя") <= set("".join(train).lower())


def test_training_has_every_phoneme_of_dev_and_test(plan):
    from phonemizer.backend import EspeakBackend
    from phonemizer.backend.espeak.wrapper import EspeakWrapper
    from phonemizer.separator import Separator

    EspeakWrapper.set_library(str(espeak.library_path()))
    EspeakWrapper.set_data_path(str(espeak.data_path()))
    backend = EspeakBackend("ky", language_switch="remove-flags")
    found = {}
    for split in ("train", "dev", "test"):
        lines = [u.sentence for u in plan if u.split == split]
        phonemes = backend.phonemize(lines, separator=Separator(phone=" ", word=" | "), strip=True)
        found[split] = {phoneme for line in phonemes for phoneme in line.split()}
    assert found["dev"] | found["test"] <= found["train"]
    # the Kyrgyz phonemes of the UniSpeech splits that are not of foreign words
    known = "ɑ n e t[ r l ɯ i d[ q b o u m j s y oe S p dZ ʁ z tS ɡ u: o: ɑ: N v y: ts oe: f e:"
    assert set(known.split(" ")) <= found["train"]


def test_other_seeds_say_other_things(plan):
    other = module._plan("ky", 1, module._LANGUAGES["ky"].utterances)
    assert len({u.sentence for u in plan} & {u.sentence for u in other}) < 0.1 * len(plan)
    assert plan == module._plan("ky", 0, module._LANGUAGES["ky"].utterances)


# The release


def test_it_is_laid_out_as_common_voice(small):
    assert small.name == "ky"
    assert small.parent.name.startswith("cv-corpus-")
    tables = ("train", "dev", "test", "validated", "invalidated", "other", "clip_durations")
    assert sorted(path.name for path in small.iterdir()) == sorted([*(f"{name}.tsv" for name in tables), "clips"])
    columns = "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment"
    for name in tables[:-1]:
        assert (small / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[0].split("\t") == columns.split()
    rows = {name: read(small / f"{name}.tsv") for name in tables}
    assert {split: len(rows[split]) for split in SMALL} == SMALL
    key = lambda row: row["path"]
    assert sorted(rows["validated"], key=key) == sorted(rows["train"] + rows["dev"] + rows["test"], key=key)
    assert {row["clip"] for row in rows["clip_durations"]} == {path.name for path in (small / "clips").iterdir()}
    for row in rows["validated"] + rows["other"]:
        assert (small / "clips" / row["path"]).is_file()
        assert len(row["client_id"]) == 128
        assert int(row["client_id"], 16)
        assert row["gender"] in ("male_masculine", "female_feminine")
        assert row["locale"] == "ky"
        assert int(row["up_votes"]) > int(row["down_votes"]) or row in rows["other"]
    speakers = {split: {row["client_id"] for row in rows[split]} for split in ("train", "dev", "test")}
    assert not speakers["train"] & (speakers["dev"] | speakers["test"])
    assert not speakers["dev"] & speakers["test"]


def test_clips_are_sound_mp3_of_the_stated_duration(small):
    for row in read(small / "clip_durations.tsv"):
        path = small / "clips" / row["clip"]
        info = soundfile.info(path)
        assert (info.format, info.samplerate, info.channels) == ("MP3", 48000, 1)
        waveform, _ = soundfile.read(path, dtype="float32")
        assert abs(1000 * len(waveform) / 48000 - int(row["duration[ms]"])) <= 1
        assert 1000 < int(row["duration[ms]"]) < 9000
        assert np.abs(waveform).max() < 1
        level_db = 10 * np.log10(np.mean(waveform**2))
        assert -40 < level_db < -15, f"{path}: {level_db} dB"
        # speech stands out of the pause before it
        before, loud = waveform[: int(0.12 * 48000)], np.sort(np.abs(waveform))[-len(waveform) // 10 :]
        assert 20 * np.log10(loud.mean() / np.sqrt(np.mean(before**2))) > 17


def test_the_noise_is_20_to_40_db_below_the_speech():
    speech = np.random.default_rng(0).standard_normal(44100).astype(np.float32) / 10
    found = []
    for seed in range(40):
        clip = module._in_room(speech, 22050, np.random.default_rng(seed))
        noise, loud = clip[: int(0.145 * 48000)], clip[int(0.4 * 48000) : int(1.8 * 48000)]
        found.append(10 * np.log10(np.mean(loud**2) / np.mean(noise**2)))
    assert min(found) > 17
    assert max(found) < 43
    assert 27 < np.mean(found) < 33


def test_the_room_keeps_the_speech_in_place_and_in_tune():
    time_seconds = np.arange(22050) / 22050
    tone = np.sin(2 * np.pi * 1000 * time_seconds).astype(np.float32)
    clip = module._in_room(tone, 22050, np.random.default_rng(3))
    spectrum = np.abs(np.fft.rfft(clip))
    assert np.fft.rfftfreq(len(clip), 1 / 48000)[spectrum.argmax()] == pytest.approx(1000, abs=1)
    loud = np.flatnonzero(np.abs(clip) > 0.5 * np.abs(clip).max())
    assert 0.14 < loud[0] / 48000 < 0.21
    assert (loud[-1] - loud[0]) / 48000 == pytest.approx(1, abs=0.06)


def test_it_is_made_once(small, caplog):
    stamp = (small / "train.tsv").stat().st_mtime_ns
    with caplog.at_level("INFO", "hfasr"):
        assert embedded("ky", utterances=SMALL, cache_dir=small.parents[2]) == small
    assert not caplog.records
    assert (small / "train.tsv").stat().st_mtime_ns == stamp


def test_equal_seeds_give_equal_bytes(tmp_path, monkeypatch):
    size = {"train": 8, "dev": 2, "test": 2}
    first = embedded("ky", utterances=size, cache_dir=tmp_path / "a")
    espeak.speak("Башка сөз.", "ky+m1")
    monkeypatch.setattr(module, "ThreadPoolExecutor", lambda _: importlib.import_module("concurrent.futures").ThreadPoolExecutor(1))
    second = embedded("ky", utterances=size, cache_dir=tmp_path / "b")
    assert first.parent.name == second.parent.name
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 7 + 12
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path
    assert embedded("ky", seed=1, utterances=size, cache_dir=tmp_path / "a") != first


def test_processes_that_start_together_make_it_once(tmp_path):
    code = CALL.format(utterances={"train": 20}, folder=str(tmp_path))
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum(errors.count("making the embedded corpus") for _, errors in outputs) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_making_leaves_nothing_that_counts(tmp_path):
    size = {"train": 60, "test": 8}
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
    assert len(read(folder / "train.tsv")) == 60
    assert len(list((folder / "clips").iterdir())) == 68
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
    with pytest.raises(ValueError, match="no embedded corpus of language 'xx', only of ky"):
        embedded("xx", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="'validation'"):
        embedded("ky", utterances={"validation": 3}, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="got -1 of 'train'"):
        embedded("ky", utterances={"train": -1}, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_it_is_kept_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HFASR_CACHE", str(tmp_path))
    assert embedded("ky", utterances={"train": 2}).parents[1] == tmp_path / "embedded"


def test_sentences_come_from_the_given_random_only():
    sentence = module._LANGUAGES["ky"].sentence
    assert [sentence(Random(5)) for _ in range(3)] == [sentence(Random(5))] * 3


@pytest.mark.slow
def test_the_whole_corpus_has_its_minutes(tmp_path):
    folder = embedded("ky", cache_dir=tmp_path)
    durations = {row["clip"]: int(row["duration[ms]"]) for row in read(folder / "clip_durations.tsv")}
    minutes = {split: sum(durations[row["path"]] for row in read(folder / f"{split}.tsv")) / 60_000 for split in ("train", "dev", "test")}
    assert 45 < minutes["train"] < 52
    assert 4 < minutes["dev"] < 6
    assert 7 < minutes["test"] < 10
