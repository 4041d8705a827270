"""A run that was killed and resumed ends with the weights of one that was left alone; test_processes.py tells a run to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# dropout, LayerDrop and SpecAugment stay, whose random numbers a resumed run must go on with
SMALL = {"conv_dim": [8] * 7, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 24}
FLAGS = [
    "--base_model", "unispeech-tiny", "--max_steps", "8", "--num_train_epochs", "4", "--save_steps", "3", "--save_strategy", "steps",
    "--eval_strategy", "no", "--load_best_model_at_end", "false", "--max_batch_seconds", "16", "--report_to", "none",
    "--dataloader_num_workers", "1", "--disable_tqdm", "true", "--freeze_encoder_updates", "2", "--model_config", json.dumps(SMALL),
    "--cpu_threads", "1",
]  # fmt: skip


def start(release: Path, output: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "recipes/ky_phoneme.py", "--corpus", str(release), "--output_dir", str(output), *FLAGS, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    log = open(f"{output}.log", "a")  # noqa: SIM115 (the process writes to it)
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True, stdout=log, stderr=log)


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, Path(f"{path.parents[1]}.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_run_ends_with_the_same_weights(toy_release, tmp_path):
    quiet, broken = tmp_path / "quiet", tmp_path / "broken"
    left_alone = start(toy_release, quiet)

    process = start(toy_release, broken)
    wait_for(broken / "checkpoint-3" / "trainer_state.json", process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    # what a kill in the middle of saving leaves
    (broken / "checkpoint-11").mkdir()
    (broken / "checkpoint-11" / "model.safetensors").write_bytes(b"\x00" * 100)
    process = start(toy_release, broken, "--resume_from_checkpoint")
    assert process.wait(timeout=120) == 0, Path(f"{broken}.log").read_text()
    assert "checkpoint-11 is not a whole checkpoint" in Path(f"{broken}.log").read_text()
    assert left_alone.wait(timeout=120) == 0, Path(f"{quiet}.log").read_text()
    assert (broken / "model.safetensors").read_bytes() == (quiet / "model.safetensors").read_bytes()


def test_which_checkpoint(tmp_path):
    from hfasr.training.checkpoints import resume_folder

    assert resume_folder(tmp_path, None) is None
    assert resume_folder(tmp_path, "newest") is None
    with pytest.raises(FileNotFoundError, match="nowhere"):
        resume_folder(tmp_path, tmp_path / "nowhere")
    (tmp_path / "checkpoint-7").mkdir()
    with pytest.raises(ValueError, match="trainer_state.json is missing"):
        resume_folder(tmp_path, tmp_path / "checkpoint-7")
    (tmp_path / "checkpoint-7" / "trainer_state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"optimizer\.pt is missing"):
        resume_folder(tmp_path, tmp_path / "checkpoint-7")
