"""Speed of `prepare`: worker processes of this machine beside a Ray cluster started on it.

    python tests/benchmarks/prepare.py [--clips 2000] [--workers 1 2] [--rate 48000]

The clips are 3 to 8 s of noise under an envelope, as 48 kHz mono MP3 like Common Voice's. Times include the start of the workers,
and for Ray that of the cluster; the second figure leaves out the start, taken as the time of a run over a single clip.
"""

import argparse
import os
import platform
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from datasets import DatasetDict

from hfasr.audio import write_audio
from hfasr.corpora.preparation.prepare import prepare
from hfasr.corpora.rows import build_rows


def _corpus(folder: Path, clips: int, rate: int) -> DatasetDict:
    rng = np.random.default_rng(0)
    files = []
    for n in range(min(clips, 100)):
        seconds = rng.uniform(3, 8)
        times = np.arange(int(seconds * rate)) / rate
        write_audio(folder / f"{n}.mp3", 0.2 * np.abs(np.sin(4 * times)) * rng.uniform(-1, 1, len(times)), rate)
        files.append((str(folder / f"{n}.mp3"), seconds))
    blank = {"speaker": None, "gender": None, "accent": None, "source": "benchmark", "text": "сүйлөм"}
    records = [
        {"id": f"u{n}", "audio": {"path": files[n % 100][0], "bytes": None}, "duration": files[n % 100][1], **blank} for n in range(clips)
    ]
    return DatasetDict(train=build_rows(records))


def _seconds(corpus: DatasetDict, **options) -> tuple[float, dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        prepare(corpus, folder, shard_seconds=600, **options)
        seconds = time.perf_counter() - start
        return seconds, {path.name: path.read_bytes() for path in Path(folder).glob("train/*.parquet")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rate", type=int, default=48_000, help="of the clips, Hz")
    arguments = parser.parse_args()
    ways = [(f"{count} processes", {"num_workers": count}) for count in arguments.workers]
    packages = ["torch", "torchaudio", "soundfile", "pyarrow"]
    try:
        packages.append(f"ray {version('ray')}")
        ways.append((f"Ray, {os.cpu_count()} CPUs", {"ray_address": "local"}))
    except PackageNotFoundError:
        print("ray is not installed: left out")
    described = ", ".join(name if " " in name else f"{name} {version(name)}" for name in packages)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {described}")
    with tempfile.TemporaryDirectory() as folder:
        corpus = _corpus(Path(folder), arguments.clips, arguments.rate)
        print(f"{arguments.clips} clips, {sum(corpus['train']['duration']) / 3600:.2f} h of {arguments.rate} Hz MP3\n")
        print("| | seconds | clips per second | without the start |\n|---|---|---|---|")
        one = DatasetDict(train=corpus["train"].select([0]))
        made = []
        for name, options in ways:
            start, _ = _seconds(one, **options)
            seconds, shards = _seconds(corpus, **options)
            made.append(shards)
            print(f"| {name} | {seconds:.1f} | {arguments.clips / seconds:.0f} | {arguments.clips / (seconds - start):.0f} |", flush=True)
    print(f"\nall made the same {len(made[0])} shards" if all(shards == made[0] for shards in made) else "\nTHE SHARDS DIFFER")


if __name__ == "__main__":
    main()
