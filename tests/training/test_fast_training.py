"""What a training runs in, seen from CTCTrainer."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import SMALL, STILL
from transformers import TrainerCallback

from hfasr.corpora import common_voice
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.models.speed.attention import KEY_MASK_SDPA
from hfasr.models.speed.fast_training import FastTraining
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training import trainer as trainer_module
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.trainer import CTCTrainer


@pytest.fixture(scope="module")
def corpus(toy_release):
    corpus = add_target(common_voice(toy_release, splits=["train", "test"]), Phonemizer("ky", word_bars=False))
    return {name: rows.select(range(6)) for name, rows in corpus.items()}


def build(corpus, tmp_path, *callbacks, config=None, **changes):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(corpus["train"]["target"])
    model, processor = load_model("wav2vec2-tiny", tokenizer, config_overrides=SMALL | (config or {}))
    arguments = {
        "max_batch_seconds": 20, "max_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    args = CTCTrainingArguments(output_dir=str(tmp_path), **(arguments | changes))
    return CTCTrainer(model, args, processor, corpus["train"], corpus["test"], callbacks=list(callbacks))


class Watch(TrainerCallback):
    """Note what the model is in training, and fail there if told to."""

    def __init__(self, fails=False):
        self.seen, self.fails = [], fails

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen.append((model.config._attn_implementation, "_mask_hidden_states" in vars(model.wav2vec2)))
        if self.fails:
            raise RuntimeError("stop")


def test_training_is_fast_and_checkpoints_do_not_tell(corpus, tmp_path):
    watch = Watch()
    trainer = build(corpus, tmp_path, watch, save_strategy="steps", save_steps=1)
    trainer.train()
    assert watch.seen == [(KEY_MASK_SDPA, True)]
    assert trainer.model.config._attn_implementation == "sdpa"
    assert "_mask_hidden_states" not in vars(trainer.model.wav2vec2)
    trainer.save_model(tmp_path / "after")
    assert (tmp_path / "after" / "config.json").read_bytes() == (tmp_path / "checkpoint-1" / "config.json").read_bytes()
    weights = [load_file(tmp_path / folder / "model.safetensors") for folder in ("after", "checkpoint-1")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_model_is_put_back_after_an_error(corpus, tmp_path):
    trainer = build(corpus, tmp_path, Watch(fails=True))
    with pytest.raises(RuntimeError, match="stop"):
        trainer.train()
    assert trainer.model.config._attn_implementation == "sdpa"
    assert "_mask_hidden_states" not in vars(trainer.model.wav2vec2)


def test_an_unknown_mode_of_compiling_is_refused(tmp_path):
    with pytest.raises(ValueError, match="compile is 'on', expected one of auto, dynamic, static, off"):
        CTCTrainingArguments(output_dir=str(tmp_path), compile="on", use_cpu=True)


@pytest.mark.slow
def test_compiled_training_is_equal_in_value(corpus, tmp_path, monkeypatch):
    """Losses and evaluation of a few updates are the same, with gradient checkpointing and a trained feature encoder too."""
    monkeypatch.setattr(trainer_module, "FastTraining", partial(FastTraining, backend="aot_eager"))
    still = STILL | {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    logs = {}
    for mode in ("off", "dynamic"):
        changes = {"compile": mode, "max_steps": 3, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 1e-3}
        changes |= {"gradient_checkpointing": True, "freeze_feature_encoder": False}
        trainer = build(corpus, tmp_path / mode, config=still, **changes)
        trainer.train()
        logs[mode] = [
            value for entry in trainer.state.log_history for name, value in entry.items() if name in ("loss", "grad_norm", "eval_loss")
        ]
        assert (trainer.speed["graphs_compiled"] > 0) or mode == "off"
    assert len(logs["off"]) >= 7  # losses, gradient norms and one evaluation or more
    assert logs["dynamic"] == pytest.approx(logs["off"], rel=1e-4)
