"""Time and peak memory of a row table: made, opened again, and a training start from it.

    python tests/benchmarks/row_table.py                          # a KSC2 tree of 200,000 FLAC files, a manifest of 600,000 lines
    python tests/benchmarks/row_table.py --files 2000 --lines 6000

Each figure comes from a process of its own, the caches of the operating system warm after the tree was made.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile

RECIPES = Path(__file__).parents[2] / "recipes"
SOURCES = ("crowdsourced", "parliament", "podcasts", "radio", "talkshow", "tv_news", "tts")
WORDS = "бір екі үш төрт бес алты жеті сегіз тоғыз он қазақ тілі сөйлеу тану жүйесі үйренеді көп дерек керек болады".split()  # noqa: SIM905

OPEN = """
import json, resource, sys, time
start = time.perf_counter()
from hfasr.corpora.reading.source import load_corpus
imported = time.perf_counter()
corpus = load_corpus(sys.argv[1], source=sys.argv[2])
seconds = time.perf_counter() - imported
print(json.dumps({"rows": sum(map(len, corpus.values())), "import": imported - start, "seconds": seconds,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""

# From the start of the process to the first batch of a recipe, imports included.
START = """
import json, os, resource, sys, time
start = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import ky_char
imported = time.perf_counter()
from hfasr.training.batches.collator import CTCCollator
from hfasr.training.run import run_recipe
collate = CTCCollator.__call__

def first(self, rows):
    batch = collate(self, rows)
    print(json.dumps({"rows": len(rows), "import": imported - start, "seconds": time.perf_counter() - start,
                      "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
    os._exit(0)

CTCCollator.__call__ = first
run_recipe(ky_char.main, ky_char.KyChar, ky_char.presets, sys.argv[2:])
"""


def make_ksc2(folder: Path, files: int) -> Path:
    """Lay out a KSC2 tree of short FLAC files with a transcript beside each."""
    draw, top = random.Random(0), folder / "ISSAI_KSC2"
    noise = np.random.default_rng(0)
    clips = []
    for number in range(64):  # each file is one of these: 0.3 to 1.5 s, 5 to 25 kB
        path = folder / f"clip{number}.flac"
        soundfile.write(path, 0.05 * noise.standard_normal(int(16_000 * draw.uniform(0.3, 1.5))), 16_000)
        clips.append(path.read_bytes())
    for number in range(files):
        split = "Train" if number % 50 > 1 else ("Dev", "Test")[number % 50]
        place = top / split / SOURCES[number % len(SOURCES)]
        if number < 50 * len(SOURCES):
            place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:07d}.flac").write_bytes(clips[number % 64])
        (place / f"{number:07d}.txt").write_text(" ".join(draw.choices(WORDS, k=draw.randint(1, 6))), encoding="utf-8")
    return top


def make_manifest(folder: Path, tree: Path, lines: int) -> Path:
    """Write a NeMo manifest over the files of a tree, several segments of some."""
    draw, path = random.Random(1), folder / "train_manifest.jsonl"
    names = [f"{place}/{name}" for place, _, names in os.walk(tree) for name in names if name.endswith(".flac")]
    with open(path, "w", encoding="utf-8") as file:
        for number in range(lines):
            # the same file serves for several lines, as segments
            record = {
                "audio_filepath": names[number % len(names)],
                "offset": 0.05 * (number // len(names)),
                "duration": 0.1,
                "text": " ".join(draw.choices(WORDS, k=4)),
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


def run(code: str, *arguments: object) -> dict:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--lines", type=int, default=600_000)
    parser.add_argument("--folder", type=Path, help="Where the tree is made and kept; a temporary folder when left out.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["HFASR_CACHE"] = str(Path(temporary, "cache"))
        start = time.perf_counter()
        tree = folder / "ISSAI_KSC2"
        if not tree.is_dir():
            make_ksc2(folder, options.files)
            print(f"{options.files} FLAC files and transcripts written in {time.perf_counter() - start:.0f} s", flush=True)
        manifest = make_manifest(folder, tree, options.lines)
        print(f"{'':24} {'rows':>8} {'import s':>9} {'s':>7} {'peak MB':>8}")
        for path, source in ((tree, "ksc2"), (manifest, "manifest")):
            for what in ("made", "opened again"):
                found = run(OPEN, path, source)
                print(
                    f"{source + ' ' + what:24} {found['rows']:8} {found['import']:9.2f} {found['seconds']:7.2f} {found['peak']:8.0f}",
                    flush=True,
                )
        flags = [
            "--corpus",
            tree,
            "--source",
            "ksc2",
            "--base_model",
            "quartznet-small",
            "--use_cpu",
            "--report_to",
            "none",
            "--min_seconds",
            "0",
        ]
        for what, more in (
            ("first start, headers", ["--decode_check", "false"]),
            ("next start, headers", ["--decode_check", "false"]),
            ("first start, decoding", []),
            ("next start", []),
        ):
            found = run(START, RECIPES, *flags, *more, "--output_dir", Path(temporary, "run"))
            print(f"{what:24} {'':8} {found['import']:9.2f} {found['seconds']:7.2f} {found['peak']:8.0f}", flush=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("hfasr", "datasets", "pyarrow", "soundfile"))
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}")


if __name__ == "__main__":
    main()
