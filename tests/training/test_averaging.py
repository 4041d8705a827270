"""Averages of the weights against their formulas, through CTCTrainer: while it trains, evaluates, saves, resumes and ends."""

import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_models import BLOCKS
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from hfasr.corpora import common_voice
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.averaging import AVERAGE_FILE, MovingAverage, changed_by_training, last_checkpoints, load_mean
from hfasr.training.checkpoints import damage
from hfasr.training.run import run_recipe
from hfasr.training.trainer import CTCTrainer


@pytest.fixture(scope="module")
def corpus(toy_release):
    return add_target(common_voice(toy_release, splits=["train", "test"]), Phonemizer("ky", word_bars=False))


def build(corpus, tmp_path, *callbacks, settings=(), **changes) -> CTCTrainer:
    torch.manual_seed(0)
    model, processor = load_model(
        "quartznet-small", build_tokenizer(corpus["train"]["target"]), config_overrides={"blocks": BLOCKS, "dropout": 0.1, **dict(settings)}
    )
    arguments = {
        "max_batch_seconds": 20, "max_steps": 6, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "lr_scheduler_type": "constant",
    }  # fmt: skip
    args = CTCTrainingArguments(output_dir=str(tmp_path), **(arguments | changes))
    return CTCTrainer(model, args, processor, corpus["train"], corpus["test"], callbacks=list(callbacks))


class KeepWeights(TrainerCallback):
    """Note the weights before training and after every update, in float64."""

    def __init__(self):
        self.after = []

    def note(self, model):
        self.after.append({name: value.detach().double().numpy().copy() for name, value in model.state_dict().items()})

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.note(model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.note(model)


def average(kept: list[dict], decay: float) -> dict:
    """Return the moving average of noted weights, by its formula."""
    result = dict(kept[0])
    for update, weights in enumerate(kept[1:]):
        share = min(decay, (1 + update) / (10 + update))
        result = {name: share * result[name] + (1 - share) * weights[name] for name in weights}
    return result


def assert_close(found: dict, expected: dict, tolerance: float = 2e-6):
    for name, value in found.items():
        assert np.abs(np.asarray(value, np.float64) - expected[name]).max() <= tolerance, name


def weights(trainer: CTCTrainer) -> dict:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_average_is_that_of_its_formula(corpus, tmp_path, decay):
    keep = KeepWeights()
    trainer = build(corpus, tmp_path, keep, ema_decay=decay)
    trainer.model.lm_head.bias.requires_grad_(False)
    trainer.train()
    assert len(keep.after) == 7
    expected = average(keep.after, decay)
    names = {name for name in expected if not name.endswith("num_batches_tracked")} - {"lm_head.bias"}
    saved = load_file(tmp_path / "checkpoint-6" / AVERAGE_FILE)
    assert saved.keys() == names
    assert any(name.endswith("running_var") for name in names)
    assert_close(saved, expected)
    assert_close(load_file(tmp_path / "checkpoint-4" / AVERAGE_FILE), average(keep.after[:5], decay))
    assert_close(load_file(tmp_path / "checkpoint-6" / "model.safetensors"), keep.after[-1], 0.0)
    final = weights(trainer)
    assert_close({name: final[name].numpy() for name in names}, expected)
    assert torch.equal(final["lm_head.bias"], torch.from_numpy(keep.after[0]["lm_head.bias"]).float())


def test_evaluation_during_training_uses_the_average_and_changes_nothing(corpus, tmp_path):
    keep, alone = KeepWeights(), KeepWeights()
    changes = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "no"}
    trainer = build(corpus, tmp_path / "a", keep, ema_decay=0.5, **changes)
    trainer.train()
    plain = build(corpus, tmp_path / "b", alone, **changes)
    plain.train()
    for mine, others in zip(keep.after, alone.after, strict=True):  # evaluation gave the weights back to the last bit
        assert_close(mine, others, 0.0)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    for update, loss in zip((3, 6), losses, strict=True):
        mean = average(keep.after[: update + 1], 0.5)
        plain.model.load_state_dict({name: torch.as_tensor(np.asarray(value)) for name, value in mean.items()})
        assert plain.evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-4)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[-1], rel=1e-6)


def test_a_resumed_run_has_the_same_average(corpus, tmp_path):
    whole = build(corpus, tmp_path / "whole", ema_decay=0.9)
    whole.train()
    (tmp_path / "broken").mkdir()
    (tmp_path / "whole" / "checkpoint-4").rename(tmp_path / "broken" / "checkpoint-4")
    resumed = build(corpus, tmp_path / "broken", ema_decay=0.9)
    resumed.train("newest")
    assert same(weights(whole), weights(resumed))
    for name in ("model.safetensors", AVERAGE_FILE):
        paths = [tmp_path / run / "checkpoint-6" / name for run in ("whole", "broken")]
        assert paths[0].read_bytes() == paths[1].read_bytes()

    (tmp_path / "whole" / "checkpoint-6" / AVERAGE_FILE).write_bytes(b"\x01" * 50)
    assert AVERAGE_FILE in damage(tmp_path / "whole" / "checkpoint-6")
    (tmp_path / "whole" / "checkpoint-6" / AVERAGE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="had no ema_decay"):
        build(corpus, tmp_path / "whole", ema_decay=0.9, max_steps=8).train("newest")
    resumed.model.lm_head.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"trained other parameters: 1 differ, such as lm_head\.bias"):
        MovingAverage(0.9, tmp_path / "broken" / "checkpoint-6").on_train_begin(None, None, None, model=resumed.model)


def test_the_best_model_is_the_best_checkpoints_average(corpus, tmp_path):
    class Worse(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):  # before the average is moved on
            if state.global_step == 3:
                with torch.no_grad():
                    model.lm_head.bias[1:] -= 100.0

    changes = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "metric_for_best_model": "loss", "max_steps": 4}
    trainer = build(corpus, tmp_path, Worse(), ema_decay=0.5, save_total_limit=1, **changes)
    trainer.train()
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-2"
    best = load_file(tmp_path / "checkpoint-2" / AVERAGE_FILE)
    final = weights(trainer)
    assert all(np.array_equal(final[name].numpy(), value) for name, value in best.items())
    assert not np.array_equal(best["lm_head.weight"], load_file(tmp_path / "checkpoint-2" / "model.safetensors")["lm_head.weight"])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-6)


def test_the_average_of_half_precision_is_kept_in_float32():
    layer = torch.nn.Linear(2, 2, bias=False, dtype=torch.bfloat16)
    moving = MovingAverage(0.999)
    moving.on_train_begin(None, None, None, model=layer)
    before, state = layer.weight.detach().clone(), type("State", (), {"global_step": 10_000})
    expected = before.double()
    for step in range(20):
        layer.weight.data.fill_(step)
        moving.on_optimizer_step(None, state, None)
        expected = 0.999 * expected + 0.001 * step
    with moving.in_place():
        torch.testing.assert_close(layer.weight.detach().double(), expected, rtol=5e-3, atol=1e-3)
    assert (layer.weight == 19).all()
    torch.testing.assert_close(next(iter(moving._average.values())).double(), expected, rtol=1e-5, atol=1e-6)


def test_a_step_of_the_average_reads_nothing_back(corpus, tmp_path):
    class NoReadBack(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
            assert function not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
            return function(*arguments, **(kwargs or {}))

    trainer = build(corpus, tmp_path)
    moving = MovingAverage(0.999)
    moving.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)
    with NoReadBack():
        moving.on_optimizer_step(trainer.args, trainer.state, trainer.control)


@pytest.mark.gpu
def test_a_step_of_the_average_does_not_wait_for_the_gpu():
    layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)).cuda()
    moving, state = MovingAverage(0.9), type("State", (), {"global_step": 100})
    moving.on_train_begin(None, None, None, model=layer)
    before = layer[0].weight.detach().clone()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            layer[0].weight.add_(1)
        moving.on_optimizer_step(None, state, None)
        with moving.in_place():
            inside = layer[0].weight.detach().clone()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(inside, before + 0.1)
    torch.testing.assert_close(layer[0].weight.detach(), before + 1)


def test_buffers_that_no_checkpoint_holds_are_left_alone():
    model = torch.nn.BatchNorm1d(2)
    model.register_buffer("positions", torch.zeros(2), persistent=False)
    assert set(changed_by_training(model)) == {"weight", "bias", "running_mean", "running_var"}


def test_the_mean_of_the_last_checkpoints(corpus, tmp_path):
    trainer = build(corpus, tmp_path, average_checkpoints=2, save_total_limit=2)
    trainer.model.lm_head.bias.requires_grad_(False)
    start = trainer.model.lm_head.bias.clone()
    trainer.train()
    saved = [load_file(tmp_path / f"checkpoint-{update}" / "model.safetensors") for update in (4, 6)]
    final = weights(trainer)
    assert_close({name: value.numpy() for name, value in final.items() if value.is_floating_point()},
                 {name: (saved[0][name].astype(np.float64) + saved[1][name]) / 2 for name in final})  # fmt: skip
    assert torch.equal(final["lm_head.bias"], start)
    counts = [name for name in final if name.endswith("num_batches_tracked")]
    assert counts
    assert all(final[name] == saved[1][name] for name in counts)


def test_which_checkpoints_are_averaged(corpus, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hfasr"), "propagate", True)
    trainer = build(corpus, tmp_path)
    trainer.train()
    assert [path.name for path in last_checkpoints(tmp_path, 2, 6)] == ["checkpoint-4", "checkpoint-6"]
    assert [path.name for path in last_checkpoints(tmp_path, 2, 5)] == ["checkpoint-2", "checkpoint-4"]
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    assert [path.name for path in last_checkpoints(tmp_path, 5, 6)] == ["checkpoint-2", "checkpoint-4"]
    assert [path.name for path in load_mean(trainer.model, tmp_path, 5, 6)] == ["checkpoint-2", "checkpoint-4"]
    assert "the mean of 2 checkpoints, there are not 5" in caplog.text
    with pytest.raises(FileNotFoundError, match="no whole checkpoint up to update 1"):
        load_mean(trainer.model, tmp_path, 2, 1)
    other = build(corpus, tmp_path / "other", settings={"blocks": BLOCKS[:1]}, max_steps=2)
    with pytest.raises(ValueError, match="weights that the model lacks"):
        load_mean(other.model, tmp_path, 2, 6)
    other.train()
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes((tmp_path / "other/checkpoint-2/model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"checkpoint-4 and the checkpoint before it hold other weights"):
        load_mean(trainer.model, tmp_path, 2, 6)
    (tmp_path / "checkpoint-4" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-4 holds no model\.safetensors"):
        load_mean(trainer.model, tmp_path, 1, 6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"ema_decay": math.nan}, "ema_decay is nan"),
        ({"average_checkpoints": 1}, "average_checkpoints is 1; give 2 or more"),
        ({"average_checkpoints": -1}, "average_checkpoints is -1"),
        (
            {"average_checkpoints": 3, "save_total_limit": 2},
            "average_checkpoints is 3, but save_total_limit keeps 2; give save_total_limit 3",
        ),
        (
            {"average_checkpoints": 3, "save_total_limit": 3, "metric_for_best_model": "loss"},
            "save_total_limit keeps 3 with the best among them; give save_total_limit 4",
        ),
        ({"average_checkpoints": 3, "save_total_limit": 3, "ema_decay": 0.9}, "ema_decay and average_checkpoints each make"),
        ({"average_checkpoints": 3, "save_total_limit": 3, "load_best_model_at_end": True}, "average_checkpoints takes the last weights"),
        ({"average_checkpoints": 3, "save_total_limit": 3, "save_strategy": "no"}, "save_strategy no saves none"),
        ({"average_checkpoints": 3, "save_total_limit": 3, "save_only_model": True}, "average_checkpoints takes whole checkpoints"),
    ],
)
def test_wrong_arguments(values, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, eval_strategy="steps", eval_steps=500, **values)


def test_averaged_checkpoints_replace_a_recipes_best_model(tmp_path, monkeypatch):
    monkeypatch.setattr("hfasr.training.run.log_to_terminal", lambda: None)
    presets = {"load_best_model_at_end": True, "metric_for_best_model": "per", "eval_strategy": "steps", "eval_steps": 500}
    recipes = []
    for flags in (["--average_checkpoints", "3", "--save_total_limit", "3"], ["--ema_decay", "0.99", "--consistency", "0.2"]):
        arguments = ["--output_dir", str(tmp_path), "--use_cpu", *flags]
        run_recipe(lambda recipe: recipes.append(recipe), CTCTrainingArguments, lambda recipe: presets, arguments)
    assert not recipes[0].load_best_model_at_end
    assert recipes[1].load_best_model_at_end
    assert (recipes[0].average_checkpoints, recipes[1].ema_decay, recipes[1].views) == (3, 0.99, 2)
