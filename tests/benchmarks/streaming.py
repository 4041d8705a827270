"""Live transcription in pieces of 100 ms: how late words come, what computing costs, and how the text differs from offline.

    python tests/benchmarks/streaming.py --model runs/ky_phoneme [--language ky] [--clips 10]

The model is a run folder of the embedded corpus: its predictions.jsonl holds the references. Each clip is a test utterance with 0.5 s
before and 1.25 s after it, in noise 60 dB below full scale. A symbol is spoken where it ends when the clip is transcribed at once. It
is shown with the first result from which on its place in the text holds the same symbol to the end, and settled when the result says
so. Times are of the audio that was fed; computing comes to them.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from hfasr.corpora import load_embedded
from hfasr.decoding.greedy import GreedyDecoder, labels_to_text
from hfasr.inference.engine import TorchEngine
from hfasr.inference.long.streaming import CHUNK_SECONDS, Streamer

RATE, PIECE = 16_000, 1_600
LOOKAHEADS = (0.1, 0.3, 0.6, 1.0, 2.0, 4.0)


def padded(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    clip = np.concatenate([np.zeros(RATE // 2), clip, np.zeros(RATE * 5 // 4)])
    return (clip + rng.standard_normal(len(clip)) * 1e-3).astype(np.float32)


def run(streamer: Streamer, clip: np.ndarray) -> tuple[list[str], dict[str, list[float]]]:
    """Feed a clip; return the symbols of its finals, and seconds after each was spoken that it was shown, settled, final."""
    history, finals, compute, slowest = [], [], 0.0, 0.0
    for end in range(PIECE, len(clip) + 2 * PIECE, PIECE):
        began = time.perf_counter()
        results = streamer.feed(clip[end - PIECE : end]) if end - PIECE < len(clip) else streamer.finish()
        took = time.perf_counter() - began
        compute, slowest = compute + took, max(slowest, took)
        for result in results:
            history.append((end / RATE, len(finals), result))
            if result.final:
                finals.append(result)
    late: dict[str, list[float]] = {"compute": [compute], "slowest": [slowest], "shown": [], "settled": [], "final": []}
    for number, final in enumerate(finals):
        seen = [(now, result) for now, which, result in history if which == number]
        late["final"].append(seen[-1][0] - (final.words[-1].end if final.words else final.end))
        for place, word in enumerate(final.words):
            stable = seen[-1][0]
            for now, result in reversed(seen):
                if [each.text for each in result.words[: place + 1]] != [each.text for each in final.words[: place + 1]]:
                    break
                stable = now
            settled = next(now for now, result in seen if result.settled >= word.end)
            late["shown"].append(stable - word.end)
            late["settled"].append(max(stable, settled) - word.end)
    return [word.text for final in finals for word in final.words], late


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--language", default="ky")
    parser.add_argument("--clips", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    engine = TorchEngine(given.model, device="cpu")
    decoder = GreedyDecoder(engine.blank)
    rows = [json.loads(line) for line in (Path(given.model) / "predictions.jsonl").open(encoding="utf-8")]
    references = {row["id"]: row["reference"].split() for row in rows if row["split"] == "test"}
    rng, clips = np.random.default_rng(0), []
    for row in load_embedded(given.language)["test"].select(range(given.clips)):
        clips.append((references[row["id"]], row["audio"]["array"], padded(row["audio"]["array"], rng)))

    def at_once(waveform: np.ndarray) -> list[str]:
        tokens = decoder.decode(*engine.log_probs([waveform]))[0][0].tokens
        return labels_to_text([token.id for token in tokens], engine.tokenizer).split()

    symbols, seconds = sum(len(reference) for reference, _, _ in clips), sum(len(clip) for _, _, clip in clips) / RATE
    for name, place in (("without silence around them", 1), ("with silence around them", 2)):
        edits = sum(Levenshtein.distance(clip[0], at_once(clip[place])) for clip in clips)
        print(f"offline, clips {name}: {100 * edits / symbols:.1f} % of {symbols} symbols wrong")
    print(f"chunks of {CHUNK_SECONDS} s; median and 95th percentile of seconds after a symbol, or the utterance, was spoken")
    print("lookahead  wrong, %  edits to offline  shown, s       settled, s     final, s       compute per s  slowest piece, ms")
    for lookahead in LOOKAHEADS:
        wrong, edits, late = 0, 0, {}
        for reference, clean, clip in clips:
            found, measured = run(Streamer(engine, lookahead_seconds=lookahead), clip)
            wrong, edits = wrong + Levenshtein.distance(reference, found), edits + Levenshtein.distance(at_once(clean), found)
            for name, values in measured.items():
                late.setdefault(name, []).extend(values)
        times = "  ".join("{:5.2f} {:5.2f}  ".format(*np.percentile(late[name], (50, 95))) for name in ("shown", "settled", "final"))
        cost, slowest = sum(late["compute"]) / seconds, 1000 * max(late["slowest"])
        print(f"{lookahead:6.1f} s  {100 * wrong / symbols:7.1f}  {edits:9}         {times}  {cost:8.3f}  {slowest:14.0f}")


if __name__ == "__main__":
    main()
