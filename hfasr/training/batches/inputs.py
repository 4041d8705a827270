"""A batch on the device -> the arguments of a model's forward."""

import inspect
from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from hfasr.models.speed.padding import to_device

# What a batch holds beside the inputs of the model.
LABELS, INPUT_LENGTHS, LABEL_LENGTHS = "labels", "input_lengths", "label_lengths"


def takes_mask(model: PreTrainedModel, feature_extractor) -> bool:
    """Tell whether a model wants to know where rows are padded; group-norm models such as wav2vec2-base were trained without."""
    wanted = getattr(feature_extractor, "return_attention_mask", True)
    return bool(wanted) and "attention_mask" in inspect.signature(model.forward).parameters


def model_inputs(batch: Mapping, *, masked: bool) -> dict[str, torch.Tensor]:
    """Return what the forward takes: `input_values (B, S)` or `input_features (B, F, M)`, and `attention_mask`.

    Args:
        batch: From the collator, its tensors on the model's device.
        masked: Whether the model takes a mask. It gets one, bool `(B, S)` or `(B, F)`, made on the device, where a row is
            padded; a batch without padding goes without, which is equal in value and spares every layer the mask.
    """
    inputs = {name: value for name, value in batch.items() if name not in (LABELS, INPUT_LENGTHS, LABEL_LENGTHS)}
    if masked and is_padded(batch):
        tensor = input_of(batch)
        lengths = to_device(batch[INPUT_LENGTHS], tensor.device)
        inputs["attention_mask"] = torch.arange(tensor.shape[1], device=tensor.device) < lengths[:, None]
    return inputs


def input_of(batch: Mapping) -> torch.Tensor:
    """Return the tensor of audio of a batch: `input_values (B, S)` or `input_features (B, F, M)`."""
    return batch["input_values"] if "input_values" in batch else batch["input_features"]


def is_padded(batch: Mapping) -> bool:
    """Tell whether some row of a batch is shorter than the batch is wide."""
    return int(batch[INPUT_LENGTHS].min()) < input_of(batch).shape[1]
