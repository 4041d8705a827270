"""The embedded corpora: sentences of the project's own spoken by espeak-ng, laid out as a Common Voice release.

They are synthetic: good for tests, for trying out a recipe without data, and for comparing code with code; a model trained
on one does not understand people. A language is one row of `_LANGUAGES`.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

import filelock
import numpy as np
import soundfile

from hfasr import espeak
from hfasr.cache import cache_folder
from hfasr.corpora import embedded_ky

_log = logging.getLogger("hfasr")

# Goes up when the same plan would sound different; a change of words, voices or numbers is seen by itself.
_VERSION = 1
_SPLITS = ("train", "dev", "test", "other")
_RATE_HZ = 48_000
_COLUMNS = (
    "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender", "accents", "variant",
    "locale", "segment",
)  # fmt: skip

# espeak-ng variants that stay intelligible: no whisper, robot or muffled one, none whose settings take voiced consonants below half
# their loudness (Alicia, anika, Diogo, iven2, michel), and no two of the same settings. No variant is in two splits.
_MALE = {
    "train": "m1 m3 m5 m7 m8 Andy Denis Gene Henrique Lee Mike Michael antonio iven4 adam miguel quincy robert klatt klatt3 marcelo "
    "klatt4 max paul pablo Gene2 sandro Nguyen Reed boris mike2 david zac",
    "dev": "m4 ed",
    "test": "m2 m6 Hugo victor klatt2",
}
_FEMALE = {"train": "f1 f2 f5 Annie Andrea steph aunty grandma shelby steph2 steph3", "dev": "f4 belinda", "test": "f3 linda"}


@dataclass(frozen=True)
class _Language:
    """What makes one embedded corpus.

    Attributes:
        voice: language code of espeak-ng
        alphabet: lower-case letters that must all occur in training
        sentence: draws one sentence
        utterances: how many per split; the times they add up to are in the tests
    """

    voice: str
    alphabet: str
    sentence: Callable[[Random], str]
    utterances: Mapping[str, int] = field(default_factory=lambda: {"train": 930, "dev": 100, "test": 160, "other": 8})


_LANGUAGES = {
    "ky": _Language("ky", "абвгдеёжзийклмнңоөпрстуүфхцчшщъыьэюя", embedded_ky.sentence),
}


@dataclass(frozen=True)
class _Utterance:
    """One clip to be: what is said, by whom and how."""

    split: str
    path: str
    sentence: str
    voice: str
    gender: str
    age: str
    rate: int
    pitch: int
    pitch_range: int
    seed: int


def embedded(
    language: str = "ky",
    *,
    seed: int = 0,
    utterances: Mapping[str, int] | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Return the folder of an embedded corpus, made on the first call and found again afterwards.

    It reads as any Common Voice release does. Sentences and voices of one split do not occur in another; `validated` holds
    train, dev and test together. Processes that ask for the same corpus at once make it once, the others wait.

    Args:
        language: Common Voice code of the language
        seed: chooses sentences, voices, rooms and noise; equal seeds give equal tables, and on one machine equal bytes
        utterances: how many in `train`, `dev`, `test` and `other`, instead of the usual; a split left out is empty
        cache_dir: where to keep it instead of `hfasr.cache.cache_folder()`

    Returns:
        The language folder of the release, such as `…/cv-corpus-embedded-1-0f3a…/ky`.

    Raises:
        ValueError: for a language without an embedded corpus, or a split or count that cannot be.
    """
    if language not in _LANGUAGES:
        raise ValueError(f"there is no embedded corpus of language {language!r}, only of {', '.join(_LANGUAGES)}")
    counts = dict(_LANGUAGES[language].utterances if utterances is None else utterances)
    for split, count in counts.items():
        if split not in _SPLITS or count < 0:
            raise ValueError(f"utterances counts clips of {', '.join(_SPLITS)}, got {count} of {split!r}")
    plan = _plan(language, seed, counts)
    key = hashlib.sha256(repr((espeak.version(), plan)).encode()).hexdigest()[:12]
    root = pathlib.Path(cache_dir or cache_folder()).expanduser().absolute() / "embedded"
    release = root / f"cv-corpus-embedded-{_VERSION}-{key}"
    if not release.exists():
        root.mkdir(parents=True, exist_ok=True)
        # the operating system frees the lock of a killed process
        with filelock.FileLock(root / f".{release.name}.lock"):
            if not release.exists():
                _make(release, language, plan)
    return release / language


def _make(release: pathlib.Path, language: str, plan: list[_Utterance]) -> None:
    _log.info("making the embedded corpus of %s: %d utterances spoken by espeak-ng, in %s", language, len(plan), release)
    partial = release.with_name(f".{release.name}.partial")
    _remove_stale(partial)
    (partial / language / "clips").mkdir(parents=True)
    by_voice = defaultdict(list)
    for utterance in plan:
        by_voice[utterance.voice].append(utterance)
    # Threads suffice: speaking, Fourier transforms and MP3 coding all run outside the interpreter lock.
    pool = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16))
    try:
        durations = {}
        for made in pool.map(lambda group: _record(group, partial / language / "clips"), by_voice.values()):
            durations |= made
    finally:
        pool.shutdown(cancel_futures=True)
    _write_tables(partial / language, language, plan, durations)
    os.rename(partial, release)


def _remove_stale(partial: pathlib.Path) -> None:
    """Remove the folder that a killed making left under this name, whose lock is ours, and under names whose lock is free."""
    shutil.rmtree(partial, ignore_errors=True)
    for other in partial.parent.glob(".*.partial"):
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(other.with_suffix(".lock"), timeout=0):
            shutil.rmtree(other, ignore_errors=True)


def _plan(language: str, seed: int, counts: Mapping[str, int]) -> list[_Utterance]:
    """Decide all that is said, in which voice and how."""
    random = Random(f"hfasr {language} {seed}")
    sentences = _sentences(_LANGUAGES[language], counts, random)
    plan = []
    for split in _SPLITS:
        random = Random(f"hfasr {language} {seed} {split}")  # a voice more in one split changes nothing in the others
        speakers = _speakers(split, _LANGUAGES[language].voice, random)
        for number, sentence in enumerate(sentences[split]):
            voice, gender, age, rate, pitch = speakers[number % len(speakers)]
            plan.append(
                _Utterance(
                    split=split,
                    path=f"common_voice_{language}_{41_000_000 + len(plan)}.mp3",
                    sentence=sentence,
                    voice=voice,
                    gender=gender,
                    age=age,
                    rate=rate + random.randint(-10, 10),
                    pitch=pitch + random.randint(-5, 5),
                    pitch_range=random.randint(35, 65),
                    seed=random.getrandbits(32),
                )
            )
    return plan


def _speakers(split: str, language: str, random: Random) -> list[tuple[str, str, str, int, int]]:
    """Give each variant of a split an age, a rate (words per minute) and a pitch of its own."""
    source = "train" if split == "other" else split
    return [
        (
            f"{language}+{variant}",
            gender,
            random.choice(["teens", "twenties", "twenties", "thirties", "fourties", "fifties"]),
            random.randint(150, 200),
            random.randint(35, 65),
        )
        for gender, variants in (("male_masculine", _MALE), ("female_feminine", _FEMALE))
        for variant in variants[source].split()
    ]


def _sentences(language: _Language, counts: Mapping[str, int], random: Random) -> dict[str, list[str]]:
    """Draw different sentences for each split; training gets every letter first."""
    new = _distinct(language, random)
    drawn = {split: [next(new) for _ in range(counts.get(split, 0))] for split in _SPLITS}
    train = drawn["train"]
    for place in range(len(train)):
        missing = set(language.alphabet) - set("".join(train).lower())
        if not missing:
            break
        train[place] = next(sentence for sentence in new if missing & set(sentence.lower()))
    random.shuffle(train)
    return drawn


def _distinct(language: _Language, random: Random) -> Iterator[str]:
    seen = set()
    while True:
        sentence = language.sentence(random)
        words = _bare(sentence).split()
        if 3 <= len(words) <= 9 and (key := " ".join(words)) not in seen:
            seen.add(key)
            yield sentence


def _bare(sentence: str) -> str:
    return "".join(c for c in sentence.lower() if c.isalpha() or c == " ")


def _record(utterances: list[_Utterance], folder: pathlib.Path) -> dict[str, int]:
    """Speak the utterances of one voice and write their clips; return the duration of each in ms."""
    durations = {}
    # an engine of its own for each voice: what it says does not depend on the number of threads
    with espeak.private_engine() as engine:
        for one in utterances:
            speech = engine.speak(one.sentence, one.voice, rate=one.rate, pitch=one.pitch, pitch_range=one.pitch_range, volume=60)
            clip = _in_room(speech, engine.sampling_rate, np.random.default_rng(one.seed))
            # about 50 kbit/s, as the clips of Common Voice have
            soundfile.write(folder / one.path, clip, _RATE_HZ, format="MP3", bitrate_mode="VARIABLE", compression_level=0.85)
            durations[one.path] = round(1000 * soundfile.info(folder / one.path).duration)
    return durations


def _in_room(speech: np.ndarray, sampling_rate: int, random: np.random.Generator) -> np.ndarray:
    """Put speech into a small room with a background noise 20 to 40 dB below it, as a clip `(samples,)` at 48 kHz.

    The room is a direct path and an exponentially decaying tail of 0.1 to 0.35 s, 6 to 20 dB below it. Echo and change of
    sampling rate are done on one spectrum.
    """
    before, after = (int(seconds * sampling_rate) for seconds in random.uniform([0.15, 0.2], [0.4, 0.5]))
    decay_seconds = random.uniform(0.1, 0.35)
    tail = random.standard_normal(int(decay_seconds * sampling_rate)) * np.logspace(0, -3, int(decay_seconds * sampling_rate))
    echo = np.concatenate([[1.0], tail * 10 ** (random.uniform(-20, -6) / 20) / np.linalg.norm(tail)])
    samples = before + len(speech) + after
    common = np.gcd(sampling_rate, _RATE_HZ)
    # the transform spans whole periods of both rates, and the echo of the end does not reach the start
    periods = _smooth(-(-(samples + len(echo)) * common // sampling_rate))
    size, size_out = periods * sampling_rate // common, periods * _RATE_HZ // common
    spectrum = np.fft.rfft(np.concatenate([np.zeros(before), speech]), size) * np.fft.rfft(echo, size)
    padded = np.zeros(size_out // 2 + 1, np.complex128)
    padded[: len(spectrum)] = spectrum
    clip = np.fft.irfft(padded, size_out)[: samples * _RATE_HZ // sampling_rate] * (size_out / size)

    level = np.sqrt(np.mean(np.square(clip)) * samples / max(len(speech), 1))
    noise = _noise(len(clip), random)
    clip += noise * level * 10 ** (-random.uniform(20, 40) / 20)
    clip *= 10 ** (random.uniform(-32, -20) / 20) / level
    return (clip * min(1, 0.9 / np.abs(clip).max())).astype(np.float32)


def _noise(samples: int, random: np.random.Generator) -> np.ndarray:
    """Make noise of power 1 whose spectrum falls with a random slope from white to brown, `(samples,)`."""
    size = _smooth(samples)
    frequency = np.fft.rfftfreq(size, 1 / _RATE_HZ)
    slope = np.where(frequency < 60, 0, np.maximum(frequency, 60) ** -random.uniform(0, 1))
    noise = np.fft.irfft(slope * np.exp(2j * np.pi * random.random(len(slope))), size)[:samples]
    return noise / np.sqrt(np.mean(np.square(noise)))


def _smooth(least: int) -> int:
    """Return the next number with no prime factor above 5, for which a Fourier transform is fast."""
    number = least
    while True:
        rest = number
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 1


def _write_tables(folder: pathlib.Path, language: str, plan: list[_Utterance], durations: dict[str, int]) -> None:
    rows = {split: [_row(utterance, language) for utterance in plan if utterance.split == split] for split in _SPLITS}
    rows["validated"] = rows["train"] + rows["dev"] + rows["test"]
    rows["invalidated"] = []
    for split, table in rows.items():
        _write_table(folder / f"{split}.tsv", _COLUMNS, sorted(table))
    _write_table(folder / "clip_durations.tsv", ("clip", "duration[ms]"), [(path, str(ms)) for path, ms in sorted(durations.items())])


def _write_table(path: pathlib.Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), encoding="utf-8", newline="\n")


def _row(utterance: _Utterance, language: str) -> tuple[str, ...]:
    random = Random(utterance.seed)
    voted = utterance.split != "other"
    return (
        hashlib.sha512(f"hfasr {utterance.voice}".encode()).hexdigest(),
        utterance.path,
        hashlib.sha256(utterance.sentence.encode()).hexdigest(),
        utterance.sentence,
        "",
        str(random.choice([2, 2, 2, 3, 4]) if voted else 0),
        str(random.choice([0, 0, 0, 1]) if voted else 0),
        utterance.age,
        utterance.gender,
        f"espeak-ng {utterance.voice}",
        "",
        language,
        "",
    )
