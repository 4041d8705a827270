import os
import signal
import time

import numpy as np
import pytest
import torch
from tiny_models import SMALL
from torch.utils.data import Dataset
from transformers import HfArgumentParser

from hfasr.corpora import common_voice
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training import arguments
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.loader import training_loader
from hfasr.training.batches.sampler import DurationBatchSampler
from hfasr.training.trainer import CTCTrainer


class Rows(Dataset):
    """Rows that note in a file that they were asked for."""

    def __init__(self, path):
        self.path = path

    def __getitem__(self, place: int) -> int:
        with open(self.path, "a") as file:
            file.write(f"{place}\n")
        return place

    def __len__(self) -> int:
        return 12


@pytest.fixture
def feeding(tmp_path):
    """A loader of rows with one worker, the plan of its epochs, and the file of rows that were asked for."""
    args = CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", dataloader_num_workers=1)
    sampler, other = (DurationBatchSampler(np.linspace(1, 2, 12), 5.0, seed=1) for _ in range(2))
    loader = training_loader(Rows(tmp_path / "rows"), sampler, list, args, endless=False)
    yield loader, lambda epoch: [batch for update in other.plan(epoch) for batch in update], tmp_path / "rows"
    loader.base_dataloader.close()


def epoch_of(loader, epoch: int) -> list[list[int]]:
    loader.set_epoch(epoch)
    return list(loader)


def test_each_epoch_comes_in_its_order(feeding):
    loader, plan, _ = feeding
    assert plan(0) != plan(1)
    for epoch in (0, 1, 2, 5, 6, 2):  # also after a jump
        assert epoch_of(loader, epoch) == plan(epoch)
        assert len(loader) == len(plan(epoch))


def test_dropout_draws_the_same_with_workers_and_without(feeding, tmp_path):
    loader, plan, _ = feeding
    args = CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", dataloader_num_workers=0)
    alone = training_loader(loader.dataset, loader.batch_sampler, list, args, endless=False)
    drawn = []
    for one in (loader, alone):
        torch.manual_seed(5)
        drawn.append([])
        for epoch in range(3):
            assert epoch_of(one, epoch) == plan(epoch)
            drawn[-1].append(float(torch.rand(())))
    assert drawn[0] == drawn[1]


def test_a_worker_goes_on_with_the_next_epoch(feeding):
    loader, plan, asked = feeding
    epoch_of(loader, 0)
    wanted = [row for batch in plan(0) + plan(1)[:2] for row in batch]
    until = time.monotonic() + 20
    while len(found := asked.read_text().split()) < len(wanted) and time.monotonic() < until:
        time.sleep(0.01)
    assert [int(row) for row in found] == wanted  # two batches ahead of what is trained on, and no more
    worker = loader.base_dataloader._batches._workers[0].pid
    assert epoch_of(loader, 1) == plan(1)
    assert loader.base_dataloader._batches._workers[0].pid == worker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_lives_through_a_signal_to_stop(feeding, number):
    loader, plan, _ = feeding
    loader.set_epoch(0)
    batches = iter(loader)
    first = next(batches)
    os.kill(loader.base_dataloader._batches._workers[0].pid, number)
    assert [first, *batches] == plan(0)


def test_an_epoch_that_was_left_begins_anew(feeding):
    loader, plan, _ = feeding
    loader.set_epoch(3)
    for batch in loader:
        assert batch == plan(3)[0]
        break
    assert epoch_of(loader, 3) == plan(3)
    assert epoch_of(loader, 4) == plan(4)


def test_workers_are_found_by_the_parser(monkeypatch, tmp_path):
    def parsed(*flags: str) -> CTCTrainingArguments:
        return HfArgumentParser(CTCTrainingArguments).parse_args_into_dataclasses(["--output_dir", str(tmp_path), *flags])[0]

    assert parsed("--use_cpu").dataloader_num_workers == 0
    assert parsed("--use_cpu", "--dataloader_num_workers", "3").dataloader_num_workers == 3
    for cores, processes, workers in ((16, "1", 15), (64, "1", 16), (128, "8", 15), (8, "8", 1)):
        monkeypatch.setattr(arguments.os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert arguments._workers() == workers
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    with pytest.raises(ValueError, match="prefetch_factor can only be set"):
        parsed("--use_cpu", "--dataloader_prefetch_factor", "4")


def test_training_with_a_worker_and_shapes(toy_release, tmp_path):
    corpus = add_target(common_voice(toy_release, splits=["train"]), Phonemizer("ky", word_bars=False))["train"]
    results = []
    for workers in (0, 1):
        torch.manual_seed(0)
        model, processor = load_model("unispeech-tiny", build_tokenizer(corpus["target"]), config_overrides=SMALL)
        args = CTCTrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, num_train_epochs=2,
            max_batch_seconds=20, batch_shapes=2, dataloader_num_workers=workers, compile="off",
        )  # fmt: skip
        trainer = CTCTrainer(model, args, processor, corpus)
        shapes = []
        model.register_forward_pre_hook(lambda _, __, inputs, shapes=shapes: shapes.append(inputs["input_values"].shape), with_kwargs=True)
        trainer.train()
        results.append((shapes, model.state_dict()))
        assert len(shapes) == 2 * len(trainer.get_train_dataloader())
    assert results[0][0] == results[1][0]
    assert len(set(results[0][0])) <= 2
    for name, value in results[0][1].items():
        assert torch.equal(value, results[1][1][name]), name
