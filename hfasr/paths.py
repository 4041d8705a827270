"""Where a recording is: a file, a member of an uncompressed archive, or a segment of either, in one string each.

`talk.wav`, `cv.tar::clips/a.mp3@1536+23040` (read in place), `talk.wav#t=12.5,15.7` (a W3C media fragment, in seconds).
"""

import io
import os
import re
from pathlib import Path
from typing import BinaryIO

_IN_ARCHIVE = re.compile(r"(?P<archive>.+?)::(?P<member>.+)@(?P<offset>\d+)\+(?P<size>\d+)")

# https://www.w3.org/TR/media-frags/, normal play time
_SEGMENT = re.compile(r"(?P<file>.+)#t=(?P<start>\d+(?:\.\d+)?)(?:,(?P<end>\d+(?:\.\d+)?))?")


def archive_path(archive: str | os.PathLike, member: str, offset: int, size: int) -> str:
    """Name a file inside an uncompressed archive, so that it is read in place: `cv.tar::clips/a.mp3@1536+23040`.

    Args:
        archive: The archive's path.
        member: The file's name in it, for messages.
        offset: Its first byte in the archive.
        size: Its length in bytes.
    """
    return f"{os.fspath(archive)}::{member}@{offset}+{size}"


def archive_of(path: str | os.PathLike) -> Path:
    """Return the file on disk that a path reads from: the archive of an `archive_path`, else the path without its segment."""
    inside = _IN_ARCHIVE.fullmatch(path := without_segment(path))
    return Path(inside["archive"] if inside else path)


def archived(path: str | os.PathLike) -> bool:
    """Tell whether a path is an `archive_path`."""
    return _IN_ARCHIVE.fullmatch(without_segment(path)) is not None


def segment_path(path: str | os.PathLike, start_seconds: float, end_seconds: float | None = None) -> str:
    """Name a segment of a longer recording, as a W3C media fragment: `talk.wav#t=12.5,15.7`.

    Args:
        path: The recording, also an `archive_path`.
        start_seconds: Its begin.
        end_seconds: Its end; that of the recording when None.

    Raises:
        ValueError: The segment is empty or begins before 0.
    """
    if start_seconds < 0 or (end_seconds is not None and not end_seconds > start_seconds):
        raise ValueError(f"{path}: a segment from {start_seconds} to {end_seconds} s is not possible; give 0 <= start < end")
    end = "" if end_seconds is None else f",{end_seconds:.6f}".rstrip("0").rstrip(".")
    return f"{os.fspath(path)}#t={f'{start_seconds:.6f}'.rstrip('0').rstrip('.')}{end}"


def segment_of(path: str | os.PathLike) -> tuple[float, float | None] | None:
    """Return begin and end in seconds of the segment that a path names, None without one; the end is None for the recording's."""
    path = os.fspath(path)
    segment = _SEGMENT.fullmatch(path) if "#t=" in path else None  # most paths have none, and there are many of them
    return segment and (float(segment["start"]), None if segment["end"] is None else float(segment["end"]))


def without_segment(path: str | os.PathLike) -> str:
    """Return a path without its media fragment."""
    path = os.fspath(path)
    return segment["file"] if "#t=" in path and (segment := _SEGMENT.fullmatch(path)) else path


def as_utf8(name: str) -> str:
    """Return a file's name, or a message with one, such that it can be written; bytes of old systems become `\\xff`."""
    return os.fsencode(name).decode(errors="backslashreplace")


def read_bytes(path: str | os.PathLike) -> bytes:
    """Read a whole file on disk, or a member of an archive by its `archive_path`; a segment is ignored.

    Raises:
        FileNotFoundError: The file, or the archive, does not exist.
    """
    with open_bytes(path) as file:
        return file.read()


def open_bytes(path: str | os.PathLike) -> BinaryIO:
    """Open what `read_bytes` reads; of an archive, only the member is to be seen.

    Raises:
        FileNotFoundError: The file, or the archive, does not exist.
    """
    path = without_segment(path)
    inside = _IN_ARCHIVE.fullmatch(path)
    file = inside["archive"] if inside else path
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{path}: no such file")
    opened = open(file, "rb")  # noqa: SIM115 (the caller closes it)
    return io.BufferedReader(_Member(opened, int(inside["offset"]), int(inside["size"]))) if inside else opened


class _Member(io.RawIOBase):
    """The bytes of one member of an archive."""

    def __init__(self, archive: BinaryIO, offset: int, size: int):
        self._archive, self._offset = archive, offset
        self._size = max(0, min(size, archive.seek(0, os.SEEK_END) - offset))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence])
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        self._archive.seek(self._offset + self._position)
        data = self._archive.read(max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        self._archive.seek(self._offset + self._position)
        data = self._archive.read(max(0, self._size - self._position))
        self._position += len(data)
        return data

    def close(self) -> None:
        self._archive.close()
        super().close()
