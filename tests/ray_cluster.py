"""A Ray cluster of two node processes on this machine, for tests that kill one."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from together import free_port


@contextmanager
def two_nodes() -> Iterator[tuple[str, dict[str, str], subprocess.Popen]]:
    """Start a head and a second node of one CPU each; yield (address, environment of a driver, the second node's process)."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed (pip install 'hfasr[ray]')")
    ray, port = str(Path(sys.executable).with_name("ray")), free_port()
    # a short name, since sockets in it may have no more than 107 characters
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # a head listens on all of the machine's addresses: only holders of this token may use it
        token = Path(folder, "token")
        token.write_text(uuid.uuid4().hex)
        ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        environment = os.environ | ours
        head = ["--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false", f"--temp-dir={folder}"]
        nodes = []
        try:
            for name, place in (("head", head), ("second", [f"--address=127.0.0.1:{port}"])):
                nodes.append(_start([ray, "start", *place], Path(folder, f"{name}.log"), environment))
            yield f"127.0.0.1:{port}", environment, nodes[1]
        finally:
            for node in reversed(nodes):
                kill(node)


def processes(node: subprocess.Popen) -> dict[int, str]:
    """Return what runs in the session of a node: process id -> title."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == node.pid:
                found[int(path.name)] = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it has ended
    return found


def kill(node: subprocess.Popen) -> None:
    """End a node at once, with all that it started."""
    for process in processes(node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    node.wait()


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait until a condition holds, and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


def _start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen:
    options = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
    with open(log, "w") as file:
        node = subprocess.Popen([*command, *options], stdout=file, stderr=file, env=environment, start_new_session=True)
    wait_for(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None)
    assert node.poll() is None, log.read_text()
    return node
