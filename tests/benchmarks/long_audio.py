"""Long recordings: symbol error rate by how they are cut, then memory, time and places of symbols in a recording of hours.

    python tests/benchmarks/long_audio.py --model runs/ky_phoneme [--language ky] [--hours 3]

The model is a run folder of the embedded corpus: its predictions.jsonl holds the references. Recordings are the test utterances one
after the other, with pauses, in noise 55 dB below full scale. In "alone" each utterance is transcribed by itself in the same noise; by
hand, it is cut out with 0.3 s of the silence around it.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from rapidfuzz.distance import Levenshtein

from hfasr.corpora import load_embedded
from hfasr.decoding.greedy import GreedyDecoder, labels_to_text
from hfasr.inference.engine import TorchEngine
from hfasr.inference.long.windows import long_log_probs, transcribe_long

RATE, PAD = 16_000, int(0.3 * 16_000)
# seconds of the pauses, and by how many dB utterances are louder or softer
RECORDINGS = {
    "pauses 0.2 to 0.6 s": (0.2, 0.6, 0),
    "pauses 0.5 to 3 s": (0.5, 3, 0),
    "pauses 5 to 15 s": (5, 15, 0),
    "pauses 0.5 to 3 s, levels +-15 dB": (0.5, 3, 15),
}


def joined(clips: list[np.ndarray], least: float, most: float, level: float, noise_db: float = -55) -> tuple[np.ndarray, list[int]]:
    """Return a recording of all clips, and the samples that they begin with."""
    rng = np.random.default_rng(0)
    parts, starts, at = [], [], 0
    for clip in clips:
        pause = int(rng.uniform(least, most) * RATE)
        starts.append(at + pause)
        parts += [np.zeros(pause, np.float32), clip * 10 ** (rng.uniform(-level, level) / 20)]
        at += pause + len(clip)
    recording = np.concatenate([*parts, np.zeros(PAD, np.float32)])
    return (recording + rng.standard_normal(len(recording)) * 10 ** (noise_db / 20)).astype(np.float32), starts


class Bench:
    """A model, the test utterances and their references."""

    def __init__(self, model: str, language: str):
        self.engine = TorchEngine(model, device="cpu")
        self.decoder = GreedyDecoder(self.engine.blank)
        rows = [json.loads(line) for line in (Path(model) / "predictions.jsonl").open(encoding="utf-8")]
        references = {row["id"]: row["reference"] for row in rows if row["split"] == "test"}
        found = [(row["audio"]["array"], references[row["id"]]) for row in load_embedded(language)["test"] if row["id"] in references]
        self.clips, self.references = [clip for clip, _ in found], [self.symbols(text) for _, text in found]

    def symbols(self, text: str) -> list[str]:
        """Return phonemes, or characters, without word boundaries."""
        symbols = text.split() if all(len(part) < 4 for part in text.split()) else list(text)
        return [symbol for symbol in symbols if symbol not in " |"]

    def text(self, tokens) -> list[str]:
        return self.symbols(labels_to_text([token.id for token in tokens], self.engine.tokenizer))

    def tokens(self, waveform: np.ndarray):
        return self.decoder.decode(*self.engine.log_probs([waveform]))[0][0].tokens

    def rate(self, found: list[str]) -> float:
        reference = [symbol for each in self.references for symbol in each]
        return 100 * Levenshtein.distance(reference, found) / len(reference)


def print_rates(bench: Bench) -> None:
    print(f"{'symbol error rate, %':36}{'alone':>8}{'at once':>9}{'windows*':>10}{'windows':>9}{'silence':>9}   (* silences heard too)")
    for name, options in RECORDINGS.items():
        recording, starts = joined(bench.clips, *options)
        alone = [
            symbol
            for clip, start in zip(bench.clips, starts, strict=True)
            for symbol in bench.text(bench.tokens(recording[start : start + len(clip)]))
        ]
        row = [bench.rate(alone), bench.rate(bench.text(bench.tokens(recording)))]
        pieces = long_log_probs(bench.engine, [recording], pause_seconds=math.inf)
        heard = torch.cat([piece for _, piece in pieces])
        row.append(bench.rate(bench.text(bench.decoder.decode(heard[None], [len(heard)])[0][0].tokens)))
        for split in ("windows", "silence"):
            parts = transcribe_long(bench.engine, bench.decoder, recording, split=split)
            row.append(bench.rate([symbol for _, found in parts for symbol in bench.text(found[0].tokens)]))
        print(f"{name:36}" + "".join(f"{value:{width}.2f}" for value, width in zip(row, (8, 9, 10, 9, 9), strict=True)))


def measure(model: str, file: str, split: str) -> None:
    """In a process of its own: print peak memory beyond the model, seconds, and the tokens as JSON."""
    engine = TorchEngine(model, device="cpu")
    decoder = GreedyDecoder(engine.blank)
    decoder.decode(*engine.log_probs([np.zeros(RATE, np.float32)]))
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of loading the model, is forgotten
    before, began = _memory("VmRSS"), time.perf_counter()
    tokens = [
        (token.id, token.start_frame + first)
        for first, found in transcribe_long(engine, decoder, file, split=split)
        for token in found[0].tokens
    ]
    seconds, peak = time.perf_counter() - began, _memory("VmHWM")
    print(json.dumps({"gb": (peak - before) / 1e6, "seconds": seconds, "tokens": tokens}))


def _memory(name: str) -> int:
    """Return one of Linux's figures of this process, in kB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))


def print_hours(bench: Bench, model: str, hours: float, folder: Path) -> None:
    clips, at, rng = [], 0.0, np.random.default_rng(1)
    while at < hours * 3600:
        clip = bench.clips[rng.integers(len(bench.clips))]
        loud = np.flatnonzero(np.abs(clip) > 0.01)
        clips.append(clip[loud[0] : loud[-1] + 1])
        at += len(clips[-1]) / RATE + 2.35
    recording, starts = joined(clips, 0.7, 4, 0)
    file = folder / "long.flac"
    soundfile.write(file, recording, RATE)
    stride, separators = bench.engine.grid.stride, {bench.engine.tokenizer.get_vocab().get(symbol) for symbol in "| "}
    spans = [(max(0, start - PAD) // stride, (start + len(clip) + PAD) // stride) for clip, start in zip(clips, starts, strict=True)]
    by_hand = []
    for begin, end in spans:
        tokens = bench.tokens(recording[begin * stride : end * stride])
        by_hand.append([(token.id, token.start_frame + begin) for token in tokens if token.id not in separators])
    for split in ("windows", "silence"):
        command = [sys.executable, __file__, "--model", model, "--file", str(file), "--split", split]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(ended.stdout)
        tokens = [token for token in found["tokens"] if token[0] not in separators]
        edits, moved, outside = 0, [], len(tokens)
        for (begin, end), hand in zip(spans, by_hand, strict=True):
            here = [token for token in tokens if begin <= token[1] < end]
            outside -= len(here)
            edits += Levenshtein.distance([label for label, _ in hand], [label for label, _ in here])
            if [label for label, _ in hand] == [label for label, _ in here]:
                moved.append([abs(one[1] - other[1]) for one, other in zip(hand, here, strict=True)])
        places, symbols = np.concatenate(moved), sum(map(len, by_hand))
        print(
            f"{len(recording) / RATE / 3600:.2f} h, {split}: {found['gb']:.2f} GB beyond the model, "
            f"{len(recording) / RATE / found['seconds']:.0f} times real time; {edits} of {symbols} symbols ({100 * edits / symbols:.2f} %) "
            f"other than cut by hand, {outside} in silences; in the {len(moved)} of {len(spans)} utterances of the same text "
            f"{100 * (places <= 1).mean():.3f} % of the symbols are within a frame, {100 * (places == 0).mean():.2f} % equal, "
            f"the largest difference is {places.max()} frames"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--language", default="ky")
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--split", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.file:
        measure(given.model, given.file, given.split)
        return
    bench = Bench(given.model, given.language)
    print_rates(bench)
    with tempfile.TemporaryDirectory() as folder:
        print_hours(bench, given.model, given.hours, Path(folder))


if __name__ == "__main__":
    main()
