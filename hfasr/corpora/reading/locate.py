"""Find the audio that a manifest or a table names: beside it, elsewhere on this machine, or in an archive."""

import os
import posixpath
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import PurePosixPath

import numpy as np

from hfasr.corpora.reading.tree import Tree
from hfasr.paths import archived

# libsndfile's; the first ones are the likeliest
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".oga", ".aiff", ".aif", ".au", ".caf", ".w64")
# What libsndfile cannot read and people keep speech in.
FOREIGN_AUDIO = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr", ".3gp", ".mka", ".ac3", ".spx", ".ape", ".wv", ".sph")
CONVERT = "libsndfile does not read it; convert it first, for example: ffmpeg -i {name} -ac 1 -ar 16000 {stem}.flac"

# The file names of splits; others keep their names.
SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "development": "validation",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip

_ORDER = {"train": 0, "validation": 1, "test": 2}
_SAMPLE = 200
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def split_of(name: str, otherwise: str | None = None) -> str:
    """Return the split that a file's name tells.

    Args:
        name: Such as "train_manifest.json", "an4_dev.csv" or "test_ios.json".
        otherwise: The split when no word of the name is a split's; the name without its ending when None.

    Returns:
        "train", "validation" or "test" when the name is, or ends with, a word for it; else the name, such as "test_ios".
    """
    stem = os.path.splitext(name.rpartition("/")[2])[0]
    stem = re.sub(r"(?i)^(tarred_audio_)?manifest[-_.]?|[-_.]?(manifests?|metadata)$", "", stem)
    words = [word for word in re.split(r"[-_. ]", stem.lower()) if word]
    if words and words[-1] in SPLITS:
        return SPLITS[words[-1]]
    return stem if stem and (otherwise is None or any(word in SPLITS for word in words)) else otherwise or "train"


def in_order(splits: Iterable[str]) -> list[str]:
    """Return splits as one expects them: train, validation, test, then the others by name."""
    return sorted(splits, key=lambda split: (_ORDER.get(split, len(_ORDER)), split))


class FileNames:
    """Whether files can be told apart by their names alone; their paths are held as hashes, for there may be millions."""

    def __init__(self):
        self._names, self._files = array("q"), array("q")
        self._first, self._last = None, ""

    def add(self, path: str, segment: object = None) -> None:
        """Note a file, and which segment of it."""
        self._names.append(hash((stem_of(path), segment)))
        self._files.append(hash(path))
        self._first = path if self._first is None else min(self._first, path)
        self._last = max(self._last, path)

    def top(self) -> str | None:
        """Return the folder that all files are in when two of them have the same name, else None: what `stem_of` takes."""
        names, files = (np.frombuffer(values, dtype=np.int64) for values in (self._names, self._files))
        pairs = np.unique(np.stack([names, files], axis=1), axis=0) if len(names) else names
        return common_folder(self._first, self._last) if len(pairs) > len(np.unique(names)) else None


def stem_of(path: str, top: str | None = None) -> str:
    """Return a file's name without its ending, or its path below `top`."""
    path = _slashes(path)
    stem = path.rpartition("/")[2] if top is None else path.removeprefix(top).lstrip("/")
    return stem.rpartition(".")[0] or stem


class Locator:
    """Where on this machine the paths of a manifest or table are.

    An absolute path stays as it is, a relative one is below the folder of the manifest or table, or below one of the folders
    beside it. With `audio_root`, the beginning of a path is replaced by it: the beginning is whatever makes most of the first
    paths found, as little as possible of each (`/data/cv/clips/a.mp3` with `audio_root="/mnt/cv"` becomes
    `/mnt/cv/clips/a.mp3` when there is such a file, else `/mnt/cv/a.mp3`).
    The folders of the files are noted in the tree, so that a table is made anew when missing files have come.

    Args:
        tree: That holds the manifest or table.
        name: Of the manifest or table in it.
        paths: The paths that it names; read to their end only when none is found before.
        audio_root: Folder of the audio on this machine.

    Raises:
        FileNotFoundError: There is no such `audio_root`.
        ValueError: None of the paths is there.
    """

    def __init__(self, tree: Tree, name: str, paths: Iterable[str], audio_root: str | None = None):
        self._tree, self._name, self._root = tree, name, audio_root
        self._folder, self._label = name.rpartition("/")[0], tree.label(name)
        self._prefixes: list[str] = []
        self._noted: set[str] = set()
        self._below, self._ending = "", ""
        first = list(islice(paths, _SAMPLE))
        if audio_root is None:
            self._look_beside(first)
        else:
            self._look_below_root(first)
        if not any(self.there(path) for path in first) and not any(self.there(path) for path in paths) and first:
            self._refuse(first)

    def __call__(self, path: str, audio: bool = True) -> str:
        """Return what `load_audio` takes for a path of the manifest or table, whether or not there is such a file.

        Args:
            path: As it stands there.
            audio: Whether it is of audio, and gets an ending when those of the others lack it.
        """
        where = self._where(path, audio)
        folder = where.rpartition("/")[0]
        if folder not in self._noted and "::" not in where:
            self._noted.add(folder)
            while folder and not os.path.isdir(folder):  # when it comes, the folder above it changes
                folder = folder.rpartition("/")[0]
            self._tree.remember(folder or "/")
        return where

    def there(self, path: str) -> bool:
        """Tell whether a path is there."""
        return _is_file(self._where(path))

    def _where(self, path: str, audio: bool = True) -> str:
        path = _slashes(path)
        if audio and self._ending and posixpath.splitext(path)[1].lower() not in AUDIO:
            path += self._ending
        if self._root is not None:
            prefix = next((prefix for prefix in self._prefixes if path.startswith(prefix)), "")
            return f"{self._root}/{path[len(prefix) :].lstrip('/')}"
        if path.startswith("/"):
            return path
        if path.startswith("~"):
            return os.path.expanduser(path)
        where = self._tree.where(posixpath.normpath(posixpath.join(self._folder, self._below, path)))
        # without "..", unless the folder is a link and the file beside what it leads to
        return plain if "/../" in where and os.path.isfile(plain := os.path.normpath(where)) else where

    def _look_beside(self, first: list[str]) -> None:
        relative = [path for path in first[:20] if not _slashes(path).startswith(("/", "~"))]
        tree, folder = self._tree, self._folder
        if tree.given is not None:  # which shows only the files that the user named
            tree, folder = Tree(os.path.dirname(tree.where(self._name))), ""
        folders = [each.rpartition("/")[2] for each in tree.folders(folder)] if relative else []
        for self._below in ("", *folders[:20]):
            for self._ending in ("", *AUDIO):
                if any(self.there(path) for path in relative):
                    return
                if all(posixpath.splitext(path)[1].lower() in AUDIO for path in relative):
                    break
        self._below, self._ending = "", ""

    def _look_below_root(self, first: list[str]) -> None:
        if not os.path.isdir(self._root):
            raise FileNotFoundError(f"audio_root {self._root}: no such folder; give the one that holds the audio of {self._label}")
        found: Counter = Counter()
        for self._ending in ("", *AUDIO):
            for path in map(_slashes, first):
                bare = self._ending == "" or posixpath.splitext(path)[1].lower() not in AUDIO
                for prefix in _beginnings(path) if bare else ():
                    if _is_file(f"{self._root}/{path[len(prefix) :].lstrip('/')}{self._ending}"):
                        found[prefix] += 1
                        break
            if found:
                break
        else:
            self._ending = ""
        self._prefixes = sorted(found, key=lambda prefix: (-found[prefix], len(prefix)))

    def _refuse(self, first: list[str]) -> None:
        shared = common_folder(min(first), max(first))
        below = f", all below {shared}" if shared not in ("", "/") else ""
        if self._root is not None:
            path = _slashes(first[0])
            tried = [f"{self._root}/{path[len(each) :].lstrip('/')}" for each in _beginnings(path)]
            raise ValueError(
                f"{self._label}: none of its audio is below audio_root {self._root}; for {first[0]} tried {tried[0]} to {tried[-1]}{below}"
            )
        looked = "" if first[0].startswith("/") else f", looked for at {self._where(first[0])}"
        raise ValueError(
            f"{self._label}: none of its audio is here; the first is {first[0]}{looked}{below}. "
            "If it is from another machine, say where the audio is by audio_root=, or --audio_root DIR"
        )


def common_folder(first: str, last: str) -> str:
    """Return the folder that all paths from the first to the last, as they sort, are in; "" without one."""
    if first[:1] == "/" and last[:1] != "/":
        return ""
    return os.path.commonpath([os.path.dirname(_slashes(first)), os.path.dirname(_slashes(last))])


def _slashes(path: str) -> str:
    return path.replace("\\", "/") if _WINDOWS.match(path) or ("\\" in path and "/" not in path) else path


def _beginnings(path: str) -> list[str]:
    """Return the beginnings of a path that end with a slash, the empty one first."""
    parts = PurePosixPath(path).parts[:-1]
    return ["", *(f"{posixpath.join(*parts[:count])}/".replace("//", "/") for count in range(1, len(parts) + 1))]


def _is_file(where: str) -> bool:
    return archived(where) or os.path.isfile(where)
