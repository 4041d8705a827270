"""How soon the explorer page of a large corpus shows and reacts, in headless Chromium.

    python tests/benchmarks/explorer.py [--rows 20000] [--keep FOLDER]

Kyrgyz sentences of the embedded corpus at plausible durations, one row in a hundred with something wrong. A few recordings are
real; the others' links lead nowhere, which costs the page nothing before they are played.
"""

import argparse
import contextlib
import os
import platform
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
from datasets import Dataset, DatasetDict
from playwright.sync_api import Page, sync_playwright

from hfasr.audio import write_audio
from hfasr.corpora.inspection.explorer import write_explorer
from hfasr.corpora.inspection.summary import inspect
from hfasr.corpora.rows import FEATURES, decoded
from hfasr.corpora.synthetic import ky

CHROMIUM = Path("/usr/bin/chromium")
SPLITS = {"train": (0.8, 120), "validation": (0.1, 15), "test": (0.1, 20)}  # share of the rows, speakers
REPEATS = 5

# Both are measured until the frame after the change is drawn.
ANSWER = """([act, argument]) => new Promise((done) => {
  const start = performance.now();
  if (act === "click") document.querySelector(argument).click();
  else {
    const query = document.querySelector("#query");
    query.value = argument;
    query.dispatchEvent(new Event("input"));
  }
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
SCROLL = """(frames) => new Promise((done) => {
  const times = [];
  let last = performance.now(), seen = 0;
  const step = () => {
    const start = performance.now();
    times.push(start - last);
    last = start;
    scrollBy(0, 1500 + 97 * (seen % 7));
    if (seen++ < frames) requestAnimationFrame(step);
    else done(times.slice(2));
  };
  requestAnimationFrame(step);
})"""


def build_corpus(count: int, folder: Path) -> DatasetDict:
    rng, generator = random.Random(0), np.random.default_rng(0)
    clips = []
    for number in range(4):
        clips.append(folder / f"clip {number}.flac")
        write_audio(clips[-1], (0.1 * np.sin(np.arange(48_000) / (4 + number))).astype(np.float32))
    corpus = DatasetDict()
    for split, (share, speakers) in SPLITS.items():
        size = round(count * share)
        texts = [ky.sentence(rng) for _ in range(size)]
        speaker = generator.zipf(1.4, size) % speakers
        pace = np.exp(generator.normal(np.log(13), 0.12, speakers))[speaker] * np.exp(generator.normal(0, 0.1, size))
        seconds = np.round(np.array([len(text) for text in texts]) / pace + generator.uniform(0.3, 1, size), 3)
        for place in generator.choice(size, size // 100, replace=False).tolist():
            texts[place], seconds[place] = spoiled(rng, texts[place], seconds[place])
        paths = [str(clips[place]) if place < len(clips) else f"/corpus/ky/clips/{split}_{place}.mp3" for place in range(size)]
        columns = {
            "id": [f"ky_{split}_{place:06d}" for place in range(size)],
            "audio": pyarrow.StructArray.from_arrays([pyarrow.nulls(size, pyarrow.binary()), pyarrow.array(paths)], ["bytes", "path"]),
            "text": texts,
            "duration": seconds,
            "speaker": [f"{split}{number:03d}" for number in speaker],
            "gender": pyarrow.nulls(size, pyarrow.string()),
            "accent": pyarrow.nulls(size, pyarrow.string()),
            "source": ["radio" if draw < 0.3 else "read" for draw in generator.random(size)],
        }
        corpus[split] = Dataset(pyarrow.table(columns).cast(FEATURES.arrow_schema))
    return decoded(corpus)


def spoiled(rng: random.Random, text: str, seconds: float) -> tuple[str, float]:
    """Return a row with one thing wrong."""
    last = text.split()[-1].strip(".!?")
    kinds = [
        (text, seconds / 4), (text, seconds * 5), (text.replace("е", "e"), seconds), (f"{text} [шум]", seconds), ("", seconds),
        (f"{text} {last} {last} {last}", seconds), (text.replace(" ", " 25 ", 1), seconds), (text.replace("ү", "ү\u200b"), seconds),
        (text, float("nan")), (f"{text[:8]}\ufffd{text[8:]}", seconds), (text.replace("к", "қ", 1), seconds),
    ]  # fmt: skip
    return rng.choice(kinds)


def measure(page: Page, address: str) -> dict[str, float]:
    """Return times in milliseconds of one visit."""
    page.goto(address, wait_until="commit")
    page.wait_for_selector(".row .text", state="visible")
    page.wait_for_selector("html[data-state=ready]")
    timing = page.evaluate("(({ domInteractive, domContentLoadedEventEnd }) => [domInteractive, domContentLoadedEventEnd])"
                           "(performance.getEntriesByType('navigation')[0])")  # fmt: skip
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN")
    found = {
        "heading is drawn": paint,
        "all rows are there and the page reacts": timing[1],
        "first filter answers": page.evaluate(ANSWER, ["click", "[data-reason=fast]"]),
        "filter taken back": page.evaluate(ANSWER, ["click", "[data-reason=fast]"]),
        "filter by a symbol": page.evaluate(ANSWER, ["click", "[data-symbol='ө']"]),
    }
    page.evaluate(ANSWER, ["click", "[data-symbol='ө']"])
    for letters in ("к", "кит", "китеп"):
        found[f"search “{letters}”"] = page.evaluate(ANSWER, ["search", letters])
    page.evaluate(ANSWER, ["search", ""])
    frames = page.evaluate(SCROLL, 120)
    return found | {"frame while scrolling, median": float(np.median(frames)), "frame while scrolling, slowest": max(frames)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="folder that the page is left in")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        corpus = build_corpus(arguments.rows, folder)
        start = time.perf_counter()
        inspection = inspect(corpus, language="ky")
        inspected = time.perf_counter()
        path = write_explorer(folder / "explorer.html", corpus, inspection, title="Benchmark", max_rows=arguments.rows)
        written = time.perf_counter()
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        visits = []
        for _ in range(REPEATS):
            page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
            visits.append(measure(page, path.absolute().as_uri()))
            page.context.close()
        version = browser.version
        browser.close()
        size = path.stat().st_size
    print(f"{arguments.rows:,} rows, {size / 1e6:.2f} MB; Chromium {version} without GPU, {os.cpu_count()} cores, {platform.machine()}")
    print(f"inspect {inspected - start:.2f} s, write_explorer {written - inspected:.2f} s\n")
    print(f"| median of {REPEATS} visits | ms |\n|---|---|")
    for name in visits[0]:
        print(f"| {name} | {np.median([visit[name] for visit in visits]):.0f} |")


if __name__ == "__main__":
    main()
