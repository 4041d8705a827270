"""The recipe on two real processes, on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from test_resume import REPOSITORY, SMALL

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain


def launch(release: Path, output: Path, *flags: str) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0",
        "recipes/ky_phoneme.py", "--corpus", release, "--output_dir", output, "--base_model", "unispeech-tiny", "--report_to", "none",
        "--disable_tqdm", "true", "--max_batch_seconds", "12", "--num_train_epochs", "3", "--save_strategy", "steps", "--save_steps", "2",
        "--eval_strategy", "steps", "--eval_steps", "2", "--model_config", json.dumps(SMALL), *flags,
    ]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    log = open(f"{output}.log", "a")  # noqa: SIM115 (the process writes to it)
    return subprocess.Popen([*map(str, command)], cwd=REPOSITORY, env=environment, start_new_session=True, stdout=log, stderr=log)


def test_two_processes_stop_together_and_go_on(toy_release, tmp_path):
    output = tmp_path / "run"
    process = launch(toy_release, output)
    end = time.monotonic() + 150
    while not (output / "checkpoint-2" / "trainer_state.json").exists():
        assert process.poll() is None, Path(f"{output}.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) != 0
    stopped = max(int(path.name.split("-")[1]) for path in output.glob("checkpoint-*"))
    assert not (output / "results.json").exists()

    process = launch(toy_release, output, "--resume_from_checkpoint")
    assert process.wait(timeout=150) == 0, Path(f"{output}.log").read_text()
    assert json.loads((output / "recipe.json").read_text())["hardware"].startswith("2 processes")
    assert json.loads((output / "results.json").read_text())["updates"] > stopped
    # every row came back once, in order, with its own reference
    predictions = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    corpus = plain(common_voice(toy_release, splits=["validation", "test"]))
    assert [row["id"] for row in predictions] == [*corpus["validation"]["id"], *corpus["test"]["id"]]
    assert "holds no checkpoint" not in Path(f"{output}.log").read_text()
