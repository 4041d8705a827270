"""What a user names, and what results are called."""

import json
import tarfile
import warnings
import zipfile

import pytest

from hfasr.audio import load_audio
from hfasr.inference.folder.files import Recording, find_recordings, output_stems

FILES = ["b/a.FLAC", "b/c/m.mp3", "b/c/o.ogg", "b/p.opus", "z.wav"]


def test_folders_are_listed_in_order(recordings, tmp_path, monkeypatch):
    assert find_recordings([recordings]) == [Recording(str(recordings / name), name) for name in FILES]
    (tmp_path / "talk.bin").write_bytes((recordings / "z.wav").read_bytes())
    (tmp_path / "again").symlink_to(recordings)
    monkeypatch.chdir(tmp_path)
    found = find_recordings(["talk.bin", "talk.bin#t=0,0.5", "again/b/c", "-"])
    assert found == [
        Recording("talk.bin", "talk.bin"),
        Recording("talk.bin#t=0,0.5", "talk.bin-0-500"),
        Recording("again/b/c/m.mp3", "c/m.mp3"),
        Recording("again/b/c/o.ogg", "c/o.ogg"),
        Recording("-", "stdin"),
    ]
    assert [found.path for found in find_recordings(["talk.bin", "again/b/c"])] == ["talk.bin", "again/b/c/m.mp3", "again/b/c/o.ogg"]


def test_an_archive_is_read_in_place(recordings, tmp_path):
    with tarfile.open(tmp_path / "talks.tar", "w") as tar:
        tar.add(recordings, "talks")
    found = find_recordings([tmp_path / "talks.tar"])
    assert [recording.name for recording in found] == [f"talks/{name}" for name in FILES]
    for recording, name in zip(found, FILES, strict=True):
        assert (load_audio(recording.path) == load_audio(recordings / name)).all()
        assert recording.shown == f"{tmp_path / 'talks.tar'}::talks/{name}"


def test_members_of_one_name_are_told_apart(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("HFASR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("talks.zip", "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("a.wav", "a.wav", "._a.wav"):
            archive.write(recordings / "z.wav", name)
    found = find_recordings(["talks.zip"])
    assert [recording.shown for recording in found] == ["talks.zip::a.wav", "talks.zip::a.wav#2"]
    assert len({recording.path for recording in found}) == 2


def test_manifests_and_lists(recordings, tmp_path):
    lines = [
        {"audio_filepath": "z.wav", "duration": 1.0},
        {"audio_filepath": str(recordings / "b/a.FLAC"), "offset": 0.25, "duration": 0.25},
    ]
    manifest = recordings / "talks.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        assert find_recordings([manifest]) == [
            Recording(str(recordings / "z.wav"), "z.wav"),
            Recording(f"{recordings}/b/a.FLAC#t=0.25,0.5", "b/a-250-500.FLAC"),
        ]
    finally:
        manifest.unlink()
    (tmp_path / "list.txt").write_text(f"{recordings}/b/c/m.mp3\n\n{recordings}/b/c/none.mp3#t=1.5\n")
    assert find_recordings([tmp_path / "list.txt"]) == [
        Recording(f"{recordings}/b/c/m.mp3", "m.mp3"),
        Recording(f"{recordings}/b/c/none.mp3#t=1.5", "none-1500-.mp3"),  # one that is missing is told when it is read
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.json", '{"audio": "b.wav"}\n', "a.json, line 1 has no audio_filepath"),
        ("a.json", '{"audio_filepath": "b.wav"}\nb.wav\n', "a.json, line 2 is no JSON object"),
        ("a.json", '{"audio_filepath": "b.wav", "offset": 3, "duration": -1}', "line 1: offset 3 and duration -1 are no segment"),
        ("a.txt", "none.wav\n", "none of its audio is here"),
        ("a.tar", "no archive", None),  # then it is taken for audio, which says the rest
    ],
)
def test_a_list_that_is_none_is_told(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    if message is None:
        assert [found.path for found in find_recordings([tmp_path / name])] == [str(tmp_path / name)]
    else:
        with pytest.raises(ValueError, match=message):
            find_recordings([tmp_path / name])


def test_no_two_results_have_one_name():
    names = ["d/a.wav", "d/a.mp3", "e/a.wav", "d/a.wav", "d/A.flac", "b\udcff.wav", "talk.2024", f"{'ы' * 130}.wav", f"{'ы' * 129}э.wav"]
    stems = output_stems(names, taken=["e/A"])
    assert stems[:7] == ["d/a", "d/a.mp3", "e/a.wav", "d/a.wav", "d/A.flac", r"b\xff", "talk.2024"]
    assert len({stem.casefold() for stem in stems}) == len(stems)
    assert all(len(stem.encode()) <= 200 for stem in stems)
    assert output_stems(["a.wav"] * 4) == ["a", "a.wav", "a-2", "a-3"]
