"""Speed and memory of what is done to all rows of a corpus: columns, filters, duplicates, leaks, the warm audio check.

    python tests/benchmarks/rows.py [--rows 200000] [--folder /tmp/hfasr-rows]

The sentences are drawn from 20,000 words, as often as in Zipf's law; 1 in 20 is a copy of an earlier one with up to 5 edits.
Each step runs in a process of its own, so that its peak memory (and the memory of the rows themselves) is its own. The audio
is one clip of 0.1 s hard-linked under many names, which `--folder` keeps.
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path

LETTERS = "абвгдеёжзийклмнңоөпрстуүфхцчшщъыьэюя"
LINKS = 30_000  # of one file: file systems allow few more


def sentences(count: int) -> list[str]:
    rng = random.Random(0)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(2, 10))) for _ in range(20_000)]
    weights = list(accumulate(1 / (place + 5) for place in range(len(words))))
    made = []
    for _ in range(count):
        if made and rng.random() < 0.05:
            text = list(rng.choice(made))
            for _ in range(rng.randint(0, 5)):
                place = rng.randrange(len(text) + 1)
                text[place : place + rng.randint(0, 1)] = rng.choices(LETTERS, k=rng.randint(0, 1))
            made.append("".join(text))
        else:
            made.append(" ".join(rng.choices(words, cum_weights=weights, k=rng.randint(3, 14))))
    return made


def make_clips(folder: Path, count: int) -> None:
    import numpy as np

    from hfasr.audio import write_audio

    folder.mkdir(parents=True, exist_ok=True)
    for place in range(len(os.listdir(folder)), count):
        if place % LINKS == 0:
            write_audio(folder / f"{place}.flac", 0.1 * np.random.default_rng(place).standard_normal(1600))
        else:
            os.link(folder / f"{place - place % LINKS}.flac", folder / f"{place}.flac")


def corpus(count: int, folder: Path):
    """Return the rows: 9 in 10 for training, as a selection in random order."""
    import numpy as np
    import pyarrow
    from datasets import Dataset, DatasetDict

    from hfasr.corpora.rows import FEATURES, decoded

    rng = np.random.default_rng(0)
    nothing, paths = pyarrow.nulls(count, pyarrow.binary()), pyarrow.array([f"{folder}/{place}.flac" for place in range(count)])
    table = pyarrow.table(
        {
            "id": [f"u{place}" for place in range(count)],
            "audio": pyarrow.StructArray.from_arrays([nothing, paths], ["bytes", "path"]),
            "text": sentences(count),
            "duration": rng.uniform(0.3, 12, count),
            "speaker": [f"s{place}" for place in rng.integers(0, count // 100 + 1, count)],
            "gender": pyarrow.nulls(count, pyarrow.string()),
            "accent": pyarrow.nulls(count, pyarrow.string()),
            "source": ["synthetic"] * count,
        }
    ).cast(FEATURES.arrow_schema)
    rows, order = decoded(Dataset(table)), rng.permutation(count)
    return DatasetDict(train=rows.select(order[count // 10 :]), test=rows.select(order[: count // 10]))


def steps(made) -> dict:
    from hfasr.corpora.check import check_audio
    from hfasr.corpora.duplicates import find_duplicates
    from hfasr.corpora.filters import keep_rows
    from hfasr.corpora.leaks import leaks
    from hfasr.corpora.rows import column
    from hfasr.corpora.splits import mix, split_by_speaker

    limits = {"min_seconds": 0.5, "max_seconds": 11.5, "max_characters_per_second": 40, "alphabet": LETTERS}
    return {
        "rows alone": lambda: None,
        "four columns": lambda: [column(made["train"], *name) for name in (("id",), ("audio", "path"), ("text",), ("duration",))],
        "keep_rows, all filters": lambda: keep_rows(made, **limits),
        "find_duplicates": lambda: find_duplicates(made["train"]),
        "find_duplicates, near 0.9": lambda: find_duplicates(made["train"], similarity=0.9),
        "leaks": lambda: leaks(made),
        "leaks, near 0.9": lambda: leaks(made, near=True),
        "split_by_speaker": lambda: split_by_speaker(made["train"]),
        "mix, weights 1 and 2.5": lambda: mix({"a": (made, 1.0), "b": (made, 2.5)}),
        "check_audio, headers": lambda: check_audio(made, decode=False),
        "check_audio, first": lambda: check_audio(made),
        "check_audio, again": lambda: check_audio(made),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/hfasr-rows"))
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["HFASR_CACHE"] = str(arguments.folder / "cache")
    if arguments.step:
        made = corpus(arguments.rows, arguments.folder / "clips")
        step = steps(made)[arguments.step]
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        print(f"| {arguments.step} | {seconds:.2f} | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} |")
        return
    shutil.rmtree(arguments.folder / "cache", ignore_errors=True)
    make_clips(arguments.folder / "clips", arguments.rows)
    print(f"{arguments.rows:,} rows, {os.cpu_count()} cores\n\n| step | seconds | peak memory, GB |\n|---|---|---|", flush=True)
    for name in steps({}):
        command = [sys.executable, __file__, "--rows", str(arguments.rows), "--folder", str(arguments.folder), "--step", name]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
