import gzip
import json
import logging
import time

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import SMALL
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import DefaultFlowCallback

from hfasr.corpora import common_voice
from hfasr.corpora.targets import add_target
from hfasr.models.load import encoder_of, load_model
from hfasr.models.speed.flops import count_flops, peak_flops
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training import meters, profiling
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.meters import SpeedMeter, seconds_per_input, summary_line, typical_seconds, will_log
from hfasr.training.trainer import CTCTrainer

FIGURES = {"audio_seconds_per_second", "padding", "data_wait", "flop_utilisation", "memory_gib", "blank_rate", "train_seconds", "grad_norm"}


@pytest.fixture(scope="module")
def corpus(toy_release):
    return add_target(common_voice(toy_release, splits=["train", "test"]), Phonemizer("ky", word_bars=False))


@pytest.fixture
def build(corpus, tmp_path):
    def make(base="unispeech-tiny", **changes):
        torch.manual_seed(0)
        tokenizer = build_tokenizer(corpus["train"]["target"])
        model, processor = load_model(base, tokenizer, config_overrides=SMALL if base == "unispeech-tiny" else None)
        arguments = {
            "max_batch_seconds": 20, "max_steps": 4, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True,
            "disable_tqdm": True, "dataloader_num_workers": 0,
        }  # fmt: skip
        args = CTCTrainingArguments(output_dir=str(tmp_path), **(arguments | changes))
        return CTCTrainer(model, args, processor, corpus["train"], corpus["test"])

    return make


def logs_of(trainer) -> list[dict]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(meters.time, "monotonic", lambda: self.now)

    def batches(self, *waits: float):
        for wait in waits:
            self.now += wait
            yield {}


def batch(seconds: list[float], width: float, labels: list[int] | None = None) -> dict:
    return {
        "input_values": torch.zeros(len(seconds), round(width * 16_000)),
        "input_lengths": np.array([round(one * 16_000) for one in seconds]),
        "label_lengths": np.array(labels or [1] * len(seconds)),
    }


@pytest.fixture(scope="module")
def model_and_processor():
    return load_model("unispeech-tiny", build_tokenizer(["a b c d"]), config_overrides=SMALL)


def meter_of(model_and_processor, gather=lambda sums: sums, **options) -> SpeedMeter:
    model, processor = model_and_processor
    meter = SpeedMeter(processor.feature_extractor)
    meter.prepare(model, torch.device("cpu"), gather, **options)
    return meter


def test_the_scalars_are_in_the_event_file_and_the_line_at_the_end_is_their_sum(build, tmp_path, caplog, monkeypatch):
    trainer = build(report_to="tensorboard", logging_steps=2)
    shapes = []
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: shapes.append((len(rows), (made := collate(rows))["input_values"].shape, rows)) or made
    monkeypatch.setattr(logging.getLogger("hfasr"), "propagate", True)  # whatever a recipe's test has set
    with caplog.at_level(logging.INFO, "hfasr"):
        trainer.train()

    events = EventAccumulator(str(next(tmp_path.glob("runs/*"))))
    events.Reload()
    written = {tag.removeprefix("train/"): events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert written.keys() >= FIGURES
    assert [event.step for event in written["audio_seconds_per_second"]] == [2, 4]
    for place, entry in enumerate(logs_of(trainer)):
        for name in FIGURES:
            assert written[name][place].value == pytest.approx(entry[name], rel=1e-5)
        assert 0 < entry["flop_utilisation"] < 1.5
        assert 0 < entry["data_wait"] < 1
        assert 0.05 < entry["memory_gib"] < 100

    known = {row["id"]: row["duration"] for row in trainer.train_dataset}
    shapes = shapes[:4]  # the loader has one batch in advance
    audio = sum(known[row["id"]] for _, _, rows in shapes for row in rows)
    padded = sum(count * shape[1] / 16_000 for count, shape, _ in shapes)
    assert trainer.speed["audio_seconds"] == pytest.approx(audio, abs=0.1)
    assert trainer.speed["padding"] == pytest.approx(1 - audio / padded, abs=1e-3)
    assert audio / trainer.speed["audio_seconds_per_second"] == pytest.approx(trainer.speed["seconds"], abs=0.06)  # to a tenth
    line = f"trained on {summary_line(trainer.speed)}"
    assert line in [record.getMessage() for record in caplog.records]


def test_loss_statistics_are_gathered_only_for_a_step_that_is_logged(build):
    trainer = build(max_steps=5, logging_steps=2, logging_first_step=True, gradient_accumulation_steps=2)
    seen, counted = [], []
    forward = trainer.model.lm_head.register_forward_hook(lambda module, inputs, logits: seen.append(logits.detach()))
    original = trainer.meter.count_blanks
    trainer.meter.count_blanks = lambda logits, frames, blank: counted.append((len(seen), frames)) or original(logits, frames, blank)
    trainer.train()
    forward.remove()
    assert [place for place, _ in counted] == [1, 2, 3, 4, 7, 8]  # the batches of updates 1, 2 and 4
    for entry, first in zip(logs_of(trainer), (0, 2, 4), strict=True):
        blanks = total = 0
        for place, frames in counted[first : first + 2]:
            for row, length in zip(seen[place - 1], frames.tolist(), strict=True):
                blanks += (row[:length].argmax(-1) == trainer.model.config.pad_token_id).sum().item()
                total += length
        assert entry["blank_rate"] == pytest.approx(blanks / total, abs=5e-5)


def test_waiting_for_data_is_seen_and_evaluation_and_saving_are_left_out(build):
    trainer = build(max_steps=2, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1)
    collate, score, save = trainer.data_collator, trainer.compute_metrics, trainer._save_rng_state
    slow = lambda function, seconds: lambda *args: time.sleep(seconds) or function(*args)
    # (what evaluation collates comes within the time that is left out)
    trainer.data_collator = slow(collate, 0.1)
    trainer.compute_metrics, trainer._save_rng_state = slow(score, 0.4), slow(save, 0.4)
    started = time.monotonic()
    trainer.train()
    elapsed = time.monotonic() - started
    assert trainer.speed["seconds"] < elapsed - 4 * 0.4 + 0.1
    assert trainer.speed["data_wait"] * (trainer.speed["seconds"] + 0.05) > 0.1  # the first at least is not made ahead


def test_the_figures_of_two_processes_are_added(model_and_processor, monkeypatch):
    clock = Clock(monkeypatch)
    other = torch.tensor([[30.0, 40.0, 12.0, 6.0, 1.2, 99.0, 5.0, 10.0]])  # audio, padded, time, wait, ideal, memory, blanks, frames
    meter = meter_of(model_and_processor, lambda sums: torch.cat([sums, other]))
    meter.on_train_begin(None, None, None)
    meter.on_epoch_begin(None, None, None)
    assert len(list(meter.waiting(clock.batches(1.0, 0.5)))) == 2
    meter.count([batch([2.0, 1.0], 2.0), batch([3.0, 1.0], 4.0, labels=[4, 0])])  # the last row could not be read
    logits = torch.eye(3)[torch.tensor([[0, 0, 1, 0], [2, 0, 0, 0]])]
    meter.count_blanks(logits, torch.tensor([4, 1]), 0)
    clock.now += 8.5
    with meter.paused():
        clock.now += 1000
    read = meter.read()
    assert read["audio_seconds_per_second"] == 3.0  # (6 + 30) / 12
    assert read["padding"] == round(1 - 36 / 52, 4)
    assert read["data_wait"] == round((1.5 + 6) / (10 + 12), 4)
    assert read["memory_gib"] == 99.0
    assert read["blank_rate"] == round((3 + 5) / (5 + 10), 4)
    again = meter.read()  # nothing since, here
    assert again["audio_seconds_per_second"] == 2.5
    assert again["blank_rate"] == 0.5
    total = meter.summary()
    assert (total["audio_seconds"], total["seconds"]) == (6 + 3 * 30, 3 * 12)


def test_the_utilisation_is_that_of_the_parts_that_are_trained(model_and_processor, monkeypatch):
    model, processor = model_and_processor
    durations = [2.0, 6.0]
    inputs = processor(np.zeros(5 * 16_000, np.float32), sampling_rate=16_000, return_tensors="pt")  # (4 + 36) / 8
    values = {"input_values": inputs["input_values"]}
    peak = peak_flops(torch.device("cpu"), torch.float32)
    meter = meter_of(model_and_processor, row_seconds=durations, frozen_start=encoder_of(model))
    clock = Clock(monkeypatch)
    for frozen in (None, encoder_of(model)):
        meter.on_train_begin(None, None, None)
        meter.on_epoch_begin(None, None, None)
        meter.count([batch([5.0] * 20_000, 0.001)], frozen=frozen is not None)
        clock.now += 1e-4
        found = meter.read()["flop_utilisation"]
        assert found == pytest.approx(20_000 * count_flops(model, values, frozen) / peak / 1e-4, rel=1e-3)


def test_a_model_that_cannot_be_counted_is_trained_without_that_figure(build, caplog, monkeypatch):
    trainer = build(max_steps=1)
    logging.getLogger("hfasr").propagate = True
    monkeypatch.setattr(meters, "count_flops", lambda *args: torch.empty(1, device="meta").item())
    trainer.train()
    assert any("cannot be counted" in record.message for record in caplog.records)
    assert FIGURES - logs_of(trainer)[0].keys() == {"flop_utilisation"}
    assert "flop_utilisation" not in trainer.speed


@pytest.mark.parametrize(
    "settings",
    [{"logging_steps": 3}, {"logging_steps": 4, "logging_first_step": True}, {"logging_strategy": "no"}, {"logging_strategy": "epoch"}],
)
def test_which_step_is_logged_is_known_before_it(settings, tmp_path):
    args = CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, gradient_accumulation_steps=2, **settings)
    state, flow, loader = TrainerState(max_steps=13, logging_steps=args.logging_steps), DefaultFlowCallback(), range(9)  # 5 an epoch
    for update in range(13):
        state.global_step = update
        expected = will_log(args, state, loader)
        state.global_step = update + 1
        control = flow.on_step_end(args, state, TrainerControl())
        if state.global_step in (5, 10, 13):
            control = flow.on_epoch_end(args, state, control)
        assert expected == control.should_log


@pytest.mark.parametrize("base", ["unispeech-tiny", "quartznet-small"])
def test_seconds_of_an_input(base):
    _, processor = load_model(base, build_tokenizer(["a b"]))
    assert seconds_per_input(processor.feature_extractor) == (1 / 16_000 if base == "unispeech-tiny" else 0.01)


def test_seconds_of_a_row_whose_second_costs_the_mean():
    cost = lambda seconds: 7 * seconds + 3 * seconds**2
    durations = np.array([1.0, 4.0, 9.5])
    typical = typical_seconds(durations)
    assert cost(typical) / typical == pytest.approx(cost(durations).sum() / durations.sum())
    assert typical_seconds(None) == 5.0


@pytest.mark.parametrize(("updates", "recorded"), [(13, [11, 12]), (1, [1])])
def test_the_trace_holds_the_updates(updates, recorded, build, tmp_path):
    build(max_steps=updates, profile=2, max_batch_seconds=6).train()
    trace = json.loads((tmp_path / "profile" / "trace_0.json").read_text())["traceEvents"]
    spans = {event["name"]: event for event in trace if event.get("cat") == "user_annotation" and event["name"].startswith("update ")}
    assert sorted(spans, key=lambda name: spans[name]["ts"]) == [f"update {update}" for update in recorded]
    for span in spans.values():  # each holds convolutions forth and back
        within = {event["name"] for event in trace if "dur" in event and span["ts"] <= event["ts"] <= span["ts"] + span["dur"]}
        assert {"aten::convolution", "aten::convolution_backward"} <= within
    table = (tmp_path / "profile" / "operators_0.txt").read_text()
    rows = [line for line in table.splitlines() if line.strip() and line.split()[0].startswith(("aten", "autograd", "Optimizer"))]
    assert 5 <= len(rows) <= 20
    assert "aten::" in table


def test_a_large_trace_is_compressed_and_a_broken_one_is_ended(build, tmp_path, monkeypatch):
    trainer = build(max_steps=1, profile=1, max_batch_seconds=6)
    step = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert not (tmp_path / "profile").exists()
    trainer.compute_loss = step
    monkeypatch.setattr(profiling, "_LARGE", 0)
    trainer.train()
    assert [path.name for path in sorted((tmp_path / "profile").iterdir())] == ["operators_0.txt", "trace_0.json.gz"]
    with gzip.open(tmp_path / "profile" / "trace_0.json.gz") as file:
        assert json.load(file)["traceEvents"]


def test_a_negative_number_of_updates_to_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match="profile is -1"):
        CTCTrainingArguments(output_dir=str(tmp_path), profile=-1)


def test_the_line_at_the_end():
    speed = {
        "audio_seconds": 7200.0, "seconds": 100.0, "audio_seconds_per_second": 3456.7, "data_wait": 0.012, "flop_utilisation": 0.421,
        "padding": 0.05, "memory_gib": 71.25, "graphs_compiled": 14, "updates_in_pieces": 0,
    }  # fmt: skip
    assert summary_line(speed) == (
        "2.00 h of audio in 100 s, 3,457 audio seconds per second, padding 5.0 %, waiting for data 1.2 %, FLOP utilisation 42.1 %, "
        "peak memory 71.25 GiB, 14 graphs compiled, 0 updates cut into pieces"
    )


@pytest.mark.gpu
def test_counting_a_batch_does_not_wait_for_the_gpu(model_and_processor):
    model, processor = model_and_processor
    meter = SpeedMeter(processor.feature_extractor)
    meter.prepare(model, torch.device("cuda"), lambda sums: sums)
    meter.on_train_begin(None, None, None)
    meter.on_epoch_begin(None, None, None)
    on_device = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in batch([1.0, 2.0], 2.0).items()}
    held = torch.empty(2**28, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for one in meter.waiting(iter([on_device])):
            meter.count([one])
        meter.count_blanks(torch.zeros(2, 5, 4, device="cuda"), torch.tensor([5, 2]), 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    read = meter.read()
    assert read["blank_rate"] == 1.0
    assert read["memory_gib"] >= held.nbytes / 2**30
