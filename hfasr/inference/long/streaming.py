"""Live audio -> text while it is spoken.

The network hears the utterance so far again with every chunk. A frame that had the lookahead behind it is settled: it is given out and
not computed again, in a pause so that no symbol is on both sides. What is behind it may still change.

Shapes: S samples, T output frames, V vocabulary.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from hfasr.audio import SAMPLING_RATE, Resampler
from hfasr.decoding.greedy import GreedyDecoder
from hfasr.inference.engine import TorchEngine
from hfasr.inference.long.silence import PAD_SECONDS, SpeechGate
from hfasr.inference.long.windows import SEGMENT_SECONDS, quiet_cut
from hfasr.inference.transcript import Unit
from hfasr.inference.units import as_transcript

CHUNK_SECONDS = 0.3
CONTEXT_SECONDS = 8.0
LOOKAHEAD_SECONDS = 1.0
ENDPOINT_SILENCE_SECONDS = 0.8
# frames without a pause settle when they are older than the lookahead by this
_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class StreamResult:
    """What was said in an utterance, or in what there is of it."""

    text: str
    start: float
    """Seconds from the beginning of the stream."""
    end: float
    """Up to where the utterance was heard."""
    final: bool
    """Whether the utterance has ended; else a later result replaces this one."""
    settled: float
    """Seconds of the stream up to which symbols stay, if the best path is decoded; a beam search may still change its mind."""
    words: tuple[Unit, ...]


class Streamer:
    """Transcribe live audio.

    A word is in a result at most `chunk_seconds` after it was spoken, settled in a pause `lookahead_seconds` later, and final
    `endpoint_silence_seconds` and a chunk after the utterance ended; to each comes the time that computing takes. An utterance
    ends with a silence, or after half a minute.

    Args:
        model: Checkpoint folder, Hub name or .nemo file, a pair of model and processor, or a `TorchEngine`.
        decoder: Anything with `decode(log_probs (B, T, V), lengths (B,)) -> list[list[Hypothesis]]`; the best path when None.
        sampling_rate: Hz of what is fed.
        chunk_seconds: How often the network hears what is new.
        context_seconds: What it hears before frames that are not settled; of the utterance, not of the one before.
        lookahead_seconds: What it must have heard after a frame to settle it. Where an utterance is shorter than context and
            lookahead, its final text is that of the utterance transcribed at once.
        endpoint_silence_seconds: Silence that ends an utterance; `math.inf` waits for `finish`.

    Raises:
        FileNotFoundError, OSError: There is no such model.
        ValueError: A number is out of range, or as `TorchEngine`.
    """

    def __init__(
        self,
        model,
        *,
        decoder=None,
        sampling_rate: int = SAMPLING_RATE,
        chunk_seconds: float = CHUNK_SECONDS,
        context_seconds: float = CONTEXT_SECONDS,
        lookahead_seconds: float = LOOKAHEAD_SECONDS,
        endpoint_silence_seconds: float = ENDPOINT_SILENCE_SECONDS,
    ):
        if not 0.01 <= chunk_seconds < math.inf:
            raise ValueError(f"chunk_seconds is {chunk_seconds:g}, expected seconds from 0.01 up")
        for name, seconds in (("context_seconds", context_seconds), ("lookahead_seconds", lookahead_seconds)):
            if not 0 <= seconds < math.inf:
                raise ValueError(f"{name} is {seconds:g}, expected seconds from 0 up")
        if not endpoint_silence_seconds >= 0.1:
            raise ValueError(f"endpoint_silence_seconds is {endpoint_silence_seconds:g}, expected seconds from 0.1 up")
        # another engine than TorchEngine has the same members
        engine = model if hasattr(model, "log_probs") else TorchEngine(model)
        self._engine, self._grid = engine, engine.grid
        self._decoder = GreedyDecoder(engine.blank) if decoder is None else decoder
        self._resampler = Resampler(sampling_rate)
        self._gate = SpeechGate(endpoint_silence_seconds, min(PAD_SECONDS, endpoint_silence_seconds / 2), self._grid.stride)
        self._chunk = round(chunk_seconds * SAMPLING_RATE)
        self._context, self._lookahead, self._patience, self._longest, self._endpoint = (
            seconds / self._grid.frame_seconds
            for seconds in (context_seconds, lookahead_seconds, _PATIENCE_SECONDS, SEGMENT_SECONDS, endpoint_silence_seconds)
        )
        self._pending = np.zeros(0, np.float32)
        self._audio, self._begin = self._pending, 0  # what the network hears, and the sample of the stream that it begins with
        self._start(0)

    def feed(self, samples: np.ndarray) -> list[StreamResult]:
        """Take the next samples and return what they changed: finals, and last what there is of an utterance that goes on.

        The network hears all chunks that are fed at once together, so that a program that is late catches up.

        Args:
            samples: `(S,)`, any number, float in [-1, 1] or int16.

        Raises:
            TypeError: The samples are of another type.
            ValueError: They are not one-dimensional, or not all finite.
        """
        self._pending = np.concatenate([self._pending, self._resampler.feed(_as_float(samples))])
        results: list[StreamResult] = []
        while len(self._pending) >= self._chunk:
            chunk, self._pending = self._pending[: self._chunk], self._pending[self._chunk :]
            results += self._hear(self._gate.feed(chunk))
            if len(self._audio) and not self._gate.open:
                results += self._finish_utterance()
            # also in between where much is fed at once, so that memory stays bounded
            elif len(self._pending) < self._chunk or self._unsettled > self._context + self._lookahead:
                results += self._listen()
        # of partial results only the newest counts
        return [result for place, result in enumerate(results) if result.final or place == len(results) - 1]

    def finish(self) -> list[StreamResult]:
        """Return what is left; the stream is at its end."""
        rest = np.concatenate([self._pending, self._resampler.finish()])
        results = self._hear(self._gate.feed(rest)) + self._hear(self._gate.finish())
        return [*results, *self._finish_utterance()]

    @property
    def _unsettled(self) -> float:
        return (self._begin + len(self._audio)) / self._grid.stride - self._frontier

    def _start(self, frame: int) -> None:
        """Begin an utterance with a frame of the stream."""
        self._first = self._frontier = frame  # settled are the frames from one to the other
        self._settled: list[torch.Tensor] = []
        self._tentative: torch.Tensor | None = None
        self._heard, self._shown = 0, ""  # up to which sample, and what the last result said

    def _hear(self, pieces: list[tuple[int, np.ndarray]]) -> list[StreamResult]:
        results = []
        for begin, piece in pieces:
            if not len(self._audio) or begin != self._begin + len(self._audio):
                results += self._finish_utterance()
                self._audio, self._begin = self._audio[:0], begin
                self._start(begin // self._grid.stride)
            self._audio = np.concatenate([self._audio, piece])
        return results

    def _listen(self) -> list[StreamResult]:
        """Compute the utterance so far, settle what can be, and say what changed."""
        if not self._compute():
            return []
        ids = self._tentative.argmax(-1).cpu().numpy()
        blank = ids == self._engine.blank
        results = []
        if self._shown and len(ids) >= self._endpoint and blank[-math.ceil(self._endpoint) :].all():
            # the network hears nothing more, whatever there is to be heard
            results, now = self._finish_utterance(), self._begin + len(self._audio)
            self._audio, self._begin = self._audio[:0], now
            return results
        ready = max(0, int(len(ids) - self._lookahead))
        if blank[:ready].any() or ready > self._patience:
            self._settle(quiet_cut(ids[:ready], self._engine.blank))
        if (length := self._frontier - self._first) > self._longest:
            settled = torch.cat(self._settled)
            half = length // 2
            cut = half + quiet_cut(settled[half:].argmax(-1).cpu().numpy(), self._engine.blank)
            results.append(self._result(settled[:cut], final=True, end=self._first + cut))
            self._first, self._settled = self._first + cut, [settled[cut:]]
        partial = self._result(torch.cat([*self._settled, self._tentative]), final=False)
        if partial.text != self._shown or results:
            self._shown = partial.text
            results.append(partial)
        return results

    def _settle(self, frames: int) -> None:
        stride = self._grid.stride
        self._settled.append(self._tentative[:frames])
        self._tentative, self._frontier = self._tentative[frames:], self._frontier + frames
        skipped = max(0, self._frontier - math.ceil(self._context) - self._begin // stride) * stride
        self._audio, self._begin = self._audio[skipped:], self._begin + skipped

    def _finish_utterance(self) -> list[StreamResult]:
        if not len(self._audio):
            return []
        self._compute()
        result = self._result(torch.cat([*self._settled, self._tentative]), final=True)
        shown, self._audio = self._shown, self._audio[:0]
        self._start(self._frontier)
        return [result] if result.text or shown else []

    def _compute(self) -> bool:
        """Run the network over what is not settled and its context; tell whether there was anything new."""
        end = self._begin + len(self._audio)
        if not len(self._audio) or self._heard == end:
            return False
        log_probs, lengths = self._engine.log_probs([self._audio])
        self._tentative = log_probs[0, self._frontier - self._begin // self._grid.stride : int(lengths[0])]
        self._heard = end
        return True

    def _result(self, log_probs: torch.Tensor, *, final: bool, end: int | None = None) -> StreamResult:
        """Decode the frames (T, V) of the utterance."""
        start, now = self._first * self._grid.stride / SAMPLING_RATE, self._heard / SAMPLING_RATE
        now = now if end is None else end * self._grid.stride / SAMPLING_RATE
        hypothesis = self._decoder.decode(log_probs[None], torch.tensor([len(log_probs)]))[0][0]
        found = as_transcript([hypothesis.shifted(self._first)], self._engine.tokenizer, self._grid, path=None, duration=now)
        settled = now if final else self._grid.seconds(self._frontier)
        return StreamResult(found.text, start, now, final, settled, found.words)


def _as_float(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise ValueError(f"samples have shape {samples.shape}, expected (S,): one channel")
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 2**15
    if not np.issubdtype(samples.dtype, np.floating):
        raise TypeError(f"samples are {samples.dtype}, expected floats in [-1, 1] or int16")
    if not np.isfinite(samples).all():
        raise ValueError("samples hold NaN or infinite values, expected floats in [-1, 1]")
    return samples.astype(np.float32)
