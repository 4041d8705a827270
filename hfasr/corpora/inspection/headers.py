"""What the headers of a corpus' recordings say: formats, rates, channels."""

import io
import os
from collections import Counter
from typing import Any

import numpy as np
import soundfile
from datasets import DatasetDict

from hfasr.paths import archived, read_bytes, without_segment

_EXAMPLES = 3
_WRONG_DURATION_SECONDS = 0.1  # tables round


def read_headers(corpus: DatasetDict, count: int) -> dict[str, Any]:
    """Read the headers of some clips, always the same ones.

    Args:
        corpus: Plain rows of every split.
        count: How many, drawn from all rows.

    Returns:
        How many were `sampled`; clips of each of `formats`, `sampling_rates` (Hz) and `channels`; how many are `unreadable`, with
        `examples` of `id` and `reason`; how many last otherwise than their row says, `other_durations`.
    """
    total = sum(map(len, corpus.values()))
    chosen = np.sort(np.random.default_rng(0).choice(total, min(count, total), replace=False))
    formats, rates, channels, unreadable, differing, start = Counter(), Counter(), Counter(), [], 0, 0
    for rows in corpus.values():
        inside = chosen[(chosen >= start) & (chosen < start + len(rows))] - start
        for row in rows.select(inside) if len(inside) else ():
            try:
                info = _header(row["audio"])
            except (OSError, ValueError, soundfile.SoundFileError) as error:
                unreadable.append({"id": row["id"], "reason": str(error)})
                continue
            formats[f"{info.format} {info.subtype}"] += 1
            rates[info.samplerate] += 1
            channels[info.channels] += 1
            whole = "#t=" not in (row["audio"]["path"] or "")
            differing += whole and abs(info.duration - row["duration"]) > _WRONG_DURATION_SECONDS
        start += len(rows)
    return {
        "sampled": len(chosen),
        "formats": dict(formats.most_common()),
        "sampling_rates": dict(rates.most_common()),
        "channels": dict(channels.most_common()),
        "unreadable": len(unreadable),
        "examples": unreadable[:_EXAMPLES],
        "other_durations": int(differing),
    }


def _header(audio: dict):
    if audio["bytes"] is not None:
        return soundfile.info(io.BytesIO(audio["bytes"]))
    if audio["path"] is None:
        raise ValueError("the row has neither a path nor bytes")
    if archived(audio["path"]):
        return soundfile.info(io.BytesIO(read_bytes(audio["path"])))
    if not os.path.isfile(file := without_segment(audio["path"])):
        raise FileNotFoundError(f"{file}: no such file")
    return soundfile.info(file)
