"""A flow's command line as a user sees it: lines, and the time of each."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Terminal:
    """A running command.

    Args:
        process: The command.
        lines: What it printed so far, each with the time at which it came.
    """

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _ended: bool = False
    _reader: threading.Thread | None = None

    def read(self) -> None:
        """Keeps what the command prints; runs in a thread of its own."""
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._changed:
                    self.lines.append((time.time(), line.rstrip("\n")))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def seen(self, pattern: str, seconds: float = 60.0) -> tuple[float, str]:
        """The first line that matches, and when it came; waits for it."""
        expression = re.compile(pattern)

        def found() -> tuple[float, str] | None:
            return next(((t, line) for t, line in self.lines if expression.search(line)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, seconds)
            result = found()
        assert result is not None, f"no line matches {pattern!r} in:\n{self.text}"
        return result

    def wait(self, seconds: float) -> Terminal:
        """Itself, after the command has ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.text}") from None
        assert self._reader is not None
        self._reader.join()
        return self

    def kill(self) -> None:
        """Ends the command, if a test that failed has left it."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    @property
    def code(self) -> int:
        """The exit code."""
        return self.process.returncode

    @property
    def text(self) -> str:
        """Everything that was printed."""
        return "\n".join(line for _, line in self.lines)

    @property
    def run(self) -> str:
        """``flow/run`` as the last line tells it."""
        found = re.search(r"^(\w+/[\w.-]+) (?:succeeded|failed|was cancelled)", self.text, re.MULTILINE)
        assert found, self.text
        return found[1]


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> Terminal:
    """Starts ``python`` with arguments, and keeps the output of both streams."""
    process = subprocess.Popen(
        [sys.executable, *arguments], env=dict(environment), text=True, encoding="utf-8", errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    terminal = Terminal(process)
    terminal._reader = threading.Thread(target=terminal.read, daemon=True)
    terminal._reader.start()
    return terminal
