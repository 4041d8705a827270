"""Files that are there whole or not at all."""

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_beside(path: str | os.PathLike) -> Path:
    """Return a name beside a path that no other process takes, not even one of the same number in another container."""
    return Path(f"{os.fspath(path)}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


def make_folder(folder: str | os.PathLike) -> Path:
    """Make a folder where there is none.

    Raises:
        ValueError: It cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{os.fspath(folder)} cannot be written ({error.strerror}); give another folder (--output)") from None
    return Path(folder)


@contextmanager
def names_file(path: str | os.PathLike) -> Iterator[None]:
    """Put the file's name in the system's errors: that of a full disk has none, others the temporary one."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = os.fspath(path), None
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 file under a temporary name beside it, then rename it."""
    temporary = temporary_beside(path)
    with names_file(path):
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, content: dict) -> None:
    """Write a JSON object, a line for each value."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def write_jsonl(path: str | os.PathLike, records: Iterable[dict]) -> None:
    """Write records as JSON lines."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
