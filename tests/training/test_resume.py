"""A run that was killed and resumed ends with the weights of one that was left alone; test_processes.py tells a run to stop."""

import json
import logging
import signal
from pathlib import Path

import pytest
import recipe_runs
from tiny_models import SMALL
from together import together

# dropout, LayerDrop and SpecAugment stay, whose random numbers a resumed run must go on with
FLAGS = [
    "--base_model", "unispeech-tiny", "--max_steps", "8", "--num_train_epochs", "4", "--save_steps", "3", "--save_strategy", "steps",
    "--eval_strategy", "no", "--load_best_model_at_end", "false", "--max_batch_seconds", "16", "--report_to", "none",
    "--dataloader_num_workers", "1", "--disable_tqdm", "true", "--freeze_encoder_updates", "2", "--model_config", json.dumps(SMALL),
    "--cpu_threads", "1",
]  # fmt: skip


def run(release: Path, output: Path, *flags: str) -> list[str]:
    """Run the recipe to its end; return what it logs."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("hfasr").addHandler(handler)
    recipe_runs.run("ky_phoneme", "--corpus", release, "--output_dir", output, *flags)
    return messages


def test_a_killed_run_ends_with_the_same_weights(toy_release, tmp_path):
    quiet, broken = tmp_path / "quiet", tmp_path / "broken"
    together(run, 1, toy_release, quiet, *FLAGS)

    saved = broken / "checkpoint-3" / "trainer_state.json"
    assert together(run, 1, toy_release, broken, *FLAGS, after=saved, send=signal.SIGKILL) == [-signal.SIGKILL]
    assert not (broken / "results.json").exists()

    # what a kill in the middle of saving leaves
    (broken / "checkpoint-11").mkdir()
    (broken / "checkpoint-11" / "model.safetensors").write_bytes(b"\x00" * 100)
    (messages,) = together(run, 1, toy_release, broken, *FLAGS, "--resume_from_checkpoint")
    assert any("checkpoint-11 is not a whole checkpoint" in message for message in messages)
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
