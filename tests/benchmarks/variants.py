"""What benchmarks share: a fresh process for each variant and one table of all; and, by being imported, hfasr where it is not installed."""

import json
import subprocess
import sys
import types
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    version("hfasr")
except PackageNotFoundError:
    # Not installed: the package without its __init__, whose version is that of the installation.
    package = types.ModuleType("hfasr")
    package.__path__ = [str(Path(__file__).parents[2] / "hfasr")]
    sys.modules["hfasr"] = package


def print_variants(variants: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Run this script once for each name and flags, print the JSON object that each prints last, then a table of all."""
    found = []
    for name, flags in variants:
        process = subprocess.run([sys.executable, sys.argv[0], *sys.argv[1:], *flags], stdout=subprocess.PIPE, text=True, check=False)
        if process.returncode:
            print(f"{name}: ended with status {process.returncode}", flush=True)
            continue
        found.append(json.loads(process.stdout.splitlines()[-1]))
        print(json.dumps(found[-1]), flush=True)
    if found:
        print(" | ".join(found[0]))
        for row in found:
            print(" | ".join(str(value) for value in row.values()))
