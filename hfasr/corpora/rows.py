"""The rows of a corpus: schema, decoding, check, filter, target, description.

A row is `id, audio {path, bytes}, text, duration (s), speaker, gender, accent, source`. Loaders return them in a
`DatasetDict` whose audio column is a `Recording`: `row["audio"]["array"]` is the waveform at 16 kHz, decoded when it is
asked for, while other columns are read without touching the audio.
"""

import hashlib
import io
import json
import logging
import math
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow
import soundfile
from datasets import Audio, Dataset, DatasetDict, Features, Value
from datasets.features.features import register_feature

from hfasr.audio import SAMPLING_RATE, archive_of, load_audio, write_audio
from hfasr.cache import cache_folder
from hfasr.files import write_text

logger = logging.getLogger(__name__)

# `Audio.encode_example` wants torchcodec even for encoded bytes: rows are built with its storage type, then cast.
ENCODED_AUDIO = {"bytes": Value("binary"), "path": Value("string")}

FEATURES = Features(
    {
        "id": Value("string"),
        "audio": ENCODED_AUDIO,
        "text": Value("string"),
        "duration": Value("float64"),
        "speaker": Value("string"),
        "gender": Value("string"),
        "accent": Value("string"),
        "source": Value("string"),
    }
)


@dataclass
class Recording(Audio):
    """The `datasets` feature of a decoded audio column: `{"path", "array": (samples,), "sampling_rate": 16000}`.

    `datasets.Audio` decodes through torchcodec, which needs FFmpeg on the system; this one through `load_audio`. It is stored
    as any audio column is; use `plain` before pushing rows to the Hub, so that others need not know it.
    """

    _type: str = field(default="Recording", init=False, repr=False)

    def decode_example(self, value: dict, token_per_repo_id: dict | None = None) -> dict:
        """Decode one stored `{"path", "bytes"}`."""
        return {"path": value["path"], "array": load_audio(value), "sampling_rate": SAMPLING_RATE}

    def encode_example(self, value: str | os.PathLike | bytes | np.ndarray | dict) -> dict:
        """Return what is stored, `{"bytes", "path"}`; `.map` calls it for audio that its function has read.

        Paths and bytes stay as they are. An array becomes a 16-bit WAV at 16 kHz, so a `map` that reads the audio, even
        without changing it, writes all of it into its cache; do such work on `plain` rows where that is too much.
        """
        if isinstance(value, str | os.PathLike):
            return {"bytes": None, "path": os.fspath(value)}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value), "path": None}
        path = value.get("path") if isinstance(value, dict) else None
        if isinstance(value, dict) and value.get("array") is None:
            if path is None and value.get("bytes") is None:
                raise TypeError(f"an audio dict needs 'array', 'bytes' or 'path' with a value, found keys {', '.join(value)}")
            return {"bytes": value.get("bytes"), "path": path}
        file = io.BytesIO()
        write_audio(file, load_audio(value), SAMPLING_RATE, format="WAV")
        return {"bytes": file.getvalue(), "path": path}

    def cast_storage(self, storage: pyarrow.Array) -> pyarrow.StructArray:
        """Store a column as `{"bytes", "path"}`; arrays, as a function given to `.map` returns them, are encoded first."""
        if pyarrow.types.is_struct(storage.type) and storage.type.get_field_index("array") >= 0:
            values = storage.to_numpy(zero_copy_only=False)
            storage = pyarrow.array([None if value is None else self.encode_example(value) for value in values], self.pa_type)
        return super().cast_storage(storage)


with warnings.catch_warnings(action="ignore"):  # it warns that it is experimental
    register_feature(Recording, "Recording")


def build_rows(records: list[dict]) -> Dataset:
    """Make a data set of records that hold every column of the schema."""
    return Dataset.from_list(records, features=FEATURES).cast_column("audio", Audio(decode=False))


def with_column(rows: Dataset, name: str, values: list, feature: Value) -> Dataset:
    """Return the rows with a column added or replaced."""
    rows = rows.remove_columns(name) if name in rows.column_names else rows
    return rows.add_column(name, values, feature=feature)


def decoded(corpus: Dataset | DatasetDict) -> Dataset | DatasetDict:
    """Make `row["audio"]` decode to `{"path", "array": (samples,), "sampling_rate": 16000}`."""
    return corpus.cast_column("audio", Recording())


def plain(corpus: Dataset | DatasetDict) -> Dataset | DatasetDict:
    """Make `row["audio"]` the stored `{"path", "bytes"}`."""
    return corpus.cast_column("audio", Audio(decode=False))


def keep_durations(
    corpus: DatasetDict, min_seconds: float = 0.0, max_seconds: float = math.inf, splits: Collection[str] = ("train",)
) -> DatasetDict:
    """Keep the rows of `min_seconds` to `max_seconds` in some splits; what was dropped is logged.

    Args:
        corpus: Rows with `duration`; one of unknown duration (NaN) is kept for `check_audio` to judge.
        min_seconds: Shortest duration.
        max_seconds: Longest duration.
        splits: Which splits to filter. Only training by default: a test without its hard rows is another test.

    Raises:
        ValueError: The range is empty, or no row of a split lies in it.
        TypeError: `corpus` is a single data set.
    """
    _refuse_one_split(corpus, "keep_durations")
    if not 0 <= min_seconds < max_seconds:
        raise ValueError(f"durations from {min_seconds} to {max_seconds} s are an empty range; give 0 <= min_seconds < max_seconds")
    kept = DatasetDict()
    for split, rows in plain(corpus).items():
        if split not in splits:
            kept[split] = rows
            continue
        places = [place for place, seconds in enumerate(rows["duration"]) if not (seconds < min_seconds or seconds > max_seconds)]
        if len(rows) and not places:
            raise ValueError(f"no row of split {split!r} lasts {min_seconds} to {max_seconds} s; its {len(rows)} rows are all outside")
        if len(places) < len(rows):
            logger.info(
                "%s: %d of %d rows dropped, outside %g to %g s", split, len(rows) - len(places), len(rows), min_seconds, max_seconds
            )
        kept[split] = rows.select(places)
    return decoded(kept)


def add_target(corpus: DatasetDict, to_target: Callable[[list[str]], list[str]]) -> DatasetDict:
    """Add the column `target`: what the model must emit for `text`.

    Args:
        corpus: Rows with `text`.
        to_target: A `Phonemizer`, a `Normalizer`, or any function from a list of texts to a list of targets.

    Raises:
        TypeError: `corpus` is a single data set.
    """
    _refuse_one_split(corpus, "add_target")
    added = DatasetDict()
    for split, rows in plain(corpus).items():
        targets = to_target(list(rows["text"]))
        added[split] = with_column(rows, "target", targets, Value("string"))
    return decoded(added)


def check_audio(corpus: DatasetDict, num_workers: int | None = None) -> tuple[DatasetDict, list[dict]]:
    """Decode every clip once; keep the good rows and tell what is wrong with the others.

    Good rows get the decoded `duration`. The verdicts are kept in the cache, by path, size and time of change, so a
    second run over the same files decodes nothing; processes that start together wait for the first. Those of a split in
    which a clip failed for a reason that may pass, such as a read error or too little memory, are not kept.

    Args:
        corpus: Rows with `audio`.
        num_workers: Decoding processes; the number of cores when None.

    Returns:
        The corpus without the bad rows, and one `{"split", "id", "path", "reason"}` for each of them.

    Raises:
        ValueError: A split has no good row.
        TypeError: `corpus` is a single data set.
    """
    _refuse_one_split(corpus, "check_audio")
    good, quarantined = DatasetDict(), []
    for split, rows in plain(corpus).items():
        verdicts = _verdicts(rows, num_workers)
        ids, audio = rows["id"], rows["audio"]
        quarantined += [
            {"split": split, "id": ids[place], "path": audio[place]["path"], "reason": reason}
            for place, (_, reason) in enumerate(verdicts)
            if reason
        ]
        places = [place for place, (_, reason) in enumerate(verdicts) if not reason]
        if verdicts and not places:
            raise ValueError(f"none of the {len(rows)} clips of split {split!r} can be used, for example {verdicts[0][1]}")
        good[split] = with_column(rows.select(places), "duration", [verdicts[place][0] for place in places], Value("float64"))
    if quarantined:
        logger.warning("%d clips cannot be used and are left out, for example %s", len(quarantined), quarantined[0]["reason"])
    return decoded(good), quarantined


def shared_sentences(corpus: DatasetDict, train: str = "train") -> dict[str, int]:
    """Count, for each other split, the rows whose sentence also stands in training, whatever its case and punctuation."""
    spoken = {_letters(text) for text in corpus[train]["text"]} if train in corpus else set()
    return {split: sum(_letters(text) in spoken for text in rows["text"]) for split, rows in plain(corpus).items() if split != train}


def describe(corpus: DatasetDict) -> dict[str, dict]:
    """Return for each split `{"utterances", "hours", "speakers"}`; rows of unknown duration count no time."""
    return {
        split: {
            "utterances": len(rows),
            "hours": round(sum(seconds for seconds in rows["duration"] if seconds == seconds) / 3600, 4),
            "speakers": len(set(rows["speaker"]) - {None}) if "speaker" in rows.column_names else None,
        }
        for split, rows in plain(corpus).items()
    }


def write_jsonl(path: str | os.PathLike, records: Iterable[dict]) -> None:
    """Write records as JSON lines."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _refuse_one_split(corpus: DatasetDict, function: str) -> None:
    if not isinstance(corpus, dict):
        raise TypeError(f"{function} takes a DatasetDict of splits, found {type(corpus).__name__}; give DatasetDict(train=rows)")


def _verdicts(rows: Dataset, num_workers: int | None) -> list[tuple[float, str]]:
    """Return (seconds, reason) for each row; the reason is empty for a good one."""
    from filelock import FileLock

    folder = cache_folder() / "checks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_fingerprint(rows)}.jsonl"
    with FileLock(f"{path}.lock"):
        if path.is_file():
            return [tuple(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        found = _decode_all(rows, os.cpu_count() if num_workers is None else num_workers)
        verdicts = [(seconds, reason) for seconds, reason, _ in found]
        if all(lasting for _, _, lasting in found):
            write_jsonl(path, verdicts)
    return verdicts


def _decode_all(rows: Dataset, num_workers: int) -> list[tuple[float, str, bool]]:
    """Return (seconds, reason, whether it will be the same next time) for each row."""
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    # a DataLoader, since it forks, sets one thread a worker and reports a worker's death
    loader = DataLoader(_Verdicts(rows), batch_size=16, num_workers=min(num_workers, len(rows) // 64), collate_fn=list)
    bar = tqdm(total=len(rows), desc="Checking audio", unit="clip", disable=len(rows) < 256)
    verdicts = []
    for batch in loader:
        verdicts += batch
        bar.update(len(batch))
    bar.close()
    return verdicts


class _Verdicts:
    def __init__(self, rows: Dataset):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[float, str, bool]:
        audio = self.rows[place]["audio"]
        try:
            waveform = load_audio(audio)
        except (ValueError, FileNotFoundError) as error:
            return 0.0, str(error), True
        except Exception as error:  # a read error, too little memory, whatever a damaged header leads to: one clip ends no run
            return 0.0, f"{audio['path']}: {type(error).__name__}: {error}", False
        if not waveform.any():
            return 0.0, f"{audio['path']}: silent, every sample is zero", True
        return len(waveform) / SAMPLING_RATE, "", True


def _fingerprint(rows: Dataset) -> str:
    digest = hashlib.sha256(f"3 {soundfile.__libsndfile_version__}".encode())
    for audio in rows["audio"]:
        digest.update(str(audio["path"]).encode())
        if audio["bytes"] is not None:
            digest.update(hashlib.blake2b(audio["bytes"]).digest())
        elif audio["path"] is not None and (file := archive_of(audio["path"])).is_file():
            status = file.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFC", text).casefold()).strip()
