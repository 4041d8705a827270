import json
import math
import signal

import pytest
import torch
from transformers import TrainerControl, TrainerState

from hfasr.corpora import common_voice
from hfasr.corpora.rows import decoded, plain, with_column
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.fitting import drop_unfit, labelled
from hfasr.training.callbacks import StopOnSignal, WatchLoss
from hfasr.training.optimization import tri_stage_scale
from hfasr.training.trainer import CTCTrainer


@pytest.fixture(scope="module")
def corpus(toy_release):
    return add_target(common_voice(toy_release, splits=["train", "test"]), Phonemizer("ky", word_bars=False))


def build(corpus, tmp_path, base="wav2vec2-tiny", **changes):
    torch.manual_seed(0)
    model, processor = load_model(base, build_tokenizer(corpus["train"]["target"]))
    arguments = {
        "max_batch_seconds": 20, "max_steps": 3, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True,
        "disable_tqdm": True, "learning_rate": 1e-3,
    }  # fmt: skip
    args = CTCTrainingArguments(output_dir=str(tmp_path), **(arguments | changes))
    return CTCTrainer(model, args, processor, corpus["train"], corpus["test"])


def test_an_update_without_labels_is_zero_and_not_nan(corpus, tmp_path):
    trainer = build(corpus, tmp_path)
    batch = trainer.data_collator([])
    loss = trainer.training_step(trainer.model, batch, trainer._get_num_items_in_batch([batch], trainer.args.device))
    assert float(loss) == 0.0
    assert all(parameter.grad.isfinite().all() for parameter in trainer.model.parameters() if parameter.grad is not None)


def test_an_all_blank_model_yields_empty_text(corpus, tmp_path):
    trainer = build(corpus, tmp_path)
    trainer.model.lm_head.weight.data.zero_()
    trainer.model.lm_head.bias.data[:] = torch.tensor([9.0] + [0.0] * (len(trainer.model.lm_head.bias) - 1))
    assert trainer.evaluate()["eval_per"] == 1.0
    assert trainer.transcribe(corpus["test"]) == [""] * len(corpus["test"])


def test_a_row_with_a_character_without_a_symbol_has_no_loss(corpus, tmp_path):
    trainer = build(corpus, tmp_path)
    batch = trainer.data_collator([{**row, "labels": [1, 2, 3]} for row in plain(corpus["test"]).select(range(2))])
    trainer.model.eval()
    alone, _, _ = trainer.prediction_step(trainer.model, {**batch, "labels": torch.tensor([[1, 2, 3], [-100, -100, -100]])}, False)
    loss, _, labels = trainer.prediction_step(trainer.model, {**batch, "labels": torch.tensor([[1, 2, 3], [1, 0, 3]])}, False)
    assert float(loss) == float(alone) > 0
    assert labels.tolist() == [[1, 2, 3], [1, 0, 3]]


def test_transcripts_come_in_the_order_of_the_rows(corpus, tmp_path):
    trainer = build(corpus, tmp_path, base="quartznet-small", max_steps=1)
    trainer.model.eval()
    together = trainer.transcribe(corpus["test"])
    for number, row in enumerate(corpus["test"]):
        inputs = trainer.processing_class(row["audio"]["array"], sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            ids = trainer.model(**inputs).logits.argmax(-1)
        assert together[number] == trainer.processing_class.batch_decode(ids)[0]


def test_a_frozen_start_trains_the_head_alone(corpus, tmp_path):
    for updates, moves in ((3, False), (2, True)):
        trainer = build(corpus, tmp_path, freeze_encoder_updates=updates)
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
        changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
        assert {"lm_head.weight", "lm_head.bias"} <= changed
        assert any(".encoder." in name for name in changed) == moves
        assert not any(".feature_extractor." in name for name in changed)


def test_the_log_tells_the_blank_rate(corpus, tmp_path):
    trainer = build(corpus, tmp_path)
    trainer.train()
    rates = [entry["blank_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(rates) == 3
    assert all(0 <= rate <= 1 for rate in rates)


def test_seconds_of_training_add_up_over_a_resume(corpus, tmp_path):
    trainer = build(corpus, tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    state = tmp_path / "checkpoint-2" / "trainer_state.json"
    content = json.loads(state.read_text())
    content["log_history"][-1]["train_seconds"] = 1000.0
    state.write_text(json.dumps(content))
    resumed = build(corpus, tmp_path)
    resumed.train(str(tmp_path / "checkpoint-2"))
    assert 1000 < resumed.train_seconds < 1100


def test_a_finished_run_trains_no_more_and_no_other_run_goes_on_from_it(corpus, tmp_path):
    steps = {"base": "quartznet-small", "save_strategy": "steps", "save_steps": 2, "max_steps": 2}  # in mid-epoch
    finished = build(corpus, tmp_path, **steps)
    finished.train()
    saved = {name: weight.clone() for name, weight in finished.model.state_dict().items()}
    again = build(corpus, tmp_path, **steps)
    again.train("newest")
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert all(torch.equal(weight, saved[name]) for name, weight in again.model.state_dict().items())
    folder = str(tmp_path / "checkpoint-2")
    for changes, difference in (({"ema_decay": 0.9}, "ema_decay 0.0"), ({"layer_decay": 0.5}, "layer_decay 1.0")):
        with pytest.raises(ValueError, match=f"is of a run with {difference}"):
            build(corpus, tmp_path, **steps, **changes).train(folder)
    with pytest.raises(ValueError, match="is of a run with training rows"):
        build({"train": corpus["train"].select(range(20)), "test": corpus["test"]}, tmp_path, **steps).train(folder)


def test_rows_that_do_not_fit_are_dropped_and_listed(corpus, tmp_path):
    trainer = build(corpus, tmp_path)
    rows = plain(corpus["train"]).select(range(5))
    targets = [rows[0]["target"], "", "n " * 999, rows[3]["target"], rows[4]["target"]]
    trainer = CTCTrainer(
        trainer.model, trainer.args, trainer.processing_class, decoded(with_column(rows, "target", targets, rows.features["target"]))
    )
    assert [item["id"] for item in trainer.dropped] == rows["id"][1:3]
    assert trainer.dropped[0]["reason"] == "the target is empty"
    assert "999 labels need 1997 frames" in trainer.dropped[1]["reason"]
    assert len(trainer.train_dataset) == 3
    with pytest.raises(ValueError, match="none of the 1 training rows"):
        drop_unfit(
            *labelled(with_column(rows.select([1]), "target", [""], rows.features["target"]), trainer.processing_class.tokenizer),
            trainer.model,
            trainer.processing_class,
        )


def test_tri_stage_is_fairseqs():
    """Values of fairseq's tri_stage_lr_scheduler for 20,000 updates, phases 0.1, 0.4, 0.5, scales 0.01 and 0.05."""
    scale = lambda update: tri_stage_scale(update, updates=20_000, shares=[0.1, 0.4, 0.5], final=0.05)
    assert scale(0) == pytest.approx(0.01)
    assert scale(1_000) == pytest.approx(0.505)
    assert scale(2_000) == scale(9_999) == 1.0
    assert scale(15_000) == pytest.approx(0.05**0.5)
    assert scale(20_000) == pytest.approx(0.05)


def test_a_signal_after_the_last_step_changes_no_common_decision_and_is_sent_on(tmp_path):
    stop, args, state = StopOnSignal(), CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True), TrainerState()
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        stop.on_train_begin(args, state, TrainerControl())
        stop.on_step_end(args, state, TrainerControl())
        signal.raise_signal(signal.SIGTERM)
        control = TrainerControl(should_evaluate=True)
        stop.on_epoch_end(args, state, control)
        assert control.should_evaluate
        assert not control.should_training_stop
        stop.restore()
        assert seen == [signal.SIGTERM]
        stop.on_train_begin(args, state, TrainerControl())  # another training of the same trainer, as in a notebook
        stop.on_step_end(args, state, control)
        assert not control.should_training_stop
        stop.restore()
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_loss_that_stays_nan_ends_training(tmp_path):
    watch, args, state = WatchLoss(), CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True), TrainerState()
    watch.on_log(args, state, TrainerControl(), {"loss": math.nan})
    watch.on_log(args, state, TrainerControl(), {"loss": 1.0})
    for _ in range(2):
        watch.on_log(args, state, TrainerControl(), {"loss": math.nan})
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        watch.on_log(args, state, TrainerControl(), {"loss": math.nan})


def test_phonemes_of_another_espeak_version_are_not_mixed_in(tmp_path):
    made = {"voice": "ky", "espeak_version": "1.51"}
    model, processor = load_model("wav2vec2-tiny", build_tokenizer(["a b"], record=made))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"espeak_version '1\.51'"):
        load_model(tmp_path, build_tokenizer(["a b c"], record=made | {"espeak_version": "1.52.0"}))
    transferred, _ = load_model(tmp_path, build_tokenizer(["a b c"], record={"voice": "kk", "espeak_version": "1.52.0"}))
    assert transferred.config.kept_symbols == ["<unk>", "a", "b"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_batch_seconds": 0}, "max_batch_seconds is 0"),
        ({"tri_stage": [0.5, 0.5]}, "three shares"),
        ({"tri_stage": [0.1, 0.4, 0.5], "tri_stage_final_scale": 0}, "tri_stage_final_scale is 0"),
        ({"freeze_encoder_updates": -1}, "freeze_encoder_updates is -1"),
        ({"early_stopping_patience": 2}, "load_best_model_at_end"),
        ({"per_device_train_batch_size": 3}, "max_batch_seconds"),
        ({"torch_compile": True}, "torch_compile is True, which CTCTrainer would not follow; .*--compile"),
        ({"dataloader_num_workers": -1}, "dataloader_num_workers is -1; give a number of processes"),
        ({"model_config": "layerdrop=0"}, "JSON object"),
    ],
)
def test_wrong_arguments(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **values)
