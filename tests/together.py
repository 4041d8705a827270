"""Run a function in several processes of one gloo group, without starting Python for each of them."""

import contextlib
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from unittest import mock

_CONTEXT = multiprocessing.get_context("forkserver")
# The server imports these once and its children are forks of it. A fork of the tests' own process would not do: backward
# passes on a GPU start threads that a fork lacks.
_CONTEXT.set_forkserver_preload(
    [
        "hfasr.training.fine_tune", "hfasr.text.phonemize", "torch.distributed.checkpoint.state_dict", "accelerate.commands.launch",
        "accelerate.utils.fsdp_utils", "pytest",
    ]
)  # fmt: skip


def together(
    function: Callable, processes: int, *arguments, seconds: float = 200, after: Path | None = None, send: int = signal.SIGTERM
) -> list:
    """Call `function(*arguments)` in each of several processes, as torchrun starts them, and return what each returned.

    Of a process that leaves by SystemExit this is the status, of one that `send` ended the signal's number below 0.

    Args:
        function: Of a module's top level; it finds its rank in the environment, and the CPU as its device. One by itself finds no
            rank, as one that Python starts.
        processes: How many.
        arguments: For it; they are pickled, as is what it returns.
        seconds: Longest time it may take.
        after: File at whose appearance each process, and what it started, is sent a signal.
        send: Which.

    Raises:
        AssertionError: One of them raised, ended or took too long; the message holds its traceback.
    """
    with mock.patch.dict(os.environ, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    port = free_port()
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(processes)]
    started = [
        _CONTEXT.Process(target=_run, args=(sender, rank, processes, port, function, arguments), daemon=False)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process, (_, sender) in zip(started, pipes, strict=True):
        process.start()
        sender.close()
    found: dict[int, tuple[bool, object]] = {}
    try:
        waiting = {receiver: rank for rank, (receiver, _) in enumerate(pipes)}
        end = time.monotonic() + seconds
        while waiting:
            assert time.monotonic() < end, f"processes {sorted(waiting.values())} took more than {seconds} s"
            ready = wait(list(waiting), timeout=0.02 if after is not None else 1)
            if after is not None and after.exists():
                after = None
                for process in started:
                    with contextlib.suppress(ProcessLookupError):  # who has ended
                        os.killpg(process.pid, send)
            for receiver in ready:
                rank = waiting.pop(receiver)
                try:
                    found[rank] = receiver.recv()
                except EOFError:
                    started[rank].join(10)
                    status = started[rank].exitcode
                    found[rank] = (True, status) if status == -send else (False, f"process {rank} ended without an answer ({status})")
        for process in started:
            process.join(10)
    finally:
        for process in started:
            process.kill()
    failed = [str(answer) for fine, answer in found.values() if not fine]
    assert not failed, failed[0]  # the others lost their connection to the first
    return [found[rank][1] for rank in range(processes)]


def free_port() -> int:
    """Return a port of this machine that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run(sender: Connection, rank: int, processes: int, port: int, function: Callable, arguments: tuple) -> None:
    import torch

    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # Linux's own; else workers of loaders begin as this process did, from nothing
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )  # fmt: skip
    torch.set_num_threads(1)
    try:
        answer = (True, function(*arguments))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # who ends first breaks the others' connections
            torch.distributed.destroy_process_group()
    except SystemExit as leaving:
        answer = (True, leaving.code)
    except BaseException:
        answer = (False, traceback.format_exc())
    sender.send(answer)
    sender.close()
