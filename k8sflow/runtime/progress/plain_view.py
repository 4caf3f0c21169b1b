"""Lines one after the other: what a log, a pipe or a simple terminal takes."""

from __future__ import annotations

import errno
import io
from typing import TextIO

from k8sflow.errors import RunError
from k8sflow.runtime.progress.tally import Tally
from k8sflow.task import streams


class PlainView:
    """Writes lines to a stream as they come.

    Args:
        stream: Where to.
        has_colours: Whether it shows them.
        tells_tasks: Whether no lines need to say which tasks start and end.
    """

    def __init__(self, stream: TextIO, *, has_colours: bool, tells_tasks: bool = False) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that a terminal can't show must not be an error
        self._stream = stream
        self.has_colours = has_colours
        self.tells_tasks = tells_tasks
        self._is_closed = False

    def write(self, lines: str) -> None:
        """Writes and flushes.

        Raises:
            BrokenPipeError: The reader of the output has closed it.
            RunError: The stream takes no more, as a file on a full disk.
        """
        if self._is_closed:
            return
        try:
            self._stream.write(lines)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            self._is_closed = True
            streams.drop(self._stream)
            if error.errno != errno.EIO:  # a terminal that was closed; the run may continue without it
                raise RunError(
                    f"what the run prints can't be written: {error.strerror}.",
                    advice="Make room, or send the output elsewhere; then resume: what was done is kept.",
                ) from error

    def hurry(self) -> None:
        """Does nothing: a writer waits for the stream alone."""

    def follow(self, tally: Tally) -> None:
        """Lines tell it all."""

    def close(self) -> None:
        """Nothing is held back."""
