"""Meeting the other processes again after torchrun or accelerate launch has started all anew."""

import os
from datetime import timedelta

import torch
from torch import distributed


def join_again(timeout: timedelta, *, use_cpu: bool, backend: str | None = None) -> None:
    """Make the process group of a run that its launcher started again (--max_restarts); do nothing in any other.

    The launcher keeps the store in which processes leave their addresses, from one start to the next, so that some would call at an
    address of the last (pytorch/pytorch#135712); here each start has keys of its own. Launchers of several machines count starts
    each for itself: there the store has to be another at each start, as with --rdzv_backend c10d and
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.

    Args:
        timeout: Of a collective.
        use_cpu: Whether training is to use no GPU.
        backend: Of the collectives; that of the device when None.
    """
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("GROUP_WORLD_SIZE") == "1"
    if start == "0" or not kept or distributed.is_initialized():
        return
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), processes, is_master=False, timeout=timeout)
    distributed.init_process_group(
        backend or ("gloo" if use_cpu or not torch.cuda.is_available() else "nccl"),
        store=distributed.PrefixStore(f"start_{start}", store),
        rank=rank,
        world_size=processes,
        timeout=timeout,
    )
