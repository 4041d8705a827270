"""Transcribe on a Ray cluster: a Ray Data job with one network on each GPU, whose results are written in parts.

A part is written whole, and then it is done. Of a node that dies Ray gives the parts in work to another.
"""

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfasr.corpora.preparation.workers import connected
from hfasr.errors import sentence
from hfasr.files import write_text
from hfasr.inference.folder.journal import write_recording
from hfasr.inference.folder.settings import Settings

# about five hours of sentences; enough that reading ahead and sorting pay, little enough to lose with a node
_MOST_RECORDINGS = 4096
_PARTS_EACH = 4


@dataclass(frozen=True)
class Part:
    """Some recordings, and the file of their records."""

    file: Path
    rows: list[tuple[str, str, str]]
    """What the record calls a recording, its path, and the stem of its files."""


def transcribe_on_ray(
    rows: Sequence[tuple[str, str, str]],
    files: Iterator[Path],
    folder: Path,
    settings: Settings,
    formats: Sequence[str],
    address: str,
    advance: Callable[[int, float], None],
    machine: dict[str, Any],
) -> list[Path]:
    """Transcribe recordings on a cluster.

    Args:
        rows: As of a `Part`.
        files: For the records, as many as are needed.
        folder: For the files of recordings; every node must see it.
        settings: Model and options.
        formats: Of the files.
        address: "auto", "host:port" or "ray://host:port" of a running cluster; "local" starts one on this machine.
        advance: Called with the recordings and seconds of a part that is done.
        machine: Of the Transcriber: batch_seconds, num_workers, compile.

    Returns:
        The files that were written, in the order of the recordings.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: There is no such cluster, a node does not see the folder or cannot import hfasr, or no node is left that does
            a part; a part failed.
    """
    with connected(address, folder) as (ray, data):
        count, resources = _places(ray)
        size = min(_MOST_RECORDINGS, math.ceil(len(rows) / (_PARTS_EACH * count)))
        starts = range(0, len(rows), size)
        parts = [Part(file, list(rows[at : at + size])) for at, file in zip(starts, files, strict=False)]
        try:
            _run(data, parts, count, resources, (settings, folder, tuple(formats), machine), advance)
        except ray.exceptions.RayError as error:
            raise ValueError(f"Ray gave up: {error}. What is done is kept; run it again") from error
    return [part.file for part in parts]


def _places(ray: Any) -> tuple[int, dict[str, float]]:
    """Return how many networks the cluster has room for, and what each takes: a GPU with its share of cores, or a core."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if not gpus:
        return max(1, sum(int(node.get("CPU", 0)) for node in nodes)), {"num_cpus": 1}
    share = min(node.get("CPU", 0) // node["GPU"] for node in nodes if node.get("GPU", 0) >= 1)
    return gpus, {"num_gpus": 1, "num_cpus": max(1, share)}


def _run(data: Any, parts: Sequence[Part], count: int, resources: dict, arguments: tuple, advance: Callable[[int, float], None]) -> None:
    items = data.from_items([{"part": pickle.dumps(part)} for part in parts], override_num_blocks=len(parts))
    # of a pool that can shrink, workers that are done make room for those that a dead node had
    pool = data.ActorPoolStrategy(min_size=1, max_size=min(count, len(parts)), initial_size=min(count, len(parts)))
    done = items.map(_Worker, fn_constructor_args=arguments, compute=pool, **resources)
    done.context.enable_progress_bars = False
    for row in done.iter_rows():
        if row["error"]:
            raise ValueError(row["error"])
        advance(row["recordings"], row["seconds"])


class _Worker:
    """A process of the cluster with a network."""

    def __init__(self, settings: Settings, folder: Path, formats: tuple[str, ...], machine: dict[str, Any]):
        import ray
        import torch

        cores = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
        if not torch.cuda.is_available():
            torch.set_num_threads(cores)
        workers = {} if machine.get("num_workers") is not None else {"num_workers": cores - 1}
        self._folder, self._formats = folder, formats
        self._transcriber = settings.build(**machine | workers)

    def __call__(self, row: dict) -> dict:
        part = pickle.loads(row["part"])
        seconds, error = 0.0, ""
        try:
            lines = [""] * len(part.rows)
            for place, transcript in self._transcriber.iter(path for _, path, _ in part.rows):
                key, _, stem = part.rows[place]
                lines[place] = write_recording(self._folder, key, stem, transcript, self._formats, self._transcriber.symbols)
                seconds += transcript.duration
            write_text(part.file, "".join(lines))
        except Exception as raised:
            error = sentence(raised) if isinstance(raised, (ValueError, OSError)) else f"{type(raised).__name__}: {raised}"
        return {"recordings": len(part.rows), "seconds": seconds, "error": error}
