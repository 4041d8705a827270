"""Averages of the weights: a moving one while training goes on, and the mean of the last checkpoints."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from hfasr.training.checkpoints import damage, numbered_checkpoints, write_weights

logger = logging.getLogger(__name__)

AVERAGE_FILE = "average.safetensors"


class MovingAverage(TrainerCallback):
    """Keep a moving average of what training changes: the trained parameters, and the buffers such as batch norm's statistics.

    After update n, counted from 0, the average a of weights w becomes d a + (1 - d) w with d = min(decay, (1 + n) / (10 + n)), so
    that the random start is soon forgotten (TensorFlow's ExponentialMovingAverage with `num_updates`). It is float32 or better,
    on the model's device, and moved on without a word from the device; every process keeps its own, of equal weights.

    Args:
        decay: From 0 to below 1.
        start_from: Checkpoint to go on from; None starts from the model's weights. `CTCTrainer.train` sets it.
    """

    def __init__(self, decay: float, start_from: str | os.PathLike | None = None):
        self.decay, self.start_from = decay, start_from
        self._weights: dict[str, torch.Tensor] = {}
        self._average: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._weights = changed_by_training(model)
        self._average = {
            name: weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True) for name, weight in self._weights.items()
        }
        if self.start_from is not None:
            self._read(self.start_from, self._average)

    @torch.no_grad()
    def on_optimizer_step(self, args, state, control, **kwargs):
        weights = [self._weights[name].to(average.dtype) for name, average in self._average.items()]
        torch._foreach_lerp_(list(self._average.values()), weights, 1 - self.decay_at(state.global_step))

    def decay_at(self, update: int) -> float:
        """Return the decay after an update, counted from 0."""
        return min(self.decay, (1 + update) / (10 + update))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model for as long as the block lasts; before and after training do nothing."""
        # copies, and not one's memory in the place of the other's: compiled code and DDP know the weights by their memory
        before = {name: weight.detach().clone() for name, weight in self._weights.items()}
        _copy(self._average, self._weights)
        try:
            yield
        finally:
            _copy(before, self._weights)

    def save(self, folder: str | os.PathLike) -> None:
        """Write the average into a checkpoint folder, which is made if need be."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_weights(Path(folder, AVERAGE_FILE), self._average)

    def keep(self, folder: str | os.PathLike | None = None) -> None:
        """End: leave the average in the model, that of a checkpoint or, with None, of now."""
        if folder is not None:
            self._read(folder, self._average)
        _copy(self._average, self._weights)
        self._weights, self._average = {}, {}

    @staticmethod
    def _read(folder: str | os.PathLike, average: dict[str, torch.Tensor]) -> None:
        path = Path(folder, AVERAGE_FILE)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the run that made this checkpoint had no ema_decay")
        saved = load_file(path)
        if saved.keys() != average.keys():
            differ = sorted(saved.keys() ^ average.keys())
            raise ValueError(f"{path} is of a run that trained other parameters: {len(differ)} differ, such as {differ[0]}")
        _copy(saved, average)


def changed_by_training(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return by name the parameters that are trained and the floating-point buffers that a checkpoint holds."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    saved = model.state_dict(keep_vars=True).keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved and buffer.is_floating_point()}
    return trained | buffers


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


def load_mean(model: nn.Module, output_dir: str | os.PathLike, count: int, update: int) -> list[Path]:
    """Give a model the mean of the weights of a run's last checkpoints.

    Args:
        model: That was trained.
        output_dir: The run's folder.
        count: How many checkpoints, at most.
        update: The run's last; checkpoints of later ones are another's.

    Returns:
        The checkpoint folders, oldest first.

    Raises:
        FileNotFoundError: There is no whole checkpoint.
        ValueError: A checkpoint holds other weights than the model.
    """
    folders = last_checkpoints(output_dir, count, update)
    if not folders:
        raise FileNotFoundError(f"{output_dir} holds no whole checkpoint up to update {update} to average; save more often (save_steps)")
    names = ", ".join(folder.name for folder in folders)
    if len(folders) < count:
        logger.warning("the model is the mean of %d checkpoints, there are not %d: %s", len(folders), count, names)
    else:
        logger.info("the model is the mean of %s", names)
    mean, own = mean_weights(folders), model.state_dict()
    if foreign := [name for name, weight in mean.items() if name not in own or own[name].shape != weight.shape]:
        raise ValueError(f"{folders[-1]} holds weights that the model lacks, such as {foreign[0]}")
    model.load_state_dict(mean, strict=False)  # a checkpoint leaves out what is tied to another weight
    return folders


def last_checkpoints(output_dir: str | os.PathLike, count: int, update: int) -> list[Path]:
    """Return the folders of the last whole checkpoints up to an update, oldest first."""
    whole = [path for number, path in numbered_checkpoints(output_dir) if number <= update and not damage(path)]
    return whole[-count:]


def mean_weights(folders: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights of checkpoints, in float32 or better; what is no floating-point number is the last one's.

    Raises:
        ValueError: A checkpoint holds no weights, or others than the one before.
    """
    mean: dict[str, torch.Tensor] = {}
    for number, folder in enumerate(folders, start=1):
        weights = {name: weight for path in sorted(Path(folder).glob("model*.safetensors")) for name, weight in load_file(path).items()}
        if not weights:
            raise ValueError(f"{folder} holds no model.safetensors; average_checkpoints takes the mean of whole models")
        if mean and weights.keys() != mean.keys():
            differ = sorted(weights.keys() ^ mean.keys())
            raise ValueError(f"{folder} and the checkpoint before it hold other weights, such as {differ[0]}; their mean cannot be taken")
        for name, weight in weights.items():
            if not weight.is_floating_point():
                mean[name] = weight
            elif number == 1:
                mean[name] = weight.to(torch.promote_types(weight.dtype, torch.float32))
            else:  # of equal weights, such as frozen ones, this is exactly the same weight
                mean[name].lerp_(weight.to(mean[name].dtype), 1 / number)
    return mean
