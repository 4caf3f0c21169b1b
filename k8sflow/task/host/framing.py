r"""The encoding of two streams and a result in the one log of a container, which Kubernetes keeps as lines.

A line of stdout is kept as it was written, so that ``kubectl logs`` stays readable. The rest is marked by single
control bytes that terminals don't show:

    \x1f LINE       a line of stderr
    \x1e LINE       the result of the task, as JSON: the last line of the log
    \x1d LINE       a line of stdout whose first byte would be taken for one of these (also after \x1f)
    LINE \x1c       the line continues in the next one of the same stream
    LINE \x1d       a line whose last byte would be taken for \x1c or \x1d
    \x1f\x1fID LINE  any of these lines, of the task with this id: several tasks share the container
    \x1e\x1e         (after an id) the task starts

A line is handed on when it is whole, as the container runtime would do anyway; very long ones go in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

OutputStream = Literal["stdout", "stderr"]

_UNENDED, _ESCAPE, RESULT, _STDERR = b"\x1c", b"\x1d", b"\x1e", b"\x1f"
_MARKS = (_UNENDED, _ESCAPE, RESULT, _STDERR)
_TASK, _STARTED = _STDERR * 2, RESULT * 2  # neither comes from a mark: what follows one is escaped
LONGEST_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Piece:
    """A piece of what a task wrote to one of its streams, its newline included where it wrote one."""

    stream: OutputStream
    data: bytes = field(repr=False)
    task: str = ""


@dataclass(frozen=True)
class ResultLine:
    """The task's result, for ``TaskResult.from_json``."""

    text: str
    task: str = ""


@dataclass(frozen=True)
class StartLine:
    """The start of one of several tasks."""

    task: str


Line = Piece | ResultLine | StartLine


class Encoder:
    """Turns what a task writes to one stream into lines for the container's log.

    Args:
        stream: The stream.
        task: The task's id, where several tasks share the container.
    """

    def __init__(self, stream: OutputStream, task: str = "") -> None:
        self._mark = _of_task(task) + (_STDERR if stream == "stderr" else b"")
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The lines that are complete now, for one write to the container's stdout."""
        *whole, rest = data.split(b"\n")
        lines = []
        for content in whole:
            lines.append(self._line(bytes(self._held) + content, ended=True))
            self._held.clear()
        self._held += rest
        if len(self._held) >= LONGEST_PIECE_BYTES:
            lines.append(self.flush())
        return b"".join(lines)

    def flush(self) -> bytes:
        """The held part of a line that has not ended; to be called after the last ``feed``, and whenever it lingers."""
        if not self._held:
            return b""
        content = bytes(self._held)
        self._held.clear()
        return self._line(content, ended=False)

    def _line(self, content: bytes, *, ended: bool) -> bytes:
        head = _ESCAPE if content.startswith(_MARKS) else b""
        doubtful = content.endswith((_UNENDED, _ESCAPE))
        tail = _UNENDED if not ended else _ESCAPE if doubtful else b""
        return self._mark + head + content + tail + b"\n"


def encode_result(text: str, task: str = "") -> bytes:
    """The line with a task's result; ``text`` is JSON without a newline."""
    return _of_task(task) + RESULT + text.encode() + b"\n"


def encode_start(task: str) -> bytes:
    """The line that says that a task starts."""
    return _of_task(task) + _STARTED + b"\n"


def _of_task(task: str) -> bytes:
    return _TASK + task.encode() + b" " if task else b""


def decode(line: bytes) -> Line:
    """The piece or result in a line of the log; ``line`` is without its newline.

    Lines that no ``Encoder`` wrote (a Python that can't start, say) are stdout.
    """
    if line.startswith(_TASK):
        task, _, rest = line.removeprefix(_TASK).partition(b" ")
        name = task.decode(errors="replace")
        return StartLine(name) if rest == _STARTED else replace(decode(rest), task=name)
    if line.startswith(RESULT):
        return ResultLine(line[1:].decode(errors="replace"))
    stream: OutputStream = "stdout"
    if line.startswith(_STDERR):
        stream, line = "stderr", line[1:]
    newline = b"\n"
    if line.endswith(_UNENDED):
        line, newline = line[:-1], b""
    elif line.endswith(_ESCAPE):
        line = line[:-1]
    return Piece(stream, line.removeprefix(_ESCAPE) + newline)
