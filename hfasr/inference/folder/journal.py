"""Journal: the record of a folder of transcripts, by which a run that was interrupted goes on where it was.

settings.json        model and options; another model or other options may not be mixed with them
transcripts.jsonl    one line for each recording, appended when its other files are there
shards/part-*.jsonl  the same, of a run on several machines until it ends
day/a.txt day/a.srt  the other formats, each whole or not at all
"""

import json
import logging
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from hfasr.files import make_folder, names_file, temporary_beside, write_json
from hfasr.inference.transcript import Transcript
from hfasr.inference.writers import SUFFIXES, as_record, from_record, write_transcript
from hfasr.paths import archived, as_utf8

logger = logging.getLogger(__name__)

RECORDS = "transcripts.jsonl"
_SETTINGS = "settings.json"
_PARTS = "shards"
_LOCK = ".lock"
_TOLD_ONLY = ("model", "files", "versions")  # what decides is a digest of the model and of each file
_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}\.tmp$")  # of `temporary_beside`


@dataclass(frozen=True, slots=True)
class _Line:
    """Where the line of a recording is, and what is in it that is asked for often."""

    file: Path
    start: int
    size: int
    stem: str | None
    """Of the recording's files, below the folder; None for one that could not be read."""


class Journal:
    """The transcripts of a folder; made by `open_journal`. Nothing is written or removed before there is something to keep.

    Args:
        folder: Where they are.
        settings: For settings.json.
        replace: Begin without what is there.
    """

    def __init__(self, folder: Path, settings: dict, *, replace: bool = False):
        self.folder, self._settings, self._replace = folder, settings, replace
        self._records = folder / RECORDS
        self._lines: dict[str, _Line] = {}
        self._in_order = True
        for file in [self._records, *sorted((folder / _PARTS).glob("part-*.jsonl"))]:
            if file.is_file() and not replace:
                self.read(file)
        self._reader: BinaryIO | None = None  # of the file that was read last: a cluster leaves more parts than may be open
        self._appended: BinaryIO | None = None

    def begin(self) -> None:
        """Write the settings, and open the record to write to it."""
        if self._appended is not None:
            return
        if self._replace:
            _clear(self.folder)
        if self.empty():  # also after a run that failed at once, for an option that is right now
            write_json(self.folder / _SETTINGS, self._settings)
        self._appended = open(self._records, "ab", buffering=0)  # noqa: SIM115 (closed by open_journal)

    def begun(self) -> bool:
        """Tell whether the folder was written to."""
        return self._appended is not None

    def close(self) -> None:
        if self._appended is not None:
            self._appended.close()
        if self._reader is not None:
            self._reader.close()

    def empty(self) -> bool:
        """Tell whether nothing stands in it."""
        return not self._lines

    def done(self, key: str) -> bool:
        """Tell whether a recording was transcribed; one that could not be read is tried again."""
        return key in self._lines and self._lines[key].stem is not None

    def stems(self) -> list[str]:
        """Return the stems that files of recordings have."""
        return [line.stem for line in self._lines.values() if line.stem is not None]

    def read(self, file: Path) -> None:
        """Take in the lines of a file of records; what is behind its last whole line is cut off."""
        start = 0
        with open(file, "r+b") as opened:
            for number, line in enumerate(opened, 1):
                if not line.endswith(b"\n"):
                    opened.truncate(start)
                    break
                try:
                    record = json.loads(line)
                    self._note(record["path"], _Line(file, start, len(line), record["output"]))
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"{file}, line {number} is no record of a transcript; mend it, or start over with replace=True (--replace)"
                    ) from None
                start += len(line)

    def add(self, key: str, stem: str, transcript: Transcript, formats: Sequence[str], *, symbols: str = "symbols") -> None:
        """Write the files of a recording, then its record."""
        self.begin()
        line = write_recording(self.folder, key, stem, transcript, formats, symbols)
        start = self._appended.tell()
        data = line.encode()
        with names_file(self._records):
            while data:
                data = data[self._appended.write(data) :]
        self._note(key, _Line(self._records, start, self._appended.tell() - start, None if transcript.error else stem))

    def complete(self, keys: Iterable[str], formats: Sequence[str]) -> None:
        """Write the formats of recordings that an earlier run, with other formats, did not write."""
        for key in keys:
            line = self._lines[key]
            missing = [format for format in formats if format != "jsonl" and not self._file(line.stem, format).is_file()]
            if missing:
                record = json.loads(self._bytes(line))
                write_transcript(self.folder / line.stem, from_record(record), missing, symbols=record["unit"])

    def new_parts(self) -> Iterator[Path]:
        """Yield files for parts of the record, whose names come behind those that are there.

        They are this run's alone: workers may outlive a driver that was killed, and write their parts after the next one began.
        """
        self.begin()
        folder, run = self.folder / _PARTS, uuid.uuid4().hex[:8]
        folder.mkdir(exist_ok=True)
        taken = [int(part.stem.split("-")[1]) for part in folder.glob("part-*.jsonl")]
        for number in count(max(taken, default=-1) + 1):
            yield folder / f"part-{number:05}-{run}.jsonl"

    def finish(self, keys: Sequence[str]) -> None:
        """Put the record in order: first these recordings, then others of earlier runs, each once."""
        first = [key for key in keys if key in self._lines]
        known = set(first)
        order = first + [key for key in self._lines if key not in known]
        if self._in_order and order == list(self._lines):
            return
        temporary = temporary_beside(self._records)
        try:
            with open(temporary, "wb") as file:
                file.writelines(self._bytes(self._lines[key]) for key in order)
            temporary.replace(self._records)
        finally:
            temporary.unlink(missing_ok=True)
        for part in (self.folder / _PARTS).glob("*.jsonl"):
            part.unlink()
        with suppress(OSError):  # it is not there, or a worker of a driver that was killed still writes
            os.rmdir(self.folder / _PARTS)

    def errors(self, keys: Iterable[str]) -> list[str]:
        """Return why some of the recordings could not be read."""
        lines = (self._lines[key] for key in keys if key in self._lines)
        return [json.loads(self._bytes(line))["error"] for line in lines if line.stem is None]

    def _note(self, key: str, line: _Line) -> None:
        self._in_order = self._in_order and key not in self._lines and line.file == self._records
        self._lines[key] = line

    def _bytes(self, line: _Line) -> bytes:
        if self._reader is None or self._reader.name != str(line.file):
            if self._reader is not None:
                self._reader.close()
            self._reader = open(line.file, "rb")  # noqa: SIM115 (closed with the journal)
        return os.pread(self._reader.fileno(), line.size, line.start)

    def _file(self, stem: str, format: str) -> Path:
        return self.folder / f"{stem}{SUFFIXES[format]}"


@contextmanager
def open_journal(folder: str | os.PathLike, settings: dict, *, replace: bool = False) -> Iterator[Journal]:
    """Open a folder of transcripts, or begin one; nobody else may until this ends.

    Args:
        folder: New, empty, or of an earlier run.
        settings: What `Settings.record` gives.
        replace: Remove the transcripts that are there instead of going on.

    Raises:
        ValueError: The folder cannot be written, holds other files, is in use, or holds transcripts of other settings.
    """
    folder = Path(folder)
    try:
        if made := not folder.is_dir():
            make_folder(folder)
        elif not (folder / _SETTINGS).is_file() and any(entry.name != _LOCK and not _is_temporary(entry) for entry in folder.iterdir()):
            raise ValueError(f"{folder} holds files that are no transcripts of hfasr; give a new folder, so that none is overwritten")
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another run is writing to {folder}; wait until it ends, or give another folder") from None
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}); give another folder (--output)") from None
    try:
        for left in folder.rglob("*.tmp"):  # by a run that was killed
            if _is_temporary(left):
                left.unlink()
        journal = Journal(folder, settings, replace=replace)
        try:
            if not journal.empty():
                _compare(folder, json.loads((folder / _SETTINGS).read_text("utf-8")), settings)
            yield journal
        finally:
            journal.close()
            if made and not journal.begun():
                (folder / _LOCK).unlink(missing_ok=True)
                with suppress(OSError):  # something else is in it by now
                    folder.rmdir()
    finally:
        lock.release()


def write_recording(folder: Path, key: str, stem: str, transcript: Transcript, formats: Sequence[str], symbols: str) -> str:
    """Write the files of a recording and return its line for the record."""
    record = as_record(transcript) | {"path": key, "output": None if transcript.error else stem, "unit": symbols}
    if transcript.error:
        error = as_utf8(transcript.error)
        # a member of an archive has another path, which may be in the cache
        record["error"] = error.replace(as_utf8(transcript.path), key) if transcript.path and archived(transcript.path) else error
    else:
        write_transcript(folder / stem, transcript, [format for format in formats if format != "jsonl"], symbols=symbols)
    return json.dumps(record, ensure_ascii=False) + "\n"


def key_of(path: str) -> str:
    """Return what the record calls a recording: its absolute path; of a member of an archive, what `Recording.shown` says of it."""
    return as_utf8(os.path.abspath(path))


def _clear(folder: Path) -> None:
    with suppress(ValueError):  # of a record that cannot be read the files stay
        journal = Journal(folder, {})
        journal.close()
        for stem in journal.stems():
            for suffix in SUFFIXES.values():
                (folder / f"{stem}{suffix}").unlink(missing_ok=True)
    for file in (*(folder / _PARTS).glob("*.jsonl"), folder / RECORDS, folder / _SETTINGS):
        file.unlink(missing_ok=True)


def _is_temporary(file: Path) -> bool:
    return _TEMPORARY.search(file.name) is not None


def _compare(folder: Path, there: dict, here: dict) -> None:
    """Refuse to go on with another model or other options."""
    names = [name for name in {**there, **here} if name not in _TOLD_ONLY and there.get(name) != here.get(name)]
    if "weights" in names:
        raise ValueError(
            f"{folder} holds transcripts of the model {there['model']}, whose weights or vocabulary are not those of {here['model']} now; "
            "give another folder, or start over with replace=True (--replace)"
        )
    if names:

        def value(settings: dict, name: str) -> str:
            return str(settings["files"].get(name, settings.get(name, "left out")))

        told = ", ".join(f"{name} {value(there, name)}, now {value(here, name)}" for name in names)
        raise ValueError(f"{folder} holds transcripts with {told}; give another folder, or start over with replace=True (--replace)")
    if there["versions"] != here["versions"]:
        told = ", ".join(f"{name} {value}, now {here['versions'].get(name)}" for name, value in there["versions"].items())
        logger.warning("%s: what is there was made with %s", folder, told)
