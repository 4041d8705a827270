"""What a user names to be transcribed -> audio files."""

import os
from collections.abc import Iterable
from pathlib import Path

from hfasr.corpora.reading.locate import AUDIO, FOREIGN_AUDIO
from hfasr.corpora.reading.tree import Tree
from hfasr.paths import archive_of

# the foreign ones too: they come out as files that cannot be read, with the reason, where leaving them out would go unseen
_ENDINGS = AUDIO + FOREIGN_AUDIO


def find_audio(paths: Iterable[str | os.PathLike]) -> list[str]:
    """List the audio of files and folders.

    Args:
        paths: Files, which may have any ending, and folders, of which the files with the ending of an audio format are taken, those
            of folders below too; hidden ones are not. Whatever `load_audio` reads is a file, such as `talk.wav#t=12.5,15.7`.

    Returns:
        Paths in the order given, those of a folder sorted.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A folder holds no audio.
    """
    found = []
    for path in map(os.fspath, paths):
        if os.path.isdir(path):
            found += _in_folder(path)
        elif os.path.isfile(archive_of(path)):
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return found


def _in_folder(folder: str) -> list[str]:
    tree = Tree(folder)
    names = [name for _, files in tree.walk() for name in files if name.lower().endswith(_ENDINGS)]
    if not names:
        raise ValueError(f"{folder} holds no audio, found {tree.found()}; expected files such as {', '.join(AUDIO[:5])}")
    return [str(Path(folder, name)) for name in sorted(names)]
