"""The progress display."""

from __future__ import annotations

import contextlib
import sys
import time

from .call import Call
from .signals import refusals_ignored

_BAR_SECONDS, _LINE_SECONDS, _BAR_WIDTH = 0.1, 10.0, 30


class Progress:
    """Shows progress on stderr: a bar on a terminal and in a notebook, plain lines elsewhere."""

    def __init__(self, call: Call) -> None:
        self._on = call.progress
        self._total = call.length
        self._done = 0
        self._started_at = self._written_at = time.monotonic()
        self._bar = "ipykernel" in sys.modules or _is_terminal()

    def __enter__(self) -> Progress:  # noqa: PYI034  typing.Self is Python 3.11's
        return self

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._on and now - self._written_at >= (_BAR_SECONDS if self._bar else _LINE_SECONDS):
            self._written_at = now
            self._write(end="" if self._bar else "\n")

    def __exit__(self, *_error: object) -> None:
        if self._on:
            self._write(end="\n")

    def _write(self, end: str) -> None:
        seconds = time.monotonic() - self._started_at
        rate = self._done / seconds if seconds else 0.0
        text = f"parallel_map: {self._done:,} items"
        if self._total is not None:
            text = f"parallel_map: {self._done:,} of {self._total:,} items ({self._done / self._total:.0%})"
        text += f", {seconds:.1f} s, {rate:,.1f}/s"
        if self._total is not None and rate and self._done < self._total:
            text += f", {(self._total - self._done) / rate:.0f} s left"
        if self._bar and self._total is not None:
            filled = self._done * _BAR_WIDTH // self._total
            text = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {text}"
        with (
            contextlib.suppress(AttributeError, ValueError),
            refusals_ignored(),
        ):  # missing, closed, or without a reader
            sys.stderr.write(f"\r{text}\x1b[K{end}" if self._bar else f"{text}{end}")
            sys.stderr.flush()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # missing or closed
        return False
