"""Where hfasr keeps what it made and can make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder: `$HFASR_CACHE`, else `hfasr` in `$XDG_CACHE_HOME`, else `~/.cache/hfasr`."""
    if chosen := os.environ.get("HFASR_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hfasr"
