"""Waveforms -> log-probabilities, by the network of a checkpoint: what everything that uses a trained model stands on.

Shapes: B utterances, S samples, T output frames, V vocabulary.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from hfasr.audio import SAMPLING_RATE, long_enough
from hfasr.models.encoder import ConvEncoderConfig
from hfasr.models.frames import FrameGrid, frame_grid
from hfasr.models.front_ends import extract, extract_on_device, works_on_device
from hfasr.models.load import input_lengths, load_model, output_lengths
from hfasr.models.speed.fast_inference import FastInference
from hfasr.models.speed.fast_training import compile_mode
from hfasr.models.speed.padding import padding_is_exact, to_device

PRECISIONS = ("auto", "float32", "bfloat16", "autocast")
_WAVEFORMS = "waveforms"


@dataclass(frozen=True)
class Batch:
    """The padded input of a network, on the host."""

    name: str
    """The argument of the model that `values` are; "waveforms" where they are computed on the device."""
    values: torch.Tensor
    """`(B, S)` or `(B, F, M)`, float32."""
    lengths: torch.Tensor
    """How much of each row is valid `(B,)`, int64."""

    def rows(self, which: slice) -> "Batch":
        """Return some of the rows, as long as they are here."""
        return Batch(self.name, self.values[which], self.lengths[which])


class TorchEngine:
    """A CTC network on a device, in PyTorch.

    What an utterance gives does not depend on what else is in its batch, but for rounding; see `equal_lengths`.

    Args:
        model: Checkpoint folder, Hub name or .nemo file, for `load_model`, or a pair of model and processor. The model of a pair is
            put in evaluation mode, and moved if a device is given; else it is left as it is but while a batch is computed.
        device: Such as "cpu", "cuda" or "cuda:1". None takes CUDA if there is one, and leaves the model of a pair where it is.
        compile: "auto", "off", "dynamic" or "static". Compiling costs a minute and gains a third on a GPU, so "auto" begins with it, on
            CUDA only, when the device has computed for a minute and a half; "dynamic" (one graph for batches of all shapes) and "static"
            (one for each shape) begin with the first batch.
        precision: "float32" and "bfloat16" give the weights this type, "autocast" computes float32 weights in bfloat16. "auto" takes, on
            CUDA devices that have bfloat16, autocast for pairs and convolutional models and bfloat16 for others; elsewhere the weights as
            they are. The CTC head computes in float32 in any case.

    Attributes:
        tokenizer: Of the model's symbols.
        blank: Id of the CTC blank.
        grid: Where the frames are in the audio.
        device: Where the network is.
        equal_lengths: Whether padding would change what an utterance gives, so that only utterances of one length may share a batch:
            in families that hfasr does not know.

    Raises:
        FileNotFoundError, OSError: There is no such model.
        ValueError: The model has no CTC head or no tokenizer, or is not for 16 kHz, there is no such device, or `compile` or `precision`
            is none of these.
    """

    def __init__(
        self,
        model: str | os.PathLike | tuple[PreTrainedModel, ProcessorMixin],
        *,
        device: str | torch.device | None = None,
        compile: str = "auto",
        precision: str = "auto",
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        device, pair = None if device is None else _device(device), isinstance(model, tuple)
        compile_mode(compile, torch.device("cpu"))  # before a model is loaded for nothing
        if pair:
            self.model, self.processor = model
        else:
            self.model, self.processor = load_model(os.fspath(model))
            device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if (rate := self.processor.feature_extractor.sampling_rate) != SAMPLING_RATE:
            raise ValueError(f"the model hears {rate} Hz, expected {SAMPLING_RATE} Hz, at which hfasr works")
        self.model.eval()
        if device is not None:
            self.model.to(device)
        self.device: torch.device = self.model.device
        if precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            precision = "autocast" if pair or isinstance(self.model.config, ConvEncoderConfig) else "bfloat16"
        if precision in ("float32", "bfloat16"):
            self.model.to(getattr(torch, precision))
        self._network = FastInference(self.model, compile, autocast=torch.bfloat16 if precision == "autocast" else None)
        self._extracts_on_device = self.device.type == "cuda" and works_on_device(self.processor.feature_extractor)
        self.tokenizer: PreTrainedTokenizerBase = self.processor.tokenizer
        self.blank: int = self.model.config.pad_token_id
        self.grid: FrameGrid = frame_grid(self.model, self.processor)
        self.equal_lengths: bool = not padding_is_exact(self.model)

    def prepare(self, waveforms: Sequence[np.ndarray]) -> Batch:
        """Do on the host what `forward` needs. It may run in other threads, while the device computes an earlier batch.

        Args:
            waveforms: B waveforms `(S,)` in [-1, 1] at 16 kHz, of one length where `equal_lengths`. One under 0.1 s is lengthened to it
                by silence.
        """
        waveforms = [long_enough(waveform) for waveform in waveforms]
        if not self._extracts_on_device:
            name, values, lengths = extract(waveforms, self.processor.feature_extractor)
            return Batch(name, values.pin_memory() if self.device.type == "cuda" else values, torch.from_numpy(lengths))
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        values = torch.empty(len(waveforms), int(lengths.max()), pin_memory=True)
        for row, waveform in zip(values.numpy(), waveforms, strict=True):
            row[: len(waveform)] = waveform
            row[len(waveform) :] = 0.0
        return Batch(_WAVEFORMS, values, lengths)

    @torch.no_grad()  # not inference_mode: what a model keeps from one call to the next could not be trained with
    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probabilities of a batch that `prepare` made, on CUDA before they are computed: reading them waits for them.

        Returns:
            `(B, T, V)` float32 on the device, and the valid frames `(B,)` int64 on the host; frames past them mean nothing.
        """
        name, values, lengths = batch.name, batch.values.to(self.device, non_blocking=True), batch.lengths
        if name == _WAVEFORMS:
            name, values = extract_on_device(values, to_device(lengths, self.device), self.processor.feature_extractor)
            lengths = input_lengths(self.processor, lengths)
        inputs, padded = {name: values.to(self.model.dtype)}, int(lengths.min()) < values.shape[1]
        if padded:  # without padding a mask would cost, and change nothing
            inputs["attention_mask"] = torch.arange(values.shape[1], device=self.device) < to_device(lengths, self.device)[:, None]
        logits = self._network.logits(inputs, lengths if padded else None)
        return logits.log_softmax(-1, dtype=torch.float32), output_lengths(self.model, lengths)

    def log_probs(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `forward(prepare(waveforms))`."""
        return self.forward(self.prepare(waveforms))


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is {name!r}, expected one such as cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices here")
    return device
