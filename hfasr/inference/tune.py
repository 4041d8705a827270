"""The numbers of a decoder that make the fewest errors on a development split; the network runs once, the decoder for each trial.

Shapes: B utterances, T output frames, V vocabulary.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import torch
from datasets import Dataset

from hfasr.audio import SAMPLING_RATE, AudioError, load_audio
from hfasr.corpora.rows import column, plain
from hfasr.decoding.beam import BeamDecoder
from hfasr.decoding.greedy import labels_to_text
from hfasr.evaluation.metrics import error_rate
from hfasr.inference.batches import sorted_batches
from hfasr.inference.engine import TorchEngine

logger = logging.getLogger(__name__)

# coarse; `least` goes between and beyond
LM_GRID = {"alpha": (0.5, 1.25, 2.0), "beta": (-2.0, 0.0, 2.0)}
HOTWORD_GRID = {"hotword_weight": (0.5, 1.5, 2.5)}
# with a language model a trial takes some 25 s on one core, and there are about 25
TUNE_SECONDS = 600.0
# longer ones would need windows, and few splits to develop on have any
_LONGEST_SECONDS = 40.0
_BATCH_SECONDS = 60.0


def tune(
    engine: TorchEngine,
    rows: Dataset,
    decoder: BeamDecoder,
    grids: Sequence[Mapping[str, Sequence[float]]],
    *,
    unit: str,
    to_text: Callable[[list[str]], list[str]] | None = None,
    seconds: float = TUNE_SECONDS,
) -> dict:
    """Give a decoder the weights with the lowest error rate, those of one grid after those of another.

    Args:
        engine: The network.
        rows: Of the development split, with `target`.
        decoder: Whose weights are changed; those of later grids stay as they are until their turn.
        grids: As `least` takes them.
        unit: What is counted, as `error_rate` takes it.
        to_text: Applied to what is recognised; None leaves it.
        seconds: About so much audio is drawn from the rows, always the same, of rows up to 40 s.

    Returns:
        "best", the weights; "rate", theirs; "trials", every one with its rate; "utterances" and "seconds" that they were tried on.

    Raises:
        ValueError: No row can be used, or `seconds` is not above 0.
    """
    if not seconds > 0:
        raise ValueError(f"tune_seconds is {seconds:g}, expected seconds of audio above 0, such as {TUNE_SECONDS:g}")
    rows, drawn = _drawn(rows, seconds)
    references, batches = _log_probs(engine, rows)
    logger.info("tuning on %d utterances, %.0f s of audio", len(references), drawn)
    weights = {"alpha": decoder.alpha, "beta": decoder.beta, "hotword_weight": decoder.hotword_weight}
    trials = []

    def rate(numbers: dict[str, float]) -> float:
        decoder.set_weights(**weights | numbers)
        texts = {}
        for places, log_probs, lengths in batches:
            for place, (best, *_) in zip(places, decoder.decode(log_probs, lengths), strict=True):
                texts[place] = labels_to_text([token.id for token in best.tokens], engine.tokenizer) if best.text is None else best.text
        found = [texts[place] for place in range(len(texts))]
        return error_rate(references, to_text(found) if to_text else found, unit)

    for grid in grids:
        tried = least(rate, grid)
        first = min(tried, key=lambda trial: trial["rate"])
        trials += tried
        weights |= {name: first[name] for name in grid}
        logger.info("%s: %.2f %% errors, the least of %d trials", _named(first, grid), 100 * first["rate"], len(tried))
    decoder.set_weights(**weights)
    best = {name: weights[name] for grid in grids for name in grid}
    return {"best": best, "rate": first["rate"], "trials": trials, "utterances": len(references), "seconds": round(drawn, 1)}


def _named(numbers: Mapping[str, float], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {numbers[name]:g}" for name in names)


def _drawn(rows: Dataset, seconds: float) -> tuple[Dataset, float]:
    """Draw rows until they have so many seconds; return them and the seconds."""
    durations = column(rows, "duration").to_numpy().astype(float)
    order = np.random.default_rng(0).permutation(len(rows))
    order = order[(durations[order] > 0) & (durations[order] <= _LONGEST_SECONDS)]
    order = order[np.cumsum(durations[order]) - durations[order] < seconds]
    return rows.select(np.sort(order)), float(durations[order].sum())


def _log_probs(engine: TorchEngine, rows: Dataset) -> tuple[list[str], list[tuple[list[int], torch.Tensor, torch.Tensor]]]:
    """Return the references of the rows that can be read, and batches of their places, log-probs `(B, T, V)` and frames `(B,)`."""
    waveforms, references = [], []
    for audio, target in zip(plain(rows)["audio"], rows["target"], strict=True):
        try:
            waveforms.append(load_audio(audio))
        except (AudioError, OSError):  # evaluation lists it
            continue
        references.append(target)
    if not waveforms:
        raise ValueError(f"no row can be used to tune on: of {len(rows)} up to {_LONGEST_SECONDS:g} s none can be read")
    lengths = {place: len(waveform) / SAMPLING_RATE for place, waveform in enumerate(waveforms)}
    batches = []
    for places in sorted_batches(lengths, _BATCH_SECONDS, equal=engine.equal_lengths):
        log_probs, frames = engine.log_probs([waveforms[place] for place in places])
        batches.append((places, log_probs.cpu(), frames))
    return references, batches


def least(rate: Callable[[dict[str, float]], float], grid: Mapping[str, Sequence[float]], *, halvings: int = 2) -> list[dict]:
    """Look for the numbers with the least rate.

    All of the grid is tried; then, from its best, one step of half the grid's up and down in each number, going on from a better one
    as long as there is one, and again with half of those. So it also leaves the grid where its best is at an edge, but a number
    whose grid is above 0 stays above 0.

    Args:
        rate: What a set of numbers, by name, gives; asked once for each.
        grid: At least two rising values to try for each number.
        halvings: How often the steps are halved.

    Returns:
        What was tried, `{"rate": …}` with the numbers, in order of trial; the first with the least rate is the best.

    Raises:
        ValueError: A grid has fewer than two values.
    """
    if few := [name for name, values in grid.items() if len(values) < 2]:
        raise ValueError(f"the grid of {few[0]} has {len(grid[few[0]])} values, expected at least 2")
    tried: dict[tuple, float] = {}

    def ask(values: tuple) -> float:
        if values not in tried:
            tried[values] = rate(dict(zip(grid, values, strict=True)))
        return tried[values]

    def best() -> tuple:
        return min(tried, key=tried.__getitem__)

    for values in product(*grid.values()):
        ask(tuple(map(float, values)))
    steps = [(values[-1] - values[0]) / (len(values) - 1) for values in grid.values()]
    lowest = [step / 2**halvings if values[0] > 0 else float("-inf") for step, values in zip(steps, grid.values(), strict=True)]
    for _ in range(halvings):
        steps, centre = [step / 2 for step in steps], None
        while centre != best():
            centre = best()
            for place, sign in product(range(len(steps)), (-1, 1)):
                moved = round(max(lowest[place], centre[place] + sign * steps[place]), 6)
                ask((*centre[:place], moved, *centre[place + 1 :]))
    return [{"rate": found, **dict(zip(grid, values, strict=True))} for values, found in tried.items()]
