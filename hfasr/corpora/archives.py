"""Archives are read in place: an uncompressed tar by byte ranges, a compressed one through one uncompressed copy."""

import bz2
import errno
import gzip
import hashlib
import logging
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from hfasr.audio import archive_path
from hfasr.cache import cache_folder

logger = logging.getLogger(__name__)

_COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}

# What is wrong is not the archive but the disk or its permissions.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def archive_files(path: Path) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Yield name, `archive_path` and a function that reads it, of every plain file in a .tar, .tar.gz, .tar.bz2 or .tar.xz.

    Nothing is extracted, so no member can be written outside its folder. A compressed archive is uncompressed into the
    cache once; processes that start together make one copy. That copy stays in `archives/` of the cache folder, since the
    clips are read from it; delete it there when it is no longer needed.

    Raises:
        ValueError: Not such an archive, or cut short.
        OSError: The archive may not be read, or the cache is full or may not be written.
    """
    try:
        plain = _uncompressed(path)
        with tarfile.open(plain, "r:") as archive:
            for member in archive:
                if member.isfile():
                    where = archive_path(plain.resolve(), member.name, member.offset_data, member.size)
                    yield member.name, where, lambda member=member: archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        raise ValueError(f"{path}: not a whole .tar or .tar.gz archive ({error}); download it again") from None


def _uncompressed(path: Path) -> Path:
    from filelock import FileLock

    with open(path, "rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
    if opener is None:
        return path
    status = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.name.partition('.tar')[0]}-{key}.tar"
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            logger.info("%s: uncompressing once into %s", path, target)
            temporary = target.with_suffix(".part")
            try:
                with opener(path, "rb") as source, open(temporary, "wb") as copy:
                    shutil.copyfileobj(source, copy, 2**20)
                temporary.replace(target)
            except OSError as error:
                if error.errno in _DISK_ERRORS and error.filename is None:
                    error.filename = str(temporary)  # a full disk is reported without its file
                raise
            finally:
                temporary.unlink(missing_ok=True)
    return target
