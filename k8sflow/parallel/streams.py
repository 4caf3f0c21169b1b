"""Standard output and error, on both sides of a fork."""

from __future__ import annotations

import contextlib
import io
import sys

from .refusals import refusals_ignored


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError), refusals_ignored():  # None, closed, a broken pipe
            stream.flush()


_old_streams: list[object] = []  # kept: their end would flush them, and wait for their lock


def renew_output() -> None:
    """Gives a worker streams of its own: another thread of the parent may hold the locks of the inherited ones."""
    for name in ("stdout", "stderr"):
        old = getattr(sys, name)
        if isinstance(old, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):  # closed, or no file at all
                raw = io.FileIO(old.fileno(), "w", closefd=False)
                new = io.TextIOWrapper(
                    io.BufferedWriter(raw), old.encoding, old.errors, line_buffering=old.line_buffering
                )
                _old_streams.append(old)
                setattr(sys, name, new)
