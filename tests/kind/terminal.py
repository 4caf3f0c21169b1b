"""Run flow commands as a user does, and record each line of output with its time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

DEADLINE_SECONDS = 120
_OF_A_RUN = ("K8SFLOW_", "AWS_")


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
        """End the command if a failed test has not."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        """Send Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    @property
    def code(self) -> int:
        """Return the exit code."""
        return self.process.returncode

    @property
    def text(self) -> str:
        """Return everything that was printed."""
        return "\n".join(line for _, line in self.lines)

    @property
    def run(self) -> str:
        """Return ``flow/run`` from the last line."""
        found = re.search(r"^(\w+/[\w.-]+) (?:succeeded|failed|was cancelled)", self.text, re.MULTILINE)
        assert found, self.text
        return found[1]


@dataclass(frozen=True)
class User:
    """Start flow commands in one environment.

    Args:
        environment: The environment of the user's commands.
        flows: The folder of the flows.
        terminals: The commands that were started.
    """

    environment: dict[str, str]
    flows: Path
    terminals: list[Terminal] = field(default_factory=list, kw_only=True)

    def run(self, flow: str | Path, *arguments: str, **variables: str) -> Terminal:
        """Run a flow to its end; lines are kept with the time at which they came."""
        return self.start(flow, *arguments, **variables).wait(DEADLINE_SECONDS)

    def start(self, flow: str | Path, *arguments: str, **variables: str) -> Terminal:
        """Start a run of a flow of the user's folder, or any file."""
        return self.command(flow, "run", *arguments, **variables)

    def command(self, flow: str | Path, *arguments: str, **variables: str) -> Terminal:
        """Start a command of a flow of the user's folder, or any file."""
        file = flow if isinstance(flow, Path) else self.flows / flow
        terminal = start([str(file), *arguments], {**self.environment, **variables})
        self.terminals.append(terminal)
        return terminal

    def reader(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[[str], Any]:
        """Return a reader of runs like the user's in a folder of this machine: ``reader("BigSum/…")``."""
        for name, value in self.environment.items():
            if name.startswith(_OF_A_RUN):
                monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        from k8sflow import Run

        return Run

    def leave(self) -> None:
        """End the commands that failed tests have not."""
        for terminal in self.terminals:
            terminal.kill()


def inherited() -> dict[str, str]:
    """Return the environment of the tests, without variables that would change a run."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_RUN)}


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> Terminal:
    """Starts ``python`` with arguments, and keeps the output of both streams."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=dict(environment),
        text=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    terminal = Terminal(process)
    terminal._reader = threading.Thread(target=terminal.read, daemon=True)
    terminal._reader.start()
    return terminal
