"""Row tables: made once, shared, made anew when the corpus changes, never half there."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hfasr.audio import write_audio
from hfasr.cache import cache_folder
from hfasr.corpora.reading import table as table_module
from hfasr.corpora.reading.table import Entry, open_table, problems_of
from hfasr.corpora.rows import FEATURES


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three clips of 0.5, 1 and 1.5 s with their transcripts."""
    for number in range(1, 4):
        write_audio(tmp_path / f"u{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(8_000 * number))
        (tmp_path / f"u{number}.txt").write_text(f"сөз {number}\n", encoding="utf-8")
    return tmp_path


class Build:
    """Entries of a folder's clips; counts how often it was asked for."""

    def __init__(self, folder: Path, *more: Entry):
        self.folder, self.more, self.calls = folder, more, 0

    def __call__(self, problems):
        self.calls += 1
        status = self.folder.stat()

        def entries():
            for path in sorted(self.folder.glob("*.wav")):
                yield Entry("train", path.stem, str(path), text_file=str(path.with_suffix(".txt")))
            yield from self.more

        return entries(), {str(self.folder): (-1, status.st_mtime_ns)}


def table(build: Build, **options):
    return open_table("toy", build.folder, build, options=options)


def test_a_table_is_made_once(folder):
    build = Build(folder)
    rows = table(build)["train"]
    assert rows.column_names == list(FEATURES)
    assert [rows["id"][:], rows["text"][:], rows["duration"][:]] == [["u1", "u2", "u3"], ["сөз 1", "сөз 2", "сөз 3"], [0.5, 1.0, 1.5]]
    assert rows[0]["audio"] == {"bytes": None, "path": str(folder / "u1.wav")}
    assert table(build)["train"]["id"][:] == rows["id"][:]
    assert build.calls == 1
    table(build, other=1)
    assert build.calls == 2


@pytest.mark.parametrize("change", ["text in place", "clip comes", "clip goes", "transcript goes"])
def test_a_changed_corpus_is_seen(folder, change):
    build = Build(folder)
    before = table(build)["train"]
    if change == "text in place":
        (folder / "u2.txt").write_text("башка", encoding="utf-8")
    elif change == "clip comes":
        write_audio(folder / "u4.wav", np.ones(1600))
        (folder / "u4.txt").write_text("жаңы")
    else:
        (folder / ("u2.wav" if change == "clip goes" else "u2.txt")).unlink()
    rows = table(build)["train"]
    assert build.calls == 2
    assert rows["text"][:] == {
        "text in place": ["сөз 1", "башка", "сөз 3"], "clip comes": ["сөз 1", "сөз 2", "сөз 3", "жаңы"],
        "clip goes": ["сөз 1", "сөз 3"], "transcript goes": ["сөз 1", "сөз 3"],
    }[change]  # fmt: skip
    assert before["text"][:] == ["сөз 1", "сөз 2", "сөз 3"]  # who has the old table open reads on


def test_what_is_wrong_is_listed(folder, caplog):
    (folder / "u2.txt").write_bytes(b"ok\n" + "слово".encode("cp1251"))
    (folder / "u3.wav").write_text("not audio")
    (folder / "u1.txt").write_bytes("\ufeffэки\r\nсап\r\n".encode())
    gone, far = Entry("train", "gone", str(folder / "gone.wav"), "текст"), Entry("train", "far", "/no/such.wav", "текст", duration=2.0)
    build = Build(folder, gone, far, Entry("train", "u1", str(folder / "u1.wav"), "дагы", duration=0.5))
    for _ in range(2):
        caplog.clear()
        rows = table(build)["train"]
        assert "2 x transcript without audio" in caplog.text
    assert rows["id"][:] == ["u1", "u3", "gone", "far", "u1"]
    assert rows["text"][0] == "эки сап"
    assert [math.isnan(seconds) for seconds in rows["duration"]] == [False, True, True, True, False]
    found = {(problem["problem"], problem["name"]): problem["reason"] for problem in problems_of(rows)}
    assert "u2.txt, line 2: not UTF-8" in found["transcript cannot be read", "u2"]
    assert "not audio" in found["audio cannot be read", "u3"]
    assert "no such audio file" in found["transcript without audio", "gone"]
    assert ("transcript without audio", "far") in found
    assert found["id stands twice", "u1"] == "2 times in train"
    assert len(found) == 5


def test_a_read_error_that_passes_is_not_kept(folder, monkeypatch):
    read = table_module.read_bytes

    def fail(path):
        if path.endswith("u2.txt"):
            raise OSError(5, "Input/output error")
        return read(path)

    build = Build(folder)
    with monkeypatch.context() as patch:
        patch.setattr(table_module, "read_bytes", fail)
        assert table(build)["train"]["id"][:] == ["u1", "u3"]
    assert table(build)["train"]["id"][:] == ["u1", "u2", "u3"]
    assert table(build)["train"]["id"][:] == ["u1", "u2", "u3"]
    assert build.calls == 2


def test_text_that_is_no_text_is_listed(folder):
    rows = table(Build(folder, Entry("train", "half", str(folder / "u1.wav"), "сөз \ud83d", duration=1.0)))["train"]
    assert rows["id"][:] == ["u1", "u2", "u3"]
    assert [(problem["problem"], problem["name"]) for problem in problems_of(rows)] == [("transcript cannot be read", "half")]


def test_many_rows_keep_their_order(tmp_path):
    entries = [Entry("ab"[n % 3 == 0], f"{n:05d}", f"x.tar::c{n}@{n}+9", f"сөз {n}", duration=n / 8) for n in range(4_321)]
    tables = table(Build(tmp_path, *entries))
    assert list(tables) == ["b", "a"]
    for split, rows in tables.items():
        expected = [entry for entry in entries if entry.split == split]
        assert rows["id"][:] == [entry.id for entry in expected]
        assert rows["duration"][:] == [entry.duration for entry in expected]
        assert rows["audio"][-1]["path"] == expected[-1].audio


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no rows: nothing to read was found"):
        table(Build(tmp_path))
    write_audio(tmp_path / "a.wav", np.ones(1600))
    with pytest.raises(ValueError, match=r"has no rows: 1 x audio without transcript"):
        table(Build(tmp_path))
    assert not list((cache_folder() / "tables").glob("*.part"))


SLOW = """
import os, sys, time
from pathlib import Path
from hfasr.corpora.reading import table as table_module
from hfasr.corpora.reading.table import Entry, open_table

def build(problems):
    def entries():
        with open(sys.argv[1] + "/calls", "a") as file:
            file.write(f"{os.getpid()}\\n")
        for number in range(3000):
            if number % 1000 == 0:
                time.sleep(float(sys.argv[2]))
            yield Entry("train", str(number), f"x.tar::c{number}@{number}+9", "сөз", duration=1.0)
    return entries(), {}

print(len(open_table("slow", sys.argv[1], build, options={})["train"]))
"""


def start(folder: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SLOW, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True)


def test_processes_make_one_table(tmp_path):
    processes = [start(tmp_path, 0.3) for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["3000\n"] * 3
    assert len((tmp_path / "calls").read_text().split()) == 1


def test_a_killed_process_leaves_no_table(tmp_path):
    process = start(tmp_path, 30)
    while not (tmp_path / "calls").exists():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert start(tmp_path, 0).communicate(timeout=60)[0] == "3000\n"
    assert len((tmp_path / "calls").read_text().split()) == 2
    folders = [path for path in (cache_folder() / "tables").glob("slow-*") if path.is_dir()]
    assert all((path / "table.json").is_file() for path in folders)
    assert json.loads((folders[0] / "table.json").read_text())["splits"] == {"train": 3000}
