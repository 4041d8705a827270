"""Rows -> label ids, and which rows CTC can train on."""

import logging

import numpy as np
import pyarrow
import torch
from datasets import Dataset, Value
from datasets.features import List
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfasr.audio import SAMPLING_RATE
from hfasr.corpora.rows import column, iter_values, plain, with_column
from hfasr.models.load import input_lengths, output_lengths
from hfasr.text.vocabulary import Labels, encode_targets

logger = logging.getLogger(__name__)


def labelled(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, Labels]:
    """Add `labels`, the ids of `target`; return them as well."""
    labels = encode_targets(tokenizer, iter_values(rows, "target"))
    ids = pyarrow.ListArray.from_arrays(labels.offsets.astype(np.int32), labels.ids)
    return with_column(plain(rows), "labels", ids, List(Value("int32"))), labels


def drop_unfit(rows: Dataset, labels: Labels, model: PreTrainedModel, processor) -> tuple[Dataset, list[dict]]:
    """Drop the rows that CTC cannot train on: no labels, or more labels than frames.

    Args:
        rows: Rows with `duration`.
        labels: Their label ids.
        model: Tells the frames of its logits.
        processor: Its feature extractor tells the length of the input.

    Returns:
        The rows that fit, and one `{"split": "train", "id", "path", "reason"}` for each of the others.

    Raises:
        ValueError: No row is left.
    """
    reasons = misfits(labels, column(rows, "duration").to_numpy(), model, processor)
    if len(reasons) == len(rows):
        raise ValueError(f"none of the {len(rows)} training rows can be trained on, for example: {reasons.get(0, 'no rows')}")
    if not reasons:
        return rows, []
    unfit = rows.select(list(reasons))
    ids, paths = column(unfit, "id").to_pylist(), column(unfit, "audio", "path").to_pylist()
    dropped = [
        {"split": "train", "id": name, "path": path, "reason": reason}
        for name, path, reason in zip(ids, paths, reasons.values(), strict=True)
    ]
    logger.warning("%d training rows are left out, for example %s: %s", len(dropped), dropped[0]["id"], dropped[0]["reason"])
    return rows.select(np.delete(np.arange(len(rows)), list(reasons))), dropped


def misfits(labels: Labels, durations: np.ndarray, model: PreTrainedModel, processor) -> dict[int, str]:
    """Say why CTC cannot train on some rows, by their places: no labels, more labels than frames, or a blank among the labels.

    A label that repeats the one before it needs a blank between, so L labels with R repeats need L + R frames (Graves et
    al. 2006).

    Args:
        labels: Label ids of the rows.
        durations: Seconds of each row `(N,)`.
        model: Tells the frames of its logits.
        processor: Its feature extractor tells the length of the input.
    """
    samples = torch.from_numpy(np.rint(np.asarray(durations) * SAMPLING_RATE).astype(np.int64))
    frames = output_lengths(model, input_lengths(processor, samples)).numpy()
    starts, ends = labels.offsets[:-1], labels.offsets[1:]
    again = np.zeros(len(labels.ids) + 1, np.int64)
    again[1:-1] = labels.ids[1:] == labels.ids[:-1]
    again[starts] = 0  # the first label of a row follows none
    repeats = np.concatenate([[0], np.cumsum(again[:-1])])
    counts = ends - starts
    needed = counts + repeats[ends] - repeats[starts]
    reasons = {}
    blanks = np.concatenate([[0], np.cumsum(labels.ids == model.config.pad_token_id)])
    unknown = blanks[ends] - blanks[starts]
    for place in np.flatnonzero((counts == 0) | (needed > frames) | (unknown > 0)).tolist():
        if not counts[place]:
            reasons[place] = "the target is empty"
        elif unknown[place]:
            reasons[place] = f"the target holds characters without a symbol ({unknown[place]})"
        else:
            reasons[place] = f"{counts[place]} labels need {needed[place]} frames, the audio has {frames[place]}"
    return reasons
