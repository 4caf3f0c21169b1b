"""Lines one after the other: what a log, a pipe or a simple terminal takes."""

from __future__ import annotations

import io
from typing import TextIO

from k8sflow.runtime.progress.tally import Tally


class PlainView:
    """Writes lines to a stream as they come.

    Args:
        stream: Where to.
        has_colours: Whether it shows them.
    """

    tells_tasks = False

    def __init__(self, stream: TextIO, *, has_colours: bool) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal can't show is no reason to fail
        self._stream = stream
        self.has_colours = has_colours

    def write(self, lines: str) -> None:
        """Writes and flushes."""
        self._stream.write(lines)
        self._stream.flush()

    def follow(self, tally: Tally) -> None:
        """Lines tell it all."""

    def close(self) -> None:
        """Nothing is held back."""
