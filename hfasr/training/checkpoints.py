"""The checkpoints of a run: which there are, which is whole, which to go on from."""

import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hfasr.files import temporary_beside
from hfasr.training.arguments import NEWEST

logger = logging.getLogger(__name__)


def resume_folder(output_dir: str | os.PathLike, wanted: str | bool | None) -> str | None:
    """Return the checkpoint folder to resume from; None starts from the beginning.

    Args:
        output_dir: The run's folder.
        wanted: A checkpoint folder, "newest" or True for the newest whole one of the run, None or False for none.

    Raises:
        FileNotFoundError: The named folder does not exist.
        ValueError: The named folder is not a whole checkpoint.
    """
    if not wanted:
        return None
    if wanted not in (True, NEWEST):
        if not Path(wanted).is_dir():
            raise FileNotFoundError(f"{wanted}: no such checkpoint folder; --resume_from_checkpoint without a value takes the newest")
        if missing := damage(Path(wanted)):
            raise ValueError(f"{wanted} is not a whole checkpoint: {missing}")
        return str(wanted)
    for _, folder in reversed(numbered_checkpoints(output_dir)):
        reason = damage(folder)
        if not reason:
            return str(folder)
        logger.warning("%s is not a whole checkpoint (%s), trying the one before", folder, reason)
    logger.warning("%s holds no checkpoint to resume from; training starts from the beginning", output_dir)
    return None


def numbered_checkpoints(output_dir: str | os.PathLike) -> list[tuple[int, Path]]:
    """Return the checkpoint folders of a run with their updates, oldest first, whole or not."""
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name) and path.is_dir()]
    return sorted((int(path.name.rpartition("-")[2]), path) for path in folders)


def write_weights(path: str | os.PathLike, weights: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all."""
    temporary = temporary_beside(path)
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary, metadata={"format": "pt"})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def trained_seconds(folder: str | os.PathLike) -> float:
    """Return the seconds of training up to a checkpoint, as far as its log tells."""
    state = json.loads(Path(folder, "trainer_state.json").read_text(encoding="utf-8"))
    return max((entry.get("train_seconds", 0.0) for entry in state.get("log_history", ())), default=0.0)


def stream_state_path(folder: str | os.PathLike, process: int) -> Path:
    """Name the file of a checkpoint with the place of one process in a streamed corpus."""
    return Path(folder, f"stream_state_{process}.json")


def stream_state(folder: str | os.PathLike, process: int, processes: int) -> dict | None:
    """Return the place of one process in a streamed corpus; None for a checkpoint of a run on a table.

    Raises:
        ValueError: The checkpoint was made by another number of processes.
    """
    if not stream_state_path(folder, 0).is_file():
        return None
    before = _stream_processes(Path(folder))
    if before != processes:
        raise ValueError(f"{folder} was made by {before} processes, this run has {processes}; a stream is resumed by as many")
    return json.loads(stream_state_path(folder, process).read_text(encoding="utf-8"))


def _stream_processes(folder: Path) -> int:
    return json.loads(stream_state_path(folder, 0).read_text(encoding="utf-8"))["processes"]


def damage(folder: Path) -> str:
    """Say what a checkpoint lacks, "" for a whole one.

    Trainer writes the weights first and trainer_state.json last, straight into the folder, so a killed process leaves some
    of it. Sharded optimizers have layouts of their own, of which only the last file is looked for.
    """
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except OSError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is cut short"
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{path.name}: {error}"
    for path in [path for kind in ("*.pt", "*.pth", "*.bin") for path in folder.glob(kind)]:
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        except (zipfile.BadZipFile, OSError):
            return f"{path.name} is cut short"
        if broken:
            return f"{path.name} is damaged ({broken})"
    if any(folder.glob("stream_state_*.json")):
        names = [stream_state_path(folder, 0)]
        if names[0].is_file():
            names = [stream_state_path(folder, process) for process in range(_stream_processes(folder))]
        for path in names:
            if not path.is_file():  # each is renamed into place whole
                return f"{path.name} is missing"
    sharded = any(folder.glob("global_step*")) or any(folder.glob("*_fsdp_*")) or any(folder.glob("optimizer_*"))
    if not sharded:
        # Accelerate's names for FSDP with whole state dicts
        whole = (folder / "pytorch_model_fsdp.bin").is_file()
        for name in ("optimizer.bin" if whole else "optimizer.pt", "scheduler.pt"):
            if not (folder / name).is_file():
                return f"{name} is missing"
    return ""
