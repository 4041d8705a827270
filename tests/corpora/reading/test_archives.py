import io
import os
import struct
import tarfile
import zipfile

import pytest

from hfasr.cache import cache_folder
from hfasr.corpora.reading.archives import archive_files, is_archive
from hfasr.corpora.reading.tree import open_tree
from hfasr.paths import archived, read_bytes

MEMBERS = {"corpus/a.txt": b"one", "corpus/below/b c.bin": bytes(range(256)) * 40, "corpus/я/ғ.txt": "сөз".encode(), "corpus/empty": b""}
TARS = {"x.tar": "w", "x.tar.gz": "w:gz", "x.tgz": "w:gz", "x.tar.bz2": "w:bz2", "x.tar.xz": "w:xz"}
ZIPS = {"x.zip": zipfile.ZIP_DEFLATED, "x.stored.zip": zipfile.ZIP_STORED, "x.lzma.zip": zipfile.ZIP_LZMA}


def pack(path, members=MEMBERS):
    if path.name in TARS:
        with tarfile.open(path, TARS[path.name]) as archive:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        with zipfile.ZipFile(path, "w", ZIPS[path.name]) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", [*TARS, *ZIPS])
def test_every_kind_gives_the_same_names_and_bytes(name, tmp_path):
    path = pack(tmp_path / name)
    assert is_archive(path)
    before = set(tmp_path.iterdir())
    for _ in range(2):  # the second time from the cache
        found = dict(archive_files(path))
        assert {member: read_bytes(where) for member, where in found.items()} == MEMBERS
        assert all(archived(where) for where in found.values())
    assert set(tmp_path.iterdir()) == before
    in_place = name in ("x.tar", "x.stored.zip")
    assert all(where.startswith(str(path)) for where in found.values()) == in_place
    assert not list(cache_folder().rglob("*.part"))


def test_a_changed_archive_is_uncompressed_anew(tmp_path):
    path = pack(tmp_path / "x.tar.gz")
    dict(archive_files(path))
    pack(path, {"new.txt": b"new"})
    assert {name: read_bytes(where) for name, where in archive_files(path)} == {"new.txt": b"new"}


def test_links_within_a_tar_are_read_where_they_point_to(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.txt").write_text("one")
    (tmp_path / "c" / "soft.txt").symlink_to("a.txt")
    (tmp_path / "c" / "out.txt").symlink_to("/etc/hostname")
    os.link(tmp_path / "c" / "a.txt", tmp_path / "c" / "hard.txt")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("soft", "a", "hard", "out"):
            archive.add(tmp_path / "c" / f"{name}.txt", arcname=f"./c/{name}.txt")
    found = {name: read_bytes(where) for name, where in archive_files(tmp_path / "x.tar")}
    assert found == {"c/a.txt": b"one", "c/hard.txt": b"one", "c/soft.txt": b"one"}


def test_names_are_cleaned_and_plain_files_only(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind, target in (
            ("./", tarfile.DIRTYPE, ""), ("./c//a.txt", tarfile.REGTYPE, ""), ("c/link", tarfile.SYMTYPE, "/etc/passwd"),
            ("c/hard", tarfile.LNKTYPE, "c/a.txt"), ("c/pipe", tarfile.FIFOTYPE, ""), (f"c/{'long' * 60}", tarfile.REGTYPE, ""),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    assert [name for name, _ in archive_files(tmp_path / "x.tar")] == ["c/a.txt", f"c/{'long' * 60}", "c/hard"]
    pack(tmp_path / "x.stored.zip", {"c/": b"", "c\\sub\\a.txt": b"1"})
    assert [name for name, _ in archive_files(tmp_path / "x.stored.zip")] == ["c/sub/a.txt"]


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "..\\a", "a\\..\\..\\b", "C:\\a", "C:/a", "\\\\server\\a"])
@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz", "x.zip", "x.stored.zip"])
def test_paths_that_point_outside_are_refused(name, kind, tmp_path):
    path = pack(tmp_path / kind, {"good.txt": b"1", name: b"2"})
    with pytest.raises(ValueError, match="a path that points outside the archive; do not trust it"):
        open_tree(path)
    assert {file.name for file in tmp_path.iterdir()} == {kind}


def test_names_that_only_look_dangerous(tmp_path):
    names = ["a..b/..c", "...", "a@1+2.txt", "x#t=1,2.txt", "новый\u0301 ё.txt", "e\u0301.txt", "\u00e9.txt"]
    for kind in ("x.tar", "x.stored.zip", "x.tar.gz"):
        path = pack(tmp_path / kind, {name: name.encode() for name in names})
        assert {name: read_bytes(where).decode() for name, where in archive_files(path)} == {name: name for name in names}


@pytest.mark.parametrize("name", [*TARS, *ZIPS])
def test_an_archive_that_is_cut_short_is_named(name, tmp_path):
    path = pack(tmp_path / name, MEMBERS | {"noise.bin": bytes(i * i % 251 for i in range(50_000)), "last.bin": b"x" * 30_000})
    path.write_bytes(path.read_bytes()[: -12_000 if name == "x.tar" else -(path.stat().st_size // 3)])
    with pytest.raises(ValueError, match=rf"{name}: not a whole \.tar, \.tar\.gz or \.zip archive \(.*\); download it again"):
        dict(archive_files(path))
    assert not list(cache_folder().rglob("*.part"))


def test_an_encrypted_zip_is_named(tmp_path):
    data = bytearray(pack(tmp_path / "x.stored.zip").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + flags : place + flags + 2] = struct.pack("<H", struct.unpack_from("<H", data, place + flags)[0] | 1)
            place = data.find(signature, place + 1)
    (tmp_path / "secret.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"secret\.zip is encrypted; unpack it"):
        dict(archive_files(tmp_path / "secret.zip"))


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    inner = pack(tmp_path / "x.stored.zip", {"inside.txt": b"inside"})
    path = pack(tmp_path / "x.tar", {"a.txt": b"1", "inner.zip": inner.read_bytes()})
    assert {name: read_bytes(where) for name, where in archive_files(path)} == {"a.txt": b"1", "inner.zip": inner.read_bytes()}


def test_hidden_files_of_archives_are_not_in_the_tree(tmp_path):
    path = pack(tmp_path / "x.tar", {"c/a.wav": b"1", "c/._a.wav": b"2", "__MACOSX/c/._a.wav": b"3", ".DS_Store": b"4", "c/.git/x": b"5"})
    assert list(open_tree(path).walk()) == [("", []), ("c", ["c/a.wav"])]


def test_what_is_no_archive(tmp_path):
    for name, data in (("empty", b""), ("text", b"hello"), ("flac", b"fLaC" + bytes(600))):
        (tmp_path / name).write_bytes(data)
        assert not is_archive(tmp_path / name)
    assert list(archive_files(pack(tmp_path / "x.zip", {}))) == []
