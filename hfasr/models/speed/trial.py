"""A trial: one training step on noise, to see whether it works, of which no trace stays.

Shapes: B utterances, S samples, F spectral frames, M bins.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel


def transformers_models(model: nn.Module) -> Iterator[PreTrainedModel]:
    """Yield the models of Transformers in a module, the outermost first."""
    return (module for module in model.modules() if isinstance(module, PreTrainedModel))


def try_out(model: nn.Module, autocast: torch.dtype | None = None, seconds: float = 1.0) -> None:
    """Run one forward and backward pass in training, and leave no trace: weights, gradients, statistics and random numbers stay.

    Args:
        model: of any family.
        autocast: as in training.
        seconds: audio of the batch; halved while it does not fit in memory.
    """
    device = next(model.parameters()).device
    with left_as_it_was(model):
        model.train()
        while True:
            try:
                with torch.autocast(device.type, autocast, enabled=autocast is not None):
                    logits = model(**trial_inputs(model, seconds)).logits
                logits.float().sum().backward()
                return
            except torch.OutOfMemoryError:
                if (seconds := seconds / 2) < 1:
                    raise
                logits = None
                model.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()


def trial_inputs(model: nn.Module, seconds: float = 1.0) -> dict[str, torch.Tensor]:
    """Return a batch of noise that the model's forward takes, of three rows or more of about 10 s at most, the last one padded.

    Args:
        model: of any family.
        seconds: audio in it, padding included.

    Returns:
        `input_values (B, S)` or `input_features (B, F, M)`, and `attention_mask` for models that take one in training.
    """
    owner = next(transformers_models(model))
    config, encoder = owner.config, getattr(owner.config, "encoder_config", owner.config)
    # sizes that are unlike each other and no multiples: a compiler takes equal sizes for one and the same
    rows = max(3, math.ceil(seconds / 10) | 1)
    if owner.main_input_name == "input_values":
        places, bins = int(16_000 * seconds / rows), ()
    elif hasattr(config, "feature_projection_input_dim"):  # w2v-BERT: Kaldi's frames in pairs
        places, bins = int(50 * seconds / rows), (config.feature_projection_input_dim,)
    elif config.model_type.startswith("granite_speech5"):  # with differences, in pairs
        places, bins = int(50 * seconds / rows), (4 * encoder.num_mel_bins,)
    else:
        places, bins = int(100 * seconds / rows), (encoder.num_mel_bins,)
    places |= 1
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    inputs = {owner.main_input_name: torch.randn(rows, places, *bins, device=device, dtype=dtype)}
    if getattr(config, "feat_extract_norm", "layer") != "group":  # those that were trained with a mask
        lengths = torch.full((rows, 1), places, device=device)
        lengths[-1] = places * 4 // 5
        inputs["attention_mask"] = torch.arange(places, device=device) < lengths
    return inputs


@contextlib.contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo at the end what training steps change: modes, gradients, statistics, random numbers. Weights are left to the caller."""
    device = next(model.parameters()).device
    training = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    # the modules' own, for a forward may put others in their place
    buffers = [
        (module._buffers, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield
    finally:
        for module, mode in training:
            module.training = mode
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for owned, name, buffer, value in buffers:
                owned[name] = buffer
                buffer.copy_(value)
