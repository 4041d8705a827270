"""Transcribing on a local Ray cluster of two nodes, one of which is killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ray_cluster import kill, processes, two_nodes, wait_for
from together import free_port

from hfasr.audio import write_audio
from hfasr.inference.transcriber import Transcriber

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster():
    with two_nodes() as nodes:
        yield nodes


def has_network(node: subprocess.Popen) -> bool:
    return any(title.startswith("ray::MapWorker") for title in processes(node).values())


def start(talks: Path, model: str, out: Path, address: str, environment) -> subprocess.Popen:
    command = [sys.executable, "-m", "hfasr.cli", "transcribe", str(talks), "--model", model, "--output", str(out), "--ray", address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def test_a_killed_node_loses_and_doubles_nothing(cluster, checkpoint, tmp_path):
    address, environment, second = cluster
    rng, talks, out, count = np.random.default_rng(0), tmp_path / "talks", tmp_path / "out", 1000
    talks.mkdir()
    for number in range(count):
        noise = rng.standard_normal(4000 + int(rng.integers(8000))) * 0.1
        write_audio(talks / f"{number:04}.wav", noise.astype(np.float32))
    (talks / "0500.wav").write_bytes(b"no audio")
    command = start(talks, checkpoint, out, address, environment)
    shards = out / "shards"
    wait_for(lambda: command.poll() is not None or (len(list(shards.glob("*.jsonl"))) >= 2 and has_network(second)))
    assert command.poll() is None, command.communicate()
    written = len(list(shards.glob("*.jsonl")))
    kill(second)
    told, errors = command.communicate(timeout=240)
    assert (command.returncode, "1 of 1000 files could not be read" in errors) == (1, True), errors
    assert "999 recordings transcribed" in told
    assert 2 <= written < 8
    records = [json.loads(line) for line in (out / "transcripts.jsonl").read_text().splitlines()]
    assert [record["path"] for record in records] == [str(talks / f"{number:04}.wav") for number in range(count)]
    assert [place for place, record in enumerate(records) if record["error"]] == [500]
    expected = Transcriber(checkpoint, device="cpu")(sorted(talks.iterdir()))
    assert [record["text"] for record in records] == [transcript.text for transcript in expected]
    assert len(list(out.glob("*.txt"))) == count - 1
    assert not shards.exists()


def test_a_killed_driver_goes_on_where_it_was(cluster, checkpoint, tmp_path):
    address, environment, _ = cluster
    rng, talks, out = np.random.default_rng(0), tmp_path / "talks", tmp_path / "out"
    talks.mkdir()
    for number in range(600):
        write_audio(talks / f"{number:04}.wav", (rng.standard_normal(4000 + int(rng.integers(8000))) * 0.1).astype(np.float32))
    command = start(talks, checkpoint, out, address, environment)
    wait_for(lambda: command.poll() is not None or len(list((out / "shards").glob("*.jsonl"))) >= 2)
    command.kill()
    command.communicate()
    wait_for(lambda: not list(out.glob("*.tmp")))
    parts = list((out / "shards").glob("*.jsonl"))
    kept = {json.loads(line)["output"] for part in parts for line in part.read_text().splitlines()}
    before = {name: (out / f"{name}.txt").stat().st_mtime_ns for name in kept}
    told, errors = start(talks, checkpoint, out, address, environment).communicate(timeout=240)
    assert f"600 recordings transcribed, {len(kept)} of them before" in told, errors
    assert {name: (out / f"{name}.txt").stat().st_mtime_ns for name in kept} == before
    assert 0 < len(kept) < 600
    records = [json.loads(line) for line in (out / "transcripts.jsonl").read_text().splitlines()]
    assert [record["path"] for record in records] == [str(talks / f"{number:04}.wav") for number in range(600)]


def test_a_cluster_that_is_not_there_is_told(checkpoint, recordings, tmp_path):
    pytest.importorskip("ray")
    command = start(recordings, checkpoint, tmp_path / "out", f"127.0.0.1:{free_port()}", dict(os.environ))
    errors = command.communicate(timeout=60)[1]
    assert (command.returncode, "cannot reach a Ray cluster at" in errors) == (2, True), errors
