"""Transcriber: a checkpoint and audio in any form -> transcripts.

Shapes: N utterances, S samples, F mel frames, T output frames, V vocabulary.
"""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from hfasr.audio import SAMPLING_RATE, audio_duration, load_audio, long_enough
from hfasr.decoding.greedy import best_path, labels_to_text
from hfasr.models.load import load_model, output_lengths
from hfasr.models.mel import MelFeatureExtractor

# Families whose logits of an utterance stay the same, but for rounding, whatever padding is behind it. Not among them: models with
# a group norm over time, a Conformer's unmasked convolutions or several positional convolutions.
_PADDING_IS_EXACT = {"quartznet", "citrinet", "wav2vec2", "unispeech", "unispeech-sat", "hubert", "wavlm", "wav2vec2-bert"}
# options that let padding into the logits of these
_PADDING_LEAKS = ("add_adapter", "conv_pos_batch_norm")
_BATCH_SECONDS = {"cuda": 320.0, "cpu": 60.0}
_Source = str | os.PathLike | bytes | bytearray | np.ndarray | dict


@dataclass(frozen=True)
class Transcript:
    """What was said in one utterance."""

    text: str
    """As the tokenizer decodes it; "" where nothing was recognised or the audio cannot be read."""
    path: str | None
    """The file; None for bytes and arrays."""
    duration: float
    """Seconds; 0 where the audio cannot be read."""
    error: str | None = None
    """Why the audio cannot be read, with its name; None for an utterance that was transcribed."""


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
        device = None if device is None else _device(device)
        if isinstance(model, tuple):
            self.model, self.processor = model
        else:
            self.model, self.processor = load_model(os.fspath(model))
            device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if (rate := self.processor.feature_extractor.sampling_rate) != SAMPLING_RATE:
            raise ValueError(f"the model hears {rate} Hz, expected {SAMPLING_RATE} Hz, at which hfasr works")
        self.model.eval()
        if device is not None:
            self.model.to(device)
        self.device = self.model.device
        self.batch_seconds = batch_seconds or _BATCH_SECONDS.get(self.device.type, _BATCH_SECONDS["cpu"])
        self._equal_lengths = not _padding_is_exact(self.model.config)

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
        waveforms = {place: long_enough(waveform) for place, waveform in waveforms.items()}
        seconds = {place: len(waveform) / SAMPLING_RATE for place, waveform in waveforms.items()}
        texts = {}
        for places in sorted_batches(seconds, self.batch_seconds, equal=self._equal_lengths):
            logits, lengths = self._logits([waveforms[place] for place in places])
            for place, tokens in zip(places, best_path(logits, lengths, blank=self.model.config.pad_token_id), strict=True):
                texts[place] = labels_to_text([token.id for token in tokens], self.processor.tokenizer)
        return texts

    @torch.inference_mode()
    def _logits(self, waveforms: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Waveforms `(S,)` -> logits `(B, T, V)` on the device and their valid frames `(B,)`."""
        extractor = self.processor.feature_extractor
        on_device = {"device": self.device} if isinstance(extractor, MelFeatureExtractor) else {}
        batch = extractor(
            waveforms, sampling_rate=SAMPLING_RATE, padding=True, return_attention_mask=True, return_tensors="pt", **on_device
        )
        lengths = output_lengths(self.model, batch["attention_mask"].sum(dim=-1)).cpu()
        batch = {name: value.to(self.device, self.model.dtype if value.is_floating_point() else None) for name, value in batch.items()}
        with self._precision():
            return self.model(**batch).logits, lengths

    def _precision(self) -> AbstractContextManager:
        if self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()


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


def _padding_is_exact(config: PreTrainedConfig) -> bool:
    if getattr(config, "feat_extract_norm", "layer") == "group" or any(getattr(config, option, False) for option in _PADDING_LEAKS):
        return False
    return config.model_type in _PADDING_IS_EXACT


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is {name!r}, expected one such as cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices here")
    return device


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
