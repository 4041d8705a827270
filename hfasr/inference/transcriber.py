"""Transcriber: a checkpoint and audio in any form -> transcripts.

Shapes: N utterances, S samples, T output frames, V vocabulary.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Protocol

import torch
from transformers import PreTrainedModel, ProcessorMixin

from hfasr.audio import AudioError
from hfasr.decoding.confidence import Confidence
from hfasr.decoding.greedy import GreedyDecoder
from hfasr.decoding.hypothesis import Hypothesis, Token, TokenSpan
from hfasr.decoding.words import boundaries
from hfasr.inference.batches import Failed, Long, Reader, Ready, Source, Unreadable, path_of
from hfasr.inference.engine import TorchEngine
from hfasr.inference.long.windows import SPLITS, WINDOW_SECONDS, check_window, transcribe_long
from hfasr.inference.transcript import Transcript
from hfasr.inference.units import as_transcript, symbols_of

logger = logging.getLogger(__name__)

_BATCH_SECONDS = 60.0
# UniSpeech-large in bfloat16 takes about 20 MB a second at its widest, which leaves most of the memory free
_SECONDS_PER_GIB, _MOST_BATCH_SECONDS = 8.0, 1200.0
# sorted together: the more, the less padding; the fewer, the sooner there are results
_POOL = {"cuda": 4096, "cpu": 512}
_MOST_WORKERS = 12
_IN_FLIGHT = 2


class Decoder(Protocol):
    """Whatever finds tokens in log-probabilities, such as a GreedyDecoder or a BeamDecoder."""

    def decode(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> list[list[Hypothesis]]:
        """Return for each of `(B, T, V)`, of which `(B,)` frames are valid, its n best, at least one."""


class Transcriber:
    """Transcribe recordings of any length with a CTC model.

    A transcript does not depend on what else is in its batch, but for rounding. A recording longer than a window is
    transcribed window by window and without its long silences, in constant memory.

    Args:
        model: Checkpoint folder, Hub name or .nemo file, for `load_model`; a pair of model and processor, of which the model is
            put in evaluation mode, and moved if a device is given; or an engine.
        device: Such as "cpu", "cuda" or "cuda:1". None takes CUDA if there is one, and leaves the model of a pair where it is.
        batch_seconds: Largest rows x longest of a batch, in seconds; an utterance that is longer makes a batch by itself. None
            takes 60 on a CPU, and on CUDA 8 for each GiB of the device's memory, at most 1,200.
        decoder: A decoder, or a function of the engine that makes one: `lambda engine: BeamDecoder(engine.tokenizer, engine.blank)`.
            None takes the best path.
        window_seconds: Longest recording that the network hears whole, and what it hears at once of a longer one.
        split: Where long recordings are cut, "windows", which overlap, or "silence".
        num_workers: Processes that decode files, where these are many; 0 for a thread. None takes 0 on a CPU, whose cores the
            network needs, else two less than there are cores, at most 12.
        compile: "auto", "off", "dynamic" or "static", as for `TorchEngine`.
        confidence: Measure of the best path's confidence, `max`, `tsallis` or `gibbs`, or a `Confidence`; its defaults when None. A
            decoder that is given has its own.

    Attributes:
        engine: The network.
        symbols: What the symbols of transcripts are, "phonemes", "characters" or "pieces".

    Raises:
        FileNotFoundError, OSError: There is no such model.
        ValueError: The model has no CTC head or no tokenizer, or is not for 16 kHz, there is no such device, or an option is not
            among its values.
    """

    def __init__(
        self,
        model: str | os.PathLike | tuple[PreTrainedModel, ProcessorMixin] | TorchEngine,
        *,
        device: str | torch.device | None = None,
        batch_seconds: float | None = None,
        decoder: Decoder | Callable[[TorchEngine], Decoder] | None = None,
        window_seconds: float = WINDOW_SECONDS,
        split: str = "windows",
        num_workers: int | None = None,
        compile: str = "auto",
        confidence: str | Confidence | None = None,
    ):
        _check(batch_seconds, window_seconds, split, num_workers, decoder, confidence)
        if isinstance(model, TorchEngine) and (device is not None or compile != "auto"):
            raise ValueError("device and compile are settings of the engine; give them to it, not to the Transcriber")
        self.engine = model if isinstance(model, TorchEngine) else TorchEngine(model, device=device, compile=compile)
        if math.isfinite(window_seconds):
            check_window(self.engine.grid.stride, window_seconds, split)
        self.symbols = symbols_of(self.engine.tokenizer)
        kind = self.engine.device.type
        self.batch_seconds = batch_seconds or _usual_batch_seconds(self.engine.device)
        if decoder is None:
            decoder = GreedyDecoder(self.engine.blank, confidence or Confidence())
        self.decoder: Decoder = decoder if hasattr(decoder, "decode") else decoder(self.engine)
        self._aggregate = getattr(getattr(self.decoder, "confidence", None), "aggregate", Confidence.aggregate)
        self._long = {"split": split, "window_seconds": window_seconds, "batch_seconds": self.batch_seconds}
        workers = num_workers if num_workers is not None else 0 if kind == "cpu" else min(_MOST_WORKERS, max(0, _cores() - 2))
        self._reader = Reader(
            self.engine,
            batch_seconds=self.batch_seconds,
            longest_seconds=window_seconds,
            num_workers=workers,
            pool=_POOL.get(kind, _POOL["cpu"]),
        )

    def __call__(self, inputs: Iterable[Source]) -> list[Transcript]:
        """Transcribe recordings; one that cannot be read does not stop the others.

        Args:
            inputs: N of what `load_audio` takes: paths, encoded bytes, waveforms `(S,)` in [-1, 1] at 16 kHz, or audio dicts. An
                utterance under 0.1 s is lengthened to it by silence.

        Returns:
            N transcripts in the order of the inputs.

        Raises:
            TypeError: `inputs` is one recording, or one of them is none of these.
        """
        found = dict(self.iter(inputs))
        return [found[place] for place in range(len(found))]

    def iter(self, inputs: Iterable[Source]) -> Iterator[tuple[int, Transcript]]:
        """Transcribe recordings, however many, and yield each when it is done.

        Args:
            inputs: As for a call; they are taken as they are needed, some hundred or thousand ahead.

        Yields:
            The place of an input, counted from 0, and its transcript. Of those that are taken together the long ones come first.

        Raises:
            TypeError: `inputs` is one recording, or one of them is none of these.
            ValueError: A process that decodes was killed.
            Exception: Whatever `inputs` raises, when what it gave before is done.
        """
        if isinstance(inputs, Source):
            raise TypeError(f"expected a list of utterances, found one {type(inputs).__name__}; give it in a list: transcriber([…])")
        return self._iter(inputs)

    def _iter(self, inputs: Iterable[Source]) -> Iterator[tuple[int, Transcript]]:
        # the host finishes one batch while the device computes the next
        pending: deque[Future] = deque()
        with closing(self._reader.read(inputs)) as items, ThreadPoolExecutor(1) as finishing, _cancelled(pending):
            for item in items:
                if isinstance(item, Ready):
                    pending += (finishing.submit(self._finish, *computed) for computed in self._forward(item))
                # the decoder serves one thread at a time
                while pending and (len(pending) > _IN_FLIGHT or isinstance(item, Long | Failed)):
                    yield from pending.popleft().result()
                if isinstance(item, Long):
                    yield item.place, self._transcribe_long(item)
                elif isinstance(item, Failed):
                    raise item.error
                elif isinstance(item, Unreadable):
                    yield item.place, Transcript("", path_of(item.source), 0.0, item.reason)
            while pending:
                yield from pending.popleft().result()

    def _forward(self, item: Ready) -> Iterator[tuple[Ready, torch.Tensor, torch.Tensor]]:
        """Yield a batch with its log-probabilities and frames, in parts where it does not fit the memory."""
        parts = [item]
        while parts:
            part = parts.pop()
            try:
                computed = self.engine.forward(part.batch)
            except torch.OutOfMemoryError as error:
                rows, longest, device = len(part.places), max(part.seconds), self.engine.device
                if rows == 1:
                    advice = "give window_seconds (--window-seconds) below that"
                    raise ValueError(f"{longest:.0f} s of audio do not fit the memory of {device}; {advice}") from error
                advice = f"batch_seconds (--batch-seconds) is {self.batch_seconds:g}, a smaller one saves this"
                logger.warning("a batch of %.0f s does not fit the memory of %s, half of it is tried; %s", rows * longest, device, advice)
                parts += reversed(part.halves())
                continue
            yield part, *computed

    @torch.inference_mode()
    def _finish(self, item: Ready, log_probs: torch.Tensor, lengths: torch.Tensor) -> list[tuple[int, Transcript]]:
        rows = zip(item.places, item.paths, item.seconds, self.decoder.decode(log_probs, lengths), strict=True)
        return [(place, self._transcript(hypotheses, path, seconds)) for place, path, seconds, hypotheses in rows]

    def _transcribe_long(self, item: Long) -> Transcript:
        path = path_of(item.source)
        try:
            segments = transcribe_long(self.engine, self.decoder, item.source, **self._long)
            pieces = [(first, hypotheses[0]) for first, hypotheses in segments]
        except (AudioError, OSError) as error:
            return Transcript("", path, 0.0, str(error))
        except torch.OutOfMemoryError as error:
            advice = f"batch_seconds (--batch-seconds) is {self.batch_seconds:g}, give a smaller one"
            raise ValueError(f"a batch of windows does not fit the memory of {self.engine.device}; {advice}") from error
        separator = min(boundaries(self.engine.tokenizer).separators, default=None) if self._long["split"] == "silence" else None
        return self._transcript([_joined(pieces, separator)], path, item.seconds)

    def _transcript(self, hypotheses: Sequence[Hypothesis], path: str | None, seconds: float) -> Transcript:
        engine = self.engine
        if math.isnan(hypotheses[0].score):
            why = "the model gives no numbers (NaN) for it; are its samples far outside [-1, 1], or is the model damaged?"
            return Transcript("", path, 0.0, f"{path or 'a recording'}: {why}")
        return as_transcript(hypotheses, engine.tokenizer, engine.grid, path=path, duration=seconds, aggregate=self._aggregate)


def _check(batch_seconds, window_seconds, split, num_workers, decoder, confidence) -> None:
    if batch_seconds is not None and not batch_seconds > 0:
        raise ValueError(f"batch_seconds is {batch_seconds:g}, expected seconds of audio above 0, such as {_BATCH_SECONDS:g}")
    if not window_seconds > 0:
        raise ValueError(f"window_seconds is {window_seconds:g}, expected seconds of audio above 0, such as {WINDOW_SECONDS:g}")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}, expected a number of processes, or 0 for a thread")
    if decoder is not None and confidence is not None:
        raise ValueError("decoder and confidence exclude each other: give the decoder its measure of confidence")


def _usual_batch_seconds(device: torch.device) -> float:
    if device.type != "cuda":
        return _BATCH_SECONDS
    return min(_MOST_BATCH_SECONDS, _SECONDS_PER_GIB * torch.cuda.get_device_properties(device).total_memory / 2**30)


@contextmanager
def _cancelled(pending: deque[Future]) -> Iterator[None]:
    """Leave undone what was not begun when nobody wants it any more."""
    try:
        yield
    finally:
        for future in pending:
            future.cancel()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _joined(pieces: Sequence[tuple[int, Hypothesis]], separator: int | None) -> Hypothesis:
    """Join the hypotheses of segments that follow each other.

    Args:
        pieces: Each with its first frame.
        separator: Label that is put between two segments, unless one is there; None where segments may begin within a word.
    """
    tokens: list[Token] = []
    confidences: list[float] = []
    words: list[TokenSpan] = []
    for first, piece in pieces:
        if separator is not None and tokens and piece.tokens and separator not in (tokens[-1].id, piece.tokens[0].id):
            tokens.append(Token(separator, tokens[-1].end_frame, tokens[-1].end_frame))
            confidences += [1.0] if piece.confidences else []
        words += [TokenSpan(word.text, word.first + len(tokens), word.last + len(tokens)) for word in piece.words or ()]
        tokens += piece.shifted(first).tokens
        confidences += piece.confidences
    found = [piece for _, piece in pieces]
    return Hypothesis(
        tuple(tokens),
        sum(piece.score for piece in found),
        tuple(confidences),
        tuple(words) if found and found[0].words is not None else None,
        " ".join(piece.text for piece in found if piece.text) if found and found[0].text is not None else None,
    )
