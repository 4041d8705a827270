"""A run goes on with the same updates on another number of processes: real ones, connected by gloo."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import replace

import pytest
import torch
from recipe_runs import REPOSITORY
from safetensors.torch import load_file
from tiny_models import SMALL, STILL
from together import together
from transformers import TrainerCallback

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.record import (
    BatchRecord,
    batch_record,
    check_record,
    draws_anew,
    given_numbers,
    go_on,
    process_seed,
    read_record,
    write_record,
)
from hfasr.training.trainer import CTCTrainer

UPDATES = 7


class Noting(CTCTrainer):
    """Note which rows each update was made of."""

    def get_train_dataloader(self):
        loader = super().get_train_dataloader()
        self.stepped, self._waiting, collate = [], deque(), loader.collate_fn

        def noting(rows: list[dict]) -> dict:
            self._waiting.append([row["id"] for row in rows])
            return collate(rows)

        loader.base_dataloader.collate_fn = noting
        return loader

    def training_step(self, *arguments, **more):
        self.stepped.append((self.state.global_step, self._waiting.popleft()))
        return super().training_step(*arguments, **more)


class StopAt(TrainerCallback):
    def __init__(self, update: int):
        self.update = update

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.update:
            control.should_save = control.should_training_stop = True


def build(release, output, stop: int, resume: str | None = None, **changes) -> Noting:
    torch.manual_seed(0)
    rows = add_target(common_voice(release, splits=["train"]), Phonemizer("ky"))["train"]
    model, processor = load_model("unispeech-tiny", build_tokenizer(plain(rows)["target"]), config_overrides=STILL | SMALL)
    numbers = {
        "max_batch_seconds": 9, "max_steps": UPDATES, "learning_rate": 1e-3, "save_strategy": "no", "report_to": "none", "use_cpu": True,
        "disable_tqdm": True, "resume_from_checkpoint": resume, "save_total_limit": None,
    }  # fmt: skip
    args = CTCTrainingArguments(output_dir=str(output), **(numbers | changes))
    return Noting(model, args, processor, rows, callbacks=[StopAt(stop)])


def stretch(release, output, stop: int, resume: str | None = None, **changes) -> list[tuple[int, list[str]]]:
    """Train up to an update; return the rows of each batch, with the update that they belong to."""
    trainer = build(release, output, stop, resume, **changes)
    trainer.train(resume)
    assert trainer.accelerator.num_processes == trainer.args.world_size
    batches = len(trainer.callback_handler.train_dataloader)
    assert trainer.state.epoch == pytest.approx(stop * trainer.args.gradient_accumulation_steps / batches)
    return trainer.stepped


def by_update(stretches: list[list[tuple[int, list[str]]]]) -> list[set[frozenset[str]]]:
    """Return the batches of each update, whoever took them."""
    updates = [set() for _ in range(UPDATES)]
    for update, rows in (entry for one in stretches for entry in one):
        if rows:
            assert frozenset(rows) not in updates[update]
            updates[update].add(frozenset(rows))
    return updates


@pytest.mark.parametrize("shapes", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_two_processes_then_one_then_two(shapes, toy_release, tmp_path):
    quiet = stretch(toy_release, tmp_path / "quiet", UPDATES, gradient_accumulation_steps=4, batch_shapes=shapes)

    broken, stretches = tmp_path / "broken", []
    given = {"gradient_accumulation_steps": 2, "batch_shapes": shapes}
    for processes, stop, resume in ((2, 2, None), (1, 5, "newest"), (2, UPDATES, str(broken / "checkpoint-5"))):
        if processes == 1:
            found = [stretch(toy_release, broken, stop, resume, **given)]
        else:
            found = together(stretch_with, processes, toy_release, broken, stop, resume, given)
        assert [len(batches) for batches in found] == [len(found[0])] * processes
        stretches += found
        record = read_record(broken / f"checkpoint-{stop}")
        assert (record.processes, record.batches_per_update, record.max_batch_seconds) == (processes, 4, 9)

    assert by_update(stretches) == by_update([quiet])
    with pytest.raises(ValueError, match=r"has updates of 4 batches, this run's have 1; give gradient_accumulation_steps 4, or"):
        build(toy_release, broken, 9, batch_shapes=shapes).train(str(broken / "checkpoint-5"))
    epoch = [row for update in by_update([quiet])[:2] for batch in update for row in batch]
    assert len(epoch) == len(set(epoch))
    expected, weights = (load_file(tmp_path / name / f"checkpoint-{UPDATES}" / "model.safetensors") for name in ("quiet", "broken"))
    assert expected.keys() == weights.keys()
    assert max(float((expected[name] - weights[name]).abs().max()) for name in expected) < 1e-5
    start = build(toy_release, tmp_path / "new", 1).model.state_dict()
    assert max(float((expected[name] - start[name]).abs().max()) for name in expected) > 1e-3


def stretch_with(release, output, stop: int, resume: str | None, given: dict) -> list[tuple[int, list[str]]]:
    return stretch(release, output, stop, resume, **given)


def arguments(output, **changes) -> CTCTrainingArguments:
    return CTCTrainingArguments(output_dir=str(output), use_cpu=True, **({"max_batch_seconds": 9, "report_to": "none"} | changes))


def start(output, **changes) -> BatchRecord:
    args = arguments(output, **changes)
    record = batch_record(args, given_numbers(args))
    write_record(output, record)
    return record


def test_other_batches_are_refused(tmp_path):
    start(tmp_path, gradient_accumulation_steps=3)
    with pytest.raises(ValueError, match=r"max_batch_seconds 9\.0, this command has 11\.0; it decides which rows come next"):
        go_on(tmp_path, arguments(tmp_path, gradient_accumulation_steps=3, max_batch_seconds=11))
    with pytest.raises(ValueError, match="steps 3, this command has 2; .* with the same, or with 3, to which it comes on 1 process"):
        go_on(tmp_path, arguments(tmp_path, gradient_accumulation_steps=2))
    (tmp_path / "one").mkdir()
    start(tmp_path / "one")
    with pytest.raises(ValueError, match=r"update_seconds 0\.0, this command has 40; .* Resume with the same$"):
        go_on(tmp_path / "one", arguments(tmp_path, update_seconds=40))
    for name, value in (("max_batch_seconds", 11), ("seed", 7), ("batch_shapes", 4)):
        args = arguments(tmp_path, gradient_accumulation_steps=3, **{name: value})
        with pytest.raises(ValueError, match=f"is of a run with {name} .*, this one has {value}"):
            check_record(tmp_path, batch_record(args, given_numbers(args)))
    (tmp_path / "batches.json").write_text('{"batches_per_update": 3}')
    with pytest.raises(ValueError, match=r"batches\.json is damaged .*; resume from another checkpoint"):
        read_record(tmp_path)
    (tmp_path / "batches.json").unlink()
    with pytest.raises(ValueError, match=r"has no batches\.json: an earlier hfasr wrote it"):
        read_record(tmp_path)


@pytest.mark.parametrize(("budget", "steps"), [("auto", 2), (9, 4), ("auto", 4)])
def test_what_a_command_came_to_is_taken_as_well(budget, steps, tmp_path):
    record = start(tmp_path, gradient_accumulation_steps=4)
    given = record.given | {"max_batch_seconds": "auto", "gradient_accumulation_steps": 2}
    write_record(tmp_path, replace(record, processes=2, given=given))  # as of two processes on a GPU that was measured
    args = arguments(tmp_path, max_batch_seconds=budget, gradient_accumulation_steps=steps)
    assert go_on(tmp_path, args) == replace(record, given=given)
    assert (args.max_batch_seconds, args.gradient_accumulation_steps) == (9, 4)
    args.deepspeed_plugin = object()
    with pytest.raises(ValueError, match="written by 2 processes of DeepSpeed, .* and this run has 1; resume with as many"):
        go_on(tmp_path, args)


def test_processes_draw_differently_where_their_number_changed(toy_release, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hfasr"), "propagate", True)
    trainer = build(toy_release, tmp_path, 1)
    trainer._save_rng_state(str(tmp_path))
    expected = float(torch.rand(()))

    def draw() -> float:
        with caplog.at_level(logging.INFO, "hfasr"):
            trainer._load_rng_state(str(tmp_path))
        return float(torch.rand(()))

    assert draw() == draw() == expected
    assert "goes on" not in caplog.text
    (tmp_path / "rng_state.pth").rename(tmp_path / "rng_state_1.pth")  # as where process 1 has saved for both
    assert draw() == draw() != expected
    assert "holds no random numbers of process 0, which draws anew" in caplog.text
    write_record(tmp_path, replace(trainer.batches, processes=2))
    first = draw()
    assert "a run of 2 processes goes on with 1: of the 1 batches of an update each takes up to 1" in caplog.text
    assert first == draw() != expected
    trainer.state.global_step = 3
    assert first != draw()
    assert len({process_seed(0, update, process) for update in range(50) for process in range(64)}) == 50 * 64


def test_processes_without_work_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hfasr"), "propagate", True)
    start(tmp_path, gradient_accumulation_steps=2)
    assert draws_anew(tmp_path, 5, 0)
    assert "an update has 2 batches, so that 3 processes too many take empty ones" in caplog.text


def recipe(processes: int, release, output, *flags: str) -> str:
    """Run the recipe to its end on so many processes; return what it printed."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "recipes/ky_phoneme.py", "--corpus",
        release, "--output_dir", output, "--base_model", "unispeech-tiny", "--model_config", json.dumps(STILL | SMALL), "--use_cpu", "true",
        "--gradient_accumulation_steps", "1", "--max_batch_seconds", "12", "--max_steps", "6", "--save_strategy", "steps",
        "--save_steps", "2", "--save_total_limit", "9", "--eval_strategy", "no", "--load_best_model_at_end", "false", "--report_to", "none",
        "--cpu_threads", "1", "--disable_tqdm", "true", *flags,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run([*map(str, command)], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    return run.stderr


def without_later_checkpoints(run, copy, update: int) -> None:
    copy.mkdir()
    for name in ("recipe.json", "quarantine.jsonl"):
        shutil.copy(run / name, copy / name)
    shutil.copytree(run / f"checkpoint-{update}", copy / f"checkpoint-{update}")


@pytest.mark.slow
def test_a_recipe_goes_on_by_the_same_command(toy_release, tmp_path):
    runs = [tmp_path / name for name in ("two", "one", "two_again")]
    recipe(2, toy_release, runs[0])
    without_later_checkpoints(runs[0], runs[1], 2)
    said = recipe(1, toy_release, runs[1], "--resume_from_checkpoint")
    assert "a run of 2 processes goes on with 1: of the 2 batches of an update each takes up to 2" in said
    without_later_checkpoints(runs[1], runs[2], 4)
    assert "a run of 1 process goes on with 2" in recipe(2, toy_release, runs[2], "--resume_from_checkpoint")
    expected, *found = (load_file(run / "model.safetensors") for run in runs)
    for weights in found:
        assert max(float((expected[name] - weights[name]).abs().max()) for name in expected) < 1e-5
    assert [json.loads((run / "recipe.json").read_text())["processes"] for run in runs] == [2, 1, 2]
    assert [json.loads((run / "results.json").read_text())["updates"] for run in runs] == [6, 6, 6]
