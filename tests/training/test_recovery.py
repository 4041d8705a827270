"""A run whose memory ran out in the middle of an epoch ends with the weights of one that was left alone, on one process and on two."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import SMALL, STILL
from torch import nn
from transformers import TrainerCallback

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training import recovery
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.recovery import Pieces, cut_rows, limit_path, note_launch, read_limit, resume_after_restart, write_limit
from hfasr.training.trainer import CTCTrainer

UPDATES, FULL = 6, 4  # more than an epoch; the memory is full in the fourth


class NoMemory(torch.autograd.Function):
    """The identity, whose forward or backward finds the memory full."""

    @staticmethod
    def forward(context, tensor, where):
        context.where = where
        if where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return tensor.clone()

    @staticmethod
    def backward(context, gradient):
        if context.where == "backward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return gradient, None


class Watch(TrainerCallback):
    """Note which rows the updates that were stepped were made of; in files, which outlive the process, when given a folder."""

    def __init__(self, folder: str | None = None):
        self.folder, self.updates, self.batches = folder, [], []

    def on_train_begin(self, args, state, control, **kwargs):
        restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        begun = {
            "restart": restart,
            "process": args.process_index,
            "update": state.global_step,
            "limit": read_limit(args.output_dir, "cpu"),
        }
        self._append("starts.jsonl", begun)

    def on_step_end(self, args, state, control, **kwargs):
        self.updates.append({"update": state.global_step, "rows": sorted(row for batch in self.batches for row in rows_of(batch))})
        self._append("updates.jsonl", {**self.updates[-1], "processes": args.world_size})

    def _append(self, name: str, line: dict) -> None:
        if self.folder is not None:
            with open(Path(self.folder, name), "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def rows_of(batch) -> list[str]:
    """Name the rows of a batch by their labels, which no two rows of the corpus share."""
    return [" ".join(map(str, row[row != -100].tolist())) for row in batch["labels"] if (row != -100).any()]


def in_double(model: nn.Module, arguments: tuple, inputs: dict) -> tuple[tuple, dict]:
    return arguments, {name: value.double() if torch.is_floating_point(value) else value for name, value in inputs.items()}


def train(
    release: str, output: str, where: str | None = None, accumulation: int = 2, watch: Watch | None = None, stream: bool = False
) -> tuple[CTCTrainer, Watch]:
    """Train for some updates of two batches; the memory is full in the fourth, in its last batch, the first time it is tried."""
    torch.manual_seed(0)
    rows = add_target(common_voice(release, splits=["train"]), Phonemizer("ky"))["train"]
    model, processor = load_model("unispeech-tiny", build_tokenizer(plain(rows)["target"]), config_overrides=SMALL | STILL)
    model.double().register_forward_pre_hook(in_double, with_kwargs=True)  # so that rounding cannot hide what differs
    args = CTCTrainingArguments(
        output_dir=output, max_batch_seconds=12, gradient_accumulation_steps=accumulation, max_steps=UPDATES, learning_rate=1e-3,
        save_strategy="no", report_to="none", logging_steps=1, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    watch = watch or Watch()
    if stream:
        rows = plain(rows).to_iterable_dataset(num_shards=2)
    trainer = CTCTrainer(model, args, processor, rows, callbacks=[watch])
    fetch, tried = trainer.get_batch_samples, Path(output, "tried")

    def keep(*arguments):
        batches, labels = fetch(*arguments)
        watch.batches = list(batches)
        return batches, labels

    def fill(module, inputs, output):
        now = trainer.state.global_step == FULL - 1 and trainer.accelerator.sync_gradients
        if where is None or not now or args.process_index != args.world_size - 1 or tried.exists():
            return output
        if torch.is_grad_enabled():
            tried.parent.mkdir(exist_ok=True)
            tried.touch()
        return NoMemory.apply(output, where)

    trainer.get_batch_samples = keep
    model.lm_head.register_forward_hook(fill)
    trainer.train(args.resume_from_checkpoint)
    return trainer, watch


@pytest.fixture(scope="module")
def left_alone(toy_release, tmp_path_factory):
    return train(str(toy_release), str(tmp_path_factory.mktemp("left_alone")))


def weights_of(trainer: CTCTrainer) -> dict:
    return dict(trainer.model.state_dict())


def assert_equal(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9, msg=name)


def each_row_once_an_epoch(updates: list[dict], release: str) -> None:
    rows = plain(add_target(common_voice(release, splits=["train"]), Phonemizer("ky"))["train"])
    seen = Counter(row for update in updates for row in update["rows"])
    assert len(seen) == len(rows)
    assert set(seen.values()) <= {1, 2}  # the run ends in the second epoch


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_one_process_goes_on_in_pieces(where, left_alone, toy_release, tmp_path, caplog):
    alone, alone_saw = left_alone
    trainer, watch = train(str(toy_release), str(tmp_path), where)
    assert "does not fit the memory; from now on at most" in caplog.text
    assert_equal(weights_of(trainer), weights_of(alone))
    assert watch.updates == alone_saw.updates
    assert [update["update"] for update in watch.updates] == list(range(1, UPDATES + 1))
    each_row_once_an_epoch(watch.updates, str(toy_release))
    assert trainer.pieces.updates_cut > 1  # the one that did not fit, and larger ones after it
    assert alone.pieces.updates_cut == 0
    assert 3 < trainer.pieces.limit <= 6.5
    assert read_limit(tmp_path, "cpu") == trainer.pieces.limit
    losses = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (trainer, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_stream_loses_no_row(toy_release, tmp_path):
    alone, alone_saw = train(str(toy_release), str(tmp_path / "alone"), stream=True)
    trainer, watch = train(str(toy_release), str(tmp_path / "full"), "backward", stream=True)
    assert trainer.pieces.updates_cut > 0
    assert_equal(weights_of(trainer), weights_of(alone))
    assert watch.updates == alone_saw.updates


class Memory:
    """Runs pieces of a batch as a model with one weight would, in a memory of so many numbers."""

    def __init__(self, size: float):
        self.size, self.runs, self.freed = size, [], 0
        self.weight = torch.zeros(1, requires_grad=True)

    def __call__(self, piece, last):
        self.runs.append((len(piece["labels"]), last))
        (self.weight * piece["input_values"].sum()).sum().backward()  # a backward that fails leaves some of the gradient
        if piece["input_values"].numel() > self.size:
            raise torch.OutOfMemoryError("full")
        return piece["input_values"].sum()

    def forget(self):
        self.freed += 1
        self.weight.grad = None


def batch_of(rows: int, width: int, first: float = 0.0) -> dict:
    values = torch.arange(rows * width, dtype=torch.float32).reshape(rows, width) + first
    lengths = np.full(rows, width)
    return {"input_values": values, "labels": torch.ones(rows, 2, dtype=torch.int64), "input_lengths": lengths, "label_lengths": lengths}


@pytest.fixture
def nothing_to_free(monkeypatch):
    """Spare the tests without a device the search for garbage."""
    monkeypatch.setattr("hfasr.training.recovery.free_memory", lambda: None)


@pytest.mark.usefixtures("nothing_to_free")
def test_the_gradient_of_an_update_is_that_of_its_batches_however_small_the_memory():
    batches = [batch_of(3, 10), batch_of(7, 12, 5.0), batch_of(2, 40)]
    for size in (1000, 83, 50, 45):
        memory, limits = Memory(size), []
        pieces = Pieces(0.5, limits.append, memory.forget)
        for _ in range(2):
            losses = [pieces.step(batch, memory, ends_update=batch is batches[-1]) for batch in batches]
            assert memory.weight.grad == sum(batch["input_values"].sum() for batch in batches)
            assert losses == [batch["input_values"].sum() for batch in batches]
            memory.weight.grad = None
        assert memory.freed == len(limits)
        assert limits == sorted(limits, reverse=True)
        assert bool(limits) == (size < 84)
        assert pieces.updates_cut == (2 if limits else 0)


@pytest.mark.usefixtures("nothing_to_free")
def test_a_row_that_does_not_fit_by_itself():
    memory = Memory(30)
    pieces = Pieces(0.5, lambda limit: None, memory.forget)
    with pytest.raises(ValueError, match=r"a row of 20\.0 s by itself does not fit the memory \(full\).*max_seconds"):
        pieces.step(batch_of(4, 40), memory, ends_update=True)
    assert [rows for rows, _ in memory.runs] == [4, 2, 1]

    def broken(piece, last):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        pieces.step(batch_of(4, 40), broken, ends_update=True)


def test_processes_that_share_split_weights_run_equally_many_pieces():
    memory = Memory(1000)
    pieces = Pieces(0.5, lambda limit: None, memory.forget, limit=10.0, agree=lambda count: count + 2)
    batch = batch_of(4, 10)
    assert pieces.step(batch, memory, ends_update=True) != batch["input_values"].sum()  # here silence counts, in the loss it does not
    assert memory.runs == [(2, False), (2, False), (1, False), (1, True)]


@pytest.mark.parametrize(
    ("rows", "most", "sizes"), [(7, 7, [7]), (7, 6.9, [4, 3]), (7, 3, [3, 3, 1]), (12, 5, [4, 4, 4]), (3, 0.2, [1, 1, 1])]
)
def test_pieces_of_a_batch(rows, most, sizes):
    batch = batch_of(rows, 4)
    pieces = cut_rows(batch, most)
    assert [len(piece["labels"]) for piece in pieces] == sizes
    for name, value in batch.items():
        joined = (
            torch.cat([piece[name] for piece in pieces]) if isinstance(value, torch.Tensor) else np.concatenate([p[name] for p in pieces])
        )
        assert (joined == value).all()


def test_a_limit_is_kept_for_the_same_kind_of_device(tmp_path, caplog):
    assert read_limit(tmp_path, "A") == math.inf
    write_limit(tmp_path / "run", 40.0, "A")
    write_limit(tmp_path / "run", 80.0, "A")
    assert read_limit(tmp_path / "run", "A") == 40
    assert read_limit(tmp_path / "run", "B") == math.inf
    limit_path(tmp_path / "run").write_text('{"seconds"')
    assert read_limit(tmp_path / "run", "A") == math.inf
    assert "it is damaged" in caplog.text


def test_only_the_launcher_that_began_a_run_goes_on_with_it(tmp_path, monkeypatch):
    args = CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    note_launch(args)
    assert not resume_after_restart(args)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert not resume_after_restart(args)  # the first try was refused before it began
    note_launch(args)
    assert not resume_after_restart(args)  # a second trainer of the same process
    monkeypatch.setattr(recovery, "_BEGUN", set())  # as in a new one
    (note,) = tmp_path.iterdir()
    mine = note.read_text()
    note.write_text('{"launcher": "1 2.0"}')
    assert not resume_after_restart(args)
    assert args.resume_from_checkpoint is None
    note.write_text(mine)
    assert resume_after_restart(args)
    assert args.resume_from_checkpoint == "newest"
    args.resume_from_checkpoint = "elsewhere/checkpoint-5"
    assert resume_after_restart(args)
    assert args.resume_from_checkpoint == "elsewhere/checkpoint-5"  # nothing newer was saved
    (tmp_path / "checkpoint-9").mkdir()
    assert resume_after_restart(args)
    assert args.resume_from_checkpoint == "newest"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_two_processes_start_again_and_lose_no_row(where, left_alone, toy_release, tmp_path):
    alone, alone_saw = left_alone
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "--max_restarts=1", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run(
        [*command, str(toy_release), str(tmp_path), where], check=False, env=environment, capture_output=True, text=True, timeout=240
    )
    assert process.returncode == 0, process.stderr
    assert f"process 1 has no memory left in update {FULL}" in process.stderr
    found = torch.load(tmp_path / "final.pt", weights_only=True)
    assert_equal(found, weights_of(alone))
    starts = [json.loads(line) for line in (tmp_path / "starts.jsonl").read_text().splitlines()]
    assert sorted((start["restart"], start["process"], start["update"]) for start in starts) == [(0, 0, 0), (0, 1, 0), (1, 0, 3), (1, 1, 3)]
    assert {start["limit"] for start in starts if start["restart"]} == {read_limit(tmp_path, "cpu")}
    lines = [json.loads(line) for line in (tmp_path / "updates.jsonl").read_text().splitlines()]
    assert {line["processes"] for line in lines} == {2}
    assert Counter(line["update"] for line in lines) == dict.fromkeys(range(1, UPDATES + 1), 2)  # each once on each process
    for update in alone_saw.updates:
        assert sorted(row for line in lines if line["update"] == update["update"] for row in line["rows"]) == update["rows"]


if __name__ == "__main__":
    release, output, where = sys.argv[1:]
    trainer, _ = train(release, output, where, accumulation=1, watch=Watch(output))
    if int(os.environ["RANK"]) == 0:
        torch.save(weights_of(trainer), f"{output}/final.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
