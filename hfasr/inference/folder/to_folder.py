"""Recordings -> a folder of transcripts, which an interrupted run leaves such that the next goes on with it."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfasr.inference.folder.files import STDIN, Recording, output_stems
from hfasr.inference.folder.journal import key_of, open_journal
from hfasr.inference.folder.progress import show_progress
from hfasr.inference.folder.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    recordings: int
    """That were asked for, each counted once."""
    kept: int
    """Of these, that an earlier run had transcribed."""
    errors: list[str]
    """Why some could not be read."""
    speed: str
    """Audio of this run and its speed, in words; "" when there was nothing to do."""


def transcribe_to_folder(
    recordings: Sequence[Recording],
    folder: str | os.PathLike,
    settings: Settings,
    *,
    formats: Sequence[str] = ("txt",),
    replace: bool = False,
    ray_address: str | None = None,
    show: bool = False,
    stdin: bytes = b"",
    **machine: Any,
) -> Outcome:
    """Transcribe recordings into a folder.

    The folder holds `transcripts.jsonl` with a line for each recording, in their order when the run is done, and the other formats
    in a file for each recording, named after it. Recordings that stand in `transcripts.jsonl` are not transcribed again, but for
    those that could not be read, whether or not they have changed.

    Args:
        recordings: What `find_recordings` gives.
        folder: New, empty, or of an earlier run with the same settings.
        settings: Model and options.
        formats: Some of `hfasr.inference.writers.FORMATS`.
        replace: Start over where the folder holds transcripts.
        ray_address: Transcribe on a Ray cluster: "auto", "host:port", "ray://host:port", or "local" to start one here. Its nodes need
            the same packages and must see the recordings, the folder and the model under the same paths.
        show: Whether to show a progress bar.
        stdin: The audio of the recording "-".
        machine: device, batch_seconds, num_workers and compile of the Transcriber.

    Raises:
        ValueError: The folder cannot be written, is in use, or holds other files or transcripts of other settings; a wrong option.
        FileNotFoundError, OSError: There is no such model, or the disk is full; finished transcripts are kept.
        ModuleNotFoundError: Ray is wanted and not installed.
    """
    # a second recording from the standard input is not the first
    keys = {f"{STDIN}{hashlib.sha256(stdin).hexdigest()[:16]}" if each.path == STDIN else key_of(each.shown): each for each in recordings}
    if ray_address is not None:
        if machine.get("device") is not None:
            raise ValueError("device and ray_address exclude each other: Ray gives each network its GPU")
        if any(each.path == STDIN for each in recordings):
            raise ValueError("the standard input cannot be transcribed on a Ray cluster; write it to a file that all nodes see")
    with open_journal(folder, settings.record(), replace=replace) as journal:
        missing = [key for key in keys if not journal.done(key)]
        kept = [key for key in keys if journal.done(key)]
        stems = output_stems((keys[key].name for key in missing), taken=journal.stems())
        if missing:  # before anything is written, so that a wrong option leaves nothing behind; Ray's workers would tell it too late
            transcriber = settings.build(**machine if ray_address is None else machine | {"device": "cpu"})
        journal.complete(kept, formats)
        speed = ""
        if missing and ray_address is not None:
            from hfasr.inference.folder.ray_job import transcribe_on_ray

            del transcriber  # the workers have their own
            rows = [(key, os.path.abspath(keys[key].path), stem) for key, stem in zip(missing, stems, strict=True)]
            with show_progress(len(missing), show) as progress:
                target = (journal.new_parts(), Path(folder).absolute(), settings.absolute(), formats)
                for part in transcribe_on_ray(rows, *target, ray_address, progress.add, machine):
                    journal.read(part)
                speed = progress.speed()
        elif missing:
            sources = ({"path": STDIN, "bytes": stdin} if keys[key].path == STDIN else keys[key].path for key in missing)
            with show_progress(len(missing), show) as progress:
                for place, transcript in transcriber.iter(sources):
                    journal.add(missing[place], stems[place], transcript, formats, symbols=transcriber.symbols)
                    progress.add(1, transcript.duration)
                speed = progress.speed()
        errors = journal.errors(keys)
        journal.finish(list(keys))
        return Outcome(len(keys), len(kept), errors, speed)
