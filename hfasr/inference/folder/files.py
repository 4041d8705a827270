"""What a user names to be transcribed -> recordings, each with a name for its results."""

import hashlib
import json
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hfasr.corpora.reading.archives import archive_files, is_archive
from hfasr.corpora.reading.locate import AUDIO, FOREIGN_AUDIO, Locator
from hfasr.corpora.reading.tree import Tree, decode_text
from hfasr.paths import archive_of, as_utf8, segment_of, segment_path, without_segment

STDIN = "-"

# the foreign ones too: they come out as files that cannot be read, with the reason, where leaving them out would go unseen
_ENDINGS = AUDIO + FOREIGN_AUDIO
_ARCHIVES = (".tar", ".zip", ".tgz", ".gz", ".bz2", ".xz")
_MANIFESTS = (".json", ".jsonl")
_LIST = ".txt"
_MOST_BYTES = 200
_AUDIO_KEYS = ("audio_filepath", "audio_filename")


@dataclass(frozen=True)
class Recording:
    """One recording that the user named."""

    path: str
    """What `load_audio` takes; "-" for the standard input."""
    name: str
    """What its results are called: a path with forward slashes below what the user named, with the ending of the audio."""
    alias: str | None = None
    """What the user is told instead of a path that he did not give: `talks.zip::day/a.wav`, for a place in the cache."""

    @property
    def shown(self) -> str:
        """What messages, lines and the record call it."""
        return self.path if self.alias is None else self.alias


def find_recordings(paths: Iterable[str | os.PathLike]) -> list[Recording]:
    """List the recordings of files, folders, archives, manifests and lists.

    Args:
        paths: Files, which may have any ending but those that follow; folders and archives (.tar, .tar.gz, .zip), of which the
            files with the ending of an audio format are taken, those of folders below too, hidden ones not; NeMo manifests (.json,
            .jsonl) and lists of one path a line (.txt), whose relative paths are beside them; and "-", the standard input. Whatever
            `load_audio` reads is a file, such as `talk.wav#t=12.5,15.7`.

    Returns:
        In the order given, those of a folder or archive sorted. Where several paths are given, names of what is below one begin
        with its own name.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A folder, archive or list holds no audio, or a list cannot be read.
    """
    paths = [os.fspath(path) for path in paths]
    if paths.count(STDIN) > 1:
        raise ValueError("- is given twice; the standard input can be read once")
    found: list[Recording] = []
    for path in paths:
        if path == STDIN:
            found.append(Recording(path, "stdin"))
            continue
        below = _below(path)
        if below is None:
            found.append(Recording(path, _with_segment(posixpath.basename(without_segment(path)), path)))
        else:
            own = f"{Path(path).resolve().name.partition('.')[0] if os.path.isfile(path) else Path(path).resolve().name}/"
            aliases = _aliases(path, below)
            found += [
                Recording(where, (own if len(paths) > 1 else "") + name, alias) for (name, where), alias in zip(below, aliases, strict=True)
            ]
    return found


def output_stems(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Choose for each recording a path without ending that no other has.

    Args:
        names: Of recordings: `day/a.wav` becomes `day/a`, a second recording of this name, such as `day/a.mp3`, `day/a.mp3`, and
            a further one `day/a-2`. Upper and lower case do not tell names apart, for on many disks they do not.
        taken: Stems that others have already.
    """
    used = {stem.casefold() for stem in taken}
    stems = []
    for name in names:
        name = _short(as_utf8(name))
        bare = _bare(name)
        stem = next(candidate for candidate in _candidates(bare, name) if candidate.casefold() not in used)
        used.add(stem.casefold())
        stems.append(stem)
    return stems


def _short(name: str) -> str:
    """Leave room in the last part of a name for endings, of the 255 bytes that it may have on most disks."""
    folder, last = posixpath.split(name)
    if len(data := last.encode()) > _MOST_BYTES:
        last = f"{data[: _MOST_BYTES - 9].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"
    return posixpath.join(folder, last)


def _candidates(bare: str, name: str) -> Iterator[str]:
    yield bare
    yield name
    number = 2
    while True:
        yield f"{bare}-{number}"
        number += 1


def _bare(name: str) -> str:
    folder, last = posixpath.split(name)
    stem, ending = posixpath.splitext(last)
    return posixpath.join(folder, stem if ending.lower() in _ENDINGS else last)


def _with_segment(name: str, path: str) -> str:
    """Return the name of a recording or of a segment, as `talk-12500-15700.wav`, in milliseconds."""
    if (segment := segment_of(path)) is None:
        return name
    start, end = segment
    bare = _bare(name)
    return f"{bare}-{round(start * 1000)}-{'' if end is None else round(end * 1000)}{name[len(bare) :]}"


def _below(path: str) -> list[tuple[str, str]] | None:
    """Return name and path of what a folder, archive, manifest or list holds; None for a single recording."""
    if os.path.isdir(path):
        tree = Tree(path)
        names = [name for _, files in tree.walk() for name in files if name.lower().endswith(_ENDINGS)]
        if not names:
            raise _no_audio(path, tree.found())
        return [(name, str(Path(path, name))) for name in sorted(names)]
    if not os.path.isfile(archive_of(path)):
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not os.path.isfile(path):
        return None
    if path.lower().endswith(_ARCHIVES) and is_archive(Path(path)):
        members = [(name, where) for name, where in archive_files(Path(path)) if name.lower().endswith(_ENDINGS)]
        if not members:
            raise _no_audio(path, "other files")
        members = [member for member in members if not posixpath.basename(member[0]).startswith(".")]
        return sorted(members, key=lambda member: member[0])  # those of one name as they follow each other in the archive
    if path.lower().endswith((*_MANIFESTS, _LIST)):
        return _listed(path)
    return None


def _aliases(path: str, below: list[tuple[str, str]]) -> Iterator[str | None]:
    """Yield what to call the members of an archive, a second one of a name with `#2`; None for other files."""
    inside = os.path.isfile(path) and not path.lower().endswith((*_MANIFESTS, _LIST))
    counts: Counter[str] = Counter()
    for name, _ in below:
        counts[name] += 1
        yield f"{path}::{name}{f'#{counts[name]}' if counts[name] > 1 else ''}" if inside else None


def _no_audio(path: str, found: str) -> ValueError:
    return ValueError(f"{path} holds no audio, found {found}; expected files such as {', '.join(AUDIO[:5])}")


def _listed(path: str) -> list[tuple[str, str]]:
    lines = decode_text(Path(path).read_bytes(), path).split("\n")
    read = _manifest_entry if path.lower().endswith(_MANIFESTS) else _list_entry
    entries = [read(line.strip(), f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise ValueError(f"{path} is empty; give {'a JSON object with audio_filepath' if read is _manifest_entry else 'a path'} a line")
    locate = Locator(Tree(os.path.dirname(path) or "."), os.path.basename(path), (without_segment(entry) for entry in entries))
    found = [locate(without_segment(entry)) for entry in entries]
    folders = {os.path.dirname(archive_of(where)) for where in found}
    top = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    return [
        (_with_segment(Path(os.path.relpath(archive_of(where), top)).as_posix(), entry), where + entry[len(without_segment(entry)) :])
        for where, entry in zip(found, entries, strict=True)
    ]


def _list_entry(line: str, where: str) -> str:
    return line


def _manifest_entry(line: str, where: str) -> str:
    """Return the path of a NeMo manifest's line, with its segment if it is one."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON object ({error}); expected NeMo's JSON lines") from None
    audio = next((record[key] for key in _AUDIO_KEYS if key in record), None) if isinstance(record, dict) else None
    if not isinstance(audio, str):
        raise ValueError(f"{where} has no audio_filepath, found {line[:60]}")
    offset, duration = record.get("offset"), record.get("duration")
    if offset is None:
        return audio
    try:
        return segment_path(audio, float(offset), None if duration is None else float(offset) + float(duration))
    except (TypeError, ValueError):
        raise ValueError(f"{where}: offset {offset!r} and duration {duration!r} are no segment; give seconds") from None
