"""Recordings of any length -> log-probabilities and hypotheses, in constant memory.

A network hears what is between two long silences by itself. Where that is longer than a window, it hears windows that overlap: of each
only frames with enough audio on both sides are kept, and two windows are joined in a pause that both of them see, so that no symbol
at an edge counts twice or not at all.

Shapes: S samples, T output frames, V vocabulary.
"""

import math
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import torch

from hfasr.audio import SAMPLING_RATE, AudioError, iter_blocks
from hfasr.decoding.hypothesis import Hypothesis
from hfasr.decoding.words import boundaries
from hfasr.inference.batches import Source, sorted_batches, why_unreadable
from hfasr.inference.long.silence import PAUSE_SECONDS, check_utterances, heard, longest_run, split_at_silences

WINDOW_SECONDS = 20.0
CONTEXT_SECONDS = 1.0
# the pause in which two windows are joined is looked for in so much audio
_JOIN_SECONDS = 1.0
# a decoder gets so much at once
SEGMENT_SECONDS = 30.0
SPLITS = ("windows", "silence")
# so many batches of windows are sorted by length together
_BATCHES_SORTED = 4
# log-probability of every symbol but the blank where nothing was heard; finite, for an aligner may have to pass
_UNHEARD = -15.0
_RATHER_A_BOUNDARY = 0.4
_UNHEARD_FRAMES = 1000


def transcribe_long(
    engine,
    decoder,
    source: str | os.PathLike | bytes | BinaryIO | np.ndarray | dict,
    *,
    split: str = "windows",
    window_seconds: float = WINDOW_SECONDS,
    batch_seconds: float = 60.0,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Transcribe a recording of any length, a segment at a time.

    With the greedy decoder the segments of "windows" join to what it finds in all frames at once.

    Args:
        engine: What gives log-probabilities, such as a `TorchEngine`.
        decoder: Anything with `decode(log_probs (B, T, V), lengths (B,)) -> list[list[Hypothesis]]`.
        source: What `load_audio` takes; a file is read in blocks.
        split: "windows", which overlap and are joined at the logits, or "silence": cut where it is quiet, each segment for itself.
        window_seconds: Seconds that the network hears at once; for "silence" at most.
        batch_seconds: Seconds that it hears in one batch.

    Yields:
        The frame of the recording on which a segment begins, and its n best, whose frames count from there. Frames of the
        recording are those of `engine.grid`.

    Raises:
        FileNotFoundError: The path does not exist.
        AudioError: Empty, cut short, or not audio; raised when it is found, which may be after most of the recording.
        ValueError: `split` or `window_seconds` is none that there is.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if split == "silence":
        yield from _between_silences(engine, decoder, _blocks(source), window_seconds, batch_seconds)
        return
    pieces = long_log_probs(engine, _blocks(source), window_seconds=window_seconds, batch_seconds=batch_seconds)
    for first, log_probs in segments(pieces, engine.blank, round(SEGMENT_SECONDS / engine.grid.frame_seconds)):
        yield first, decoder.decode(log_probs[None], torch.tensor([len(log_probs)]))[0]


def check_window(stride: int, window_seconds: float, split: str) -> None:
    """Refuse windows that long recordings cannot be heard in, before one comes.

    Args:
        stride: Samples of a frame.
        window_seconds, split: As of `transcribe_long`.

    Raises:
        ValueError: The windows are too short.
    """
    if split == "silence":
        check_utterances(window_seconds)
    else:
        _in_frames(stride, window_seconds, CONTEXT_SECONDS)


def _in_frames(stride: int, window_seconds: float, context_seconds: float) -> tuple[int, int, int]:
    """Return the frames of a window, of the overlap of two, and of the context at either side."""
    context = math.ceil(context_seconds * SAMPLING_RATE / stride)
    overlap = 2 * context + max(1, round(_JOIN_SECONDS * SAMPLING_RATE / stride))
    window = round(window_seconds * SAMPLING_RATE / stride) if math.isfinite(window_seconds) else 0
    if window < 2 * overlap:
        least = 2 * overlap * stride / SAMPLING_RATE
        raise ValueError(f"window_seconds is {window_seconds:g}, expected at least {least:g}, for windows overlap by half of that")
    return window, overlap, context


def _blocks(source: Source) -> Iterator[np.ndarray]:
    """Read a recording; whatever its damage leads to is an AudioError."""
    try:
        yield from iter_blocks(source)
    except (AudioError, OSError):
        raise
    except Exception as error:
        raise AudioError(why_unreadable(source, error)) from error


def long_log_probs(
    engine,
    blocks: Iterable[np.ndarray],
    *,
    window_seconds: float = WINDOW_SECONDS,
    context_seconds: float = CONTEXT_SECONDS,
    pause_seconds: float = PAUSE_SECONDS,
    batch_seconds: float = 60.0,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Run a network over a recording of any length.

    Where a long silence is left out, all frames say blank, and one of them, where the vocabulary has a word boundary and none is
    there already, rather that. Every window is normalised by itself, as an utterance is.

    Args:
        engine: What gives log-probabilities, such as a `TorchEngine`.
        blocks: The recording in pieces `(S,)` of any lengths, 16 kHz, as `iter_blocks` gives them.
        window_seconds: Seconds that the network hears at once. A recording that is not longer is one window.
        context_seconds: Seconds of audio at least that a frame has on both sides in its window, but at the ends and at long silences.
        pause_seconds: Silences up to this long are heard; `math.inf` hears all.
        batch_seconds: Seconds in a batch, padding included.

    Yields:
        The first frame and the log-probabilities `(T, V)` float32, on the engine's device, of pieces that follow each other without a
        gap, in the frames of the whole recording.

    Raises:
        ValueError: `window_seconds` leaves nothing between the overlaps, or `pause_seconds` is shorter than what is kept of a silence.
    """
    stride = engine.grid.stride
    window, overlap, context = _in_frames(stride, window_seconds, context_seconds)
    windows = _windows(heard(blocks, pause_seconds=pause_seconds, multiple=stride), window, window - overlap, stride)
    held: torch.Tensor | None = None  # what is not yet given out, its best labels, and its first frame
    held_ids, held_first, said = np.zeros(0, int), 0, None
    for begin, log_probs, ids in _run(engine, windows, batch_seconds):
        first, held_end = begin // stride, held_first + len(held_ids)
        if held is not None and first < held_end:
            common = slice(max(first + context, held_first), held_end - context)
            left = held_ids[common.start - held_first : common.stop - held_first]
            cut = common.start + _joint(left, ids[common.start - first : common.stop - first], engine.blank)
            given, given_ids = held[: cut - held_first], held_ids[: cut - held_first]
            log_probs, ids, first = log_probs[cut - first :], ids[cut - first :], cut
        else:
            given, given_ids = held, held_ids
        if given is not None and len(given):
            yield held_first, given
            said = next((label for label in given_ids[::-1] if label != engine.blank), said)
        if first > (given_end := held_first + len(given_ids)):
            following = next((label for label in ids if label != engine.blank), None)
            yield from _unheard(engine, given_end, first, log_probs.shape[-1], {said, following})
        held, held_ids, held_first = log_probs, ids, first
    if held is not None and len(held):
        yield held_first, held


def segments(pieces: Iterable[tuple[int, torch.Tensor]], blank: int, max_frames: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Cut the log-probabilities of a long recording where nothing is said, so that a decoder gets them in parts.

    A cut lies in the longest run of frames in the second half of `max_frames` whose best label is the blank, without one between
    two labels. So the best path stays the same, but for a symbol that holds longer than half of `max_frames`.

    Args:
        pieces: First frame and log-probabilities `(T, V)`, as `long_log_probs` gives them.
        blank: Id of the CTC blank.
        max_frames: Largest T of a part, from 2 up.

    Yields:
        First frame and log-probabilities of the parts.
    """
    held, first = None, 0
    for begin, piece in pieces:
        first, held = (begin, piece) if held is None else (first, torch.cat([held, piece]))
        while len(held) > max_frames:
            half = max_frames // 2
            cut = half + quiet_cut(held[half:max_frames].argmax(-1).cpu().numpy(), blank)
            yield first, held[:cut]
            first, held = first + cut, held[cut:]
    if held is not None:
        yield first, held


def quiet_cut(ids: np.ndarray, blank: int) -> int:
    """Return the place in frames of best labels `(T,)` where a cut breaks no symbol: those before it come before the cut."""
    if (found := _middle_of_longest(ids == blank)) is not None:
        return found
    changes = np.flatnonzero(ids[1:] != ids[:-1])
    return int(changes[-1]) + 1 if len(changes) else len(ids)


def _joint(left: np.ndarray, right: np.ndarray, blank: int) -> int:
    """Return before which of their common frames (T,) to pass from one window to the next, by the best labels of both."""
    for agreed in ((left == blank) & (right == blank), left == right):
        if (found := _middle_of_longest(agreed)) is not None:
            return found
    return len(left) // 2


def _middle_of_longest(run: np.ndarray) -> int | None:
    """Return the middle of the longest run of True, None without one."""
    first, end = longest_run(run)
    return (first + end) // 2 if end else None


def _unheard(engine, first: int, end: int, symbols: int, neighbours: set[int | None]) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield pieces that say blank, with a word boundary in the middle unless a neighbouring label is one, or there is none."""
    separators, middle = boundaries(engine.tokenizer).separators, (first + end) // 2
    for begin in range(first, end, _UNHEARD_FRAMES):
        scores = torch.full((min(end - begin, _UNHEARD_FRAMES), symbols), _UNHEARD, device=engine.device)
        scores[:, engine.blank] = 0.0
        if separators and None not in neighbours and not separators & neighbours and 0 <= middle - begin < len(scores):
            scores[middle - begin, min(separators)] = _RATHER_A_BOUNDARY
        yield begin, scores.log_softmax(-1)


def _windows(pieces: Iterable[tuple[int, np.ndarray]], window: int, step: int, stride: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut what is heard into windows.

    Args:
        pieces: As `heard` yields them.
        window, step: Length of a window and the way from one to the next, in frames.
        stride: Samples of a frame.

    Yields:
        The sample that a window begins with, a multiple of the stride, and the window (S,). What goes on for longer than a window is
        covered by several, of which the last ends with it. The last of all may be empty and tells where the recording ends.
    """
    window, step = window * stride, step * stride
    held, begin, first = np.zeros(0, np.float32), 0, 0  # `held` begins with sample `begin`, the next window with `first`
    for start, piece in pieces:
        if start != begin + len(held):
            yield from _last_window(held, begin, window, stride)
            held, begin, first = piece, start, start
        else:
            held = np.concatenate([held, piece])
        # a window that ends with what is there may be the last
        while begin + len(held) > first + window:
            yield first, held[first - begin : first - begin + window]
            # what the window before this began with is kept, for the last one may need it
            held, begin, first = held[first - begin :], first, first + step
    if len(held):
        yield from _last_window(held, begin, window, stride)
    else:
        yield begin, held


def _last_window(held: np.ndarray, begin: int, window: int, stride: int) -> Iterator[tuple[int, np.ndarray]]:
    if len(held):
        # as long as the others but for a part of a frame
        skipped = max(0, -(-(len(held) - window) // stride)) * stride
        yield begin + skipped, held[skipped:]


def _run(engine, windows: Iterable[tuple[int, np.ndarray]], batch_seconds: float) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
    """Yield of each window its begin, its log-probabilities (T, V) and their best labels (T,)."""
    for begins, waveforms in _pools(windows, _BATCHES_SORTED * batch_seconds):
        found = {}
        seconds = {place: len(waveform) / SAMPLING_RATE for place, waveform in enumerate(waveforms)}
        for places in sorted_batches(seconds, batch_seconds, equal=engine.equal_lengths):
            log_probs, lengths = engine.log_probs([waveforms[place] for place in places])
            ids = log_probs.argmax(-1).cpu().numpy()
            for row, (place, length) in enumerate(zip(places, lengths.tolist(), strict=True)):
                length = 0 if not len(waveforms[place]) else length
                found[place] = begins[place], log_probs[row, :length], ids[row, :length]
        yield from (found[place] for place in range(len(begins)))


def _pools(windows: Iterable[tuple[int, np.ndarray]], seconds: float) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Yield begins and waveforms of some windows at a time."""
    begins, waveforms, samples = [], [], 0
    for begin, waveform in windows:
        begins.append(begin)
        waveforms.append(waveform)
        samples += len(waveform)
        if samples > seconds * SAMPLING_RATE:
            yield begins, waveforms
            begins, waveforms, samples = [], [], 0
    if begins:
        yield begins, waveforms


def _between_silences(
    engine, decoder, blocks: Iterable[np.ndarray], max_seconds: float, batch_seconds: float
) -> Iterator[tuple[int, list[Hypothesis]]]:
    utterances = split_at_silences(blocks, max_seconds=max_seconds, multiple=engine.grid.stride)
    for begin, log_probs, _ in _run(engine, utterances, batch_seconds):
        yield begin // engine.grid.stride, decoder.decode(log_probs[None], torch.tensor([len(log_probs)]))[0]
