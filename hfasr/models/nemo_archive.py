"""A `.nemo` archive, read without trusting it: a tar with model_config.yaml, model_weights.ckpt and tokenizer files.

Nothing is extracted by name: a wanted member is read into memory, the weights into a private temporary file.
Every refusal is a ValueError of one sentence.
"""

import gzip
import os
import re
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch
import yaml

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
# the largest convolutional model that NeMo published has 0.6 GB
_MOST_BYTES = 4 << 30
# weights hardly compress; an archive of zeros does, a thousandfold
_MOST_GROWTH, _ALWAYS_ALLOWED_GROWTH = 50, 64 << 20
_MOST_MEMBERS = 1000
_MOST_HEADER_BYTES = 4096
_MOST_CONFIG_BYTES = 16 << 20
_MOST_CONFIG_DEPTH, _MOST_CONFIG_EVENTS, _MOST_DIGITS = 64, 1_000_000, 1000
_MOST_PICKLE_BYTES = 32 << 20
_CHUNK = 1 << 20


class NemoArchive:
    """The plain members of an archive by name, such as `model_config.yaml`."""

    def __init__(self, file: BinaryIO, members: dict[str, tuple[int, int]]):
        self._file = file
        self._members = members

    @property
    def names(self) -> list[str]:
        """Names of the plain files, in the archive's order."""
        return list(self._members)

    def read(self, name: str, most_bytes: int) -> bytes:
        """Return a member's content.

        Raises:
            ValueError: there is no such member, or it has more than `most_bytes`.
        """
        offset, size = self._place(name)
        if size > most_bytes:
            raise ValueError(f"{shown(name)} has {size:,} bytes, expected at most {most_bytes:,}")
        self._file.seek(offset)
        return self._file.read(size)

    def config(self) -> dict:
        """Return model_config.yaml.

        Raises:
            ValueError: it is missing, or no YAML mapping of plain values.
        """
        return parse_config(self.read(CONFIG, _MOST_CONFIG_BYTES))

    def _place(self, name: str) -> tuple[int, int]:
        if name not in self._members:
            raise ValueError(f"the archive has no {shown(name)}, found {', '.join(map(shown, self.names[:8])) or 'no file'}")
        return self._members[name]

    @contextmanager
    def weights(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield model_weights.ckpt: tensors by name, which lie in a file that goes away at the end.

        Raises:
            ValueError: it is missing, not in torch's zip format, or holds more than tensors.
        """
        offset, size = self._place(WEIGHTS)
        if size > _MOST_BYTES:
            raise ValueError(f"{WEIGHTS} has {size:,} bytes, expected at most {_MOST_BYTES:,}")
        with tempfile.TemporaryDirectory(prefix="hfasr-nemo-") as folder:
            path = Path(folder, "weights")
            self._file.seek(offset)
            with open(path, "wb") as copy:
                for start in range(0, size, _CHUNK):
                    copy.write(self._file.read(min(_CHUNK, size - start)))
            _check_zip(path)
            tensors = _load_tensors(path)
            # strides of 0 and storages that several tensors share can stand for any number of values
            if (claimed := sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())) > size:
                raise ValueError(f"{WEIGHTS} holds tensors of {claimed:,} bytes in a file of {size:,}")
            yield tensors


@contextmanager
def open_archive(path: Path) -> Iterator[NemoArchive]:
    """Open a tar or tar.gz and check its members' names and sizes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such archive, a name that points outside, or a size that cannot be.
    """
    if not path.exists():
        raise FileNotFoundError("there is no such file")
    if not path.is_file():
        raise ValueError("this is no file, expected a .nemo archive; a folder that NeMo unpacked must be packed again with tar")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(len(_GZIP))
        file.seek(0)
        if start == _GZIP:
            with tempfile.TemporaryFile(prefix="hfasr-nemo-") as plain:
                size = _unpack(file, plain, min(_MOST_BYTES, _MOST_GROWTH * size + _ALWAYS_ALLOWED_GROWTH))
                yield NemoArchive(plain, _members(plain, size))
        else:
            yield NemoArchive(file, _members(file, size))


def parse_config(text: bytes) -> dict:
    """Parse YAML into a mapping of plain values.

    Raises:
        ValueError: it is no such thing, or too deep; merge keys and tags, by which a short file can ask for any amount of memory or time,
            are refused.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, loader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_CONFIG_DEPTH:
                break
            if count > _MOST_CONFIG_EVENTS:
                raise ValueError("too many values")
            # a tag can ask for what the spelling does not: `!!merge x`, `!!int "1:1"`
            if getattr(event, "tag", None) is not None:
                raise ValueError("tags")
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                if event.value == "<<":
                    raise ValueError("merge keys")
                # 1:1:1 is a number to the base of 60, which takes time with the square of its length
                if len(event.value) > _MOST_DIGITS and not event.value.strip("+-0123456789_:"):
                    raise ValueError("a number of too many digits")
        # the loader in C would overflow its stack, which ends the process
        config = None if depth > _MOST_CONFIG_DEPTH else yaml.load(text, loader)
    # PyYAML lets KeyError, TypeError, OverflowError and others through
    except Exception as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(f"{CONFIG} cannot be read as YAML of plain values ({shown(reason)})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} is no mapping of options, or is nested too deep")
    return config


class _HeaderReader:
    """The archive as tarfile sees it, which asks only for headers; a header that claims to be long is refused."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"header of {size} bytes")
        return self._read(size)


def _members(file: BinaryIO, archive_bytes: int) -> dict[str, tuple[int, int]]:
    """Name -> offset and size of every plain file of a tar."""
    members = {}
    file.seek(0)
    try:
        with tarfile.open(fileobj=_HeaderReader(file), mode="r:") as archive:
            # one by one: a size below zero would lead back to the same header for ever
            for count, member in enumerate(archive):
                name = _checked_name(member)
                if member.size < 0 or (member.isreg() and member.offset_data + member.size > archive_bytes):
                    raise _Refused(
                        f"{shown(name)} is declared to have {member.size:,} bytes, more than the archive of {archive_bytes:,} can hold"
                    )
                if count >= _MOST_MEMBERS:
                    raise _Refused(f"the archive has more than {_MOST_MEMBERS} members")
                if name in members:
                    raise _Refused(f"the archive holds {shown(name)} twice")
                if member.isreg():
                    members[name] = member.offset_data, member.size
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    # tarfile lets ValueError, IndexError, RecursionError and others through
    except Exception:
        raise ValueError("this is no tar or tar.gz archive that can be read, as NeMo's save_to writes it; it may be cut short") from None
    return members


class _Refused(Exception):
    """What `_members` found wrong itself, apart from what tarfile could not read."""


def _checked_name(member: tarfile.TarInfo) -> str:
    """Name of a member without the leading `./`."""
    parts = PurePosixPath(member.name.replace("\\", "/")).parts
    name = shown(member.name)
    if ".." in parts or member.name.startswith(("/", "\\")) or member.name[1:2] == ":":
        raise _Refused(f"the archive holds {name}, a path that points outside; do not trust it")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise _Refused(f"the archive holds {name}, which is a link, a device or the like and no plain file; do not trust it")
    return str(PurePosixPath(*parts))


def shown(text: str) -> str:
    """Text of an archive for a message; it may be long, and hold anything."""
    return ascii(text)[1:-1][:60]


def _unpack(file: BinaryIO, plain: BinaryIO, most_bytes: int) -> int:
    """Gunzip into a file; return its number of bytes."""
    total = 0
    try:
        with gzip.GzipFile(fileobj=file) as packed:
            while chunk := packed.read(_CHUNK):
                total += len(chunk)
                if total > most_bytes:
                    raise ValueError(f"the archive unpacks to more than {most_bytes:,} bytes, too many for its size")
                plain.write(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ValueError("the gzip compression of this archive is broken, or the file is cut short") from None
    plain.flush()
    return total


def _check_zip(path: Path) -> None:
    """Refuse a weights file whose records are not stored one by one, or claim more bytes than there are."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            raise ValueError(
                f"{WEIGHTS} is not in torch's zip format (torch 1.6 and newer); "
                "if you trust who made it, a newer NeMo that restores and saves the model writes that"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except Exception:
        raise ValueError(f"{WEIGHTS} is a broken or truncated zip file") from None
    if any(record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size for record in records):
        raise ValueError(f"{WEIGHTS} has compressed records, which torch.save does not write")
    if (declared := sum(record.file_size for record in records)) > size:
        raise ValueError(f"{WEIGHTS} declares {declared:,} bytes in a file of {size:,}")
    if any(record.file_size > _MOST_PICKLE_BYTES and record.filename.endswith(".pkl") for record in records):
        raise ValueError(f"{WEIGHTS} has a pickle of more than {_MOST_PICKLE_BYTES:,} bytes, so it holds more than tensors")


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch asks to report broken files as its own shortcomings
            # mapped, a storage ends where its file ends; read, torch would believe whatever size the pickle claims
            loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except MemoryError:
        raise
    # what a broken pickle raises is anybody's guess: UnpicklingError, RuntimeError, KeyError, IndexError, TypeError, struct.error ...
    except Exception as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(f"{WEIGHTS} holds more than tensors ({shown(found[1])}), which is not read as it could run code") from None
        raise ValueError(f"{WEIGHTS} cannot be read as tensors and nothing else; it is broken, or not a state dict of torch") from None
    if not isinstance(loaded, dict) or not all(isinstance(name, str) and _is_plain(value) for name, value in loaded.items()):
        raise ValueError(f"{WEIGHTS} holds more than tensors by name, expected a state dict")
    return loaded


def _is_plain(value: object) -> bool:
    return type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided and value.device.type == "cpu"
