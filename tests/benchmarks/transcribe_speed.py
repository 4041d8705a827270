"""Transcribing speed beside the public Transformers pipeline, on one device, in one call; on a CPU beside the bare network.

    python tests/benchmarks/transcribe_speed.py --baseline ../shared/bench/hf_transcribe.py --durations ../shared/bench/ky_durations.txt
    python tests/benchmarks/transcribe_speed.py --variants quartznet-15x5:flac:off:auto --clips 64 --batch_seconds 60    # on 2 CPU cores
    python tests/benchmarks/transcribe_speed.py --small --clips 24 --batch_seconds 20

Utterances are noise with the durations of a corpus, drawn as hf_transcribe.py draws them: the first 1,536 are its own. Models have
random weights, since what is timed depends on no value, but for one: their head is set so that they say a dozen symbols a second.
A variant is MODEL:INPUT:COMPILE:PRECISION, each a fresh process: inputs are arrays, or files on disk, FLAC of 16 kHz or MP3 of 48 kHz;
the rest are options of TorchEngine. Timed is a call of the Transcriber, from inputs to transcripts with word times and confidence, after
others that warm up: compile, start workers, fill the page cache. Printed for each, as times real time: that call, and the bare network
on batches that lie on the device.

It needs PyTorch, torchaudio, Transformers and soundfile alone, not hfasr's other packages, nor hfasr installed.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import UniSpeechConfig, Wav2Vec2Config
from variants import print_variants

from hfasr.audio import SAMPLING_RATE, write_audio
from hfasr.inference.batches import sorted_batches
from hfasr.inference.engine import Batch, TorchEngine
from hfasr.inference.transcriber import Transcriber
from hfasr.models.load import BUILT_IN, load_model
from hfasr.models.speed.fast_training import graphs_compiled
from hfasr.text.vocabulary import build_tokenizer

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SYMBOLS_PER_SECOND = 12
# name -> configuration; UniSpeech-large as in hf_transcribe.py
MODELS = {
    "unispeech-large": lambda: UniSpeechConfig(**LARGE, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True),
    "wav2vec2-base": Wav2Vec2Config,
    "quartznet-15x5": BUILT_IN["quartznet-15x5"],
    "citrinet-1024": BUILT_IN["citrinet-1024"],
}
SMALL = {
    "unispeech-large": BUILT_IN["unispeech-tiny"],
    "wav2vec2-base": BUILT_IN["wav2vec2-tiny"],
    "quartznet-15x5": BUILT_IN["quartznet-small"],
    "citrinet-1024": BUILT_IN["citrinet-small"],
}
VARIANTS = {
    "cuda": [
        "unispeech-large:array:off:autocast", "unispeech-large:array:off:bfloat16", "unispeech-large:array:dynamic:autocast",
        "unispeech-large:array:dynamic:bfloat16", "unispeech-large:flac:dynamic:auto", "unispeech-large:mp3:dynamic:auto",
        "wav2vec2-base:array:off:bfloat16", "quartznet-15x5:array:off:auto", "quartznet-15x5:array:dynamic:auto",
        "quartznet-15x5:mp3:off:auto",
    ],
    "cpu": ["quartznet-15x5:flac:off:auto", "unispeech-large:array:off:auto"],
}  # fmt: skip


def draw_seconds(durations: Path | None, count: int) -> list[float]:
    """Draw durations as hf_transcribe.py does."""
    draw = random.Random(1)
    known = [float(line) for line in durations.read_text().split()] if durations else [2.0, 3.0, 4.0, 5.0, 8.0]
    return [draw.choice(known) for _ in range(count)]


def write_clip(seconds: float, folder: Path, kind: str) -> str:
    """Write noise of a duration, once."""
    path = folder / f"{seconds:.3f}.{kind}"
    if not path.exists():
        rate = 48_000 if kind == "mp3" else SAMPLING_RATE
        write_audio(path, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate)).astype(np.float32), rate)
    return str(path)


def make_inputs(kind: str, seconds: list[float], folder: Path) -> list:
    """Return slices of one noise, or paths; utterances of one duration are one file."""
    if kind == "array":
        noise = np.random.default_rng(0).standard_normal(round(max(seconds) * SAMPLING_RATE)).astype(np.float32)
        return [noise[: int(one * SAMPLING_RATE)] for one in seconds]
    distinct = sorted(set(seconds))
    with multiprocessing.get_context("spawn").Pool() as pool:
        paths = dict(zip(distinct, pool.map(partial(write_clip, folder=folder, kind=kind), distinct), strict=True))
    return [paths[one] for one in seconds]


@torch.inference_mode()
def make_talkative(model, processor) -> None:
    """Let a model say about a dozen symbols a second of noise, as many as people do, since making transcripts of them takes time."""
    torch.nn.init.normal_(model.lm_head.weight, std=model.lm_head.in_features**-0.5)
    noise = np.random.default_rng(1).standard_normal(10 * SAMPLING_RATE).astype(np.float32)
    inputs = processor([noise] * 2, sampling_rate=SAMPLING_RATE, return_tensors="pt")
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if norms:  # without statistics random blocks make nearly the same of every frame
        model.train()(**inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    logits = model.eval()(**inputs).logits[0]
    blank = model.config.pad_token_id
    symbols = logits.clone()
    symbols[:, blank] = -torch.inf
    silent = 1 - SYMBOLS_PER_SECOND * 10 / len(logits)
    model.lm_head.bias[blank] += (symbols.amax(-1) - logits[:, blank]).quantile(silent)


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(variant: str, options: argparse.Namespace) -> dict:
    """Return the figures of one variant."""
    name, kind, compiled, precision = variant.split(":")
    torch.manual_seed(0)
    symbols = [chr(0x430 + number) for number in range(32)]
    config = (SMALL if options.small else MODELS)[name]()
    pair = load_model(config, build_tokenizer([" ".join(symbols)], "character"))
    make_talkative(*pair)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = TorchEngine(pair, device=device, compile=compiled, precision=precision)
    transcriber = Transcriber(engine, batch_seconds=options.batch_seconds, num_workers=options.num_workers)
    seconds = draw_seconds(options.durations, options.clips)
    inputs = make_inputs(kind, seconds, options.folder)

    start = time.perf_counter()
    transcriber(inputs[: max(8, options.clips // 8)])
    started = time.perf_counter() - start
    # compiled with the longest batches, and with those of another pool
    transcriber(inputs[: options.clips // 2])
    wait(engine.device)
    start = time.perf_counter()
    transcripts = transcriber(inputs)
    elapsed = time.perf_counter() - start
    if errors := [transcript.error for transcript in transcripts if transcript.error]:
        raise SystemExit(f"{len(errors)} of {len(transcripts)} were not transcribed: {errors[0]}")
    total = sum(transcript.duration for transcript in transcripts)
    return {
        "model": name,
        "input": kind,
        "compile": compiled,
        "precision": precision,
        "RTFx": round(total / elapsed, 1),
        "bare_RTFx": round(bare_speed(engine, seconds, options.batch_seconds), 1),
        "symbols_per_second": round(sum(len(transcript.symbols) for transcript in transcripts) / total, 1),
        "audio_hours": round(total / 3600, 2),
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if device == "cuda" else None,
        "graphs": graphs_compiled(),
        "first_call_seconds": round(started, 1),
    }


def bare_speed(engine: TorchEngine, seconds: list[float], batch_seconds: float) -> float:
    """Time the network on the same batches, ready on the device."""
    waveforms = make_inputs("array", seconds, Path())
    batches = []
    for places in sorted_batches(dict(enumerate(seconds)), batch_seconds):
        batch = engine.prepare([waveforms[place] for place in places])
        batches.append(Batch(batch.name, batch.values.to(engine.device), batch.lengths))
    engine.forward(batches[0])
    wait(engine.device)
    start = time.perf_counter()
    for batch in batches:
        engine.forward(batch)
    wait(engine.device)
    return sum(map(len, waveforms)) / SAMPLING_RATE / (time.perf_counter() - start)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="hf_transcribe.py, run first; it needs a CUDA device")
    parser.add_argument("--durations", type=Path, help="seconds of a corpus's rows, one a line")
    parser.add_argument("--variants", nargs="*", default=VARIANTS[device], metavar="MODEL:INPUT:COMPILE:PRECISION")
    parser.add_argument("--clips", type=int, default=15_722 if device == "cuda" else 64)
    parser.add_argument("--batch_seconds", type=float, default=1200.0 if device == "cuda" else 60.0)
    parser.add_argument("--num_workers", type=int, help="processes that decode files; the Transcriber's own number if not given")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "hfasr-noise"), help="where files of noise lie")
    parser.add_argument("--small", action="store_true", help="tiny models, to see on a CPU that it runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:  # the process of one variant
        print(json.dumps(measure(options.one, options)), flush=True)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    processor = f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    name = torch.cuda.get_device_name() if device == "cuda" else f"{processor}, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, Python {platform.python_version()}", flush=True)
    if options.baseline:
        subprocess.run([sys.executable, options.baseline], check=True)
    print_variants((variant, ["--one", variant]) for variant in options.variants)


if __name__ == "__main__":
    main()
