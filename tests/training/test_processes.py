"""The recipe on two real processes, on the CPU; test_distributed.py looks inside."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recipe_runs import REPOSITORY
from test_resume import run
from tiny_models import SMALL
from together import free_port, together

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain

FLAGS = [
    "--base_model", "unispeech-tiny", "--report_to", "none", "--disable_tqdm", "true", "--max_batch_seconds", "12",
    "--num_train_epochs", "3", "--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "steps", "--eval_steps", "2",
    "--model_config", json.dumps(SMALL),
]  # fmt: skip


def launch(release: Path, output: Path, machine: int, port: int) -> subprocess.Popen:
    """Start one of two machines."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/two_nodes.yaml", "--num_processes", "2",
        "--machine_rank", str(machine), "--main_process_ip", "127.0.0.1", "--main_process_port", str(port),
        "recipes/ky_phoneme.py", "--corpus", str(release), "--output_dir", str(output), *FLAGS, "--use_cpu", "true",
    ]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    log = open(f"{output}.{machine}.log", "a")  # noqa: SIM115 (the process writes to it)
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True, stdout=log, stderr=log)


def check_finished(release: Path, output: Path, stopped: int, messages: list[list[str]]) -> None:
    assert json.loads((output / "recipe.json").read_text())["hardware"].startswith("2 processes")
    assert json.loads((output / "results.json").read_text())["updates"] > stopped
    # every row came back once, in order, with its own reference
    predictions = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    corpus = plain(common_voice(release, splits=["validation", "test"]))
    assert [row["id"] for row in predictions] == [*corpus["validation"]["id"], *corpus["test"]["id"]]
    assert not any("holds no checkpoint" in message for message in messages[0])
    # the first process tells what it does, the other nothing but warnings
    assert any("trained in" in message for message in messages[0])
    assert not any("trained in" in message for message in messages[1])


def newest_checkpoint(output: Path) -> int:
    return max(int(path.name.split("-")[1]) for path in output.glob("checkpoint-*"))


def test_two_processes_stop_together_and_go_on(toy_release, tmp_path):
    output = tmp_path / "run"
    flags = [*FLAGS, "--use_cpu", "true"]
    first_checkpoint = output / "checkpoint-2" / "trainer_state.json"
    assert together(run, 2, toy_release, output, *flags, after=first_checkpoint) == [128 + signal.SIGTERM] * 2
    assert not (output / "results.json").exists()
    stopped = newest_checkpoint(output)
    check_finished(toy_release, output, stopped, together(run, 2, toy_release, output, *flags, "--resume_from_checkpoint"))


@pytest.mark.slow
def test_two_machines_stop_together_and_go_on(toy_release, tmp_path):
    """Each machine is a launcher with one process, by the configuration that is shipped."""
    output, port = tmp_path / "run", free_port()
    machines = [launch(toy_release, output, machine, port) for machine in range(2)]
    end = time.monotonic() + 150
    while not (output / "checkpoint-2" / "trainer_state.json").exists():
        for machine, process in enumerate(machines):
            assert process.poll() is None, Path(f"{output}.{machine}.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)
    for process in machines:
        os.killpg(process.pid, signal.SIGTERM)
    assert all(process.wait(timeout=60) != 0 for process in machines)
    assert not (output / "results.json").exists()
    stopped = newest_checkpoint(output)
    messages = together(run, 2, toy_release, output, *FLAGS, "--use_cpu", "true", "--resume_from_checkpoint")
    check_finished(toy_release, output, stopped, messages)
