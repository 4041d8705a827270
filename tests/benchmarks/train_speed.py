"""Training speed of CTCTrainer beside the public example's way, on one device, in one call.

    python tests/benchmarks/train_speed.py --baseline ../shared/bench/hf_train.py --durations ../shared/bench/ky_durations.txt
    python tests/benchmarks/train_speed.py --durations ../shared/bench/ky_durations.txt --files mp3 --models unispeech-large
    python tests/benchmarks/train_speed.py --small --updates 6 --warm_up 2

Rows are noise with the durations of a real corpus and 12 random labels a second, in WAV files of 16 kHz or MP3 files of 48 kHz; models have
random weights, since what is timed depends on no value. Every variant is a fresh process, trained through CTCTrainer with the settings of a
recipe. Printed for each: useful seconds of audio per second, padding, FLOP utilisation of the measured matrix peak, peak memory,
graphs compiled, and the share of time that the loop waited for data. `--small` takes tiny models, to see on a CPU that it runs.
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
from datasets import Dataset
from transformers import TrainerCallback, UniSpeechConfig, Wav2Vec2BertConfig, Wav2Vec2Config
from variants import print_variants

from hfasr.audio import SAMPLING_RATE, audio_duration, write_audio
from hfasr.models.load import BUILT_IN, load_model
from hfasr.models.speed.fast_training import graphs_compiled
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.inputs import INPUT_LENGTHS, input_of
from hfasr.training.meters import seconds_per_input
from hfasr.training.trainer import CTCTrainer

LABELS_PER_SECOND = 12
SYMBOLS = [f"p{number}" for number in range(39)]
STILL = {"layerdrop": 0.0, "attention_dropout": 0.0, "hidden_dropout": 0.1, "feat_proj_dropout": 0.0, "ctc_zero_infinity": True}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
# name -> configuration as in hf_train.py for UniSpeech-large, the released ones for the others
MODELS = {
    "unispeech-large": lambda: UniSpeechConfig(
        **LARGE, **STILL, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True, mask_time_prob=0.075
    ),
    "wav2vec2-base": lambda: Wav2Vec2Config(**STILL, mask_time_prob=0.075),
    "w2v-bert": lambda: Wav2Vec2BertConfig(layerdrop=0.0, mask_time_prob=0.075, ctc_zero_infinity=True),
    "quartznet-15x5": BUILT_IN["quartznet-15x5"],
    "citrinet-1024": BUILT_IN["citrinet-1024"],
}
SMALL = {
    "unispeech-large": BUILT_IN["unispeech-tiny"],
    "wav2vec2-base": BUILT_IN["wav2vec2-tiny"],
    "w2v-bert": lambda: Wav2Vec2BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128),
    "quartznet-15x5": BUILT_IN["quartznet-small"],
    "citrinet-1024": BUILT_IN["citrinet-small"],
}


class Clock(TrainerCallback):
    """Time the updates after the warm-up, the device's work included."""

    def __init__(self, warm_up: int, updates: int):
        self.warm_up, self.updates, self.seconds = warm_up, updates, 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.warm_up:
            _wait()
            self.trainer.useful = self.trainer.padded = 0.0
            self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.updates:
            _wait()
            self.seconds = time.perf_counter() - self.start


class Timed(CTCTrainer):
    """Count the seconds of audio, useful and with padding, that go through the model."""

    useful = padded = 0.0

    def _prepare_inputs(self, inputs):
        rows, width = input_of(inputs).shape[:2]
        self.useful += float(inputs[INPUT_LENGTHS].sum()) * self.seconds_of_input
        self.padded += rows * width * self.seconds_of_input
        return super()._prepare_inputs(inputs)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write_clip(seconds: float, folder: Path, kind: str) -> Path:
    """Write noise of a duration, once."""
    path = folder / f"{seconds:.3f}.{kind}"
    if not path.exists():
        rate = 48_000 if kind == "mp3" else SAMPLING_RATE
        noise = np.random.default_rng(0).standard_normal(round(seconds * rate)).astype(np.float32)
        write_audio(path, 0.1 * noise, rate)
    return path


def make_rows(folder: Path, kind: str, durations: list[float], count: int) -> Dataset:
    """Return rows with `target`; the files of one duration are one file."""
    draw = random.Random(0)
    chosen = [draw.choice(durations) for _ in range(count)]
    distinct = sorted(set(chosen))
    with multiprocessing.get_context("spawn").Pool() as pool:
        paths = dict(zip(distinct, pool.map(partial(write_clip, folder=folder, kind=kind), distinct), strict=True))
    seconds = {duration: audio_duration(path) for duration, path in paths.items()}
    return Dataset.from_dict(
        {
            "id": [str(number) for number in range(count)],
            "audio": [{"path": str(paths[duration]), "bytes": None} for duration in chosen],
            "target": [" ".join(draw.choices(SYMBOLS, k=max(1, int(duration * LABELS_PER_SECOND)))) for duration in chosen],
            "duration": [seconds[duration] for duration in chosen],
        }
    )


def measure(options: argparse.Namespace, folder: Path) -> dict:
    """Train one variant and return its figures."""
    torch.manual_seed(0)
    durations = [float(line) for line in options.durations.read_text().split()] if options.durations else [2.0, 3.0, 4.0, 5.0, 8.0]
    rows = make_rows(options.clips, options.files, durations, options.rows)
    tokenizer = build_tokenizer(rows["target"])
    model, processor = load_model((SMALL if options.small else MODELS)[options.model](), tokenizer)
    args = CTCTrainingArguments(
        output_dir=str(folder), max_batch_seconds=options.max_batch_seconds, compile=options.compile, batch_shapes=options.batch_shapes,
        max_steps=options.updates, logging_steps=max(1, options.updates - options.warm_up), save_strategy="no", report_to="none",
        learning_rate=1e-5, disable_tqdm=True,
    )  # fmt: skip
    clock = Clock(options.warm_up, options.updates)
    trainer = Timed(model, args, processor, rows, callbacks=[clock])
    clock.trainer, trainer.seconds_of_input = trainer, seconds_per_input(processor.feature_extractor)
    start = time.perf_counter()
    trainer.train()
    logged = next(entry for entry in reversed(trainer.state.log_history) if "loss" in entry)
    return {
        "model": options.model,
        "files": options.files,
        "compile": options.compile,
        "shapes": options.batch_shapes,
        "audio_seconds_per_second": round(trainer.useful / clock.seconds, 1),
        "padding": round(1 - trainer.useful / trainer.padded, 4),
        "flop_utilisation": logged.get("flop_utilisation"),
        "data_wait": logged.get("data_wait"),
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if torch.cuda.is_available() else logged.get("memory_gib"),
        "graphs": graphs_compiled(),
        "batch_seconds": round(trainer.padded / max(1, options.updates - options.warm_up), 1),
        "start_seconds": round(time.perf_counter() - start - clock.seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--baseline", type=Path, help="hf_train.py, run first")
    parser.add_argument("--durations", type=Path, help="seconds of a corpus's rows, one a line")
    parser.add_argument("--variants", nargs="*", default=["off:0", "dynamic:0", "dynamic:12"], help="compile:batch_shapes")
    parser.add_argument("--files", choices=["wav", "mp3"], default="wav")
    parser.add_argument("--clips", type=Path, default=Path(tempfile.gettempdir(), "hfasr-noise"))
    parser.add_argument("--max_batch_seconds", default="auto")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--warm_up", type=int, default=20)
    parser.add_argument("--rows", type=int, default=15_722)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--compile", default="off", help=argparse.SUPPRESS)
    parser.add_argument("--batch_shapes", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.clips.mkdir(parents=True, exist_ok=True)
    if options.model:  # the process of one variant
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options, Path(folder))), flush=True)
        return
    processor = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor
    print(f"{device}, torch {torch.__version__}, Python {platform.python_version()}", flush=True)
    if options.baseline:
        subprocess.run([sys.executable, options.baseline], check=True)
    variants = []
    for model in options.models:
        for variant in options.variants:
            compiled, _, shapes = variant.partition(":")
            variants.append((f"{model} {variant}", ["--model", model, "--compile", compiled, "--batch_shapes", shapes or "0"]))
    print_variants(variants)


if __name__ == "__main__":
    main()
