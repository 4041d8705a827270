import errno
import gzip
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hfasr.audio import write_audio
from hfasr.cache import cache_folder
from hfasr.corpora import common_voice
from hfasr.corpora.check import check_audio
from hfasr.corpora.reading.table import problems_of
from hfasr.corpora.rows import plain

HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\n"
SPLITS = {"train": (1, 2, 3), "dev": (4,), "test": (5, 6), "validated": (1, 2, 3, 4, 5, 6, 7), "invalidated": (8,), "other": (9,)}


def sentence(number: int) -> str:
    return f'Ал "келди {number}' if number != 7 else "ал келди 5!"


@pytest.fixture
def release(tmp_path):
    """Build a release with the published layout; clip n lasts n/4 seconds."""
    folder = tmp_path / "cv-corpus-25.0-2026-09-01" / "ky"
    (folder / "clips").mkdir(parents=True)
    for split, numbers in SPLITS.items():
        rows = [f"speaker{n % 2}\tcommon_voice_ky_{n}.mp3\tid{n}\t{sentence(n)}\t2\t0\t\tfemale_feminine\tЧүй\tky\n" for n in numbers]
        (folder / f"{split}.tsv").write_text(HEADER + "".join(rows), encoding="utf-8")
    for n in range(1, 10):
        write_audio(folder / "clips" / f"common_voice_ky_{n}.mp3", 0.1 * np.random.default_rng(n).standard_normal(12_000 * n), 48_000)
    durations = "".join(f"common_voice_ky_{n}.mp3\t{250 * n}\n" for n in range(1, 9))
    (folder / "clip_durations.tsv").write_text("clip\tduration[ms]\n" + durations, encoding="utf-8")
    return folder


def pack(release, name: str, mode: str):
    path = release.parents[1] / name
    with tarfile.open(path, mode) as archive:
        archive.add(release.parent, arcname=release.parent.name)
    return path


def test_folder_release_and_archives_give_the_same_rows(release):
    expected = common_voice(release)
    assert {split: rows.num_rows for split, rows in expected.items()} == {
        "train": 3, "validation": 1, "test": 2, "validated": 7, "invalidated": 1, "other": 1,
    }  # fmt: skip
    row = expected["train"][1]
    assert (row["id"], row["text"], row["speaker"], row["gender"], row["accent"]) == (
        "common_voice_ky_2", 'Ал "келди 2', "speaker0", "female_feminine", "Чүй",
    )  # fmt: skip
    assert row["audio"]["sampling_rate"] == 16_000
    assert len(row["audio"]["array"]) == pytest.approx(8_000, abs=900)
    assert list(plain(expected["validated"])["duration"]) == [0.25 * n for n in SPLITS["validated"]]
    assert plain(expected["other"])["duration"][0] == pytest.approx(2.25, abs=0.06)  # not in clip_durations.tsv: from the header
    for source in (release.parent, pack(release, "a.tar.gz", "w:gz"), pack(release, "b.tar", "w")):
        corpus = common_voice(source)
        for split, rows in expected.items():
            assert [row["text"] for row in plain(corpus[split])] == [row["text"] for row in plain(rows)]
            assert list(plain(corpus[split])["duration"]) == list(plain(rows)["duration"])
            np.testing.assert_array_equal(corpus[split][0]["audio"]["array"], rows[0]["audio"]["array"])


def test_an_archive_is_never_extracted(release, tmp_path):
    path = pack(release, "a.tar.gz", "w:gz")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(release.parent, arcname=release.parent.name)
        member = tarfile.TarInfo("../../escaped.txt")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"bad"))
    before = set(tmp_path.rglob("*"))
    common_voice(path)
    with pytest.raises(ValueError, match=r"evil\.tar holds '\.\./\.\./escaped\.txt', a path that points outside"):
        common_voice(tmp_path / "evil.tar")
    assert set(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "escaped.txt").exists()


def test_a_deleted_copy_of_an_archive_is_made_again(release):
    path = pack(release, "a.tar.gz", "w:gz")
    common_voice(path)
    shutil.rmtree(cache_folder() / "archives")
    assert common_voice(path)["train"][0]["audio"]["array"].size


def test_validated_rest(release):
    corpus = common_voice(release, validated_rest=True, splits=("train", "validation", "test"))
    assert list(plain(corpus["train"])["id"]) == [f"common_voice_ky_{n}" for n in (1, 2, 3, 7)]
    assert set(corpus) == {"train", "validation", "test"}


THREE = ("train", "validation", "test")


def row(number: int, text: str) -> str:
    return f"s\tcommon_voice_ky_{number}.mp3\tid\t{text}\t2\t0\t\t\t\tky\n"


def listed(rows):
    return [(problem["problem"], problem["name"]) for problem in problems_of(rows)]


def test_torn_rows_are_left_out_and_listed(release, caplog):
    torn = row(2, "Ал\tкелди") + row(2, "Ал\nкелди") + row(3, "Ал\rкелди").replace("\n", "\r\n")
    (release / "train.tsv").write_bytes((HEADER + row(1, "Ал") + torn).encode())
    train = plain(common_voice(release, splits=["train"])["train"])
    assert list(train["text"]) == ["Ал", "Ал\rкелди"]
    assert list(train["accent"]) == [None, None]
    assert listed(train) == [("row without the columns of its header", f"train.tsv, line {line}") for line in (3, 4, 5)]
    assert "3 x row without the columns of its header" in caplog.text


def test_tables_that_are_not_wanted_do_not_matter(release, tmp_path):
    (release / "other.tsv").write_text("")
    (release / "invalidated.tsv").write_bytes(b"a\tb\n\xc0\xeb")
    for source in (release, pack(release, "a.tar", "w")):
        assert set(common_voice(source, splits=THREE)) == set(THREE)
        with pytest.raises(ValueError, match=r"no rows for split 'dev', found train, validation, test, validated, invalidated, other"):
            common_voice(source, splits=["dev"])
        with pytest.raises(ValueError, match=r"other\.tsv has no column 'path', found an empty file"):
            common_voice(source, splits=["other"])
    (release / "train.tsv").write_text("")
    assert len(common_voice(release, splits=THREE, validated_rest=True)["train"]) == 4
    (release / "invalidated.tsv").unlink()
    (tmp_path / "lists").mkdir()
    for name, number in (("train", 3), ("test", 5)):
        (tmp_path / "lists" / f"{name}.txt").write_text(f"common_voice_ky_{number}\n")
    assert set(common_voice(release, split_lists=tmp_path / "lists")) == {"train", "test"}


def test_repeated_clips_are_listed(release, caplog):
    assert listed(common_voice(release, splits=THREE)["train"]) == []
    (release / "train.tsv").write_text(HEADER + row(1, "а") + row(1, "а") + row(4, "б") + row(5, "в"), encoding="utf-8")
    (release / "dev.tsv").write_text(HEADER + row(4, "Б!"), encoding="utf-8")
    (release / "test.tsv").write_text(HEADER + row(4, "г") + row(5, "д") + row(6, "а"), encoding="utf-8")
    for _ in range(2):  # also when the table is only opened
        caplog.clear()
        corpus = common_voice(release, splits=THREE)
        assert "2 x clip of test that also stands in train" in caplog.text
    assert listed(corpus["test"]) == [
        ("clip of validation that also stands in train", "common_voice_ky_4.mp3"),
        ("clip of test that also stands in train", "common_voice_ky_4.mp3"),
        ("clip of test that also stands in train", "common_voice_ky_5.mp3"),
        ("clip of test that also stands in validation", "common_voice_ky_4.mp3"),
        ("id stands twice", "common_voice_ky_1"),
    ]


def test_a_failed_copy_leaves_nothing_and_says_why(release, monkeypatch):
    path = pack(release, "full.tar.gz", "w:gz")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hfasr.corpora.reading.archives.shutil.copyfileobj", full)
        with pytest.raises(OSError, match=r"No space left on device: .*full-.*\.part") as caught:
            common_voice(path)
        assert caught.value.errno == errno.ENOSPC
    packed = bytearray(gzip.compress(np.random.default_rng(0).integers(0, 99, 200_000).astype(np.uint8).tobytes()))
    packed[10] = 7  # a block type that deflate does not have: zlib.error
    broken = Path(path).with_name("broken.tar.gz")
    broken.write_bytes(packed)
    with pytest.raises(ValueError, match=r"broken\.tar\.gz: not a whole"):
        common_voice(broken)
    assert not list((cache_folder() / "archives").glob("*.part"))


def test_split_lists(release, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "trainSeqs_1.0.text").write_text("common_voice_ky_9\tБашка текст\ncommon_voice_ky_5\t\nmissing_1\tx\n", encoding="utf-8")
    (lists / "valSeqs.text").write_text("common_voice_ky_8.mp3\n")
    (lists / "testSeqs.text").write_text("common_voice_ky_1.wav\n\n")
    (lists / "testSeqs.phone").write_text("ignored")
    corpus = common_voice(release, split_lists=lists)
    assert {split: list(plain(rows)["id"]) for split, rows in corpus.items()} == {
        "train": ["common_voice_ky_9", "common_voice_ky_5"], "validation": ["common_voice_ky_8"], "test": ["common_voice_ky_1"],
    }  # fmt: skip
    assert list(plain(corpus["train"])["text"]) == ["Башка текст", 'Ал "келди 5']
    assert ("listed clip that is not in the release", "missing_1") in listed(corpus["train"])
    (lists / "valSeqs.text").write_text("common_voice_ky_7.mp3\n")  # a changed list is seen
    assert list(plain(common_voice(release, split_lists=lists)["validation"])["id"]) == ["common_voice_ky_7"]
    (lists / "test_too.txt").write_text("common_voice_ky_2\n")
    with pytest.raises(ValueError, match=r"both testSeqs\.text and test_too\.txt"):
        common_voice(release, split_lists=lists)


def test_the_papers_lists_are_found(release, shared):
    with pytest.raises(ValueError, match="none of its 752 clips"):
        common_voice(release, split_lists=shared / "data" / "unispeech_ky")


def test_missing_clips_are_quarantined(release):
    (release / "clips" / "common_voice_ky_2.mp3").unlink()
    corpus, quarantined = check_audio(common_voice(pack(release, "a.tar.gz", "w:gz"), splits=["train"]))
    assert list(plain(corpus["train"])["id"]) == ["common_voice_ky_1", "common_voice_ky_3"]
    assert [(item["split"], item["id"]) for item in quarantined] == [("train", "common_voice_ky_2")]
    assert "no such audio file" in quarantined[0]["reason"]


def test_several_languages_need_a_choice(release):
    (release.parent / "kk" / "clips").mkdir(parents=True)
    (release.parent / "kk" / "train.tsv").write_text(HEADER)
    with pytest.raises(ValueError, match="kk, ky"):
        common_voice(release.parent)
    assert len(common_voice(release.parent, language="ky")["train"]) == 3
    with pytest.raises(ValueError, match="no language 'tt'"):
        common_voice(release.parent, language="tt")


def break_column(release):
    (release / "train.tsv").write_text("client_id\tpath\ttext\nx\ty.mp3\tz\n")


def break_encoding(release):
    (release / "train.tsv").write_bytes(HEADER.encode() + "a\tb\tc\tАл\n".encode("cp1251"))


def break_clips(release):
    for path in (release / "clips").iterdir():
        path.unlink()


def break_tables(release):
    for path in release.glob("*.tsv"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_column, r"train\.tsv has no column 'sentence', found client_id, path, text"),
        (break_encoding, r"train\.tsv, line 2: not UTF-8"),
        (break_clips, r"clips holds none of the 3 clips of split 'train'"),
        (break_tables, r"no train\.tsv or validated\.tsv, expected .*; found clips/"),
    ],
)
def test_a_broken_release_is_named(release, damage, message):
    damage(release)
    with pytest.raises(ValueError, match=message):
        common_voice(release)


def test_what_is_no_release(tmp_path, release):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        common_voice(tmp_path / "nowhere")
    archive = pack(release, "a.tar.gz", "w:gz")
    archive.write_bytes(archive.read_bytes()[:-3000])
    with pytest.raises(ValueError, match="not a whole"):
        common_voice(archive)
    with pytest.raises(ValueError, match="no rows for split 'dev'"):
        common_voice(release, splits=["dev"])
