"""How a command ends that was given something wrong: one sentence, not a traceback."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfasr.cache import cache_folder


def sentence(error: Exception | str) -> str:
    """Say what went wrong; an error of the system without its number, which says nothing to a user."""
    if isinstance(error, OSError) and error.strerror and error.errno is not None:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
        return ": ".join([" -> ".join(names), error.strerror] if names else [error.strerror])
    return str(error)


@contextmanager
def user_errors() -> Iterator[None]:
    """End the process with status 2 and the message of a ValueError, OSError or missing package; HFASR_TRACEBACK=1 shows where."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("HFASR_TRACEBACK"):
            raise
        rank = int(os.environ.get("RANK", "0"))
        where = f" on process {rank}" if rank else ""
        cache = cache_folder()
        if isinstance(error, OSError) and error.filename and Path(error.filename).is_relative_to(cache):
            error = f"{sentence(error)}; the cache {cache} cannot be used, set $HFASR_CACHE to another folder"
        print(f"error{where}: {sentence(error)}\n(HFASR_TRACEBACK=1 shows where)", file=sys.stderr)
        raise SystemExit(2) from None
