"""Archives are read in place: an uncompressed one by byte ranges, a compressed one through one uncompressed copy."""

import bz2
import errno
import gzip
import hashlib
import logging
import lzma
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from filelock import FileLock

from hfasr.cache import cache_folder
from hfasr.paths import archive_path

logger = logging.getLogger(__name__)

_COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty one
_LOCAL_HEADER_BYTES = 30

# What is wrong is not the archive but the disk or its permissions.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, lzma.LZMAError, zlib.error)


def is_archive(path: Path) -> bool:
    """Tell from its first bytes whether a file is a .tar, .zip, or a tar compressed by gzip, bzip2 or xz."""
    with open(path, "rb") as file:
        start = file.read(512)
    return start.startswith((*_COMPRESSIONS, *_ZIP_STARTS)) or start[257:262] == b"ustar"


def archive_files(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and `archive_path` of every plain file in a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz.

    Nothing is extracted, so no member can be written outside its folder. A compressed archive is uncompressed into the
    cache once; processes that start together make one copy. That copy stays in `archives/` of the cache folder, since the
    clips are read from it; delete it there when it is no longer needed.

    Raises:
        ValueError: Not such an archive, cut short, encrypted, or a member's name points outside.
        OSError: The archive may not be read, or the cache is full or may not be written.
    """
    try:
        plain = _uncompressed(path)
        for name, offset, size in (_stored if _starts(plain, _ZIP_STARTS) else _tarred)(plain):
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if ".." in parts or name.startswith(("/", "\\")) or name[1:3] in (":/", ":\\"):
                raise ValueError(f"{path} holds {name!r}, a path that points outside the archive; do not trust it, pack the corpus anew")
            yield str(PurePosixPath(*parts)), archive_path(plain.resolve(), name, offset, size)
    except NotImplementedError as error:  # zipfile's word for a compression that it does not know
        raise ValueError(f"{path} is packed in a way that cannot be read ({error}); pack it anew as .tar, .tar.gz or plain .zip") from None
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        raise ValueError(f"{path}: not a whole .tar, .tar.gz or .zip archive ({error}); download it again") from None


def _starts(path: Path, starts: tuple[bytes, ...]) -> bool:
    # not zipfile.is_zipfile, which also takes a tar for one whose last member is a .zip
    with open(path, "rb") as file:
        return file.read(6).startswith(starts)


def _tarred(path: Path) -> Iterator[tuple[str, int, int]]:
    links: dict[str, list[str]] = defaultdict(list)
    for member in _members(path):
        if member.isfile():
            yield member.name, member.offset_data, member.size
        elif member.islnk() or member.issym():
            target = member.linkname if member.islnk() else posixpath.join(posixpath.dirname(member.name), member.linkname)
            links[posixpath.normpath(target)].append(member.name)
    # a link is read where it points to, within the archive; nothing outside it is there to be read
    for member in _members(path) if links else ():
        if member.isfile():
            for name in links.get(posixpath.normpath(member.name), ()):
                yield name, member.offset_data, member.size


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            yield member
            archive.members = []  # tarfile keeps every member it has seen


def _stored(path: Path) -> Iterator[tuple[str, int, int]]:
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for member in archive.infolist():
            if not member.is_dir():
                # name and extra field stand again before the data, of other lengths than in the directory
                file.seek(member.header_offset)
                header = file.read(_LOCAL_HEADER_BYTES)
                lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                yield member.filename, member.header_offset + _LOCAL_HEADER_BYTES + lengths, member.file_size


def _uncompressed(path: Path) -> Path:
    with open(path, "rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
    if opener is not None:
        return _copy(path, lambda target: _write_plain_tar(path, opener, target))
    if start.startswith(_ZIP_STARTS):
        with zipfile.ZipFile(path) as archive:
            if any(member.flag_bits & 1 for member in archive.infolist()):
                raise ValueError(f"{path} is encrypted; unpack it with its password and give the folder")
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                return _copy(path, lambda target: _write_tar_of_zip(path, target))
    return path


def _copy(path: Path, write: Callable[[Path], None]) -> Path:
    status = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.name.partition('.tar')[0].removesuffix('.zip')}-{key}.tar"
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            logger.info("%s: uncompressing once into %s", path, target)
            temporary = target.with_suffix(".part")
            try:
                write(temporary)
                temporary.replace(target)
            except OSError as error:
                if error.errno in _DISK_ERRORS and error.filename is None:
                    error.filename = str(temporary)  # a full disk is reported without its file
                raise
            finally:
                temporary.unlink(missing_ok=True)
    return target


def _write_plain_tar(path: Path, opener: Callable, target: Path) -> None:
    with opener(path, "rb") as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy, 2**20)


def _write_tar_of_zip(path: Path, target: Path) -> None:
    with zipfile.ZipFile(path) as archive, tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as copy:
        for member in archive.infolist():
            if not member.is_dir():
                entry = tarfile.TarInfo(member.filename)
                entry.size = member.file_size
                with archive.open(member) as source:
                    copy.addfile(entry, source)
