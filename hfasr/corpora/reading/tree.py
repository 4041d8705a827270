"""The files of a corpus by their names, the same for a folder and for an archive."""

import io
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from hfasr.corpora.reading.archives import archive_files, is_archive
from hfasr.paths import archive_of, archived, read_bytes

# What file managers leave behind; "." begins AppleDouble files, which look like audio by their endings.
_NOT_OURS = (".", "__MACOSX", "Thumbs.db")

_LISTS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_Path = str | os.PathLike
Paths = _Path | Sequence[_Path] | Mapping[str, _Path | Sequence[_Path]]


class Tree:
    """The files below a folder. Names are relative to it, with forward slashes; "" is the folder itself.

    Attributes:
        path: As the user gave it.
        seen: Files and folders that were read, with what tells whether they have changed since: `(size in bytes, time of
            change in ns)`; size -1 for a folder, whose time changes when a file comes or goes.
        given: The files that the user named, with the split that each is for, if that was said; None for a folder or archive.
    """

    given: dict[str, str | None] | None = None

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.seen: dict[str, tuple[int, int]] = {}
        self._listing = lru_cache(maxsize=256)(self._list)

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders in a folder, sorted; none when it does not exist."""
        return [_join(folder, name) for name in self._listing(folder)[0]]

    def files(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder, sorted; none when it does not exist."""
        return [_join(folder, name) for name in self._listing(folder)[1]]

    def walk(self, folder: str = "") -> Iterator[tuple[str, list[str]]]:
        """Yield every folder from `folder` down, with the names of its files."""
        seen, waiting = set(), [folder]
        while waiting:
            folder = waiting.pop()
            if (real := self._real(folder)) in seen:
                continue  # a link that leads back
            seen.add(real)
            yield folder, self.files(folder)
            waiting += reversed(self.folders(folder))

    def has(self, name: str) -> bool:
        """Tell whether there is such a file."""
        folder, _, last = name.rpartition("/")
        files = self._listing(folder)[1]
        place = bisect_left(files, last)
        return place < len(files) and files[place] == last

    def where(self, name: str) -> str:
        """Return what `load_audio` and `read_bytes` take for a name, whether or not there is such a file."""
        return f"{self._top}/{name}"

    def label(self, name: str) -> str:
        """Return what messages call a file."""
        return f"{self.path}: {name}"

    def read_text(self, name: str) -> str:
        """Read a UTF-8 file, with or without a byte order mark.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not UTF-8; the message names the line.
        """
        where = self.where(name)
        data = read_bytes(where)
        self.remember(where)
        return decode_text(data, self.label(name))

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield number and text of each line of a UTF-8 table; only `\n` and `\r\n` end a line, and empty ones are left out.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A line is not UTF-8; the message names it.
        """
        where = self.where(name)
        self.remember(where)
        with io.BytesIO(read_bytes(where)) if archived(where) else open(where, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = decode_text(line, self.label(name), number).rstrip("\r\n")
                if text.strip():
                    yield number, text

    def found(self, folder: str = "", most: int = 8) -> str:
        """Name some of what is in a folder, for an error message."""
        folders, files = self._listing(folder)
        names = [f"{name}/" for name in folders] + files
        rest = f" and {len(names) - most} more" if len(names) > most else ""
        return (", ".join(names[:most]) + rest) or "nothing"

    def remember(self, path: str) -> None:
        """Note size and time of a file or folder on disk, so that a table made of it is made anew when it changes."""
        if archived(path):
            return  # the archive is noted
        status = os.stat(path)
        self.seen[path] = (-1 if os.path.isdir(path) else status.st_size, status.st_mtime_ns)

    @property
    def _top(self) -> str:
        return os.path.abspath(self.path)

    def _real(self, folder: str) -> str:
        return os.path.realpath(f"{self._top}/{folder}")

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        path = f"{self._top}/{folder}".rstrip("/") or "/"
        if not os.path.isdir(path):
            return [], []
        self.remember(path)
        folders, files = [], []
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith(_NOT_OURS):
                    # a link that leads to itself is no folder, where is_dir raises
                    is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
                    (folders if is_folder else files).append(entry.name)
        return sorted(folders), sorted(files)


class ArchiveTree(Tree):
    """The files in an archive, which is read in place."""

    def __init__(self, path: str | os.PathLike):
        super().__init__(path)
        self.remember(os.path.abspath(path))
        self._members: dict[str, str] = {}
        names: dict[str, tuple[set[str], list[str]]] = defaultdict(lambda: (set(), []))
        for name, where in archive_files(self.path):
            if any(part.startswith(_NOT_OURS) for part in PurePosixPath(name).parts):
                continue
            if not self._members:
                super().remember(str(archive_of(where)))  # of a compressed archive its copy, which the user may delete
            self._members[name] = where
            folder, _, last = name.rpartition("/")
            new = folder not in names
            names[folder][1].append(last)
            while new and folder:
                folder, _, last = folder.rpartition("/")
                new = folder not in names
                names[folder][0].add(last)
        self._names = {folder: (sorted(folders), sorted(files)) for folder, (folders, files) in names.items()}

    def where(self, name: str) -> str:
        return self._members.get(name, f"{self._top}::{name}")

    def _real(self, folder: str) -> str:
        return folder

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        return self._names.get(folder, ([], []))


class FileTree(Tree):
    """Files that the user named, seen from the folder that they share; what else is in it does not matter."""

    def __init__(self, path: str | os.PathLike, files: dict[Path, str | None]):
        self._folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
        super().__init__(path)
        self.given = {Path(os.path.relpath(file, self._folder)).as_posix(): split for file, split in files.items()}

    def label(self, name: str) -> str:
        return self.where(name)

    @property
    def _top(self) -> str:
        return self._folder.rstrip("/")

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        return super()._list(folder) if folder else ([], sorted(self.given))


class Below(Tree):
    """What is below one folder of another tree."""

    def __init__(self, tree: Tree, folder: str):
        super().__init__(tree.path)
        self._tree, self._folder, self.seen = tree, folder, tree.seen

    def where(self, name: str) -> str:
        return self._tree.where(_join(self._folder, name))

    def remember(self, path: str) -> None:
        self._tree.remember(path)

    def _real(self, folder: str) -> str:
        return self._tree._real(_join(self._folder, folder))

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        return self._tree._listing(_join(self._folder, folder) if folder else self._folder)


def open_tree(path: Paths) -> Tree:
    """Open a folder, an archive, or files that list a corpus.

    Args:
        path: Folder, archive, manifest or table; several files as a list, or as a dict from split to file or files.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: A file that is neither an archive nor a list of a corpus, or a broken archive.
    """
    if isinstance(path, Mapping | list | tuple):
        files = named_files(path)
        return FileTree(os.path.commonpath([os.path.abspath(file) for file in files]), files)
    path = Path(path).expanduser()
    if path.is_dir():
        return Tree(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such corpus; give the folder that holds it, or its .tar, .tar.gz or .zip archive")
    if path.suffix.lower() in _LISTS:
        return FileTree(path, {path: None})
    if not is_archive(path):
        raise ValueError(f"{path} is neither a folder nor a .tar, .tar.gz or .zip archive; is it whole?")
    return ArchiveTree(path)


def unwrapped(tree: Tree) -> Tree:
    """Return what is below the folders that hold nothing but one other folder, as archives have them."""
    while tree.given is None and not tree.files() and len(folders := tree.folders()) == 1:
        tree = Below(tree, folders[0])
    return tree


def named_files(path: Paths) -> dict[Path, str | None]:
    """Return several files, each with its split, None where that was not said.

    Raises:
        FileNotFoundError: One of them is not there.
        ValueError: None is given, or one twice.
    """
    by_split = path if isinstance(path, Mapping) else {None: path}
    files: dict[Path, str | None] = {}
    for split, paths in by_split.items():
        for file in [paths] if isinstance(paths, str | os.PathLike) else paths:
            file = Path(file).expanduser()
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such file{f' for split {split!r}' if split else ''}")
            if file in files:
                raise ValueError(f"{file} is given twice; each file has one split")
            files[file] = split
    if not files:
        raise ValueError("no file is given; give a path, a list of paths, or a dict from split to paths")
    return files


def decode_text(data: bytes, name: str, first_line: int = 1) -> str:
    """Decode UTF-8 with or without a byte order mark; line ends become `\\n`.

    Args:
        data: Of a file, or of the part of it that begins with `first_line`.
        name: Of the file, for messages.
        first_line: Counts from 1.

    Raises:
        ValueError: Not UTF-8; the message has the name and the line.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{name}, line {first_line}: UTF-16, not UTF-8; save the file as UTF-8")
    try:
        return data.decode("utf-8-sig" if first_line == 1 else "utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = first_line + data[: error.start].count(b"\n")
        raise ValueError(f"{name}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
