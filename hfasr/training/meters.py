"""Where the time of a training run goes: audio trained on, padding, waiting for data, memory, and the share of the machine's arithmetic."""

import contextlib
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from hfasr.audio import SAMPLING_RATE
from hfasr.models.speed.flops import count_flops, peak_flops
from hfasr.models.speed.padding import to_device
from hfasr.training.batches.inputs import INPUT_LENGTHS, LABEL_LENGTHS, input_of

logger = logging.getLogger(__name__)

# Sums over the batches of one process: seconds of audio, of audio and padding, of training, of waiting for a batch, and the
# seconds that the arithmetic would take at the machine's peak.
_AUDIO, _PADDED, _SECONDS, _WAIT, _IDEAL = range(5)


class SpeedMeter(TrainerCallback):
    """Count what a run does with its time, for its log and for the line at its end.

    All that is counted in every step is known to the host: the lengths of the rows, and the clock. The clock runs from the
    start of an epoch to its end, except in `paused`, where evaluation and saving belong. What is asked of the device (memory,
    blank frames) or of other processes is asked in `read`, which the trainer calls when it logs and has waited for the device
    already.

    Args:
        feature_extractor: Tells how much audio a frame of its features stands for.
        views: How many times an update runs each row through the model.
    """

    def __init__(self, feature_extractor, views: int = 1):
        self.seconds_per_input = seconds_per_input(feature_extractor)
        self._extractor, self._views = feature_extractor, views
        self._device, self._gather = torch.device("cpu"), lambda sums: sums
        self._peak, self._flops = 0.0, (0.0, 0.0)
        self.gathers = False  # whether the log after this update will ask for the statistics of its logits
        self._clear()

    def prepare(
        self,
        model: PreTrainedModel,
        device: torch.device,
        gather: Callable[[torch.Tensor], torch.Tensor],
        *,
        dtype: torch.dtype = torch.float32,
        row_seconds: Sequence[float] | None = None,
        frozen_start: nn.Module | None = None,
    ) -> None:
        """Count the arithmetic of a second of audio and measure that of the machine, before training takes its memory.

        Args:
            model: What will be trained, not yet wrapped.
            device: That it is trained on.
            gather: From a tensor `(1, n)` of each process to all of them `(processes, n)`.
            dtype: Of its matrix products.
            row_seconds: Durations of the training rows, if they are known.
            frozen_start: The part that is not trained in the first updates, if there is one.
        """
        self._device, self._gather = device, gather
        seconds = typical_seconds(row_seconds)
        inputs = self._extractor(np.zeros(round(seconds * SAMPLING_RATE), np.float32), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        inputs = {name: value for name, value in inputs.items() if name in ("input_values", "input_features")}
        try:
            counts = [count_flops(model, inputs), count_flops(model, inputs, frozen_start) if frozen_start is not None else 0]
        except Exception as error:  # a model's own code may do anything with values that are not there
            logger.warning("the arithmetic of %s cannot be counted, so flop_utilisation is not told: %s", type(model).__name__, error)
            self._peak = 0.0
            return
        self._flops = tuple(self._views * count / seconds for count in counts)
        self._peak = peak_flops(device, dtype)

    def on_train_begin(self, args, state, control, **kwargs):
        self._clear()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._since = time.monotonic()

    def on_step_begin(self, args, state, control, train_dataloader=None, **kwargs):
        self.gathers = will_log(args, state, train_dataloader)
        self._blanks = None

    def on_epoch_end(self, args, state, control, **kwargs):
        self._stop()

    def waiting(self, batches: Iterator) -> Iterator:
        """Yield from `batches`, and count the time in which the host waits for them."""
        while True:
            started = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._sums[_WAIT] += time.monotonic() - started
            yield batch

    def count(self, batches: Sequence[Mapping], *, frozen: bool = False) -> None:
        """Take note of the batches of an update.

        Args:
            batches: From the collator. A row without labels, such as a clip that could not be read, counts as padding.
            frozen: Whether this update leaves the part alone that is frozen at the start.
        """
        for batch in batches:
            rows, width = input_of(batch).shape[:2]
            seconds = float(batch[INPUT_LENGTHS][batch[LABEL_LENGTHS] > 0].sum()) * self.seconds_per_input
            self._sums[_AUDIO] += seconds
            self._sums[_PADDED] += rows * width * self.seconds_per_input
            if self._peak:
                self._sums[_IDEAL] += seconds * self._flops[frozen] / self._peak

    def count_blanks(self, logits: torch.Tensor, frames: torch.Tensor, blank: int) -> None:
        """Add the frames of a batch at which the blank is most likely, and all its frames.

        Args:
            logits: `(B, T, V)`, without gradient.
            frames: Valid frames `(B,)`, on the host.
            blank: Id of the blank.
        """
        within = torch.arange(logits.shape[1], device=logits.device) < to_device(frames, logits.device)[:, None]
        found = torch.stack([((logits.argmax(-1) == blank) & within).sum(), within.sum()])
        self._blanks = found if self._blanks is None else self._blanks + found

    @contextlib.contextmanager
    def paused(self):
        """Take the time within out of the time of training."""
        running = self._since is not None
        if running:
            self._stop()
        try:
            yield
        finally:
            if running:
                self._wait_for_device()
                self._since = time.monotonic()

    def read(self) -> dict[str, float]:
        """Return, for the log, how fast all processes were since it was last called; every process must call it.

        Returns:
            `audio_seconds_per_second` without padding, by wall time without evaluation and saving; `padding`, `data_wait` and
            `flop_utilisation` as shares from 0 to 1; `memory_gib`, the largest of any process since the start; `blank_rate` of
            the last update, where it was asked for.
        """
        if self._since is not None:
            now = time.monotonic()
            self._sums[_SECONDS] += now - self._since
            self._since = now
        blanks = torch.zeros(2, device=self._device) if self._blanks is None else self._blanks.float()
        host = torch.tensor([*self._sums, self._peak_memory()], dtype=torch.float32, device=self._device)
        table = self._gather(torch.cat([host, blanks])[None]).cpu().double()
        self._sums, self._blanks, self.gathers = [0.0] * 5, None, False
        sums, self._memory = table[:, :5], float(table[:, 5].max())
        self._total = self._total + sums
        blank_frames, frames = table[:, 6:].sum(0).tolist()
        return _figures(sums, self._memory) | ({"blank_rate": round(blank_frames / frames, 4)} if frames else {})

    def summary(self) -> dict[str, float]:
        """Return what `read` would of the whole run, and its audio and time in seconds; every process must call it."""
        self.read()
        audio, seconds = float(self._total[:, _AUDIO].sum()), float(self._total[:, _SECONDS].max())
        return {"audio_seconds": round(audio, 1), "seconds": round(seconds, 1)} | _figures(self._total, self._memory)

    def _clear(self) -> None:
        self._sums = [0.0] * 5
        self._total: torch.Tensor | float = 0.0
        self._memory = 0.0
        self._since: float | None = None
        self._blanks: torch.Tensor | None = None

    def _stop(self) -> None:
        self._wait_for_device()
        self._sums[_SECONDS] += time.monotonic() - self._since
        self._since = None

    def _wait_for_device(self) -> None:
        if self._device.type != "cpu":  # what the host has asked for and the device not yet done is training too
            torch.get_device_module(self._device).synchronize(self._device)

    def _peak_memory(self) -> float:
        """Return GiB: allocated on a CUDA device since the start of training, else resident since the start of the process."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        # macOS counts bytes, Linux KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def _figures(sums: torch.Tensor, memory: float) -> dict[str, float]:
    """Return the figures of sums `(processes, 5)`; a share of nothing is left out."""
    audio, padded, _, wait, ideal = sums.sum(0).tolist()
    seconds, slowest = float(sums[:, _SECONDS].sum()), float(sums[:, _SECONDS].max())
    figures = {}
    if slowest > 0:
        figures = {"audio_seconds_per_second": round(audio / slowest, 1), "data_wait": round(wait / seconds, 4)}
        if ideal > 0:
            figures["flop_utilisation"] = round(ideal / seconds, 4)
    if padded > 0:
        figures["padding"] = round(1 - audio / padded, 4)
    return figures | {"memory_gib": round(memory, 3)}


def seconds_per_input(feature_extractor) -> float:
    """Return how many seconds a sample of `input_values` or a frame of `input_features` stands for."""
    one, two = (
        feature_extractor(np.zeros(seconds * SAMPLING_RATE, np.float32), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        for seconds in (1, 2)
    )
    return 1 / (input_of(two).shape[1] - input_of(one).shape[1])  # the first second has another number of frames at its edges


def typical_seconds(row_seconds: Sequence[float] | None) -> float:
    """Return the duration of a row for which a second costs what it costs on average, 5 s for unknown rows.

    The arithmetic of attention grows with the square of the duration d, all else with d, so that is sum(d^2) / sum(d).
    """
    if row_seconds is None or len(row_seconds) == 0:
        return 5.0
    durations = np.asarray(row_seconds, dtype=np.float64)
    return float(max(1.0, (durations**2).sum() / durations.sum()))


def will_log(args, state, train_dataloader=None) -> bool:
    """Tell whether Trainer will log after the update that begins (transformers.DefaultFlowCallback's rule).

    Args:
        args: `TrainingArguments`.
        state: `TrainerState` before the update.
        train_dataloader: Tells how many updates an epoch has, where the log comes by epochs.
    """
    update = state.global_step + 1
    if update == 1 and args.logging_first_step:
        return True
    if args.logging_strategy == IntervalStrategy.STEPS:
        return update % state.logging_steps == 0
    if args.logging_strategy == IntervalStrategy.EPOCH:
        if update >= state.max_steps or train_dataloader is None:
            return True
        return update % -(-len(train_dataloader) // args.gradient_accumulation_steps) == 0
    return False


def summary_line(speed: Mapping[str, float]) -> str:
    """Return what `SpeedMeter.summary` found, with the trainer's counts beside it, as a sentence."""
    parts = [f"{speed['audio_seconds'] / 3600:.2f} h of audio in {speed['seconds']:.0f} s"]
    if "audio_seconds_per_second" in speed:
        parts.append(f"{speed['audio_seconds_per_second']:,.0f} audio seconds per second")
    for name, words in (("padding", "padding"), ("data_wait", "waiting for data"), ("flop_utilisation", "FLOP utilisation")):
        if name in speed:
            parts.append(f"{words} {100 * speed[name]:.1f} %")
    parts.append(f"peak memory {speed['memory_gib']:.2f} GiB")
    if "graphs_compiled" in speed:
        parts.append(f"{speed['graphs_compiled']} graphs compiled")
    if "updates_in_pieces" in speed:
        parts.append(f"{speed['updates_in_pieces']} updates cut into pieces")
    return ", ".join(parts)
