"""Where a training step makes the host wait for the device.

A tensor on the device "meta" has no values: whatever asks for one (`.item()`, `nonzero`, a boolean index, a copy to the host) raises
an error, on any machine.
"""

import numpy as np
import pytest
import torch
from tiny_models import SMALL

from hfasr.models.load import load_model
from hfasr.models.speed.fast_training import FastTraining
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.trainer import CTCTrainer

MASKING = SMALL | {"layerdrop": 0.0, "mask_time_prob": 0.3, "mask_feature_prob": 0.3, "mask_feature_length": 4}


def loss_step(base: str, device: str, folder, lengths: list[int], **flags):
    """Return a function that makes a loss and its gradients on a device, and the model."""
    torch.manual_seed(0)
    model, processor = load_model(base, build_tokenizer(["a b c"]), config_overrides=MASKING if "tiny" in base else None)
    trainer = CTCTrainer(model, CTCTrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", **flags), processor)
    waveforms = [np.random.default_rng(n).standard_normal(length).astype(np.float32) for n, length in enumerate(lengths)]
    rows = [{"id": str(n), "audio": {"array": one, "sampling_rate": 16_000}, "labels": [1, 2, 3]} for n, one in enumerate(waveforms)]
    batch = {name: value.to(device) if torch.is_tensor(value) else value for name, value in trainer.data_collator(rows).items()}
    model.to(device).train()

    def step():
        trainer.compute_loss(model, batch, num_items_in_batch=torch.ones((), device=device)).backward()

    return step, model


@pytest.fixture
def ctc_on_the_host(monkeypatch):
    """Put in the place of the CTC kernel, which meta tensors lack, one that checks where its lengths are."""

    def stand_in(log_probs, targets, input_lengths, target_lengths, *how):
        assert input_lengths.device.type == target_lengths.device.type == "cpu"
        return log_probs.sum((0, 2))

    monkeypatch.setattr(torch, "ctc_loss", stand_in)


@pytest.mark.parametrize("lengths", [[16_000, 9_000], [16_000, 16_000]], ids=["padded", "of one length"])
@pytest.mark.parametrize(
    ("base", "flags"), [("unispeech-tiny", {}), ("wav2vec2-tiny", {}), ("quartznet-small", {}), ("unispeech-tiny", {"consistency": 0.2})]
)
def test_the_loss_and_its_gradient_ask_the_device_for_nothing(base, flags, lengths, tmp_path, ctc_on_the_host):
    step, model = loss_step(base, "meta", tmp_path, lengths, **flags)
    with FastTraining(model):
        step()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if parameter.requires_grad and "lm_head" in name)


def test_meta_tensors_show_a_wait(tmp_path, ctc_on_the_host):
    step, _ = loss_step("unispeech-tiny", "meta", tmp_path, [16_000, 9_000])
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):  # Transformers' own masks
        step()


@pytest.mark.gpu
def test_the_loss_step_on_a_gpu_waits_in_the_ctc_kernel_alone(tmp_path, ctc_on_the_host):
    # PyTorch's kernel copies the lengths to the device, and waits for that, in forward and in backward
    step, model = loss_step("unispeech-tiny", "cuda", tmp_path, [16_000, 9_000])
    with FastTraining(model):
        step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
