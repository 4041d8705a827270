"""Transcriber: a checkpoint and audio in any form -> transcripts.

Shapes: N utterances, S samples, F mel frames, T output frames, V vocabulary.
"""

import os
from collections.abc import Iterable

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from hfasr.audio import SAMPLING_RATE, audio_duration, load_audio
from hfasr.decoding.greedy import best_path, labels_to_text
from hfasr.inference.engine import TorchEngine
from hfasr.inference.transcript import Transcript

_BATCH_SECONDS = {"cuda": 320.0, "cpu": 60.0}
_Source = str | os.PathLike | bytes | bytearray | np.ndarray | dict


class Transcriber:
    """Transcribe utterances with a CTC model.

    A transcript does not depend on what else is in its batch, but for rounding. For families in which padding changes the
    logits, such as wav2vec2-base with its group norm, only utterances of equal length share a batch, mostly one by one.

    Computes in bfloat16 (autocast) on CUDA devices that have it, else in the precision of the model's weights.

    Args:
        model: Checkpoint folder, Hub name or .nemo file, for `load_model`, or a pair of model and processor. The model of a pair is
            put in evaluation mode, and moved if a device is given.
        batch_seconds: Largest rows x longest of a batch, in seconds; an utterance that is longer makes a batch by itself. None
            takes 320 on CUDA, 60 elsewhere.
        device: Such as "cpu", "cuda" or "cuda:1". None takes CUDA if there is one, and leaves the model of a pair where it is.

    Raises:
        FileNotFoundError, OSError: There is no such model.
        ValueError: The model has no CTC head or no tokenizer, or is not for 16 kHz, there is no such device, or `batch_seconds` is
            not positive.
    """

    def __init__(
        self,
        model: str | os.PathLike | tuple[PreTrainedModel, ProcessorMixin],
        *,
        batch_seconds: float | None = None,
        device: str | torch.device | None = None,
    ):
        if batch_seconds is not None and not batch_seconds > 0:
            raise ValueError(f"batch_seconds is {batch_seconds:g}, expected seconds of audio above 0, such as {_BATCH_SECONDS['cpu']:g}")
        self.engine = TorchEngine(model, device=device)
        self.batch_seconds = batch_seconds or _BATCH_SECONDS.get(self.engine.device.type, _BATCH_SECONDS["cpu"])

    def __call__(self, inputs: Iterable[_Source]) -> list[Transcript]:
        """Transcribe utterances; one that cannot be read does not stop the others.

        Args:
            inputs: N of what `load_audio` takes: paths, encoded bytes, waveforms `(S,)` in [-1, 1] at 16 kHz, or audio dicts. An
                utterance under 0.1 s is lengthened to it by silence.

        Returns:
            N transcripts in the order of the inputs.

        Raises:
            TypeError: `inputs` is one utterance, or one of them is none of these.
        """
        if isinstance(inputs, _Source):
            raise TypeError(f"expected a list of utterances, found one {type(inputs).__name__}; give it in a list: transcriber([…])")
        inputs = list(inputs)
        for place, source in enumerate(inputs):
            if not isinstance(source, _Source):
                raise TypeError(f"input {place} is {type(source).__name__}, expected a path, bytes, a NumPy array or an audio dict")
        transcripts: list[Transcript | None] = [None] * len(inputs)
        durations = {}
        for place, source in enumerate(inputs):
            try:
                durations[place] = _duration(source)
            except Exception as error:  # whatever a damaged header leads to
                transcripts[place] = _unreadable(source, error)
        # files are decoded batch by batch, so only the waveforms of one batch are held
        for places in sorted_batches(durations, self.batch_seconds):
            waveforms = {}
            for place in places:
                try:
                    waveforms[place] = load_audio(inputs[place])
                except Exception as error:
                    transcripts[place] = _unreadable(inputs[place], error)
            for place, text in self._texts(waveforms).items():
                transcripts[place] = Transcript(text, _path(inputs[place]), len(waveforms[place]) / SAMPLING_RATE)
        return transcripts

    def _texts(self, waveforms: dict[int, np.ndarray]) -> dict[int, str]:
        """Transcribe the waveforms `(S,)` of one batch, in several where their headers told other lengths than they have."""
        seconds = {place: len(waveform) / SAMPLING_RATE for place, waveform in waveforms.items()}
        texts = {}
        for places in sorted_batches(seconds, self.batch_seconds, equal=self.engine.equal_lengths):
            log_probs, lengths = self.engine.log_probs([waveforms[place] for place in places])
            for place, tokens in zip(places, best_path(log_probs, lengths, blank=self.engine.blank), strict=True):
                texts[place] = labels_to_text([token.id for token in tokens], self.engine.tokenizer)
        return texts


def sorted_batches(seconds: dict[int, float], batch_seconds: float, *, equal: bool = False) -> list[list[int]]:
    """Sort utterances from long to short and cut them into batches.

    Args:
        seconds: Length of each utterance, by its place.
        batch_seconds: Largest rows x longest of a batch of more than one row.
        equal: Whether the rows of a batch must be of one length.

    Returns:
        The places of each batch.
    """
    batches: list[list[int]] = []
    for place in sorted(seconds, key=seconds.__getitem__, reverse=True):
        longest = seconds[batches[-1][0]] if batches else 0.0
        if batches and (len(batches[-1]) + 1) * longest <= batch_seconds and (seconds[place] == longest or not equal):
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _duration(source: _Source) -> float:
    """Return the seconds of an input, of a file those that its header tells."""
    return max(source.shape, default=0) / SAMPLING_RATE if isinstance(source, np.ndarray) else audio_duration(source)


def _path(source: _Source) -> str | None:
    path = source.get("path") if isinstance(source, dict) else source
    return os.fspath(path) if isinstance(path, str | os.PathLike) else None


def _unreadable(source: _Source, error: Exception) -> Transcript:
    expected = isinstance(error, (ValueError, OSError, TypeError))
    reason = str(error) if expected else f"{_path(source) or type(source).__name__}: {type(error).__name__}: {error}"
    return Transcript("", _path(source), 0.0, reason)
