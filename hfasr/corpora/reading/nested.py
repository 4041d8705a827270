"""Archives inside a corpus, as they were downloaded: several corpora come as archives that hold one archive for each part or speaker."""

import os
from collections.abc import Iterator
from pathlib import Path

from hfasr.corpora.reading.tree import Tree, open_tree
from hfasr.paths import archived

_ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")


def nested_archives(tree: Tree, folder: str = "") -> dict[str, str]:
    """Return the archives in a folder of a tree, sorted: name without folder and ending -> name in the tree."""
    found = {}
    for name in tree.files(folder):
        ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
        if ending is not None:
            found.setdefault(name.rpartition("/")[2].removesuffix(ending), name)
    return found


def open_nested(tree: Tree, name: str) -> Tree:
    """Open an archive that lies in a folder; the corpus counts as changed when the archive does.

    Raises:
        ValueError: The tree is itself an archive, or the archive in it is broken.
    """
    where = tree.where(name)
    if archived(where):
        command = "unzip" if str(tree.path).endswith(".zip") else "tar -xf"
        raise ValueError(
            f"{tree.path} holds {name}, an archive in an archive, which cannot be read in place. Extract the outer one"
            f" ({command} '{tree.path}') and give the folder; the archives in it may stay as they are"
        )
    tree.remember(where)
    inner = open_tree(where)
    tree.seen |= inner.seen
    return inner


def lines_beside(tree: Tree, name: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a file beside the folder that a user gave; nothing when there is no such file."""
    if type(tree) is Tree:
        parent = Tree(Path(os.path.abspath(tree.path)).parent)
        parent.seen = tree.seen
        if os.path.isfile(parent.where(name)):
            yield from parent.lines(name)
