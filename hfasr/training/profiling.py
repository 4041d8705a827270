"""A trace of some training updates, for `--profile N`."""

import contextlib
import gzip
import logging
import os
import shutil
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainerCallback

logger = logging.getLogger(__name__)

# Updates before the first that is recorded: compiling, cuDNN's choices and the allocator's growth are over by then.
_WARM_UP = 10
_OPERATORS = 20
_LARGE = 64 * 2**20


class ProfileUpdates(TrainerCallback):
    """Record the operators of a few updates with torch.profiler.

    A run too short for 10 updates before them records its last ones. Leaves in the folder `trace_<process>.json`, which
    chrome://tracing and Perfetto show (`.json.gz` when it is large), and `operators_<process>.txt`, the 20 most costly
    operators.

    Args:
        folder: Where to write.
        updates: How many to record.
        device: That is trained on.
        process: Number of this process.
    """

    def __init__(self, folder: str | os.PathLike, updates: int, device: torch.device, process: int = 0):
        self._folder, self._updates, self._device, self._process = Path(folder), updates, device, process
        self._profile: profile | None = None
        self._range = contextlib.nullcontext()
        self._first = self._last = 0

    def on_train_begin(self, args, state, control, **kwargs):
        left = state.max_steps - state.global_step
        recorded = min(self._updates, left)
        self._first = state.global_step + min(_WARM_UP, left - recorded)
        self._last = self._first + recorded

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self._first and self._profile is None:
            activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self._device.type == "cuda" else [])
            self._profile = profile(activities=activities, acc_events=True)  # or it warns of cycles, of which it has one
            self._profile.start()
        if self._profile is not None:
            self._range = record_function(f"update {state.global_step + 1}")
            self._range.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        if self._profile is None:
            return
        self._range.__exit__(None, None, None)
        if state.global_step >= self._last:
            self._write()

    def on_train_end(self, args, state, control, **kwargs):
        if self._profile is not None:  # training was stopped before
            self._write()

    def close(self) -> None:
        """End a recording that an error broke off, without a trace; the next one could not start otherwise."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self) -> None:
        if self._device.type == "cuda":  # kernels that are still under way belong to the trace
            torch.cuda.synchronize(self._device)
        done = self._profile
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        trace = self._folder / f"trace_{self._process}.json"
        done.export_chrome_trace(str(trace))
        if trace.stat().st_size > _LARGE:
            with open(trace, "rb") as source, gzip.open(f"{trace}.gz", "wb", compresslevel=5) as target:
                shutil.copyfileobj(source, target)
            trace.unlink()
            trace = trace.with_suffix(".json.gz")
        by = "self_cuda_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        table = done.key_averages().table(sort_by=by, row_limit=_OPERATORS, max_name_column_width=80)
        (self._folder / f"operators_{self._process}.txt").write_text(table + "\n", encoding="utf-8")
        logger.info("recorded the updates up to %d: %s, and operators_%d.txt beside it", self._last, trace, self._process)
