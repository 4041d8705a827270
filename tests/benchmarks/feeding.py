"""Speed of the feeding: files on disk to training batches, by the loader that CTCTrainer uses.

    OMP_NUM_THREADS=1 python tests/benchmarks/feeding.py [--workers 1 2] [--seconds 1500] [--budget 320] [--cores 16]

The clips are Kyrgyz spoken by espeak-ng over a little noise, as long as those of Common Voice Kyrgyz (gamma-distributed, 4.6 s in the
mean), as 48 kHz mono MP3 and as 16 kHz FLAC. For each front end: audio seconds per second in all, and per second of a worker's CPU time,
which other programs on the machine disturb less; the memory that a worker has of its own; and what workers on all cores but one, which
trains, would give if the disk kept up: that is computed, not measured.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from hfasr.audio import resample, write_audio
from hfasr.corpora.rows import build_rows
from hfasr.espeak import speak
from hfasr.models.mel import MelFeatureExtractor
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.collator import CTCCollator
from hfasr.training.batches.inputs import INPUT_LENGTHS
from hfasr.training.batches.loader import training_loader
from hfasr.training.batches.sampler import DurationBatchSampler

_SENTENCE = "Ала-Тоо — Кыргызстандын борбор калаасынын так ортосунда жайгашкан кең аянт, ал жерде майрамдар белгиленет. "
_DISTINCT_CLIPS = 100


class _Processor:
    """What the collator asks of a processor."""

    def __init__(self, feature_extractor):
        self.feature_extractor = feature_extractor


FRONT_ENDS = {
    "waveform (wav2vec 2.0)": lambda: Wav2Vec2FeatureExtractor(return_attention_mask=True),
    "log-mel (QuartzNet)": MelFeatureExtractor,
    "fbank (w2v-BERT)": lambda: SeamlessM4TFeatureExtractor(padding_value=1.0),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1500, help="audio of an epoch")
    parser.add_argument("--budget", type=float, default=320, help="max_batch_seconds")
    parser.add_argument("--cores", type=int, default=16, help="to project to")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, batches of {arguments.budget:g} s")
    with tempfile.TemporaryDirectory() as folder:
        files = _write_clips(Path(folder))
        for extension in ("mp3", "flac"):
            rows = _rows(files, extension, arguments.seconds)
            for name, build in FRONT_ENDS.items():
                for workers in arguments.workers:
                    rate, per_core, memory = measure(rows, build(), workers, arguments.budget, folder)
                    print(
                        f"{extension:4} {name:22} {workers} workers: {rate:6.0f} s/s, {per_core:5.0f} a CPU second, {memory:3.0f} MiB a "
                        f"worker; {arguments.cores - 1} workers (computed): {per_core * (arguments.cores - 1):6.0f} s/s"
                    )


def measure(rows: Dataset, feature_extractor, workers: int, budget: float, folder: str) -> tuple[float, float, float]:
    """Return audio seconds per second and per second of CPU time over the second and third epoch, and the most MiB a worker had."""
    args = CTCTrainingArguments(output_dir=folder, use_cpu=True, report_to="none", dataloader_num_workers=workers)
    sampler = DurationBatchSampler(rows["duration"], budget)
    collator = CTCCollator(_Processor(feature_extractor))
    loader = training_loader(rows.select_columns(["id", "audio", "labels"]), sampler, collator, args, endless=False)
    memory = 0.0
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in loader:
            assert len(batch[INPUT_LENGTHS]) > 0
            processes = [worker.pid for worker in loader.base_dataloader._batches._workers]
            memory = max([memory, *map(_private_mib, processes)])
        if epoch == 0:  # its end, with the workers' buffers as full as at the end of the last
            start, used = time.perf_counter(), sum(map(_cpu_seconds, processes))
    seconds = 2 * sum(rows["duration"])
    result = seconds / (time.perf_counter() - start), seconds / (sum(map(_cpu_seconds, processes)) - used), memory
    loader.base_dataloader.close()
    return result


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _private_mib(process: int) -> float:
    """Return the memory of a process that it shares with none, and its share of the batches in shared memory."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "Pss_Shmem:"))) / 1024


def _write_clips(folder: Path) -> dict[int, tuple[Path, float]]:
    """Write each clip as MP3 and FLAC; return the folder and the seconds of each."""
    draw = np.random.default_rng(0)
    files = {}
    for number in range(_DISTINCT_CLIPS):
        seconds = float(np.clip(draw.gamma(9, 0.51), 1.2, 10.5))
        spoken, rate = speak(_SENTENCE * 3, f"ky+{draw.choice(['f2', 'm1', 'm3'])}", rate=int(draw.integers(120, 200)))
        start = int(draw.integers(0, len(spoken) - int(seconds * rate)))
        clip = resample(spoken[start : start + int(seconds * rate)], rate, 48_000)
        clip = clip + 0.003 * draw.standard_normal(len(clip)).astype(np.float32)
        write_audio(folder / f"{number}.mp3", clip, 48_000)
        write_audio(folder / f"{number}.flac", resample(clip, 48_000), 16_000)
        files[number] = (folder, len(clip) / 48_000)
    return files


def _rows(files: dict[int, tuple[Path, float]], extension: str, seconds: float) -> Dataset:
    blank = {"speaker": None, "gender": None, "accent": None, "source": "benchmark", "text": "сүйлөм"}
    records, total = [], 0.0
    while total < seconds:
        folder, duration = files[len(records) % len(files)]
        path = str(folder / f"{len(records) % len(files)}.{extension}")
        records.append({"id": f"u{len(records)}", "audio": {"path": path, "bytes": None}, "duration": duration, **blank})
        total += duration
    return build_rows(records).add_column("labels", [[1, 2, 3] * 15] * len(records))


if __name__ == "__main__":
    main()
