"""`hfasr transcribe` as a user runs it."""

import json
import os
import sys

import pytest

from hfasr import cli
from hfasr.inference.files import find_audio
from hfasr.inference.transcriber import Transcriber, Transcript


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the verb in this process -> (exit status, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hfasr", "transcribe", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


FILES = ["b/a.FLAC", "b/c/m.mp3", "b/c/o.ogg", "b/p.opus", "z.wav"]


def test_folders_are_listed_in_order(recordings, tmp_path, monkeypatch):
    assert find_audio([recordings]) == [str(recordings / name) for name in FILES]
    (tmp_path / "talk.bin").write_bytes((recordings / "z.wav").read_bytes())
    (tmp_path / "again").symlink_to(recordings)
    monkeypatch.chdir(tmp_path)
    assert find_audio(["talk.bin", "talk.bin#t=0,0.5", "again/b/c"]) == [
        "talk.bin",
        "talk.bin#t=0,0.5",
        "again/b/c/m.mp3",
        "again/b/c/o.ogg",
    ]


def test_lines_and_records(run, checkpoint, recordings, tmp_path):
    expected = {name: Transcriber(checkpoint, device="cpu")([recordings / name])[0] for name in FILES}
    assert all(transcript.text for transcript in expected.values())
    lines = "".join(f"{recordings / name}\t{transcript.text}\n" for name, transcript in expected.items())
    assert run(recordings, "--model", checkpoint, "--device", "cpu", "--batch_seconds", 2)[:2] == (0, lines)
    assert run(recordings / "z.wav", "--model", checkpoint)[:2] == (0, expected["z.wav"].text + "\n")
    assert run(recordings / "b" / "c", "--model", checkpoint, "--output", tmp_path / "out.jsonl")[0] == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [(record["path"], record["text"], record["duration"], record["error"]) for record in records] == [
        (str(recordings / name), expected[name].text, expected[name].duration, None) for name in FILES[1:3]
    ]


def test_a_line_stays_a_line(run, checkpoint, recordings, monkeypatch):
    """A model's symbols may hold anything."""
    found = [Transcript("бир\nэки\x1b[2J үч\u2028төрт", None, 1.0)]
    monkeypatch.setattr(Transcriber, "__call__", lambda self, files: found)
    assert run(recordings / "z.wav", "--model", checkpoint)[:2] == (0, "бир эки [2J үч төрт\n")


def test_a_file_that_cannot_be_read(run, checkpoint, recordings, tmp_path):
    talks = tmp_path / "talks"
    talks.mkdir()
    (talks / "a.wav").write_bytes((recordings / "z.wav").read_bytes())
    broken = os.fsencode(talks) + b"/b\xff.wav"  # no UTF-8, as in archives of old systems
    with open(broken, "wb") as file:
        file.write(b"no audio")
    status, out, err = run(talks, "--model", checkpoint)
    assert status == 1
    assert [line.partition("\t")[0] for line in out.splitlines()] == [str(talks / "a.wav")]
    assert "1 of 2 files could not be read" in err
    assert f"{talks}/b\N{REPLACEMENT CHARACTER}.wav: not audio" in err
    assert run(talks, "--model", checkpoint, "--output", tmp_path / "out.jsonl")[0] == 1
    good, bad = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert good["error"] is None
    assert bad["error"].startswith(bad["path"])
    assert run(os.fsdecode(broken), "--model", checkpoint)[:2] == (1, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{recordings}/none.wav", "--model", "{checkpoint}"], "none.wav: no such file or folder"),
        (["{empty}", "--model", "{checkpoint}"], "holds no audio, found a.txt"),
        (["{recordings}", "--model", "{empty}/none"], "no Hub name"),
        (["{recordings}", "--model", "{empty}"], "has no config.json"),
        (["{recordings}", "--model", "{checkpoint}", "--device", "gpu"], "device is 'gpu'"),
        (["{recordings}", "--model", "{checkpoint}", "--batch-seconds", "0"], "batch_seconds is 0"),
        (["{recordings}", "--model", "{checkpoint}", "--output", "{empty}/no/out.jsonl"], "its folder does not exist"),
    ],
)
def test_a_wrong_value_ends_with_one_sentence(run, checkpoint, recordings, tmp_path, words, message):
    (tmp_path / "a.txt").touch()
    status, out, err = run(*[word.format(recordings=recordings, checkpoint=checkpoint, empty=tmp_path) for word in words])
    assert (status, out) == (2, "")
    assert message in err
