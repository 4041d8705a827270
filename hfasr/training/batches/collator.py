"""A batch of rows -> tensors."""

import json
import logging
import os

import numpy as np
import torch

from hfasr.audio import SAMPLING_RATE, load_audio, long_enough

logger = logging.getLogger(__name__)

PADDING = -100


class CTCCollator:
    """Decode and pad rows, in the data-loader workers.

    A clip that cannot be read becomes a second of silence without labels, which counts nothing in the loss, and a line in
    the quarantine file; the batch keeps its rows. An empty list gives one such row. A batch of which no clip can be read is
    an error: then it is the disk.

    Args:
        processor: Feature extractor and tokenizer.
        quarantine: JSON lines file to add unreadable clips to; None only logs them.
    """

    def __init__(self, processor, quarantine: str | os.PathLike | None = None):
        self.feature_extractor, self.quarantine = processor.feature_extractor, quarantine
        self._reported: set[str] = set()

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Build a batch.

        Args:
            rows: `id`, `audio` and `labels` (a list of ids) of each.

        Returns:
            `input_values (B, S)` or `input_features (B, F, M)`, `attention_mask` where the model takes one, `labels (B, L)`
            padded with -100, `input_lengths (B,)` in samples or mel frames.

        Raises:
            OSError: None of four or more clips can be read.
        """
        rows = rows or [{"id": "", "audio": None, "labels": []}]
        loaded = [self._load(row) for row in rows]
        if len(rows) >= 4 and all(waveform is None for waveform in loaded):
            raise OSError(
                f"none of the {len(rows)} clips of a batch can be read, such as {rows[0]['audio']['path']}; is the corpus still there?"
            )
        labels = [[] if waveform is None else row["labels"] for row, waveform in zip(rows, loaded, strict=True)]
        waveforms = [np.zeros(SAMPLING_RATE, np.float32) if waveform is None else long_enough(waveform) for waveform in loaded]
        batch = dict(self.feature_extractor(waveforms, sampling_rate=SAMPLING_RATE, padding=True, return_tensors="pt"))
        if "attention_mask" in batch:
            batch["input_lengths"] = batch["attention_mask"].sum(-1)
        else:
            batch["input_lengths"] = torch.tensor([len(waveform) for waveform in waveforms])
        width = max(1, max(map(len, labels)))
        batch["labels"] = torch.tensor([row + [PADDING] * (width - len(row)) for row in map(list, labels)], dtype=torch.int64)
        return batch

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
