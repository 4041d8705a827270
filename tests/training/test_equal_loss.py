"""How utterances are split over batches, accumulation steps and processes must not change loss and gradient."""

import pytest
import torch
from tiny_models import BLOCKS, SMALL, STILL
from together import together
from torch import nn
from transformers import TrainerCallback

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.trainer import CTCTrainer


class KeepGradient(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        model = getattr(model, "module", model)
        self.gradient = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def in_double(model: nn.Module, arguments: tuple, inputs: dict) -> tuple[tuple, dict]:
    return arguments, {name: value.double() if torch.is_floating_point(value) else value for name, value in inputs.items()}


def one_update(base: str, release: str, output: str, max_batch_seconds: float, accumulation: int) -> tuple[float, dict, int]:
    """Train one epoch as one update; return the logged loss, the gradient and the number of processes."""
    torch.manual_seed(0)
    rows = add_target(common_voice(release, splits=["train"]), Phonemizer("ky"))["train"]
    tokenizer = build_tokenizer(plain(rows)["target"])
    model, processor = load_model(base, tokenizer, config_overrides=SMALL | STILL if "quartznet" not in base else {"blocks": BLOCKS})
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval().train = lambda mode=True, module=module: module  # statistics of a batch depend on the batch
    # in float64, since in float32 rounding alone comes to 1e-5 on some CPUs
    model.double().register_forward_pre_hook(in_double, with_kwargs=True)
    args = CTCTrainingArguments(
        output_dir=output, max_batch_seconds=max_batch_seconds, gradient_accumulation_steps=accumulation, num_train_epochs=1,
        logging_steps=1, max_grad_norm=0.0, optim="sgd", learning_rate=0.0, save_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    keep = KeepGradient()
    trainer = CTCTrainer(model, args, processor, rows, callbacks=[keep])
    trainer.train()
    assert trainer.state.global_step == 1
    return trainer.state.log_history[0]["loss"], keep.gradient, trainer.accelerator.num_processes


def assert_equal(first: dict, second: dict):
    assert first.keys() == second.keys()
    distance = sum((first[name] - second[name]).norm() ** 2 for name in first) ** 0.5
    size = sum(first[name].norm() ** 2 for name in first) ** 0.5
    assert float(distance / size) < 1e-5


@pytest.mark.parametrize("base", ["unispeech-tiny", "quartznet-small"])
def test_one_batch_four_accumulated_and_two_processes(base, tmp_path):
    from hfasr.corpora import embedded

    release = str(embedded("ky", seed=2, utterances={"train": 8}))
    loss, gradient, _ = one_update(base, release, str(tmp_path / "one"), 1000, 1)
    loss_4, gradient_4, _ = one_update(base, release, str(tmp_path / "four"), 11, 4)
    assert loss_4 == pytest.approx(loss, rel=1e-5)
    assert_equal(gradient, gradient_4)

    (found, gradient_2), _ = together(update_of_two, 2, base, release, str(tmp_path / "two"))
    assert found["processes"] == 2
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert_equal(gradient, {name: torch.from_numpy(value) for name, value in gradient_2.items()})


def update_of_two(base: str, release: str, output: str) -> tuple[dict, dict]:
    loss, gradient, processes = one_update(base, release, output, 11, 2)
    return {"loss": loss, "processes": processes}, {name: value.numpy() for name, value in gradient.items()}
