"""The record of a folder of transcripts: runs that were killed, and what may not be mixed."""

import json
import multiprocessing
import os
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from hfasr.audio import write_audio
from hfasr.inference.folder.files import find_recordings
from hfasr.inference.folder.journal import Journal, open_journal, write_recording
from hfasr.inference.folder.settings import Settings, digest_model
from hfasr.inference.folder.to_folder import transcribe_to_folder
from hfasr.inference.transcript import Transcript, Unit
from hfasr.inference.writers import as_record, from_record

SETTINGS = {"model": "m", "weights": "0", "split": "windows", "files": {}, "versions": {"hfasr": "1"}}


def transcript(text: str) -> Transcript:
    return Transcript(text, "a.wav", 1.0, words=(Unit(text, 0.25, 0.5, 0.5),))


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "transcripts.jsonl").read_text("utf-8").splitlines()]


def write(folder: Path, *keys: str, settings: dict = SETTINGS, **options) -> None:
    with open_journal(folder, settings, **options) as journal:
        for key in keys:
            journal.add(key, key[1:], transcript(key), ["txt"])


def write_talks(folder: Path, count: int) -> list[Path]:
    """Write short recordings, all different."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        paths.append(folder / str(number % 7) / f"{number:04}.wav")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        write_audio(paths[-1], (rng.standard_normal(3000 + int(rng.integers(3000))) * 0.1).astype(np.float32))
    return paths


def transcribe(talks: Path, model: str, out: Path) -> None:
    options = {"device": "cpu", "batch_seconds": 2.0}
    transcribe_to_folder(find_recordings([talks]), out, Settings(model), formats=["txt", "srt"], **options)


def states(out: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*.*") if path.suffix in (".txt", ".srt")}


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_where_it_was(checkpoint, tmp_path, count):
    talks, out = tmp_path / "talks", tmp_path / "out"
    paths = write_talks(talks, count)
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    arguments = (tmp_path / "list.txt", checkpoint)
    # batches go by length, so that this one comes in the middle
    middle = sorted(paths, key=lambda path: path.stat().st_size)[count // 2]
    after = out / middle.relative_to(talks).with_suffix(".txt")
    # a fork has everything imported; PyTorch has one thread here, and so may be forked
    run = multiprocessing.get_context("fork").Process(target=transcribe, args=(*arguments, out))
    run.start()
    while not after.exists():
        assert run.is_alive()
        time.sleep(0.005)
    run.kill()
    run.join()
    with open(out / "transcripts.jsonl", "ab") as file:
        file.write(b'{"path": "/torn')
    first = [json.loads(line) for line in (out / "transcripts.jsonl").read_bytes().split(b"\n")[:-1]]
    assert count // 4 < len(first) < count
    kept = {out / f"{record['output']}{ending}" for record in first for ending in (".txt", ".srt")}
    before = {path: state for path, state in states(out).items() if path in kept}
    assert before.keys() == kept
    transcribe(*arguments, out)
    assert {path: state for path, state in states(out).items() if path in kept} == before
    found = {record["path"]: record for record in records(out)}
    assert [record["path"] for record in records(out)] == list(found) == [str(path) for path in paths]
    assert all(found[record["path"]] == record for record in first)
    for path in paths:
        text = (out / path.relative_to(talks)).with_suffix(".txt").read_text("utf-8")
        assert text == found[str(path)]["text"] + "\n"
    assert len(states(out)) == 2 * count
    assert not list(out.rglob("*.tmp"))
    transcribe(*arguments, tmp_path / "undisturbed")
    for mine, other in zip(records(out), records(tmp_path / "undisturbed"), strict=True):
        assert (mine["path"], mine["text"], mine["output"]) == (other["path"], other["text"], other["output"])


def test_records_come_in_the_order_of_the_inputs(tmp_path):
    write(tmp_path, "/c", "/a", "/d")
    with open_journal(tmp_path, SETTINGS) as journal:
        assert [key for key in ("/a", "/b", "/c", "/d") if journal.done(key)] == ["/a", "/c", "/d"]
        part = next(journal.new_parts())
        part.write_text(json.dumps(as_record(transcript("b")) | {"path": "/b", "output": "b", "unit": "phonemes"}) + "\n")
        journal.read(part)
        assert next(journal.new_parts()) != part
        journal.finish(["/a", "/b", "/c"])
    assert [record["path"] for record in records(tmp_path)] == ["/a", "/b", "/c", "/d"]
    assert not (tmp_path / "shards").exists()
    before = (tmp_path / "transcripts.jsonl").stat().st_ino
    with open_journal(tmp_path, SETTINGS) as journal:
        journal.finish(["/a", "/b", "/c", "/d"])
    assert (tmp_path / "transcripts.jsonl").stat().st_ino == before


def test_what_could_not_be_read_is_tried_again(tmp_path):
    with open_journal(tmp_path, SETTINGS) as journal:
        journal.add("/a", "a", Transcript("", "a", 0.0, "a\udcff: no audio"), ["txt"])
        assert (journal.done("/a"), journal.stems(), journal.errors(["/a", "/b"])) == (False, [], [r"a\xff: no audio"])
        journal.add("/a", "a", transcript("now"), ["txt"])
        journal.finish(["/a"])
    assert [(record["path"], record["text"], record["error"]) for record in records(tmp_path)] == [("/a", "now", None)]
    assert (tmp_path / "a.txt").read_text() == "now\n"


def test_another_format_is_made_from_the_record(tmp_path):
    write(tmp_path, "/a", "/b")
    before = states(tmp_path)
    with open_journal(tmp_path, SETTINGS) as journal:
        journal.complete(["/a"], ["txt", "vtt", "jsonl"])
    assert "00:00:00.250 --> " in (tmp_path / "a.vtt").read_text()
    assert not (tmp_path / "b.vtt").exists()
    assert states(tmp_path) == before
    assert from_record(records(tmp_path)[0]).words == transcript("/a").words


def test_others_transcripts_are_not_mixed_in(tmp_path):
    write(tmp_path, "/a")
    for changed, message in (
        ({"weights": "1", "model": "n"}, "transcripts of the model m, whose weights or vocabulary are not those of n"),
        ({"split": "silence"}, "holds transcripts with split windows, now silence"),
        ({"lm": "12", "files": {"lm": "ky.arpa"}}, "lm left out, now ky.arpa"),
    ):
        with pytest.raises(ValueError, match=message):
            write(tmp_path, settings=SETTINGS | changed)
    write(tmp_path, settings=SETTINGS | {"model": "elsewhere", "versions": {"hfasr": "2"}})
    assert len(records(tmp_path)) == 1
    write(tmp_path, "/b", settings=SETTINGS | {"weights": "1"}, replace=True)
    assert [record["path"] for record in records(tmp_path)] == ["/b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "b.txt", "settings.json", "transcripts.jsonl"]


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("reference")
    with pytest.raises(ValueError, match="holds files that are no transcripts of hfasr"):
        write(tmp_path / "corpus", "/a")
    with pytest.raises(ValueError, match=r"cannot be written \(Not a directory\)"):
        write(tmp_path / "corpus" / "a.txt" / "out")
    write(tmp_path / "out", "/a")
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(ValueError, match="another run is writing to"):
        write(tmp_path / "out")
    with open(tmp_path / "out" / "transcripts.jsonl", "a") as file:
        file.write('{"path": 1}\n')
    with pytest.raises(ValueError, match="line 2 is no record of a transcript"):
        Journal(tmp_path / "out", SETTINGS)
    write(tmp_path / "out", "/b", replace=True)
    assert [record["path"] for record in records(tmp_path / "out")] == ["/b"]


def test_a_model_is_known_by_what_it_is(build_model, checkpoint, tmp_path):
    for part in build_model("quartznet"):
        part.save_pretrained(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    assert digest_model(str(tmp_path)) == digest_model(checkpoint)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"layerdrop": 0.5}))
    assert digest_model(str(tmp_path)) != digest_model(checkpoint)


def test_code_that_a_model_brings_is_known(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = digest_model(str(tmp_path))
    (tmp_path / "modeling_own.py").write_text("layers = 2")
    assert digest_model(str(tmp_path)) != before


def test_nothing_is_written_before_a_recording_is_done(tmp_path):
    with open_journal(tmp_path / "new" / "out", SETTINGS):
        pass
    assert not (tmp_path / "new" / "out").exists()
    write(tmp_path / "out", "/a")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with open_journal(tmp_path / "out", SETTINGS | {"weights": "1"}, replace=True) as journal:
        assert journal.empty()
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_parts_of_two_runs_have_different_names(tmp_path):
    with open_journal(tmp_path, SETTINGS) as journal:
        first, second = zip(journal.new_parts(), journal.new_parts(), range(2), strict=False)
        assert len({*first[:2], *second[:2]}) == 4
        first[0].touch()
        second[0].touch()
        assert next(journal.new_parts()).name.startswith("part-00002-")


def test_more_parts_than_files_may_be_open(tmp_path):
    write(tmp_path, "/0")
    (tmp_path / "shards").mkdir()
    keys, limits = [f"/{number}" for number in range(80)], resource.getrlimit(resource.RLIMIT_NOFILE)
    for place, key in enumerate(keys):
        line = write_recording(tmp_path, key, key[1:], transcript(key), [], "symbols")
        (tmp_path / "shards" / f"part-{place:05}.jsonl").write_text(line, "utf-8")
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, limits[1]))
    try:
        with open_journal(tmp_path, SETTINGS) as journal:
            journal.finish(keys)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [record["path"] for record in records(tmp_path)] == keys
