import os
import tarfile

import pytest

from hfasr.corpora.reading.tree import Below, decode_text, open_tree
from hfasr.paths import read_bytes

FILES = {
    "top.txt": "бір",
    "a/one.txt": "1",
    "a/two.txt": "2",
    "a/b/deep.txt": "терең",
    "a.b/one.txt": "sorted apart from a",
    "я/ё ж.txt": "unicode and a space",
}
HIDDEN = (".DS_Store", "a/._one.txt", "__MACOSX/a/._one.txt", ".git/config", "a/Thumbs.db")


def build(folder, files=FILES):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name in HIDDEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    return folder


@pytest.fixture(params=["folder", "tar", "below"])
def tree(request, tmp_path):
    build(tmp_path / "corpus" / "inside" if request.param == "below" else tmp_path / "corpus")
    if request.param == "folder":
        return open_tree(tmp_path / "corpus")
    if request.param == "below":
        return Below(open_tree(tmp_path / "corpus"), "inside")
    with tarfile.open(tmp_path / "corpus.tar", "w") as archive:
        archive.add(tmp_path / "corpus", arcname=".")
    return open_tree(tmp_path / "corpus.tar")


def test_names_are_relative_and_sorted_and_hidden_files_are_left_out(tree):
    assert tree.folders() == ["a", "a.b", "я"]
    assert tree.files() == ["top.txt"]
    assert tree.files("a") == ["a/one.txt", "a/two.txt"]
    assert tree.folders("a") == ["a/b"]
    assert tree.files("nowhere") == tree.folders("nowhere") == tree.files("top.txt") == []
    assert list(tree.walk()) == [
        ("", ["top.txt"]), ("a", ["a/one.txt", "a/two.txt"]), ("a/b", ["a/b/deep.txt"]), ("a.b", ["a.b/one.txt"]), ("я", ["я/ё ж.txt"]),
    ]  # fmt: skip
    assert list(tree.walk("a/b")) == [("a/b", ["a/b/deep.txt"])]


def test_every_file_is_there_and_readable(tree):
    for _, names in tree.walk():
        for name in names:
            assert tree.has(name)
            assert tree.read_text(name) == FILES[name] == read_bytes(tree.where(name)).decode()
    for name in ("a", "a/onf.txt", "nowhere/x", "", "a/one.tx", "a/._one.txt"):
        assert not tree.has(name)
    with pytest.raises(FileNotFoundError, match=r"a/three\.txt"):
        tree.read_text("a/three.txt")
    with pytest.raises(FileNotFoundError, match=r"a/three\.txt"):
        list(tree.lines("a/three.txt"))
    with pytest.raises(FileNotFoundError):
        read_bytes(tree.where("a/three.txt"))


def test_found_names_what_is_there(tree):
    assert tree.found() == "a/, a.b/, я/, top.txt"
    assert tree.found("a", most=2) == "b/, one.txt and 1 more"
    assert tree.found("nowhere") == "nothing"


def test_lines(tmp_path):
    path = tmp_path / "table.tsv"
    tree = open_tree(tmp_path)
    path.write_bytes("\ufeffid\tтекст\r\n\r\n1\ta\u2028b\x0bc\rd\n  \n2\t\n3\tlast".encode())
    assert list(tree.lines("table.tsv")) == [(1, "id\tтекст"), (3, "1\ta\u2028b\x0bc\rd"), (5, "2\t"), (6, "3\tlast")]
    path.write_bytes("бір\nекі\nүш\n".encode() + b"x\xff\n")
    with pytest.raises(ValueError, match=r"table\.tsv, line 4: not UTF-8 \(.*\); save the file as UTF-8"):
        list(tree.lines("table.tsv"))
    for encoding in ("utf-16", "utf-16-be"):
        path.write_bytes((b"\xfe\xff" if encoding.endswith("be") else b"") + "бір\n".encode(encoding))
        with pytest.raises(ValueError, match=r"table\.tsv, line 1: UTF-16, not UTF-8"):
            list(tree.lines("table.tsv"))
        with pytest.raises(ValueError, match=r"table\.tsv, line 1: UTF-16, not UTF-8"):
            tree.read_text("table.tsv")
    path.write_bytes(b"")
    assert list(tree.lines("table.tsv")) == []


def test_read_text_and_decode_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffбір\r\nекі".encode())
    assert open_tree(tmp_path).read_text("a.txt") == "бір\nекі"
    (tmp_path / "a.txt").write_bytes("бір\nек".encode() + "і\n".encode("cp1251"))
    with pytest.raises(ValueError, match=r"a\.txt, line 2: not UTF-8"):
        open_tree(tmp_path).read_text("a.txt")
    assert decode_text("\ufeffx".encode(), "f", 7) == "\ufeffx"  # a mark is one at the begin of a file only
    with pytest.raises(ValueError, match="f, line 8: not UTF-8"):
        decode_text(b"ok\n\xe9\n", "f", 7)


def test_links_are_followed_once(tmp_path):
    corpus = build(tmp_path / "corpus")
    os.symlink(corpus, corpus / "a" / "back")
    os.symlink("loop", corpus / "loop")
    os.symlink(tmp_path / "gone", corpus / "gone")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.txt").write_text("far")
    os.symlink(tmp_path / "elsewhere", corpus / "z")
    tree = open_tree(corpus)
    walked = dict(tree.walk())
    assert walked["z"] == ["z/far.txt"]
    assert tree.read_text("z/far.txt") == "far"
    assert set(walked) == {"", "a", "a/b", "a.b", "z", "я"}


def test_seen_holds_what_was_read(tmp_path):
    corpus = build(tmp_path / "corpus")
    tree = open_tree(corpus)
    list(tree.lines("top.txt"))
    Below(tree, "a").files("b")
    assert set(tree.seen) == {str(corpus / "top.txt"), str(corpus / "a" / "b")}
    assert tree.seen[str(corpus / "top.txt")] == (6, (corpus / "top.txt").stat().st_mtime_ns)
    with tarfile.open(tmp_path / "corpus.tar", "w") as archive:
        archive.add(corpus, arcname="corpus")
    packed = open_tree(tmp_path / "corpus.tar")
    packed.read_text("corpus/top.txt")
    assert set(packed.seen) == {str(tmp_path / "corpus.tar")}


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such corpus; give the folder"):
        open_tree(tmp_path / "nowhere")
    (tmp_path / "a.tar.gz").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"a\.tar\.gz is neither a folder nor"):
        open_tree(tmp_path / "a.tar.gz")
