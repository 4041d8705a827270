"""Waveforms -> log-probabilities, by the network of a checkpoint: what everything that uses a trained model stands on.

Shapes: B utterances, S samples, T output frames, V vocabulary.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from hfasr.audio import SAMPLING_RATE, long_enough
from hfasr.models.frames import FrameGrid, frame_grid
from hfasr.models.load import load_model, output_lengths
from hfasr.models.mel import MelFeatureExtractor

# Families whose logits of an utterance stay the same, but for rounding, whatever padding is behind it. Not among them: models with
# a group norm over time, a Conformer's unmasked convolutions or several positional convolutions.
_PADDING_IS_EXACT = {"quartznet", "citrinet", "wav2vec2", "unispeech", "unispeech-sat", "hubert", "wavlm", "wav2vec2-bert"}
# options that let padding into the logits of these
_PADDING_LEAKS = ("add_adapter", "conv_pos_batch_norm")


class TorchEngine:
    """A CTC network on a device, in PyTorch.

    Computes in bfloat16 (autocast) on CUDA devices that have it, else in the precision of the model's weights.

    Args:
        model: Checkpoint folder, Hub name or .nemo file, for `load_model`, or a pair of model and processor. The model of a pair is
            put in evaluation mode, and moved if a device is given.
        device: Such as "cpu", "cuda" or "cuda:1". None takes CUDA if there is one, and leaves the model of a pair where it is.

    Attributes:
        tokenizer: Of the model's symbols.
        blank: Id of the CTC blank.
        grid: Where the frames are in the audio.
        device: Where the network is.
        equal_lengths: Whether padding would change what an utterance gives, so that only utterances of one length may share a batch.

    Raises:
        FileNotFoundError, OSError: There is no such model.
        ValueError: The model has no CTC head or no tokenizer, or is not for 16 kHz, or there is no such device.
    """

    def __init__(self, model: str | os.PathLike | tuple[PreTrainedModel, ProcessorMixin], *, device: str | torch.device | None = None):
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
        self.device: torch.device = self.model.device
        self.tokenizer: PreTrainedTokenizerBase = self.processor.tokenizer
        self.blank: int = self.model.config.pad_token_id
        self.grid: FrameGrid = frame_grid(self.model, self.processor)
        self.equal_lengths: bool = not _padding_is_exact(self.model.config)

    @torch.inference_mode()
    def log_probs(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probabilities of a batch.

        Args:
            waveforms: B waveforms `(S,)` in [-1, 1] at 16 kHz, of one length where `equal_lengths`. One under 0.1 s is lengthened to it
                by silence.

        Returns:
            `(B, T, V)` float32 on the device, and the valid frames `(B,)` int64 on the host; frames past them mean nothing.
        """
        extractor = self.processor.feature_extractor
        on_device = {"device": self.device} if isinstance(extractor, MelFeatureExtractor) else {}
        batch = extractor(
            [long_enough(waveform) for waveform in waveforms],
            sampling_rate=SAMPLING_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
            **on_device,
        )
        lengths = output_lengths(self.model, batch["attention_mask"].sum(dim=-1)).cpu()
        batch = {name: value.to(self.device, self.model.dtype if value.is_floating_point() else None) for name, value in batch.items()}
        with self._precision():
            logits = self.model(**batch).logits
        return logits.log_softmax(-1, dtype=torch.float32), lengths

    def _precision(self) -> AbstractContextManager:
        if self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()


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
