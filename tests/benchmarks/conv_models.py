"""QuartzNet15x5 and Citrinet-1024: time and memory of a training step; on a CPU also the speed of transcribing, beside NeMo's.

    python tests/benchmarks/conv_models.py [--device cuda] [--batch-seconds 640] [--parts training inference]

Training: rows of 16 s of noise, masked as a padded batch is, SpecAugment or SpecCutout as NeMo sets it, forward and backward pass
and AdamW; the median of the steps after warming up, each case in a process of its own. Memory holds weights, gradients, AdamW's
state and activations: on CUDA what PyTorch allocates at most, on a CPU by how much the process grows at most, the compiler's
leftovers included.

Transcribing: four FLAC files of 15.3 s, NeMo's 61.26 s; NeMo's figures and PyTorch's 46 are of an earlier measurement on two cores
(AMD EPYC with AVX-512 VNNI and BF16).

On a CPU `torch.compile` needs a C++ compiler (`apt-get install g++`), and memory is read from Linux's /proc. The training part needs
PyTorch and Transformers alone, not hfasr's other packages nor hfasr installed.
"""

import argparse
import os
import platform
import statistics
import string
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import variants  # noqa: F401 (so that hfasr need not be installed)

ROW_SECONDS = 16.0
FRAMES_PER_SECOND = 100
NEMO_SECONDS = 61.26
# what was measured before, times real time
KNOWN = {
    "NeMo transcribe(), four files": "28 to 33",
    "NeMo encoder and decoder, 4 x 15.3 s": "28",
    "PyTorch eager, an earlier measurement": "46",
}


def _build(name: str) -> tuple[torch.nn.Module, float]:
    """Return a model with random weights, augmented as NeMo's training is, and the labels per second of its language."""
    from hfasr.models import CitrinetConfig, CitrinetForCTC, QuartzNetConfig, QuartzNetForCTC

    torch.manual_seed(0)
    if name == "QuartzNet15x5":
        return QuartzNetForCTC(QuartzNetConfig.from_name("15x5", vocab_size=29, rect_masks=5)), 14.0
    masks = {"freq_masks": 2, "time_masks": 10}
    return CitrinetForCTC(CitrinetConfig.from_name("1024-gamma-0.25", vocab_size=5001, **masks)), 4.0


def _batch(config, rows: int, labels_per_second: float, device: str) -> dict[str, torch.Tensor]:
    frames = int(ROW_SECONDS * FRAMES_PER_SECOND)
    batch = {
        "input_features": torch.randn(rows, frames, config.num_mel_bins),
        "attention_mask": torch.ones(rows, frames, dtype=torch.long),
        "labels": torch.randint(1, config.vocab_size, (rows, int(ROW_SECONDS * labels_per_second))),
    }
    return {name: value.to(device) for name, value in batch.items()}


def _train(
    name: str, device: str, precision: str, compiled: bool, rows: int, steps: int, threads: int
) -> tuple[float, float, float, float]:
    """Return median, least and largest seconds of a training step, and the peak memory in GB."""
    torch.set_num_threads(threads)
    before = _process_memory("VmRSS")
    model, labels_per_second = _build(name)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    batch = _batch(model.config, rows, labels_per_second, device)
    if compiled:
        model.compile()

    def step():
        with torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext():
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    _wait(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts anew from here
    seconds = _times(step, steps, device)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _process_memory("VmHWM") - before
    return statistics.median(seconds), min(seconds), max(seconds), peak / 1e9


def _transcribe(steps: int, threads: int) -> dict[str, float]:
    """Return the seconds of audio per second of each way to transcribe, the median of `steps`."""
    from hfasr.audio import SAMPLING_RATE, write_audio
    from hfasr.inference.transcriber import Transcriber
    from hfasr.models.load import load_model
    from hfasr.text.vocabulary import build_tokenizer

    torch.set_num_threads(threads)
    alphabet = " " + string.ascii_lowercase + "'"
    model, processor = load_model("quartznet-15x5", build_tokenizer([alphabet], "character", alphabet=alphabet))
    rng = np.random.default_rng(0)
    waveforms = [rng.uniform(-0.3, 0.3, int(NEMO_SECONDS / 4 * SAMPLING_RATE)).astype(np.float32) for _ in range(4)]
    extractor = processor.feature_extractor
    speeds = {}

    def measure(what: str, seconds: float, function: Callable[[], object]) -> None:
        function()
        speeds[what] = seconds / statistics.median(_times(function, steps))

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        files = [f"{folder}/{n}.flac" for n in range(4)]
        for file, waveform in zip(files, waveforms, strict=True):
            write_audio(file, waveform)
        measure("log-mel", NEMO_SECONDS, lambda: extractor(waveforms, sampling_rate=SAMPLING_RATE))
        for rows in (1, 4):
            batch = extractor(waveforms[:rows], sampling_rate=SAMPLING_RATE, return_tensors="pt")
            measure(f"encoder and decoder, {rows} x 15.3 s", rows * NEMO_SECONDS / 4, lambda batch=batch: model(**batch))
        for seconds in (1, 60):
            transcriber = Transcriber((model, processor), batch_seconds=seconds, device="cpu")
            way = "one by one" if seconds == 1 else f"batches of {seconds} s"
            measure(f"Transcriber, four FLAC files, {way}", NEMO_SECONDS, lambda transcriber=transcriber: transcriber(files))
    return speeds


def _times(function: Callable[[], object], steps: int, device: str = "cpu") -> list[float]:
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        function()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _process_memory(field: str) -> int:
    """Return bytes from Linux's account of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _alone(function: Callable, *arguments):
    """Call a function in a process of its own, so that memory and compiled code of other cases do not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _print_training(names: list[str], device: str, batch_seconds: float, steps: int, threads: int) -> None:
    rows = max(1, round(batch_seconds / ROW_SECONDS))
    print(f"Training step of {rows} x {ROW_SECONDS:g} s, median of {steps}\n")
    print("| model | parameters | precision | | step, ms (least to most) | memory, GB | audio seconds per second |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        parameters = sum(parameter.numel() for parameter in _build(name)[0].parameters())
        for precision in ("float32", "bf16") if device == "cuda" else ("float32",):
            for way in ("eager", "compiled"):
                case = f"| {name} | {parameters:,} | {precision} | {way} |"
                try:
                    median, least, most, memory = _alone(_train, name, device, precision, way == "compiled", rows, steps, threads)
                except (BrokenProcessPool, torch.OutOfMemoryError) as error:
                    print(f"{case} {type(error).__name__}, out of memory? | | |", flush=True)
                    continue
                speed = rows * ROW_SECONDS / median
                times = f"{median * 1e3:,.0f} ({least * 1e3:,.0f} to {most * 1e3:,.0f})"
                print(f"{case} {times} | {memory:.2f} | {speed:,.1f} |", flush=True)
    print()


def _print_inference(steps: int, threads: int) -> None:
    print(f"QuartzNet15x5, float32, PyTorch threads: {threads}; four recordings of {NEMO_SECONDS / 4:.1f} s, median of {steps}\n")
    print("| | times real time |\n|---|---|")
    for way, speed in _alone(_transcribe, steps, threads).items():
        print(f"| {way} | {speed:,.1f} |")
    for way, speed in KNOWN.items():
        print(f"| *{way}* | {speed} |")


def _hardware(device: str) -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    flags = next((set(line.split()) for line in cpuinfo if line.startswith("flags")), set())
    units = ", ".join(flag for flag in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in flags)
    gpu = f"{torch.cuda.get_device_name()}, " if device == "cuda" else ""
    return f"{gpu}{names[0] if names else platform.machine()} ({units}), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-seconds", type=float, help="of a training batch; 640 on CUDA, 32 on a CPU when left out")
    parser.add_argument("--models", nargs="+", choices=["QuartzNet15x5", "Citrinet-1024"], default=["QuartzNet15x5", "Citrinet-1024"])
    parser.add_argument("--parts", nargs="+", choices=["training", "inference"], help="both on a CPU, training on CUDA when left out")
    parser.add_argument("--steps", type=int, help="timed steps; 20 on CUDA, 5 on a CPU when left out")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch on the CPU")
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    steps = arguments.steps or (20 if cuda else 5)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(
        f"{_hardware(arguments.device)}; Python {platform.python_version()}, {versions}, PyTorch threads: {arguments.threads}\n", flush=True
    )
    parts = arguments.parts or (["training"] if cuda else ["training", "inference"])
    if "training" in parts:
        _print_training(arguments.models, arguments.device, arguments.batch_seconds or (640.0 if cuda else 32.0), steps, arguments.threads)
    if "inference" in parts:
        _print_inference(steps, arguments.threads)


if __name__ == "__main__":
    main()
