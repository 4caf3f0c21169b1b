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


def renew_output() -> None:
    """Frees the streams of a worker, and of its loggers: another thread of the parent may have been writing to them.

    They are made anew in place, so that whoever holds one goes on with it. What they had collected is the parent's.
    """
    handlers = getattr(sys.modules.get("logging"), "_handlerList", ())  # weak references, also to those of no logger
    streams = {id(stream): stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
    for stream in (getattr(reference(), "stream", None) for reference in handlers):
        streams[id(stream)] = stream
    for stream in streams.values():
        if type(stream) is io.TextIOWrapper and type(stream.buffer) is io.BufferedWriter:
            with contextlib.suppress(OSError, ValueError):  # closed
                io.BufferedWriter.__init__(stream.buffer, stream.buffer.raw)
                layout = (stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through)
                io.TextIOWrapper.__init__(stream, stream.buffer, *layout)
