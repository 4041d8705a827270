"""The budget fits the memory that it was measured on; the memory here is that of the tensors that autograd keeps."""

import json
import math
import weakref

import numpy as np
import pytest
import torch
from tiny_models import SMALL
from transformers import HfArgumentParser

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.models.speed.fast_training import FastTraining
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches import settling
from hfasr.training.batches.budget import MARGIN, CudaMemory, borrowed, find_budget, held_bytes, is_out_of_memory, optimizer_bytes
from hfasr.training.batches.settling import lower_budget, remember_budget, remembered_budget, settle_batches
from hfasr.training.novograd import NovoGrad
from hfasr.training.recipe import RecipeArguments
from hfasr.training.trainer import CTCTrainer


class KeptTensors(torch.autograd.graph.saved_tensors_hooks):
    """Count what autograd keeps for the backward, and end with an out-of-memory error where it passes `total`."""

    def __init__(self, total: float = math.inf):
        super().__init__(self._pack, lambda kept: kept.tensor)
        self.total, self.now, self.peak = total, 0, 0

    def _pack(self, tensor):
        class Kept:
            def __init__(self):
                self.tensor = tensor

        size = tensor.numel() * tensor.element_size()
        self._add(size)
        kept = Kept()
        weakref.finalize(kept, self._add, -size)
        return kept

    def _add(self, size):
        self.now += size
        self.peak = max(self.peak, self.now)
        if size > 0 and self.now > self.total:
            raise torch.OutOfMemoryError(f"{self.now} bytes of {self.total}")

    def reset_peak(self):
        self.peak = self.now

    def peak_bytes(self):
        return self.peak

    def total_bytes(self):
        return self.total


@pytest.fixture(scope="module")
def rows(toy_release):
    return add_target(common_voice(toy_release, splits=["train"]), Phonemizer("ky", word_bars=False))["train"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HFASR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(rows, folder, base="wav2vec2-tiny", **changes):
    overrides = SMALL if base == "wav2vec2-tiny" else {}
    model, processor = load_model(base, build_tokenizer(plain(rows)["target"]), config_overrides=overrides)
    arguments = {"output_dir": str(folder), "max_batch_seconds": "auto", "max_steps": 1, "report_to": "none", "use_cpu": True}
    return CTCTrainer(model, CTCTrainingArguments(**(arguments | changes)), processor, rows)


@pytest.mark.parametrize(
    ("base", "total", "changes"),
    [
        ("wav2vec2-tiny", 20e6, {"consistency": 0.2, "ema_decay": 0.9}),
        ("quartznet-small", 60e6, {}),
    ],
)
def test_the_trainers_own_step_fills_what_is_left_of_the_memory(base, total, changes, rows, tmp_path, monkeypatch):
    memory = KeptTensors(total)
    monkeypatch.setattr("hfasr.training.trainer.CudaMemory", lambda device: memory)

    def measured(args, facts, measure):
        with memory:
            return measure()

    monkeypatch.setattr(settling, "_auto_budget", measured)
    trainer = build(rows, tmp_path, base, **changes)
    budget = trainer.args.max_batch_seconds
    held = held_bytes(trainer.model, trainer.args, trainer.get_optimizer_cls_and_kwargs(trainer.args))
    usable = (1 - MARGIN) * total - held

    longest = max(plain(rows)["duration"])
    peaks = []
    trainer.model.train()
    for seconds in (budget, 1.15 * budget):
        count = round(seconds / trainer.args.views / longest)
        waveform = np.random.default_rng(0).standard_normal(round(seconds / trainer.args.views / count * 16_000)).astype(np.float32)
        batch = trainer.data_collator([{"id": "", "audio": waveform[: len(waveform) - 100 * n], "labels": [2, 3]} for n in range(count)])
        unlimited = KeptTensors()
        with unlimited, FastTraining(trainer.model):
            trainer.compute_loss(trainer.model, batch).backward()
        peaks.append(unlimited.peak)
    assert peaks[0] < 1.03 * usable
    assert peaks[1] > usable


def test_a_model_is_measured_as_it_will_be_trained(rows, tmp_path):
    trainer = build(rows, tmp_path, activation_checkpointing=True)
    model = trainer.model.eval()
    with borrowed(model, trainer.args):
        assert model.training
        assert model.is_activation_checkpointing
    assert not model.training
    assert not model.is_activation_checkpointing


def test_measuring_leaves_the_model_as_it_was(rows, tmp_path, monkeypatch):
    monkeypatch.setattr("hfasr.training.trainer.CudaMemory", lambda device: KeptTensors(30e6))
    monkeypatch.setattr(settling, "_auto_budget", lambda args, facts, measure: measure())
    model, processor = load_model("quartznet-small", build_tokenizer(plain(rows)["target"]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    args = CTCTrainingArguments(output_dir=str(tmp_path), max_batch_seconds="auto", report_to="none", use_cpu=True)
    monkeypatch.setattr("hfasr.training.batches.budget.MOST_SECONDS", 16.0)
    CTCTrainer(model, args, processor, rows)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # running statistics too
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("longest", [3.0, 20.0, 31.0])
@pytest.mark.parametrize(
    "bytes_of",
    [
        lambda seconds: 1e9 + 1e7 * seconds,
        lambda seconds: 1e9 + 1e7 * seconds + 3e3 * seconds**2,  # buffers that grow faster
        lambda seconds: 1e9 + 1e7 * seconds + 2e9 * (seconds > 500),  # a library takes another way
        lambda seconds: 1e9 + 5e4 * seconds,  # more than is looked for
        lambda seconds: 8e9 + 2e7 * seconds,
    ],
)
def test_the_search_ends_near_the_end_of_the_memory(bytes_of, longest):
    total, usable, runs = 12e9, 0.9 * 12e9 - 5e8, []

    class Counted:
        def reset_peak(self):
            pass

        def peak_bytes(self):
            return bytes_of(runs[-1])

        def total_bytes(self):
            return total

    def run(seconds):
        runs.append(seconds)
        if bytes_of(seconds) > total:
            raise torch.OutOfMemoryError("too much")

    budget = find_budget(run, Counted(), longest, reserved_bytes=5e8)
    most = max(seconds for seconds in np.arange(0, 3200.1, 0.5) if bytes_of(seconds) <= usable)
    assert bytes_of(budget) <= usable
    assert budget >= min(most, 0.97 * most - 1)
    assert budget <= 3200
    assert any(abs(seconds - budget) < 1 for seconds in runs)
    assert len(runs) <= 20


def test_a_row_that_does_not_fit(rows, tmp_path):
    class Full:
        def reset_peak(self):
            pass

        def total_bytes(self):
            return 2**30

    def run(seconds):
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(ValueError, match=r"one row of 31 s fits the 1\.0 GiB .* max_seconds"):
        find_budget(run, Full(), 31)

    def broken(seconds):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        find_budget(broken, Full(), 31)
    assert is_out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.AdamW, {"lr": 1e-3, "fused": True}),
        (torch.optim.SGD, {"lr": 1e-3}),
        (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9}),
        (NovoGrad, {"lr": 1e-3}),
    ],
)
def test_an_optimizers_bytes_are_those_of_its_state(optimizer, settings):
    model = torch.nn.Sequential(torch.nn.Linear(300, 500), torch.nn.Linear(500, 100))
    real = optimizer(model.parameters(), **settings)
    model(torch.randn(2, 300)).sum().backward()
    real.step()
    state = [value for state in real.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    held = sum(value.numel() * value.element_size() for value in state)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert optimizer_bytes(optimizer, settings, torch.device("cpu")) * count == pytest.approx(held, rel=0.01, abs=64)


def test_budgets_are_remembered_and_lowered(cache, caplog):
    first, second = {"device": "A", "longest_seconds": 20}, {"device": "B", "longest_seconds": 20}
    assert remembered_budget(first) is None
    lower_budget(first, 50)
    assert remembered_budget(first) is None  # nothing was measured that could be wrong
    remember_budget(first, 700)
    remember_budget(second, 300)
    lower_budget(second, 350)
    lower_budget(first, 350)
    assert (remembered_budget(first), remembered_budget(second)) == (350, 300)
    for damaged in ('{"a": ', '{"a": {"seconds": "many"}}', "[]", '{"a": {"seconds": 0}}'):
        (cache / "budgets.json").write_text(damaged)
        caplog.clear()
        assert remembered_budget(first) is None
        assert "budgets.json is left aside" in caplog.text
    remember_budget(first, 700)
    assert remembered_budget(first) == 700
    assert [entry["device"] for entry in json.loads((cache / "budgets.json").read_text()).values()] == ["A"]


def test_what_a_budget_depends_on(rows, tmp_path):
    one = build(rows, tmp_path)
    facts = one._facts
    assert build(rows, tmp_path)._facts == facts
    assert build(rows, tmp_path, activation_checkpointing=True)._facts != facts
    assert build(rows, tmp_path, freeze_feature_encoder=False)._facts != facts
    assert build(rows, tmp_path, optim="sgd")._facts != facts
    assert build(rows, tmp_path, consistency=0.2)._facts != facts
    assert facts["longest_seconds"] == math.ceil(max(plain(rows)["duration"]))


class Numbers:
    """As much of the arguments as settling reads."""

    update_seconds, gradient_accumulation_steps, device = 0.0, 1, torch.device("cpu")

    def __init__(self, **numbers):
        vars(self).update(numbers)


@pytest.mark.parametrize(
    ("processes", "budget", "update", "batches", "accumulation", "settled"),
    [
        (4, 62.5, 250, 4, 1, 62.5),  # fairseq's
        (1, 62.5, 250, 4, 4, 62.5),
        (1, 800, 250, 1, 1, 250),  # never more than asked
        (1, 100, 250, 3, 3, 250 / 3),
        (3, 62.5, 250, 6, 2, 250 / 6),
        (20, 80, 1600, 20, 1, 80),
        (64, 80, 1600, 64, 1, 25),
        (64, 80, 250, 12, 1, 250 / 12),  # a batch holds the longest row: some processes have none
        (2, 62.5, 0, 2, 1, 62.5),
    ],
)
def test_an_update_of_so_many_seconds(processes, budget, update, batches, accumulation, settled):
    args = Numbers(world_size=processes, max_batch_seconds=budget, update_seconds=update)
    assert settle_batches(args, 20.0, {}, None) == batches
    assert args.gradient_accumulation_steps == accumulation
    assert args.max_batch_seconds == pytest.approx(settled)
    if update:
        assert batches * args.max_batch_seconds == pytest.approx(update)
        args.update_seconds = update  # a second trainer with the same arguments comes to the same
        assert settle_batches(args, 20.0, {}, None) == batches


def test_an_update_must_hold_the_longest_row():
    with pytest.raises(ValueError, match=r"update_seconds is 15 but the longest row takes 20\.0 s"):
        settle_batches(Numbers(world_size=1, max_batch_seconds=100.0, update_seconds=15.0), 20.0, {}, None)


def test_auto_on_a_cpu_is_said(rows, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", "hfasr")
    trainer = build(rows, tmp_path, update_seconds=70, freeze_encoder_updates=1)
    assert "max_batch_seconds auto is 160 s on a cpu" in caplog.text
    assert (trainer.args.max_batch_seconds, trainer.args.gradient_accumulation_steps, trainer.batches.batches_per_update) == (70, 1, 1)
    trainer = build(rows, tmp_path, max_batch_seconds="30", update_seconds=70)
    assert (trainer.args.gradient_accumulation_steps, trainer.batches.batches_per_update) == (3, 3)
    assert len(trainer.get_train_dataloader()) % 3 == 0


def test_flags(tmp_path):
    parser = HfArgumentParser(RecipeArguments)
    parse = lambda *flags: parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--use_cpu", *flags])[0]
    assert parse().max_batch_seconds == 160.0
    assert parse("--max_batch_seconds", "auto").max_batch_seconds == "auto"
    assert parse("--max_batch_seconds", "62.5").max_batch_seconds == 62.5
    for wrong in ("much", "0", "-3", "inf", "nan"):
        with pytest.raises(ValueError, match="max_batch_seconds is .* seconds, or auto"):
            parse("--max_batch_seconds", wrong)
    with pytest.raises(ValueError, match="update_seconds is -1"):
        parse("--update_seconds", "-1")
    with pytest.raises(ValueError, match="update_seconds is 250 and gradient_accumulation_steps 2"):
        parse("--update_seconds", "250", "--gradient_accumulation_steps", "2")


@pytest.mark.gpu
def test_a_measured_budget_runs_on_the_gpu(rows, tmp_path, cache, caplog):
    caplog.set_level("INFO", "hfasr")
    changes = {"use_cpu": False, "bf16": True, "max_steps": 2, "save_strategy": "no"}
    trainer = build(rows, tmp_path, **changes)
    assert "as measured" in caplog.text
    budget = trainer.args.max_batch_seconds
    assert 20 <= budget <= 3200
    memory = CudaMemory(trainer.args.device)
    memory.reset_peak()
    trainer.train()
    assert memory.peak_bytes() < memory.total_bytes()
    assert build(rows, tmp_path, **changes).args.max_batch_seconds == budget
    assert "as remembered" in caplog.text
