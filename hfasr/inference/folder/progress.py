"""How far a run is, and how fast."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Counts recordings and seconds of audio, and shows them in a bar.

    Args:
        total: Recordings to come.
        show: Whether to show a bar on the standard error.
    """

    def __init__(self, total: int, show: bool):
        from tqdm.auto import tqdm

        self.recordings, self.audio_seconds = 0, 0.0
        self._start = time.perf_counter()
        self._bar = tqdm(total=total, desc="Transcribing", unit="file", disable=not show, file=sys.stderr)

    def add(self, recordings: int, audio_seconds: float) -> None:
        """Count recordings that are done."""
        self.recordings += recordings
        self.audio_seconds += audio_seconds
        self._bar.set_postfix_str(self.speed(), refresh=False)
        self._bar.update(recordings)

    def speed(self) -> str:
        """Return the audio and how many times faster than it the run is; "" where there was none."""
        if not self.audio_seconds:
            return ""
        seconds = time.perf_counter() - self._start
        audio = f"{self.audio_seconds / 3600:.1f} h" if self.audio_seconds >= 3600 else f"{self.audio_seconds:.0f} s"
        return f"{audio} of audio, {self.audio_seconds / seconds:,.0f} times real time"

    def close(self) -> None:
        self._bar.close()


@contextmanager
def show_progress(total: int, show: bool) -> Iterator[Progress]:
    """Show a bar while recordings are transcribed."""
    progress = Progress(total, show)
    try:
        yield progress
    finally:
        progress.close()
