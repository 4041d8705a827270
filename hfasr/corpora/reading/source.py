"""What a source is: a name, a look by which it is known, and a reader of its entries. One file of `sources/` each."""

import hashlib
import inspect
import logging
import os
import pkgutil
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from datasets import DatasetDict

from hfasr.cache import cache_folder
from hfasr.corpora.reading.table import Entry, Problems, open_table
from hfasr.corpora.reading.tree import ArchiveTree, Below, Paths, Tree, named_files, open_tree
from hfasr.corpora.rows import decoded
from hfasr.files import write_text

logger = logging.getLogger(__name__)

# How far below the given path a corpus is looked for: a release lies in a folder of its own, that one in an archive.
_LOOK_BELOW = 3
_LOOK_AT_MOST = 200

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A format of corpora on disk.

    Args:
        name: Of its function and of its file in `sources/`.
        title: As people call it.
        layout: What it looks like, for error messages.
        recognise: Tells whether the top of a tree looks so.
        order: Which is asked first when the source is to be found out: 0 for the unmistakable, more for the general.
    """

    name: str
    title: str
    layout: str
    recognise: Callable[[Tree], bool]
    order: int = 0

    def load(
        self,
        path: Paths,
        read: Callable[[Tree, Problems], Iterator[Entry]],
        *,
        options: dict | None = None,
        splits: Collection[str] | None = None,
        choose: Callable[[Tree], Tree] | None = None,
        num_workers: int | None = None,
    ) -> DatasetDict:
        """Load a folder or an archive of this source.

        Args:
            path: The folder or archive, or a folder above it; for sources that are lists of a corpus, also files, see `open_tree`.
            read: Yields the entries of a tree at whose top `recognise` is true, sorted within each split.
            options: All that changes what `read` yields; a table is made for each.
            splits: Which splits to return; all when None.
            choose: Finds the corpus in the tree and raises ValueError where it cannot; `top`, and a message of its own, when None.
            num_workers: Threads that read headers and transcripts.

        Raises:
            FileNotFoundError: The path does not exist.
            ValueError: It is not of this source, has no rows, or lacks a wanted split.
        """
        build = partial(self._entries, path, choose or self._choose, read)
        if isinstance(path, Mapping | list | tuple):
            files = {os.path.abspath(file): split for file, split in named_files(path).items()}
            options, path = (options or {}) | {"files": files}, Path(os.path.commonpath(files))
        else:
            path = Path(path).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such corpus; give the folder or archive of {self.title}: {self.layout}")
        tables = open_table(self.name, path, build, options=options or {}, num_workers=num_workers)
        for split in splits or ():
            if split not in tables:
                raise ValueError(f"{path} has no split {split!r}, found {', '.join(tables)}")
        return decoded(DatasetDict({split: tables[split] for split in (splits if splits is not None else tables)}))

    def _entries(
        self, path: Paths, choose: Callable[[Tree], Tree], read: Callable[[Tree, Problems], Iterator[Entry]], problems: Problems
    ) -> tuple[Iterator[Entry], dict[str, tuple[int, int]]]:
        tree = open_tree(path)
        return read(choose(tree), problems), tree.seen

    def _choose(self, tree: Tree) -> Tree:
        return self.top(tree) or self.refuse(tree)

    def refuse(self, tree: Tree, lacks: str = "") -> NoReturn:
        """Raise the ValueError of a tree that is not of this source, with what it looks like instead."""
        others = [source for source in find_sources(tree) if source.name != self.name]
        hint = f" It looks like {others[0].title}: use corpora.{others[0].name}, or --source {others[0].name}." if others else ""
        expected = f"{lacks}, expected {self.layout}" if lacks else f"expected {self.layout}"
        raise ValueError(f"{tree.path} is not {self.title}: {expected}; found {tree.found()}.{hint}")

    def top(self, tree: Tree) -> Tree | None:
        """Return the part of a tree that looks like this source: all of it or what is below a folder; None without one."""
        return next((below for below in _tops(tree) if self.recognise(below)), None)


def _tops(tree: Tree) -> Iterator[Tree]:
    yield tree
    folders, seen = [""], 0
    for _ in range(_LOOK_BELOW):
        folders = [below for folder in folders for below in tree.folders(folder)]
        for folder in folders:
            if (seen := seen + 1) > _LOOK_AT_MOST:
                return
            yield Below(tree, folder)


def sources() -> list[Source]:
    """Return every source, those of the most certain look first."""
    folder = Path(__file__).parents[1] / "sources"
    names = sorted(module.name for module in pkgutil.iter_modules([str(folder)]))
    return sorted((import_module(f"hfasr.corpora.sources.{name}").SOURCE for name in names), key=lambda source: source.order)


def find_sources(tree: Tree) -> list[Source]:
    """Return the sources that a tree, or a folder in it, looks like, the most certain first; of the general ones only at its top."""
    return [source for source in sources() if (source.recognise(tree) if source.order else source.top(tree) is not None)]


def load_corpus(path: Paths, *, source: str | None = None, **options) -> DatasetDict:
    """Load a corpus of any source.

    Args:
        path: Folder, archive or file; several files as a list, or as a dict from split to file or files; or a data set's name
            on the Hub, such as "google/fleurs".
        source: Name of its source, such as "ksc2"; found out when None.
        options: Passed on to the source's function.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: No such source or option, or the path looks like no source or holds several corpora.
    """
    known = {each.name: each for each in sources()}
    if source is None:
        source = "hub" if _is_hub_name(path) else _found_before(path) or _find_one(path)
        logger.info("%s: %s", path, known[source].title)
    if source not in known:
        raise ValueError(f"there is no source {source!r}; use one of {', '.join(known)}")
    load = getattr(import_module(f"hfasr.corpora.sources.{source}"), source)
    accepted = list(inspect.signature(load).parameters)[1:]
    for option in options:
        if option not in accepted:
            raise ValueError(f"{source} has no option {option!r}; it has {', '.join(accepted)}")
    return load(path, **options)


def _is_hub_name(path: Paths) -> bool:
    if not isinstance(path, str) or os.path.exists(os.path.expanduser(path)) or _HUB_NAME.fullmatch(path) is None:
        return False
    if os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(f"{path}: no such corpus in the folder {os.path.dirname(path)}")
    logger.info("%s: no such folder or file here; looking for it on the Hub", path)
    return True


def _find_one(path: Paths) -> str:
    tree = open_tree(path)
    found = find_sources(tree)
    if not found and tree.given:
        # its loader says what is wrong with the file
        return "manifest" if next(iter(tree.given)).endswith((".json", ".jsonl")) else "tabular"
    if not found:
        looks = "\n".join(f"  {each.name}: {each.layout}" for each in sources())
        raise ValueError(f"{path} looks like no source that is known; found {tree.found()}. Known are\n{looks}")
    # what the folder itself looks like comes before what lies somewhere below it
    several = [each for each in found if not each.order]
    several = [each for each in several if each.recognise(tree)] or several
    if len(several) > 1:
        names = ", ".join(f"{each.title} (--source {each.name})" for each in several)
        raise ValueError(f"{path} looks like {names}; give the folder of one corpus, or choose by source")
    chosen = (several or found)[0].name
    if isinstance(tree, ArchiveTree):
        write_text(_note_of(path), chosen)
    return chosen


def _found_before(path: Paths) -> str | None:
    """Return what an archive was found to be, so that it need not be read through each time."""
    if isinstance(path, str | os.PathLike) and os.path.isfile(note := _note_of(path)):
        noted = note.read_text(encoding="utf-8")
        return noted if noted in {each.name for each in sources()} else None
    return None


def _note_of(path: str | os.PathLike) -> Path:
    path = Path(path).expanduser()
    stamp = f"{path.stat().st_size} {path.stat().st_mtime_ns}" if path.is_file() else ""
    folder = cache_folder() / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / hashlib.sha256(f"1 {path.absolute()} {stamp}".encode()).hexdigest()[:16]
