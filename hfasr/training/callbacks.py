"""What happens beside the training steps: a frozen start, a stop by signal, a watch on the loss."""

import logging
import math
import signal
import threading

import torch
from torch import nn
from transformers import TrainerCallback

logger = logging.getLogger(__name__)


class FreezeEncoder(TrainerCallback):
    """Train only the CTC head for the first updates, as fairseq's `freeze_finetune_updates` does.

    The encoder runs without gradients instead of having `requires_grad` taken off, so the optimizer and DDP, which are set
    up once, need not know.

    Args:
        encoder: The module below the head.
        updates: How many updates it stays as it is.
    """

    def __init__(self, encoder: nn.Module, updates: int):
        self.updates, self.frozen, self._before = updates, False, True
        encoder.register_forward_pre_hook(self._enter)
        encoder.register_forward_hook(self._leave, always_call=True)

    def on_step_begin(self, args, state, control, **kwargs):
        self.frozen = state.global_step < self.updates
        if state.global_step == self.updates:
            logger.info("the encoder is trained from update %d on", self.updates)

    def on_train_end(self, args, state, control, **kwargs):
        self.frozen = False

    def _enter(self, module, inputs):
        self._before = torch.is_grad_enabled()
        torch.set_grad_enabled(self._before and not self.frozen)

    def _leave(self, module, inputs, output):
        torch.set_grad_enabled(self._before)


class StopOnSignal(TrainerCallback):
    """On SIGTERM or SIGINT save a checkpoint after the step in hand and end training, on all processes at the same step.

    A cluster sends SIGTERM to the whole process group; a process that only its launcher told is told by the others. A
    second SIGINT stops at once. Whether training ended so is `stopping`, the signal's number.
    """

    def __init__(self):
        self.received = 0  # by this process
        self.stopping = 0  # agreed by all after a step: what they decide together may depend on nothing else
        self._handlers: dict[int, object] = {}
        self._group = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.received = self.stopping = 0  # a training that was stopped may be gone on with, as in a notebook
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._receive)
        if args.world_size > 1 and self._group is None:
            # on the host: asking the devices every step would make them wait for each other
            self._group = torch.distributed.new_group(backend="gloo")

    def on_step_end(self, args, state, control, **kwargs):
        self.stopping = self.received
        if self._group is not None:
            received = torch.tensor(self.received)
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX, group=self._group)
            self.stopping = int(received)
        if self.stopping:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.stopping:  # no evaluation in the seconds a cluster leaves
            control.should_evaluate = False
            control.should_save = False

    def restore(self) -> None:
        """Give the signals back to who had them; the trainer calls it when training ends, also by an error.

        A signal that came too late to stop training is sent on to them.
        """
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._handlers and self.received and not self.stopping:
            signal.raise_signal(self.received)
        self._handlers.clear()

    def _receive(self, number, frame):
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        logger.warning("%s: saving a checkpoint after this step, then stopping", signal.Signals(number).name)


class WatchLoss(TrainerCallback):
    """Say when the loss is no number, and stop when it stays so: the weights are lost by then."""

    def __init__(self):
        self.bad_logs = 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in (logs or {}):
            return
        if math.isfinite(float(logs["loss"])) and math.isfinite(float(logs.get("grad_norm") or 0.0)):
            self.bad_logs = 0
            return
        self.bad_logs += 1
        if state.is_world_process_zero:
            logger.warning("update %d: loss %s, gradient norm %s", state.global_step, logs["loss"], logs.get("grad_norm"))
        if self.bad_logs >= 3:
            raise FloatingPointError(
                f"the loss has been {logs['loss']} for {self.bad_logs} logs up to update {state.global_step}. Resume from a checkpoint "
                "before that with a lower learning_rate, a longer warm-up, or bf16 instead of fp16"
            )
