"""Any `datasets` data set with an Audio column: by its name on the Hub, or a local folder of Parquet shards or of `save_to_disk`.

`datasets` copies the Parquet files of the splits that are asked for into its Arrow cache, once; rows refer to the audio there, or in the
folder of `save_to_disk`, which is not copied. Streams copy nothing. Whole loading needs neither torchcodec nor FFmpeg, with one
exception: an audio folder or tar shards on the Hub, which `datasets` encodes by torchcodec.
"""

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from datasets import Audio, Dataset, DatasetBuilder, DatasetDict, IterableDataset, IterableDatasetDict, Value
from filelock import FileLock

from hfasr.audio import audio_duration
from hfasr.cache import cache_folder
from hfasr.corpora.reading.locate import SPLITS, in_order, split_of
from hfasr.corpora.reading.mapping import row_mapping
from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.stream import TAR, as_texts, rows_without_audio, shard_columns, stream_rows
from hfasr.corpora.reading.tree import Tree, unwrapped
from hfasr.corpora.rows import FEATURES, column, decoded, with_column
from hfasr.paths import archived

logger = logging.getLogger(__name__)

_CHUNK = 200
_SAVED = ("dataset_dict.json", "state.json")
_LOOK_BELOW = 3


def _recognise(tree: Tree) -> bool:
    top = unwrapped(tree)
    if any(archived(top.where(name)) for name in top.files()):
        return False
    if any(top.has(name) for name in _SAVED):
        return True
    shards = list(top.given) if top.given is not None else _shards(top)
    return bool(shards) and shards[0].endswith(".parquet") and _holds_audio(top.where(shards[0]))


SOURCE = Source(
    name="hub",
    title="a Hugging Face data set",
    layout="a data set's name on the Hub, or a folder of Parquet shards (hfasr prepare, push_to_hub) or of save_to_disk",
    recognise=_recognise,
    order=10,
)


def hub(
    name: str | os.PathLike,
    config: str | None = None,
    *,
    columns: dict[str, str] | None = None,
    splits: Collection[str] | Mapping[str, str] | None = None,
    streaming: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    num_workers: int | None = None,
) -> DatasetDict | IterableDatasetDict:
    """Load a data set with an Audio column, whole or streamed.

    Code that comes with a data set is never run.

    Args:
        name: Its name on the Hub, such as "google/fleurs", or a local folder or Parquet file.
        config: Which of its configurations, such as "ky_kg".
        columns: Our name to the data set's, such as `{"text": "raw_transcription"}`, where the usual names do not do (`row_mapping`).
        splits: Which splits, by the names of the result; or a dict from our name to the data set's, such as
            `{"train": "train.clean.100", "validation": "validation.clean"}`; all when None.
        streaming: Read rows as they come, from the Hub too, instead of downloading all of them.
        revision: Branch, tag or commit of the data set on the Hub.
        token: For gated and private data sets; True for the one that `hf auth login` has stored.
        num_workers: Threads that read headers; four a core when None.

    Returns:
        Splits by the data set's names, where dev, val and valid are "validation". Rows as in `hfasr.corpora.rows`, audio decoded at
        16 kHz on access; streamed ones as `stream_rows` gives them. A class label, as FLEURS has for the gender, becomes its name.
        Without a column of durations they are read from the headers, once, and kept in `durations/` of the cache folder; NaN where
        that fails, until `check_audio`.

    Raises:
        FileNotFoundError: No such data set or folder, or no right to read it.
        ValueError: No such configuration, split or column, or a data set that cannot be loaded without running its code.
        ConnectionError: The Hub cannot be reached.
    """
    with _explaining(name, config, token):
        data = _find(name, config, revision, token, splits, streaming)
        chosen = _choose_splits(data.splits, splits, name)
        found = _load(data, chosen.values(), streaming)
    if streaming:
        return IterableDatasetDict({ours: stream_rows(found[theirs], columns=columns) for ours, theirs in chosen.items()})
    corpus = {ours: _to_rows(found[theirs], columns, f"{name}: {ours}", num_workers) for ours, theirs in chosen.items()}
    if not any(map(len, corpus.values())):
        raise ValueError(f"{name} has no rows")
    return decoded(DatasetDict(corpus))


def hub_columns(
    name: str | os.PathLike,
    config: str | None = None,
    *,
    split: str = "train",
    columns: dict[str, str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    num_workers: int | None = None,
) -> Dataset | None:
    """Read all but the audio of a split that `hub` streams: to build a vocabulary, to look for leaks.

    Args:
        name: A local folder or file, as `hub` takes it.
        config: Which of its configurations.
        split: Which split, as `hub` takes it.
        columns: As `hub` takes them.
        revision: As `hub` takes it, and so are `token` and `num_workers`, so that both can be given the same.

    Returns:
        Rows as `shard_columns` gives them; None for a data set on the Hub, tar shards, and whatever is neither Parquet nor of
        `save_to_disk`.

    Raises:
        FileNotFoundError: No such folder, and no name on the Hub.
        ValueError: No such configuration, split or column.
    """
    if not Path(name).expanduser().exists() and _is_name(os.fspath(name)):
        return None
    with _explaining(name, config, token):
        data = _find(name, config, revision, token, [split], streaming=True)
        (theirs,) = _choose_splits(data.splits, [split], name).values()
    found = data.splits[theirs]
    if data.kind == "saved":
        return rows_without_audio([(partial(column, found), found.features)], columns)
    return shard_columns(found, columns=columns) if data.kind == "parquet" else None


@dataclass(frozen=True)
class _Data:
    """What a name stands for.

    Args:
        kind: A builder of `datasets`, or "tar" for our own reader, "saved" for `save_to_disk`, "loaded" for what is loaded already.
        splits: What it reads for each split: files, or rows that are not copied.
        options: More for the builder.
    """

    kind: str
    splits: dict
    options: dict = field(default_factory=dict)


def _find(
    name: str | os.PathLike,
    config: str | None,
    revision: str | None,
    token: str | bool | None,
    splits: Collection[str] | Mapping[str, str] | None,
    streaming: bool,
) -> _Data:
    """Find the files of each split; none is read yet but the card."""
    path = Path(name).expanduser()
    if path.exists():
        return _find_local(path, config, streaming)
    if not _is_name(os.fspath(name)):
        raise FileNotFoundError(f"{name}: no such folder, and a data set's name on the Hub is like 'google/fleurs'")
    from datasets import load_dataset, load_dataset_builder

    if splits is not None:
        builder = load_dataset_builder(os.fspath(name), config, revision=revision, token=token)
        files = _files_of(builder)
        if files and (streaming or not os.path.exists(builder.cache_dir)):  # all of it may be there from an earlier time
            return _Data(builder.name, files, {"features": builder.info.features, "token": token})
    found = load_dataset(os.fspath(name), config, streaming=streaming, revision=revision, token=token)
    return _Data("loaded", _by_split(found))


def _find_local(path: Path, config: str | None, streaming: bool) -> _Data:
    """Find the files of a local data set.

    Given a folder, `datasets` would keep its copy under the folder's last name and the card's patterns: another folder of that name,
    or other files in it, would give the old rows. Given the files it looks at their paths and times.
    """
    from datasets import load_dataset_builder, load_from_disk

    if streaming and (shards := _tar_shards(path)):
        return _Data("tar", shards)
    path = _local(path)
    if any((path / each).is_file() for each in _SAVED):
        if config is not None:
            raise ValueError(f"{path} was written by save_to_disk and has no configurations; leave config out")
        return _Data("saved", _by_split(load_from_disk(str(path))))
    if path.is_file():
        return _Data("parquet", {_split_of(path.name): [str(path)]})
    builder = load_dataset_builder(str(path), config)
    return _Data("tar" if streaming and builder.name == "webdataset" else builder.name, _files_of(builder))


def _load(data: _Data, splits: Iterable[str], streaming: bool) -> dict:
    """Load some splits; of the others no byte is read, copied or downloaded."""
    from datasets import load_dataset

    chosen = {split: data.splits[split] for split in splits}
    if data.kind in ("tar", "loaded"):
        return chosen
    if data.kind == "saved":
        return {split: _streamed(rows) for split, rows in chosen.items()} if streaming else chosen
    for file in (file for files in chosen.values() for file in files if file.endswith(".parquet") and "://" not in file):
        try:
            pyarrow.parquet.read_metadata(file)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{file}: not a whole Parquet file ({error}); copy or download it again") from None
    return load_dataset(data.kind, data_files=chosen, streaming=streaming, **data.options) if chosen else {}


def _files_of(builder: DatasetBuilder) -> dict[str, list[str]]:
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}


def _by_split(found: Dataset | IterableDataset | Mapping) -> dict:
    return (
        {str(found.split or "train"): found}
        if isinstance(found, Dataset | IterableDataset)
        else {str(split): rows for split, rows in found.items()}
    )


@contextmanager
def _explaining(name: str | os.PathLike, config: str | None, token: str | bool | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        explained = _explained(error, name, config, Path(name).expanduser().exists())
        if explained is None:
            raise
        raise explained from (None if isinstance(token, str) else error)  # the token must not be seen in the cause


def _tar_shards(path: Path) -> dict[str, list[str]]:
    """Return the tar shards of each split: in folders of its name, or whose names begin with it; none where a card tells them."""
    tree, found = Tree(path if path.is_dir() else path.parent), {}
    if path.is_dir() and tree.has("README.md"):
        return {}
    for file in tree.files() if path.is_dir() else [path.name]:
        if file.endswith(TAR):
            split = split_of(re.sub(r"[-_.]?(\d[^/]*)?\.(tar|tar\.gz|tgz)$", "", file), "train")
            found.setdefault(split, []).append(tree.where(file))
    if found or path.is_file():
        return found
    for folder in tree.folders():
        if shards := [tree.where(file) for file in tree.files(folder) if file.endswith(TAR)]:
            found[folder] = shards
    return found


def _local(path: Path) -> Path:
    """Return the data set in a folder, refused when `datasets` would read something else out of it."""
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            SOURCE.refuse(Tree(path.parent), f"{path.name} is no Parquet file")
        if not _holds_audio(str(path)):
            raise ValueError(f"{path} has no column that holds audio; use corpora.tabular, or --source tabular, when it names audio files")
        return path
    tree = Tree(path)
    while tree.given is None and not any(tree.has(each) for each in _SAVED) and len(tree.folders()) == 1 and not tree.files():
        tree = Tree(Path(tree.where(tree.folders()[0])))
    if not _recognise(tree) and not tree.has("README.md"):
        SOURCE.refuse(tree)
    return Path(tree.path)


def _shards(tree: Tree) -> list[str]:
    """Return the first Parquet file of a data set, in at most some folders below its top."""
    folders = [""]
    for _ in range(_LOOK_BELOW):
        for folder in folders:
            if found := [name for name in tree.files(folder) if name.endswith(".parquet")]:
                return found[:1]
        folders = [below for folder in folders for below in tree.folders(folder)][:50]
    return []


def _holds_audio(path: str) -> bool:
    try:
        schema = pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowInvalid, OSError):
        return False
    return any(pyarrow.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0 for field in schema) or any(
        field.name == "audio" and (pyarrow.types.is_binary(field.type) or pyarrow.types.is_large_binary(field.type)) for field in schema
    )


def _streamed(saved: Dataset) -> IterableDataset:
    return saved.to_iterable_dataset(num_shards=max(1, min(64, len(saved) // 1000)))


def _is_name(name: str) -> bool:
    return 1 <= len(parts := name.split("/")) <= 2 and all(parts) and not name.startswith((".", "~"))


def _split_of(name: str) -> str:
    return SPLITS.get(name.lower().partition("-")[0].removesuffix(".parquet"), "train")


def _choose_splits(found: Collection[str], wanted: Collection[str] | Mapping[str, str] | None, name: str | os.PathLike) -> dict[str, str]:
    """Return our split names with the data set's splits."""
    ours = {SPLITS.get(split.lower(), split): split for split in found}
    if len(ours) < len(found):  # it has both a dev and a validation split
        ours = {split: split for split in found}
    if isinstance(wanted, Mapping):
        ours = ours | {theirs: theirs for theirs in found}
        wanted = dict(wanted)
    else:
        wanted = {split: split for split in (in_order(ours) if wanted is None else wanted)}
    for split in wanted.values():
        if split not in ours:
            raise ValueError(f"{name} has no split {split!r}, found {', '.join(found)}")
    return {split: ours[theirs] for split, theirs in wanted.items()}


def _to_rows(rows: Dataset, columns: dict[str, str] | None, label: str, num_workers: int | None) -> Dataset:
    """Give a split our columns; audio stays where it is."""
    features = rows.features
    mapping = row_mapping(features, columns)
    found = {
        ours: as_texts(column(rows, theirs), features[theirs], theirs)
        for ours, theirs in mapping.items()
        if ours not in ("audio", "duration")
    }
    duration = _number(column(rows, mapping["duration"])) if "duration" in mapping else None
    rate = getattr(features[mapping["audio"]], "sampling_rate", None)
    samples = _number(column(rows, "num_samples")) if rate and "num_samples" in features else None
    rows = rows.select_columns([mapping["audio"]])
    if mapping["audio"] != "audio":
        rows = rows.rename_column(mapping["audio"], "audio")
    rows = rows.cast_column("audio", Audio(decode=False))
    fingerprint = hashlib.sha256(json.dumps([rows._fingerprint, mapping], sort_keys=True).encode()).hexdigest()[:16]
    if duration is None:
        duration = samples / rate if samples is not None else _durations(rows, label, num_workers)
    found["id"] = _ids(rows, found.get("id", pyarrow.nulls(len(rows), pyarrow.string())))
    for name, feature in FEATURES.items():
        if name not in ("audio", "duration"):
            values = found.get(name, pyarrow.nulls(len(rows), pyarrow.string()))
            rows = with_column(rows, name, values, feature)
    rows = with_column(rows, "duration", duration, Value("float64")).select_columns(list(FEATURES))
    # the same rows have the same fingerprint in the next run, so that what `map` made of them is found again
    return Dataset(rows.data, info=rows.info, split=rows.split, indices_table=rows._indices, fingerprint=fingerprint)


def _number(values: pyarrow.ChunkedArray) -> np.ndarray:
    return pyarrow.compute.fill_null(values.cast(pyarrow.float64()), math.nan).to_numpy()


def _ids(rows: Dataset, values: pyarrow.Array | pyarrow.ChunkedArray) -> pyarrow.Array | pyarrow.ChunkedArray:
    """Fill in missing ids as `stream_rows` does, by the audio's path, else by a digest of its bytes."""
    values = pyarrow.compute.coalesce(values, column(rows, "audio", "path"))
    if values.null_count == 0:
        return values
    return pyarrow.compute.coalesce(values, pyarrow.array(_kept(rows, "digests", lambda: (_read_digests(rows), True)), pyarrow.string()))


def _read_digests(rows: Dataset) -> np.ndarray:
    """Return a digest of the audio of each row, "" where it has a path."""
    digests = [
        "" if (audio or {}).get("path") else hashlib.blake2b((audio or {}).get("bytes") or b"", digest_size=8).hexdigest()
        for start in range(0, len(rows), _CHUNK)
        for audio in rows[start : start + _CHUNK]["audio"]
    ]
    return np.array(digests, "U16")


def _durations(rows: Dataset, label: str, num_workers: int | None) -> np.ndarray:
    """Read durations from headers, once for rows that stay the same."""
    return _kept(rows, "", lambda: _read_durations(rows, label, num_workers))


def _kept(rows: Dataset, what: str, read: Callable[[], tuple[np.ndarray, bool]]) -> np.ndarray:
    """Return what was read of rows that stay the same, or read it now; `read` tells as well whether that may be kept."""
    folder = cache_folder() / "durations"
    folder.mkdir(parents=True, exist_ok=True)
    key = json.dumps(
        [rows._fingerprint, len(rows), [[file["filename"], os.stat(file["filename"]).st_mtime_ns] for file in rows.cache_files]]
    )
    stem = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
    path = Path(f"{stem}.{what}.npy" if what else f"{stem}.npy")
    with FileLock(f"{stem}.npy.lock"):
        if path.is_file():
            return np.load(path)
        values, lasting = read()
        if lasting:
            temporary = path.with_suffix(".part")
            with open(temporary, "wb") as file:
                np.save(file, values)
            temporary.replace(path)
        return values


def _read_durations(rows: Dataset, label: str, num_workers: int | None) -> tuple[np.ndarray, bool]:
    """Return the durations, and whether they would be the same another time: a disk that does not answer may do so later."""
    workers = num_workers or 4 * (os.cpu_count() or 1)
    starts = iter(range(0, len(rows), _CHUNK))
    seconds, bad, lasting = np.empty(len(rows)), [], True
    with ThreadPoolExecutor(workers) as pool:
        while group := list(islice(starts, 2 * workers)):  # not all at once: their bytes are in memory meanwhile
            for start, (found, reasons) in zip(group, pool.map(lambda start: _chunk_durations(rows, start), group), strict=True):
                seconds[start : start + len(found)] = found
                bad += reasons
                lasting = lasting and not any(map(_may_pass, reasons))
    if bad:
        logger.warning("%s: %d x audio cannot be read, for example %s", label, len(bad), bad[0])
    return seconds, lasting


def _may_pass(error: Exception) -> bool:
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def _chunk_durations(rows: Dataset, start: int) -> tuple[list[float], list[Exception]]:
    found, reasons = [], []
    for audio in rows[start : start + _CHUNK]["audio"]:
        try:
            found.append(audio_duration(audio or {}))
        except (ValueError, TypeError, OSError) as error:
            found.append(math.nan)
            reasons.append(error)
    return found, reasons


def _explained(error: Exception, name: str | os.PathLike, config: str | None, local: bool) -> Exception | None:
    """Say what a user can do about an error of `datasets`; None for those that say it themselves. A token is not repeated."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    chain, reason = [], str(error)
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    kinds = [each.__name__ for link in chain for each in type(link).__mro__]
    said = " ".join(map(str, chain))
    if "torchcodec" in said:
        return ValueError(
            f"{name} is an audio folder or tar shards, which datasets reads only through torchcodec. Download it "
            f"(hf download --repo-type dataset {name} --local-dir DIR) and load DIR: corpora.tabular for a folder with metadata.csv, "
            "stream_rows for tar shards"
        )
    if "scripts are no longer supported" in said or "trust_remote_code" in said:
        return ValueError(
            f"{name} is loaded by a script of its own, which hfasr does not run. "
            "Most such data sets have a Parquet copy on the Hub: try revision='refs/convert/parquet'"
        )
    if any("Gated" in kind for kind in kinds) or "gated dataset" in said.lower():
        return FileNotFoundError(
            f"{name} is gated: accept its conditions on https://huggingface.co/datasets/{name}, then run `hf auth login` or give token="
        )
    if any(
        kind in ("OfflineModeIsEnabled", "ConnectionError", "ConnectError", "LocalEntryNotFoundError", "TimeoutException") for kind in kinds
    ):
        return ConnectionError(
            f"{name}: the Hub cannot be reached, and the data set is not in the cache. Are you offline, or is HF_HUB_OFFLINE set? "
            "A downloaded folder can be given instead of the name"
        )
    if any(isinstance(link, DatasetNotFoundError) for link in chain):
        return FileNotFoundError(
            f"{name}: no such data set on the Hub, or it is private or gated. See https://huggingface.co/datasets/{name}; "
            "with access to it run `hf auth login` or give token="
        )
    if any(isinstance(link, DataFilesNotFoundError) for link in chain) and local:
        return ValueError(f"{name} is no data set: expected {SOURCE.layout}; found {Tree(name).found()}")
    if ("BuilderConfig" in reason and "not found" in reason) or "Config name is missing" in reason:
        return ValueError(f"{name} has {'no configuration ' + repr(config) if config else 'several configurations'}; {reason}")
    return None
