"""How an embedded corpus lies on disk: as a Common Voice release, or as AISHELL-2 with its evaluation set."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from hfasr.corpora.synthetic.room import Device, in_room


@dataclass(frozen=True)
class Utterance:
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


class Layout(ABC):
    """What a corpus of one layout is made of.

    Attributes:
        source: name of the function of `hfasr.corpora` that loads it
        prefix: what the name of its folder begins with
        splits: those that can have utterances
    """

    source: str
    prefix: str
    splits: tuple[str, ...]

    @abstractmethod
    def name(self, language: str, split: str, place: int, speaker: int, turn: int) -> str:
        """Return the name of a clip: the `place`-th of the corpus, the `turn`-th of the `speaker`-th voice of its split, each from 0."""

    @abstractmethod
    def folder(self, release: Path, language: str) -> Path:
        """Return the folder in `release` that is given to the source."""

    @abstractmethod
    def write_clip(self, folder: Path, utterance: Utterance, speech: np.ndarray, sampling_rate: int) -> int:
        """Write what is recorded of an utterance; return its duration in ms."""

    @abstractmethod
    def write_tables(self, folder: Path, language: str, plan: list[Utterance], durations: dict[str, int]) -> None:
        """Write the tables; `durations` has those of the clips in ms, by name."""


class CommonVoice(Layout):
    """Tables of 13 columns and a folder of MP3 files; `validated` holds train, dev and test together."""

    source, prefix, splits = "common_voice", "cv-corpus-embedded", ("train", "dev", "test", "other")
    _rate_hz = 48_000
    _columns = (
        "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender", "accents", "variant",
        "locale", "segment",
    )  # fmt: skip

    def name(self, language: str, split: str, place: int, speaker: int, turn: int) -> str:
        return f"common_voice_{language}_{41_000_000 + place}.mp3"

    def folder(self, release: Path, language: str) -> Path:
        return release / language

    def write_clip(self, folder: Path, utterance: Utterance, speech: np.ndarray, sampling_rate: int) -> int:
        clip = in_room(speech, sampling_rate, self._rate_hz, np.random.default_rng(utterance.seed))
        path = folder / "clips" / utterance.path
        path.parent.mkdir(parents=True, exist_ok=True)
        # about 50 kbit/s, as the clips of Common Voice have
        soundfile.write(path, clip, self._rate_hz, format="MP3", bitrate_mode="VARIABLE", compression_level=0.85)
        return round(1000 * soundfile.info(path).duration)

    def write_tables(self, folder: Path, language: str, plan: list[Utterance], durations: dict[str, int]) -> None:
        rows = {split: [self._row(utterance, language) for utterance in plan if utterance.split == split] for split in self.splits}
        rows["validated"] = rows["train"] + rows["dev"] + rows["test"]
        rows["invalidated"] = []
        for split, table in rows.items():
            _write_table(folder / f"{split}.tsv", [self._columns, *sorted(table)])
        times = [(path, str(ms)) for path, ms in sorted(durations.items())]
        _write_table(folder / "clip_durations.tsv", [("clip", "duration[ms]"), *times])

    @staticmethod
    def _row(utterance: Utterance, language: str) -> tuple[str, ...]:
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


class Aishell2(Layout):
    """WAV files by speaker, with `wav.scp` and `trans.txt` beside them; dev and test are there once for each of three devices."""

    source, prefix, splits = "aishell2", "aishell2-embedded", ("train", "dev", "test")
    _rate_hz = 16_000
    _speakers = {"train": "C", "dev": "D", "test": "T"}
    # a phone at the mouth, a cheaper phone, and a microphone for recordings further away
    _devices = {
        "iOS": Device(),
        "Android": Device(noise_db=5, band_hz=(150, 6000)),
        "Mic": Device(echo_db=6, noise_db=-10),
    }

    def name(self, language: str, split: str, place: int, speaker: int, turn: int) -> str:
        return f"{self._speakers[split]}{speaker + 1:04}W{turn + 1:04}"

    def folder(self, release: Path, language: str) -> Path:
        return release

    def write_clip(self, folder: Path, utterance: Utterance, speech: np.ndarray, sampling_rate: int) -> int:
        for channel, part in self._parts(utterance.split):
            clip = in_room(speech, sampling_rate, self._rate_hz, np.random.default_rng(utterance.seed), self._devices[channel])
            path = folder / part / self._wav(channel, utterance)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, clip, self._rate_hz, subtype="PCM_16")
        return round(1000 * len(clip) / self._rate_hz)

    def write_tables(self, folder: Path, language: str, plan: list[Utterance], durations: dict[str, int]) -> None:
        for split in self.splits:
            spoken = sorted((utterance for utterance in plan if utterance.split == split), key=lambda utterance: utterance.path)
            for channel, part in self._parts(split) if spoken else ():
                ids = [self._id(channel, one) for one in spoken]
                _write_table(folder / part / "wav.scp", [(id, self._wav(channel, one)) for id, one in zip(ids, spoken, strict=True)])
                _write_table(folder / part / "trans.txt", [(id, _unpunctuated(one.sentence)) for id, one in zip(ids, spoken, strict=True)])

    def _parts(self, split: str) -> list[tuple[str, str]]:
        """Return the channels of a split and where each lies."""
        if split == "train":
            return [("iOS", "iOS/data")]
        return [(channel, f"AISHELL-DEV-TEST-SET/{channel}/{split}") for channel in self._devices]

    def _wav(self, channel: str, utterance: Utterance) -> str:
        return f"wav/{utterance.path.partition('W')[0]}/{self._id(channel, utterance)}.wav"

    @staticmethod
    def _id(channel: str, utterance: Utterance) -> str:
        return f"{channel[0].upper()}{utterance.path}"


COMMON_VOICE, AISHELL2 = CommonVoice(), Aishell2()


def _unpunctuated(sentence: str) -> str:
    """Return a sentence without its punctuation, as AISHELL-2 writes them."""
    return "".join(filter(str.isalnum, sentence))


def _write_table(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
