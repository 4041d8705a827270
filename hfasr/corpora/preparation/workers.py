"""Run one function over many jobs: in processes of this machine, or as a Ray Data job.

A worker that dies, killed for its memory or with its machine, does not end the run; its job is done again.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hfasr.extras import require

logger = logging.getLogger(__name__)

_PRELOADED = ["hfasr.corpora.preparation.shards", "torchaudio"]


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    job: Any = None
    done: int = 0


def run_in_processes(function: Callable, jobs: Iterable, num_workers: int, advance: Callable[[int], None]) -> None:
    """Call `function(job, advance)` for each job in worker processes, one job each at a time.

    A worker dies with this process, and all of them when it is interrupted. What a job raises is raised here, at once.

    Args:
        function: Importable by its name; it calls its `advance` with a number of clips when they are done.
        jobs: Hashable, pickled; taken from as workers become free.
        num_workers: Processes.
        advance: Called here with what the workers report; with a negative number when a worker's clips are to be done again.

    Raises:
        ValueError: A job killed two workers; raised when all other jobs are done.
    """
    context = multiprocessing.get_context("forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn")
    context.set_forkserver_preload(_PRELOADED)
    waiting, again, given_up = iter(jobs), [], []
    retried: set = set()
    busy: list[_Worker] = []
    idle: list[_Worker] = []
    try:
        while True:
            while len(busy) < num_workers and (job := again.pop() if again else next(waiting, None)) is not None:
                busy.append(_hand_over(job, idle, context, function))
            if not busy:
                break
            for connection in wait([worker.connection for worker in busy]):
                worker = next(worker for worker in busy if worker.connection is connection)
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError):
                    busy.remove(worker)
                    advance(-worker.done)
                    _bury(worker, again, retried, given_up)
                    continue
                if kind == "failed":
                    raise value
                if kind == "done":
                    busy.remove(worker)
                    idle.append(worker)
                else:
                    worker.done += value
                    advance(value)
    finally:
        for worker in busy + idle:
            worker.process.terminate()
            worker.process.join()
            worker.connection.close()
    if given_up:
        raise ValueError(f"{given_up[0]} The other shards are finished and kept; run it again with fewer workers, or look into these clips")


def _hand_over(job: Any, idle: list[_Worker], context: Any, function: Callable) -> _Worker:
    """Send a job to an idle worker, or to a new one."""
    while idle:
        worker = idle.pop()
        with suppress(OSError):
            worker.connection.send(job)
            worker.job, worker.done = job, 0
            return worker
        worker.process.join()  # it died while it had nothing to do
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()
    ours.send(job)
    return _Worker(process, ours, job)


def _bury(worker: _Worker, again: list, retried: set, given_up: list[str]) -> None:
    worker.process.join()
    worker.connection.close()
    code = worker.process.exitcode
    how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit status {code}"
    message = f"worker {worker.process.pid} {how} at {worker.job}."
    if worker.job in retried:
        given_up.append(f"{message} It was the second try.")
        logger.error("%s", given_up[-1])
    else:
        logger.warning("%s Too little memory? Trying once more", message)
        retried.add(worker.job)
        again.append(worker.job)


def _serve(connection: Connection, function: Callable) -> None:
    """Do jobs until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    with suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            try:
                function(job, lambda count: connection.send(("advance", count)))
            except Exception as error:
                connection.send(("failed", _sendable(error)))
            else:
                connection.send(("done", None))


def _sendable(error: Exception) -> Exception:
    with suppress(Exception):
        return pickle.loads(pickle.dumps(error)) and error
    return ValueError(f"{type(error).__name__}: {error}")


def run_on_ray(function: Callable, jobs: list, address: str, shared: Path, advance: Callable[[int], None]) -> dict[str, int]:
    """Call `function(job, advance)` for each job on a Ray cluster; Ray does again what a dead worker or node left.

    Args:
        function: As for `run_in_processes`.
        jobs: All of them; each has `clips`.
        address: "auto", "host:port" or "ray://host:port" of a running cluster; "local" starts one on this machine.
        shared: A folder that every node must see.
        advance: Called with a job's clips when it is done.

    Returns:
        How many jobs each node did, by its id.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: There is no such cluster, a node does not see the folder or cannot import hfasr, or Ray gave up.
    """
    nodes: dict[str, int] = {}
    with connected(address, shared) as (ray, data):
        items = data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
        done = items.map(_run_job, fn_args=(function,), num_cpus=1)
        done.context.enable_progress_bars = False
        try:
            for row in done.iter_rows():
                if row["error"]:
                    raise pickle.loads(row["error"])
                nodes[row["node"]] = nodes.get(row["node"], 0) + 1
                advance(row["clips"])
        except ray.exceptions.RayError as error:
            raise ValueError(f"Ray gave up: {error}. Finished shards are kept; run it again") from error
    return nodes


def _run_job(row: dict, function: Callable) -> dict:
    import ray

    job, error = pickle.loads(row["job"]), b""
    try:
        function(job, lambda count: None)
    except Exception as raised:
        error = pickle.dumps(_sendable(raised))
    return {"clips": job.clips, "node": ray.get_runtime_context().get_node_id(), "error": error}


@contextmanager
def connected(address: str, shared: Path) -> Iterator[tuple[Any, Any]]:
    """Connect to a cluster unless this process already is, and leave it again.

    Args:
        address: "auto", "host:port" or "ray://host:port" of a running cluster; "local" starts one on this machine.
        shared: A folder that every node must see.

    Yields:
        The modules ray and ray.data.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: There is no such cluster, or a node does not see the folder or cannot import hfasr.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray, data = require("ray", extra="ray"), require("ray.data", extra="ray")
    level = logging.getLogger("ray.data").level
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    try:
        if ours:
            try:
                _knock(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
                raise ValueError(
                    f"cannot reach a Ray cluster at {address!r}: {error}. Start one with `ray start --head`, "
                    "or give 'local' to start one on this machine"
                ) from None
        _check_nodes(ray, shared)
        yield ray, data
    finally:
        if ours:
            ray.shutdown()
        logging.getLogger("ray.data").setLevel(level)


def _knock(address: str) -> None:
    """Raise OSError when nobody listens at `host:port`; Ray would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()


def _check_nodes(ray: Any, shared: Path) -> None:
    """Refuse a cluster in which a node that takes jobs does not see the folder."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    seen = []
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        seen.append(ray.remote(_sees).options(num_cpus=0, scheduling_strategy=here).remote(str(shared)))
    for node, answer in zip(nodes, seen, strict=True):
        name = f"Ray node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        try:
            host, found = ray.get(answer)
        except ray.exceptions.RayError as error:
            raise ValueError(f"{name} cannot run hfasr; install the same packages on every node: {error}") from None
        if not found:
            raise ValueError(f"{name}, {host}, does not see {shared}; give a folder on a file system that all nodes share")


def _sees(folder: str) -> tuple[str, bool]:
    return socket.gethostname(), os.path.isdir(folder)
