"""Training from a stream: every row once an epoch, and a run that was killed goes on as if it had not been."""

import io
import itertools
import json
import os
import signal
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from tiny_models import BLOCKS
from together import together
from transformers import TrainerCallback

from hfasr.corpora import common_voice, embedded
from hfasr.corpora.reading.stream import add_stream_target, stream_rows
from hfasr.corpora.rows import plain
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.collator import CTCCollator
from hfasr.training.batches.shards import Shards
from hfasr.training.batches.stream import StreamBatchSampler
from hfasr.training.checkpoints import damage
from hfasr.training.trainer import CTCTrainer

# what is read matters here, so the model may be as small as can be; its dropout draws what a resumed run must go on with
SMALLEST = {"blocks": BLOCKS, "dropout": 0.1}


class NamingCollator(CTCCollator):
    def __call__(self, rows):
        return {**super().__call__(rows), "names": [(row["epoch"], row["id"]) for row in rows]}


class NamingTrainer(CTCTrainer):
    """Knows the rows of the update in hand."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.names += inputs.pop("names")
        return super().compute_loss(model, inputs, *args, **kwargs)


class WriteRows(TrainerCallback):
    """Write one line for each update, the rows it was made of; tell of the fourth, and take longer from it on if told to."""

    def __init__(self, trainer: NamingTrainer, wait_seconds: float):
        self.trainer, self.wait_seconds = trainer, wait_seconds

    def on_step_end(self, args, state, control, **kwargs):
        with open(Path(args.output_dir, f"rows_{args.process_index}.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps([state.global_step, args.world_size, self.trainer.names]) + "\n")
        self.trainer.names = []
        if state.global_step >= 4:
            Path(args.output_dir, f"past_{args.process_index}").touch()
            time.sleep(self.wait_seconds)


class StopAt(TrainerCallback):
    def __init__(self, update: int):
        self.update = update

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.update:
            os.kill(os.getpid(), signal.SIGTERM)


def build(stream: IterableDataset, output: Path, wait_seconds: float = 0.0, **changes) -> NamingTrainer:
    torch.manual_seed(0)
    model, processor = load_model("quartznet-small", build_tokenizer([row["target"] for row in stream]), config_overrides=SMALLEST)
    arguments = {
        "max_batch_seconds": 12, "stream_window": 13, "max_steps": 12, "gradient_accumulation_steps": 2, "save_steps": 3,
        "logging_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3,
        "save_total_limit": 9,
    }  # fmt: skip
    trainer = NamingTrainer(model, CTCTrainingArguments(output_dir=str(output), **(arguments | changes)), processor, stream)
    trainer.names, trainer.data_collator = [], NamingCollator(processor, output / "quarantine.jsonl")
    trainer.add_callback(WriteRows(trainer, wait_seconds))
    return trainer


def targets(folder: Path) -> IterableDataset:
    return add_stream_target(stream_rows(folder), Phonemizer("ky", word_bars=False))


@pytest.fixture(scope="module")
def rows():
    return plain(common_voice(embedded("ky", seed=4, utterances={"train": 40}), splits=["train"]))["train"]


@pytest.fixture(scope="module")
def shards(rows, tmp_path_factory):
    """Parquet shards of unequal size, with the audio inside."""
    folder = tmp_path_factory.mktemp("parquet")
    rows = rows.map(lambda row: {"audio": {"bytes": Path(row["audio"]["path"]).read_bytes(), "path": row["id"]}})
    edges = [0, 3, 14, 15, 30, 40]
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        rows.select(range(first, last)).to_parquet(folder / f"train-{number:05d}.parquet", batch_size=4)
    return folder


@pytest.fixture(scope="module")
def tar_shards(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tar")
    for number in range(3):
        with tarfile.open(folder / f"train-{number}.tar", "w") as archive:
            for row in rows.select(range(number, 40, 3)):
                for extension, data in (("mp3", Path(row["audio"]["path"]).read_bytes()), ("txt", row["text"].encode())):
                    member = tarfile.TarInfo(f"{row['id']}.{extension}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return folder


def consumed(output: Path, process: int) -> dict[int, list]:
    """Return the rows of each update; of one that was made twice, with the same rows."""
    updates = {}
    for line in (output / f"rows_{process}.jsonl").read_text().splitlines():
        update, processes, names = json.loads(line)
        updates.setdefault(update, (processes, names))
        assert updates[update] == (processes, names)
    return updates


def each_once(outputs: list[dict[int, list]], ids: list[str]) -> int:
    """Check that in every whole epoch each row comes once, over all processes; return how many whole epochs there are."""
    names = [[tuple(name) for _, names in updates.values() for name in names] for updates in outputs]
    whole = min(max(epoch for epoch, _ in one) for one in names)
    for epoch in range(whole):
        assert Counter(row for one in names for at, row in one if at == epoch) == Counter(ids)
    return whole


def test_killed_on_two_processes(rows, shards, tmp_path):
    quiet, broken = tmp_path / "quiet", tmp_path / "broken"
    together(train, 2, shards, quiet)
    past_a_checkpoint = broken / "past_1"
    assert together(train, 2, shards, broken, 0.3, after=past_a_checkpoint, send=signal.SIGKILL) == [-signal.SIGKILL] * 2
    assert (broken / "checkpoint-3" / "stream_state_1.json").exists()
    assert len((broken / "rows_0.jsonl").read_text().splitlines()) < 9
    assert not (broken / "checkpoint-9").exists()
    with pytest.raises(ValueError, match="made by 2 processes, this run has 1"):
        build(targets(shards), broken).train(str(broken / "checkpoint-3"))

    together(train, 2, shards, broken)
    undisturbed = [consumed(quiet, 0), consumed(quiet, 1)]
    assert {processes for updates in undisturbed for processes, _ in updates.values()} == {2}
    assert each_once(undisturbed, rows["id"]) >= 2
    assert [consumed(broken, 0), consumed(broken, 1)] == undisturbed
    states = [json.loads((broken / "checkpoint-3" / f"stream_state_{process}.json").read_text()) for process in (0, 1)]
    assert any(state["batches"] for state in states)  # inside a window
    assert all(state["position"]["rows"] or state["batches"] for state in states)  # inside an epoch
    assert weights(broken) == weights(quiet)


def train(shards: Path, output: Path, wait_seconds: float = 0.0) -> None:
    trainer = build(targets(shards), output, wait_seconds)
    assert trainer.args.world_size == 2
    trainer.train("newest")


def weights(output: Path, update: int = 12) -> bytes:
    return (output / f"checkpoint-{update}" / "model.safetensors").read_bytes()


def test_resumed_with_workers_or_without(rows, tar_shards, tmp_path):
    whole = build(targets(tar_shards), tmp_path / "whole")
    whole.train()
    assert each_once([consumed(tmp_path / "whole", 0)], rows["id"]) >= 1
    assert 1 < whole.state.log_history[-1]["epoch"] < 2
    state = json.loads((tmp_path / "whole" / "checkpoint-6" / "stream_state_0.json").read_text())
    assert state["batches"]  # inside a window
    assert state["position"]["shard"]  # that began inside a shard
    for workers in (0, 2):
        part = build(targets(tar_shards), tmp_path / f"part{workers}", dataloader_num_workers=workers)
        part.train(str(tmp_path / "whole" / "checkpoint-6"))
        found = consumed(tmp_path / f"part{workers}", 0)
        assert list(found) == [*range(7, 13)]
        assert found == {update: names for update, names in consumed(tmp_path / "whole", 0).items() if update > 6}
        assert weights(tmp_path / f"part{workers}") == weights(tmp_path / "whole")
        assert not any(thread.name == "hfasr-stream" for thread in threading.enumerate())
    assert part.args.ignore_data_skip is False

    stopped = build(targets(tar_shards), tmp_path / "stopped", dataloader_num_workers=1)
    stopped.add_callback(StopAt(5))
    with pytest.raises(SystemExit, match="143"):
        stopped.train()
    assert not any(thread.name == "hfasr-stream" for thread in threading.enumerate())
    build(targets(tar_shards), tmp_path / "stopped").train("newest")
    assert consumed(tmp_path / "stopped", 0) == consumed(tmp_path / "whole", 0)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    # a run that had ended has nothing more to do
    build(targets(tar_shards), tmp_path / "again").train(str(tmp_path / "whole" / "checkpoint-12"))
    assert not (tmp_path / "again" / "rows_0.jsonl").exists()

    (tmp_path / "whole" / "checkpoint-6" / "stream_state_0.json").unlink()
    with pytest.raises(ValueError, match="is of a run on a table; resume with the same corpus"):
        build(targets(tar_shards), tmp_path / "part").train(str(tmp_path / "whole" / "checkpoint-6"))
    with pytest.raises(ValueError, match="read with stream_window 13, this run has 8"):
        build(targets(tar_shards), tmp_path / "part", stream_window=8).train(str(tmp_path / "whole" / "checkpoint-9"))
    (tmp_path / "whole" / "checkpoint-9" / "stream_state_0.json").write_text('{"processes": 2}')
    assert damage(tmp_path / "whole" / "checkpoint-9") == "stream_state_1.json is missing"


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shards_and_table_hold_the_same_rows(rows, shards, processes):
    """7 processes share 5 files of more row groups; with 4 rows to a group, and 12 groups, they still have shards."""
    stop, found = threading.Event(), []
    for process in range(processes):
        reader, read = Shards(stream_rows(shards), 3, processes, process), []
        assert reader.share is None
        while reader.epoch < 3:
            epoch = reader.epoch
            read += [(epoch, row["id"]) for row in reader.read(6, stop)]
        found += read
        reader.close()
    for epoch in range(3):
        assert sorted(row for at, row in found if at == epoch) == sorted(rows["id"])
    assert len({tuple(row for at, row in found if at == epoch) for epoch in range(3)}) == 3  # in another order


def test_fewer_shards_than_processes(rows, tar_shards, caplog):
    found = []
    for process in range(4):
        reader = Shards(stream_rows(tar_shards), 0, 4, process)
        while reader.epoch == 0:
            found += [row["id"] for row in reader.read(6, threading.Event())]
    assert sorted(found) == sorted(rows["id"])
    assert "3 shards for 4 processes" in caplog.text


def test_rows_that_cannot_be_trained_on(rows, tmp_path):
    read = [{**row, "audio": {"bytes": Path(row["audio"]["path"]).read_bytes(), "path": row["id"]}} for row in rows.select(range(12))]
    read[1] |= {"audio": {"bytes": b"no audio", "path": "broken.flac"}, "duration": None}
    read[2]["text"] = "!"
    read[3]["text"] = read[3]["text"] * 40
    read[4]["duration"] = 99.0
    read[5]["audio"]["bytes"] = read[5]["audio"]["bytes"][:2000]  # a good header: only the collator finds it
    stream = add_stream_target(
        stream_rows(IterableDataset.from_generator(lambda: iter(read), features=rows.features)), Phonemizer("ky", word_bars=False)
    )
    trainer = build(stream, tmp_path, stream_window=5, max_steps=6)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    reasons = {line["id"]: line["reason"] for line in lines}
    assert len(lines) == len(reasons)  # each once in several epochs
    assert [read[n]["id"] in reasons for n in range(12)] == [False] + 5 * [True] + 6 * [False]
    assert "not audio that libsndfile can read" in reasons[read[1]["id"]]
    assert reasons[read[2]["id"]] == "the target is empty"
    assert "labels need" in reasons[read[3]["id"]]
    assert reasons[read[4]["id"]] == "lasts 99.0 s, more than max_batch_seconds 12"
    assert each_once([consumed(tmp_path, 0)], [read[n]["id"] for n in (0, *range(5, 12))]) >= 2


def test_what_a_stream_cannot_do(shards, tmp_path):
    stream = targets(shards)
    with pytest.raises(ValueError, match="give --max_steps"):
        build(stream, tmp_path, max_steps=-1)
    with pytest.raises(ValueError, match="batch_shapes is 8, but a stream does not tell the durations"):
        build(stream, tmp_path, batch_shapes=8)
    with pytest.raises(ValueError, match="save_strategy is 'epoch'"):
        build(stream, tmp_path, save_strategy="epoch")
    with pytest.raises(ValueError, match=r"shuffled by \.shuffle\(\)"):
        build(stream.shuffle(seed=0, buffer_size=10).filter(lambda row: True), tmp_path)
    with pytest.raises(ValueError, match="split by split_dataset_by_node"):
        build(split_dataset_by_node(stream, rank=0, world_size=2), tmp_path)
    with pytest.raises(ValueError, match="has no 'target', found id, audio"):
        NamingTrainer(None, CTCTrainingArguments(output_dir=str(tmp_path), max_steps=3, use_cpu=True), None, stream_rows(shards))
    with pytest.raises(TypeError, match="eval_dataset is a stream"):
        NamingTrainer(None, CTCTrainingArguments(output_dir=str(tmp_path), max_steps=3, use_cpu=True), None, stream, stream)


def test_what_fails_in_the_thread_is_told(shards, tmp_path):
    def read():
        yield from itertools.islice(targets(shards), 9)
        raise OSError("the disk is gone")

    stream = targets(shards)
    trainer = build(stream, tmp_path)
    trainer.train_dataset = IterableDataset.from_generator(read, features=stream.features)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.train()
    assert not any(thread.name == "hfasr-stream" for thread in threading.enumerate())

    trainer = build(stream, tmp_path, stream_window=3)
    trainer.train_dataset = stream.map(lambda row: {"target": ""}, features=stream.features)
    with pytest.raises(ValueError, match="none of 3. streamed rows, one after the other, can be trained on, for example: the target is em"):
        trainer.train()


def test_padding_of_real_durations(shared, tmp_path):
    seconds = np.array([float(line) for line in (shared / "bench" / "ky_durations.txt").read_text().split()])
    order = np.random.default_rng(0).permutation(len(seconds))
    model, processor = load_model("unispeech-tiny", build_tokenizer(["a b"]))

    def read():
        for place in order.tolist():
            yield {"id": str(place), "audio": {"bytes": None, "path": ""}, "duration": seconds[place], "target": "a b"}

    stream = IterableDataset.from_generator(read)
    for window, most in ((1024, 0.04), (2048, 0.03)):
        args = CTCTrainingArguments(
            output_dir=str(tmp_path), max_batch_seconds=160, stream_window=window, max_steps=600, use_cpu=True, report_to="none"
        )
        sampler = StreamBatchSampler(stream, model, processor, args, tmp_path / "quarantine.jsonl")
        batches = [[int(row["id"]) for row in batch] for batch in sampler if batch[0]["epoch"] == 0]
        assert sorted(itertools.chain(*batches)) == [*range(len(seconds))]
        padded = np.array([len(batch) * seconds[batch].max() for batch in batches])
        assert padded.max() <= 160 + 1e-9
        assert 1 - seconds.sum() / padded.sum() < most
