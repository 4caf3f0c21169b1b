"""The standard streams of a task's process."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

_STDERR = 2
_kept: list[object] = []  # a stream that is dropped closes its descriptor, which the new one writes to


def take_up() -> None:
    """Opens the descriptors 0 to 2 on /dev/null where a flow, or who started it, has closed them.

    Otherwise the next file that is opened would get such a number, and all that is printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if old is None or old.closed:
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115  for good


def renew() -> None:
    """Lets a task's output be UTF-8, whatever the terminal is, and leave the process line by line.

    The inherited objects know the files that they were opened on (whether they can seek, say), and their descriptors
    lead elsewhere by now, so new objects take their place. What a flow has put there itself stays.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if old is None or old.closed or (isinstance(old, io.TextIOWrapper) and _descriptor(old) == descriptor):
            _kept.append(old)
            raw = os.fdopen(descriptor, "wb", closefd=False)
            new = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
            setattr(sys, name, new)


def flush() -> None:
    """Empties the buffers of the streams; a flow may have closed them, or put something else in their place."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def drop(stream: TextIO) -> None:
    """Lets what the stream still holds go nowhere, which Python would try to write again when it ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _descriptor(stream: io.TextIOWrapper) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return stream.fileno()
    return None
