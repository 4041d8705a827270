"""text -> target: what the model must emit, kept in the cache for large corpora."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.compute
from datasets import Dataset, DatasetDict, Value
from filelock import FileLock

from hfasr.cache import cache_folder
from hfasr.corpora.rows import column, decoded, plain, refuse_one_split, with_column
from hfasr.files import temporary_beside

_CHUNK = 10_000  # texts at a time; a split of fewer is not worth a file in the cache
_SCHEMA = pyarrow.schema([("target", pyarrow.string()), ("code_switched", pyarrow.bool_())])


def add_target(corpus: DatasetDict, to_target: Callable[[list[str]], list[str]]) -> DatasetDict:
    """Add the column `target`: what the model must emit for `text`.

    A `Phonemizer` also adds `code_switched`: whether espeak-ng read part of the text by the rules of another language. What a
    `Phonemizer` or a `Normalizer` makes of more than 10,000 texts is kept in the cache; processes that ask at once make it once.

    Args:
        corpus: Rows with `text`.
        to_target: A `Phonemizer`, a `Normalizer`, or any function from a list of texts to a list of targets.

    Raises:
        TypeError: `corpus` is a single data set.
        ValueError: The function returns another number of targets than it was given texts.
    """
    refuse_one_split(corpus, "add_target")
    added = DatasetDict()
    for split, rows in plain(corpus).items():
        made = _targets(rows, to_target)
        rows = with_column(rows, "target", made.column("target"), Value("string"))
        if hasattr(to_target, "phonemize"):
            rows = with_column(rows, "code_switched", made.column("code_switched"), Value("bool"))
        added[split] = rows
    return decoded(added)


def _targets(rows: Dataset, to_target: Callable[[list[str]], list[str]]) -> pyarrow.Table:
    texts = pyarrow.compute.fill_null(column(rows, "text"), "")
    fingerprint = getattr(to_target, "fingerprint", None)
    if fingerprint is None or len(texts) <= _CHUNK:
        return pyarrow.Table.from_batches(_make(texts, to_target), _SCHEMA)
    folder = cache_folder() / "targets"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_digest(texts, fingerprint)}.arrow"
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            _write(path, _make(texts, to_target))
    with pyarrow.memory_map(str(path)) as file:
        return pyarrow.ipc.open_stream(file).read_all()


def _make(texts: pyarrow.ChunkedArray, to_target: Callable[[list[str]], list[str]]) -> Iterator[pyarrow.RecordBatch]:
    for start in range(0, len(texts), _CHUNK):
        some = texts.slice(start, _CHUNK).to_pylist()
        targets, switched = to_target.phonemize(some) if hasattr(to_target, "phonemize") else (to_target(some), [None] * len(some))
        if len(targets) != len(some):
            raise ValueError(f"{to_target} made {len(targets)} targets of {len(some)} texts; it must give one for each, also an empty one")
        yield pyarrow.record_batch([pyarrow.array(targets, pyarrow.string()), pyarrow.array(switched, pyarrow.bool_())], schema=_SCHEMA)


def _write(path: Path, batches: Iterator[pyarrow.RecordBatch]) -> None:
    temporary = temporary_beside(path)
    try:
        with pyarrow.OSFile(str(temporary), "wb") as file, pyarrow.ipc.new_stream(file, _SCHEMA) as stream:
            for batch in batches:
                stream.write_batch(batch)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(texts: pyarrow.ChunkedArray, fingerprint: str) -> str:
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=16)
    for start in range(0, len(texts), _CHUNK):
        some = texts.slice(start, _CHUNK).to_pylist()
        digest.update(repr(some).encode())  # quotes keep the texts apart
    return digest.hexdigest()
