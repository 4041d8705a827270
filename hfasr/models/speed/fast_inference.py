"""FastInference: logits as fast as the device allows, and in padded batches what each row gives alone.

What is slow or lets padding in is replaced, and what is compiled is called, only while a batch is computed: before and after it the
model is as it was, whoever else holds it.
"""

import functools
import logging
import threading
import types
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import chain

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from ..head import HEADS
from .attention import set_key_masks
from .fast_training import compile_mode, compiled_parts, fast_parts, raise_graph_limits
from .padding import find_leaks, stop_leaks
from .swap import swap
from .trial import transformers_models

logger = logging.getLogger(__name__)

# Compiling takes about a minute and saves a third of the time: who has computed for as long has as much before them, for all we know.
_COMPILE_AFTER_SECONDS = 90.0


class FastInference:
    """Compute logits with a model of any AutoModelForCTC family, in evaluation mode and on its device.

    Args:
        model: Left as it is, but while logits are computed.
        compile: "off"; "dynamic", one graph for batches of all shapes, or "static", one for each shape, both from the first batch on;
            "auto", on CUDA dynamic once the device has computed for a minute and a half, and off elsewhere.
        autocast: Type to compute in, where it is not that of the weights.
        backend: Of torch.compile; "aot_eager" traces and compiles nothing, for tests.

    Raises:
        ValueError: `compile` is none of the four.
    """

    def __init__(self, model: PreTrainedModel, compile: str = "auto", *, autocast: torch.dtype | None = None, backend: str = "inductor"):
        self._model, self._autocast, self._backend = model, autocast, backend
        self._mode = compile_mode(compile, model.device)
        self._after = _COMPILE_AFTER_SECONDS if compile == "auto" else 0.0
        self._owners = list(transformers_models(model))
        self._leaks = find_leaks(model)
        self._parts = [part for _, *part in fast_parts(model)]
        if autocast is not None or model.dtype != torch.float32:
            self._parts += [(head, "__class__", _in_float32(type(head))) for head in _heads(self._owners)]
        self._compiled: list[tuple[nn.Module, str, object]] = []
        self._clock = _Clock(model.device)
        self._lock = threading.Lock()

    def logits(self, inputs: Mapping[str, torch.Tensor], lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the logits `(B, T, V)` of a batch. Several threads may call it; one is served at a time.

        Args:
            inputs: What the model's forward takes, on its device.
            lengths: Valid part of each row `(B,)`, as `attention_mask` counts it, int64 on the host; None where nothing is padded.
        """
        with self._lock:
            if self._mode != "off" and not self._compiled and self._clock.seconds() >= self._after:
                self._compile()
            try:
                return self._logits(inputs, lengths)
            except torch.OutOfMemoryError:
                raise
            # whatever it is, for a compiler raises what it likes; what is wrong with the batch comes again
            except Exception as error:
                if not self._compiled:
                    raise
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                logger.warning("%s goes on without compiling, which fails here: %s", type(self._model).__name__, reason)
                self._mode, self._compiled = "off", []
                return self._logits(inputs, lengths)

    def _logits(self, inputs: Mapping[str, torch.Tensor], lengths: torch.Tensor | None) -> torch.Tensor:
        stopped = () if lengths is None else stop_leaks(self._leaks, lengths, self._model.device)
        with ExitStack() as undo:
            for owner in self._owners:
                if (before := set_key_masks(owner)) is not None:
                    undo.callback(owner.set_attn_implementation, before)
            for part in chain(self._parts, stopped, self._compiled):
                undo.callback(swap(*part))
            if self._autocast is not None:
                undo.enter_context(torch.autocast(self._model.device.type, self._autocast))
            if not self._compiled:
                undo.enter_context(self._clock)
            return self._model(**inputs).logits

    def _compile(self) -> None:
        if not (parts := compiled_parts(self._model)):
            logger.warning("%s is not compiled: its layers are not where those of known families are", type(self._model).__name__)
            self._mode = "off"
            return
        logger.info("compiling %d modules (%s), which takes about a minute", len(parts), self._mode)
        raise_graph_limits()
        self._compiled = [(part, "_compiled_call_impl", self._compiled_call(part)) for part in parts]

    def _compiled_call(self, module: nn.Module):
        compiled = torch.compile(module._call_impl, dynamic=self._mode == "dynamic", backend=self._backend)

        def call(*args, **kwargs):
            if "index" in kwargs:
                kwargs["index"] = 0  # WavLM numbers its layers and does nothing with it; a compiler would make a graph for each number
            return compiled(*args, **kwargs)

        return call


class _Clock:
    """The seconds for which a CUDA device computed what was begun within `with`, as far as it is done; 0 of other devices."""

    def __init__(self, device: torch.device):
        self._device, self._seconds = device, 0.0
        self._running: deque[list[torch.cuda.Event]] = deque()

    def seconds(self) -> float:
        while self._running and self._running[0][1].query():
            start, end = self._running.popleft()
            self._seconds += start.elapsed_time(end) / 1000
        return self._seconds

    def __enter__(self) -> None:
        if self._device.type == "cuda":
            self._running.append([self._now()])

    def __exit__(self, *exception) -> None:
        if self._device.type == "cuda":
            self._running[-1].append(self._now())

    def _now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def _heads(owners: list[PreTrainedModel]) -> list[nn.Module]:
    heads = [getattr(owner, name) for owner in owners for name in HEADS if hasattr(owner, name)]
    # Parakeet's and LASR's heads are convolutions over one frame, which take and give (B, T, .) as a linear layer does
    return [head for head in heads if type(head) is nn.Linear or type(head).__name__.endswith("EncoderCTCHead")]


@functools.cache
def _in_float32(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a CTC head that computes in float32, whatever the others do: bfloat16 would round log-probabilities to steps of 0.06."""

    def forward(self, hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            return functional.linear(hidden.float(), self.weight.flatten(1).float(), None if self.bias is None else self.bias.float())

    return types.new_class(kind.__name__, (kind,), exec_body=lambda names: names.update(forward=forward))
