"""How much audio a batch may hold, measured by training steps on noise."""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hfasr.audio import SAMPLING_RATE
from hfasr.models.speed.fast_training import FastTraining
from hfasr.models.speed.trial import left_as_it_was
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.optimization import makes_own_groups

# An H200 is busy from about 800 s on; more only makes updates fewer (the largest published one is 1,600 s, of fairseq).
MOST_SECONDS = 3200.0
# For what the probe does not see: buffers of NCCL, evaluation, gaps between blocks that tensors of other sizes leave.
MARGIN = 0.1
# Two float32 moments: of Adam, and taken for optimisers that cannot be tried on a tensor by itself.
_TWO_MOMENTS = 8.0


class Memory(Protocol):
    """What a budget is measured by, in bytes."""

    def reset_peak(self) -> None:
        """Begin a measurement."""

    def peak_bytes(self) -> int:
        """Return the most that was held since the beginning of the measurement."""

    def total_bytes(self) -> int:
        """Return what this process may hold."""


class CudaMemory:
    """The memory of a GPU, without what other processes hold of it."""

    def __init__(self, device: torch.device):
        self.device = device

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def total_bytes(self) -> int:
        return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device's memory is full; libraries of CUDA say so in words of their own."""
    words = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def free_memory() -> None:
    """Give the device back what nothing holds; to be called outside the except block, whose error holds the activations."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def find_budget(
    run: Callable[[float], None],
    memory: Memory,
    longest_seconds: float,
    *,
    reserved_bytes: float = 0.0,
    most_seconds: float = MOST_SECONDS,
) -> float:
    """Measure how many padded seconds fit, with a margin of a tenth of the memory.

    The peak of ever more rows is measured, twice as many each time; once two are known the line through the last two (what
    is held anyway, and so many bytes a second) tells how far it is to the end. Every answer was run: it is a measurement that
    fitted. An error for want of memory takes the middle between what fitted and what did not.

    Args:
        run: Takes padded seconds, and does forward and backward of a batch of them in the longest rows; it leaves the gradients.
        memory: Of the device.
        longest_seconds: Of a row; at least this is tried.
        reserved_bytes: What training will hold and `run` does not, such as the state of the optimiser.
        most_seconds: Where to stop looking.

    Returns:
        Whole seconds, or `longest_seconds`.

    Raises:
        ValueError: Not even one row fits.
    """
    total = memory.total_bytes()
    usable = (1 - MARGIN) * total - reserved_bytes
    _peak(run, memory, longest_seconds)  # makes the gradients, the workspaces of libraries, and compiled code
    fitted, beyond, seconds = [], None, longest_seconds
    for _ in range(16):
        peak = _peak(run, memory, seconds)
        if peak <= usable:
            fitted.append((seconds, peak))
        elif not fitted:
            raise ValueError(
                f"not even one row of {longest_seconds:g} s fits the {total / 2**30:.1f} GiB of the device, {reserved_bytes / 2**30:.1f} "
                "of which the optimizer takes; filter with a smaller max_seconds, or give --gradient_checkpointing or a smaller model"
            )
        else:
            beyond = (seconds, peak)
        seconds = _next(fitted, beyond, usable, most_seconds)
        if seconds <= 1.02 * fitted[-1][0]:
            break
    return max(float(math.floor(fitted[-1][0])), longest_seconds)


def _peak(run: Callable[[float], None], memory: Memory, seconds: float) -> float:
    """Return the peak in bytes, infinite when the memory was not enough."""
    memory.reset_peak()
    try:
        run(seconds)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    else:
        return memory.peak_bytes()
    free_memory()
    return math.inf


def _next(fitted: list[tuple[float, float]], beyond: tuple[float, float] | None, usable: float, most_seconds: float) -> float:
    last, peak = fitted[-1]
    if beyond is not None and beyond[1] == math.inf:
        return (last + beyond[0]) / 2
    other = beyond or (fitted[-2] if len(fitted) > 1 else None)
    reach = math.inf
    if other is not None and (slope := (other[1] - peak) / (other[0] - last)) > 0:
        reach = last + 0.98 * (usable - peak) / slope  # a little less, so that noise does not cost another run
    return min(2 * last, reach, most_seconds)


def measure_budget(
    model: PreTrainedModel,
    args: CTCTrainingArguments,
    loss: Callable[[PreTrainedModel, dict], torch.Tensor],
    collator: Callable[[list[dict]], dict],
    *,
    longest_seconds: float,
    labels: int,
    reserved_bytes: float,
    memory: Memory,
) -> float:
    """Return the padded seconds that a training step of a model holds, all views of the rows counted.

    Args:
        model: As it will be trained.
        args: The run's numbers.
        loss: Of a batch on the device.
        collator: Makes batches of rows.
        longest_seconds: Of a row.
        labels: Of a row of that length.
        reserved_bytes: What training will hold beside weights, gradients and activations.
        memory: Of the device.
    """
    symbols = [symbol for symbol in range(model.config.vocab_size) if symbol != model.config.pad_token_id][:2]

    def run(seconds: float) -> None:
        batch = probe_batch(collator, seconds, longest_seconds, (symbols * labels)[:labels], args.device)
        with torch.autocast(args.device.type, args.half, enabled=args.half is not None):
            value = loss(model, batch)
        value.backward()

    with borrowed(model, args):
        return args.views * find_budget(run, memory, longest_seconds, reserved_bytes=reserved_bytes, most_seconds=MOST_SECONDS / args.views)


def probe_batch(
    collator: Callable[[list[dict]], dict], seconds: float, longest_seconds: float, labels: list[int], device: torch.device
) -> dict:
    """Return a batch of noise on the device, of so many padded seconds in the fewest rows.

    Args:
        collator: Makes batches of rows.
        seconds: Rows x length.
        longest_seconds: Of a row.
        labels: Of a row of that length; a shorter one has fewer.
        device: Where the model is.
    """
    rows = math.ceil(seconds / longest_seconds - 1e-9)
    length = round(seconds / rows * SAMPLING_RATE)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, length).astype(np.float32)
    ids = labels[: max(1, int(len(labels) * seconds / rows / longest_seconds))]
    # the last row is shorter, since a batch without padding spares the mask and what it costs
    some = collator([{"id": "", "audio": audio, "labels": ids} for audio in (noise, noise[: int(0.9 * length)])])
    places = [0] * (rows - 1) + [1] if rows > 1 else [0]
    return {
        name: value.to(device)[torch.tensor(places, device=device)] if isinstance(value, torch.Tensor) else value[places]
        for name, value in some.items()
    }


@contextmanager
def borrowed(model: PreTrainedModel, args: CTCTrainingArguments) -> Iterator[None]:
    """Put a model on the device and in training as `args` has it, though not compiled, which takes less memory; undo it in the end."""
    before = next(model.parameters()).device
    renamed = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # from Transformers 5.23 on
    checkpointing = args.gradient_checkpointing and not getattr(model, f"is_{renamed}_checkpointing")
    try:
        if checkpointing:
            settings = dict(args.gradient_checkpointing_kwargs or {})
            every = {name: settings.pop(name) for name in ("every_n_layers", "offload") if name in settings}
            getattr(model, f"{renamed}_checkpointing_enable")(settings or None, **every)
        with left_as_it_was(model.to(args.device)), FastTraining(model):
            model.train()
            yield
    finally:
        model.to(before)
        if checkpointing:
            getattr(model, f"{renamed}_checkpointing_disable")()
        free_memory()


def optimizer_bytes(optimizer_class: type, settings: dict, device: torch.device) -> float:
    """Return the bytes that an optimiser keeps for each trained number, found by a step on a small tensor."""
    if makes_own_groups(optimizer_class, settings) or not issubclass(optimizer_class, torch.optim.Optimizer):
        return _TWO_MOMENTS
    weight = nn.Parameter(torch.zeros(256, 256, device=device))
    weight.grad = torch.ones_like(weight)
    optimizer = optimizer_class([weight], **settings)
    optimizer.step()
    held = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(value.numel() * value.element_size() for value in held) / weight.numel()


def held_bytes(model: PreTrainedModel, args: CTCTrainingArguments, optimizer: tuple[type, dict]) -> float:
    """Return what training holds beside weights, gradients and activations: optimiser, moving average, the buckets of DDP.

    Args:
        model: Its trained parameters count.
        args: The run's numbers.
        optimizer: Class and settings.
    """
    each = optimizer_bytes(*optimizer, args.device) + (4 if args.ema_decay else 0) + (4 if args.world_size > 1 else 0)
    return each * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
