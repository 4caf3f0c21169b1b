"""Progress on stderr: the current step, its time, and its share of the work; stdout is for the environment alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

REPEAT_SECONDS = 15.0
REDRAW_SECONDS = 0.5
QUIET_SECONDS = 1.0


@dataclass
class Step:
    """One piece of work whose progress is shown while it runs; ``detail`` may be set at any time."""

    title: str
    began: float = field(default_factory=time.monotonic)
    detail: str = ""

    def line(self) -> str:
        """Return the current state of the step: title, elapsed time, detail."""
        detail = f", {self.detail}" if self.detail else ""
        return f"  {self.title}: {elapsed(time.monotonic() - self.began)}{detail}"


def say(text: str) -> None:
    """Write one line to stderr."""
    print(text, file=sys.stderr, flush=True)


def elapsed(seconds: float) -> str:
    """Format a duration as ``7.2 s`` or ``2:05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show ``title`` while the block runs, and then its time; a terminal sees a clock, a log a line now and then."""
    current = Step(title)
    done = threading.Event()
    shower = threading.Thread(target=_show, args=(current, done), daemon=True)
    shower.start()
    try:
        yield current
    finally:
        done.set()
        shower.join()
        took = time.monotonic() - current.began
        clear = "\r\033[K" if sys.stderr.isatty() else ""
        if clear or took >= QUIET_SECONDS:
            print(f"{clear}{current.line()}", file=sys.stderr, flush=True)


def _show(current: Step, done: threading.Event) -> None:
    terminal = sys.stderr.isatty()
    while not done.wait(REDRAW_SECONDS if terminal else REPEAT_SECONDS):
        if terminal:
            print(f"\r\033[K{current.line()} ...", end="", file=sys.stderr, flush=True)
        else:
            print(f"{current.line()} ...", file=sys.stderr, flush=True)
