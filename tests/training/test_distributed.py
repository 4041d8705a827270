"""What several processes do together, on the CPU: real ones, connected by gloo."""

import os
import time
from datetime import timedelta
from unittest import mock

import torch
from tiny_models import SMALL
from together import together
from torch import distributed

from hfasr.corpora import common_voice
from hfasr.corpora.check import check_audio
from hfasr.corpora.rows import plain
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.processes import wait_for_others
from hfasr.training.trainer import CTCTrainer

RUN = {
    "max_batch_seconds": 12, "learning_rate": 1e-2, "report_to": "tensorboard", "disable_tqdm": True, "logging_steps": 1,
    "freeze_encoder_updates": 1, "gradient_checkpointing": True, "max_steps": 4, "save_steps": 4, "eval_strategy": "steps", "eval_steps": 4,
    "per_device_eval_batch_size": 2,
}  # fmt: skip


def build(corpus, output, train_rows: int, test_rows: int, **changes) -> CTCTrainer:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(corpus["train"]["target"])
    model, processor = load_model("unispeech-tiny", tokenizer, config_overrides=SMALL | {"layerdrop": 0.5, "num_hidden_layers": 4})
    args = CTCTrainingArguments(output_dir=str(output), use_cpu=True, **(RUN | changes))
    return CTCTrainer(model, args, processor, corpus["train"].select(range(train_rows)), corpus["test"].select(range(test_rows)))


def late_process() -> tuple[bool, bool]:
    """Wait for one that is later than devices allow, first on the host, then by the devices' own means."""
    distributed.init_process_group("gloo", timeout=timedelta(seconds=1))
    rank = distributed.get_rank()
    wait_for_others()
    time.sleep(2 * (rank == 0))
    wait_for_others()
    number = torch.tensor(rank)
    distributed.all_reduce(number)
    time.sleep(2 * (rank == 0))
    try:
        distributed.all_reduce(torch.tensor(rank))
    except RuntimeError:
        broken = True
    else:
        broken = False
    distributed.destroy_process_group()
    return int(number) == 1, broken


def test_a_late_process_is_waited_for():
    (met, _), (met_too, timed_out) = together(late_process, 2)
    assert met
    assert met_too
    assert timed_out, "the same lateness must be too late for a collective, or this test shows nothing"


def check_and_train(release: str, output: str, checked: str) -> dict:
    corpus = common_voice(release, splits=["train", "test"])
    _count_decoding(checked)
    with mock.patch.dict(os.environ, HFASR_CACHE=f"{checked}-cache"):  # other tests may have checked these clips
        corpus, _ = check_audio(corpus, num_workers=0)
    corpus = plain(add_target(corpus, Phonemizer("ky", word_bars=False)))
    trainer = build(corpus, output, train_rows=24, test_rows=5)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    weights = trainer.model.state_dict()
    # fewer rows than processes: one of them trains on batches of nothing
    few = build(corpus, f"{output}-few", train_rows=1, test_rows=1, num_train_epochs=2, max_steps=-1, save_strategy="no")
    few.train()
    return {
        "weights": {name: value.numpy() for name, value in weights.items()},
        "moved": {name for name, value in weights.items() if not torch.equal(value, before[name])},
        "logs": trainer.state.log_history,
        "predictions": trainer.transcribe(corpus["test"].select(range(5))),
        "few": few.state.log_history,
        "few_weights": {name: value.numpy() for name, value in few.model.state_dict().items()},
        "few_updates": few.state.global_step,
        "means": statistics_in_evaluation(corpus["test"].select(range(2)), output),
    }


def _count_decoding(file: str) -> None:
    from hfasr.corpora import check

    decode = check.try_audio

    def counted(audio):
        with open(file, "a") as opened:
            opened.write(f"{audio['path']}\n")
        return decode(audio)

    check.try_audio = counted


def test_two_processes_check_train_and_evaluate_as_one(toy_release, tmp_path):
    output, checked = tmp_path / "run", tmp_path / "checked"
    first, second = together(check_and_train, 2, str(toy_release), str(output), str(checked))

    # each clip is decoded once for all processes
    paths = checked.read_text().split("\n")[:-1]
    assert len(paths) == len(set(paths)) == 24 + 6

    # LayerDrop, a frozen feature encoder, a frozen start and gradient checkpointing, under DDP
    assert all((first["weights"][name] == second["weights"][name]).all() for name in first["weights"])
    assert {name.split(".")[1] for name in first["moved"]} >= {"encoder", "feature_projection"}
    assert not any("feature_extractor" in name for name in first["moved"])
    losses = [entry["loss"] for entry in first["logs"] if "loss" in entry]
    assert len(losses) == 4
    assert losses[-1] < losses[0]

    # evaluation of an odd number of rows, 2 a batch, gives what one process finds
    (alone,) = together(evaluate_alone, 1, str(toy_release), str(output))
    found = next(entry for entry in first["logs"] if "eval_per" in entry)
    assert found["eval_per"] == alone["eval_per"]
    assert found["eval_per"] == next(entry["eval_per"] for entry in second["logs"] if "eval_per" in entry)
    assert first["predictions"] == second["predictions"] == alone["predictions"]

    # also where batch norms hold statistics: those of the first process, which are saved
    assert first["means"] == second["means"] == {1.0}

    # written once
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-4"]
    assert len(list(output.rglob("events.out.tfevents.*"))) == 1
    assert sorted(path.name for path in (output / "checkpoint-4").glob("rng_state*")) == ["rng_state_0.pth", "rng_state_1.pth"]

    assert first["few_updates"] == 2
    assert all((first["few_weights"][name] == second["few_weights"][name]).all() for name in first["few_weights"])
    assert all(entry["loss"] > 0 for entry in first["few"] if "loss" in entry)


def evaluate_alone(release: str, output: str) -> dict:
    corpus = plain(add_target(common_voice(release, splits=["train", "test"]), Phonemizer("ky", word_bars=False)))
    trainer = build(corpus, f"{output}-alone", train_rows=24, test_rows=5, report_to="none")
    trainer.model.load_state_dict(type(trainer.model).from_pretrained(f"{output}/checkpoint-4").state_dict())
    return {**trainer.evaluate(), "predictions": trainer.transcribe(corpus["test"].select(range(5)))}


def statistics_in_evaluation(rows, output: str) -> set[float]:
    """Return the running means that a process evaluates with, after training has left each with its own."""
    model, processor = load_model("quartznet-small", build_tokenizer(rows["target"]))
    args = CTCTrainingArguments(output_dir=output, use_cpu=True, report_to="none", disable_tqdm=True)
    trainer = CTCTrainer(model, args, processor, eval_dataset=rows)
    means = [buffer for name, buffer in model.named_buffers() if name.endswith("running_mean")]
    for mean in means:
        mean.fill_(1.0 + args.process_index)
    trainer.evaluate()
    return {value for mean in means for value in mean.tolist()}
