"""A batch of rows -> tensors."""

import json
import logging
import os

import numpy as np
import torch
from torch.nn import functional

from hfasr.audio import SAMPLING_RATE, load_audio, long_enough
from hfasr.models.front_ends import extract
from hfasr.training.batches.shapes import Shapes

logger = logging.getLogger(__name__)

PADDING = -100

# Mel frames of a shape come in eights, as tensor cores like their matrices; those of a waveform do by its length.
_FRAMES = 8


class CTCCollator:
    """Decode and pad rows, in the data-loader workers.

    A clip that cannot be read becomes silence, a second or less, without labels, which counts nothing in the loss, and a line in
    the quarantine file; the batch keeps its rows. An empty list gives one such row. A batch of which no clip can be read is
    an error: then it is the disk.

    Args:
        processor: Feature extractor and tokenizer.
        quarantine: JSON lines file to add unreadable clips to; None only logs them.
        shapes: Sizes to fill training batches up to, with silence at the end of rows and with rows of padding, of which a second
            counts as valid and none has labels. None pads to the longest row.
    """

    def __init__(self, processor, quarantine: str | os.PathLike | None = None, shapes: Shapes | None = None):
        self.processor, self.quarantine, self.shapes = processor, quarantine, shapes
        self._reported: set[str] = set()
        self._widths: dict[float, int] = {}

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | np.ndarray]:
        """Build a batch.

        Args:
            rows: `id`, `audio` and `labels` (a list of ids) of each.

        Returns:
            `input_values (B, S)` or `input_features (B, F, M)`, `labels (B, L)` padded with -100; `input_lengths (B,)`, in
            samples or mel frames, and `label_lengths (B,)`. The two are NumPy arrays, which nothing moves to the device: the
            loss needs them on the host, and to ask the device for them would be to wait for it.

        Raises:
            OSError: None of four or more clips can be read.
        """
        rows = rows or [{"id": "", "audio": None, "labels": []}]
        loaded = [self._load(row) for row in rows]
        if len(rows) >= 4 and all(waveform is None for waveform in loaded):
            raise OSError(
                f"none of the {len(rows)} clips of a batch can be read, such as {rows[0]['audio']['path']}; is the corpus still there?"
            )
        labels = [[] if waveform is None else list(row["labels"]) for row, waveform in zip(rows, loaded, strict=True)]
        # not longer than the others, for it must fit their shape
        silence = np.zeros(min([SAMPLING_RATE, *(len(one) for one in loaded if one is not None)]), np.float32)
        waveforms = [long_enough(silence if waveform is None else waveform) for waveform in loaded]
        name, values, lengths = extract(waveforms, self.processor.feature_extractor)
        if self.shapes is not None:
            values, lengths = self._fill(values, lengths, max(map(len, waveforms)) / SAMPLING_RATE)
            labels += [[]] * (len(values) - len(labels))
        width = max(1, max(map(len, labels)))
        return {
            name: values,
            "labels": torch.tensor([row + [PADDING] * (width - len(row)) for row in labels], dtype=torch.int64),
            "input_lengths": lengths,
            "label_lengths": np.array([len(row) for row in labels], dtype=np.int64),
        }

    def _fill(self, values: torch.Tensor, lengths: np.ndarray, longest_seconds: float) -> tuple[torch.Tensor, np.ndarray]:
        """Fill a batch up to its shape."""
        rows, seconds = self.shapes.shape_of(longest_seconds, len(values))
        width, silent = self._width(seconds), self._width(1.0)
        if values.ndim == 3:
            width = -(-width // _FRAMES) * _FRAMES
        more = (0, 0) * (values.ndim - 2) + (0, max(0, width - values.shape[1]), 0, rows - len(values))
        filled = functional.pad(values, more, value=self.processor.feature_extractor.padding_value)
        return filled, np.append(lengths, np.full(rows - len(values), min(silent, filled.shape[1]), np.int64))

    def _width(self, seconds: float) -> int:
        """Return how wide a row of these seconds is, in samples or mel frames."""
        if seconds not in self._widths:
            silence = np.zeros(round(seconds * SAMPLING_RATE), np.float32)
            self._widths[seconds] = extract([silence], self.processor.feature_extractor)[1].shape[1]
        return self._widths[seconds]

    def _load(self, row: dict) -> np.ndarray | None:
        if row["audio"] is None:
            return None
        try:
            return load_audio(row["audio"])
        except (ValueError, OSError) as error:
            self._report(row["id"], row["audio"]["path"], str(error))
            return None

    def _report(self, row_id: str, path: str, reason: str) -> None:
        if row_id in self._reported:
            return
        self._reported.add(row_id)
        logger.warning("clip %s left out: %s", row_id, reason)
        if self.quarantine is not None:
            line = json.dumps({"split": "", "id": row_id, "path": path, "reason": reason}, ensure_ascii=False)
            with open(self.quarantine, "a", encoding="utf-8") as file:  # one short append per line, whole on any worker count
                file.write(line + "\n")
