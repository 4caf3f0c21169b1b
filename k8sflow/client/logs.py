"""The output of tasks, line by line: existing output, and new output during a run."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from k8sflow.storage.log_times import timed_lines
from k8sflow.storage.run_store import RunStore

STREAMS = ("stdout", "stderr")
# After this many polls without new output, an ended attempt counts as complete.
QUIET_POLLS = 3


@dataclass(frozen=True)
class LogLine:
    """A line that a task wrote.

    Args:
        step: The task's step.
        task: Its id.
        attempt: The attempt.
        stream: ``stdout`` or ``stderr``.
        at: The time of its first byte, in seconds since 1970, or None if it was not recorded.
        data: The line as it was written, without the line end.
    """

    step: str
    task: str
    attempt: int
    stream: str
    at: float | None
    data: bytes

    @property
    def text(self) -> str:
        """The line as text."""
        return self.data.decode("utf-8", "replace").removesuffix("\r")


def known(stream: str) -> str:
    """The stream, if it exists.

    Raises:
        ValueError: It is neither stdout nor stderr.
    """
    if stream not in STREAMS:
        raise ValueError(f"a task has no stream {stream!r}, only stdout and stderr.")
    return stream


def read(run_store: RunStore, step: str, task: str, attempt: int, streams: tuple[str, ...]) -> Iterator[LogLine]:
    """The lines of an attempt in the order of their times; without times, stream by stream."""
    tails = [_Tail(run_store, step, task, attempt, known(stream)).rest() for stream in streams]
    return heapq.merge(*tails, key=_time)


def _time(line: LogLine) -> float:
    return line.at or 0.0


class Follower:
    """The lines of a run, or of some of its tasks, as they are written.

    Args:
        run_store: The run.
        step: The only step, or None for all.
        task: The only task, or None for all tasks of the step.
        streams: ``stdout``, ``stderr`` or both.
        attempt: The only attempt, or None for all.
    """

    def __init__(
        self, run_store: RunStore, step: str | None, task: str | None, streams: tuple[str, ...], attempt: int | None
    ) -> None:
        self._run_store = run_store
        self._prefix = "/".join(filter(None, [f"{run_store.prefix}/tasks", step, task])) + "/"
        self._streams = tuple(map(known, streams))
        self._attempt = attempt
        self._tails: dict[tuple[str, str, int, str], _Tail] = {}
        self._closed: set[tuple[str, str, int]] = set()
        self._quiet: Counter[tuple[str, str, int]] = Counter()

    def poll(self, *, to_the_end: bool = False) -> list[LogLine]:
        """The new complete lines since the last call, the oldest first, and the last lines of ended attempts.

        Args:
            to_the_end: True if no more output can follow, so that unfinished last lines are returned too.
        """
        there, ended = self._look()
        found: list[LogLine] = []
        for execution, streams in there.items():
            if execution in self._closed:
                continue
            # The task itself writes its outcome, and another process its last output a moment later.
            self._quiet[execution] += execution in ended
            is_over = self._quiet[execution] > QUIET_POLLS
            tails = [self._tail(execution, stream) for stream in streams]
            lines = [line for tail in tails for line in (tail.rest() if is_over or to_the_end else tail.lines())]
            found += lines
            if is_over:
                self._closed.add(execution)
                for stream in streams:
                    self._tails.pop((*execution, stream))
            elif lines:
                self._quiet[execution] = 0
        return sorted(found, key=_time)

    def _tail(self, execution: tuple[str, str, int], stream: str) -> _Tail:
        key = (*execution, stream)
        if key not in self._tails:
            self._tails[key] = _Tail(self._run_store, *key)
        return self._tails[key]

    def _look(self) -> tuple[dict[tuple[str, str, int], list[str]], set[tuple[str, str, int]]]:
        """The attempts with their streams, and the ended attempts, from one listing."""
        there: dict[tuple[str, str, int], list[str]] = defaultdict(list)
        ended = set()
        for key in self._run_store.store.list_keys(self._prefix):
            step, task, *rest = key.partition("/tasks/")[2].split("/")
            if len(rest) != 2 or not rest[0].isdigit():  # noqa: PLR2004  an attempt, and the name of its object
                continue
            execution = (step, task, int(rest[0]))
            if self._attempt not in {None, execution[2]}:
                continue
            if rest[1] in self._streams:
                there[execution].append(rest[1])
            elif rest[1] == "outcome.json":
                ended.add(execution)
        return there, ended


class _Tail:
    """One stream of one attempt, read as it grows."""

    def __init__(self, run_store: RunStore, step: str, task: str, attempt: int, stream: str) -> None:
        self._run_store = run_store
        self._stream = (step, task, attempt, stream)
        self._position = 0

    def lines(self) -> Iterator[LogLine]:
        """The new complete lines since the last call."""
        data = self._run_store.read_log(*self._stream, self._position)
        return self._take(data[: data.rfind(b"\n") + 1])

    def rest(self) -> Iterator[LogLine]:
        """All new output since the last call, with an unfinished last line."""
        return self._take(self._run_store.read_log(*self._stream, self._position))

    def _take(self, data: bytes) -> Iterator[LogLine]:
        if not data:
            return
        start, self._position = self._position, self._position + len(data)
        known_marks = self._run_store.read_marks(*self._stream)
        step, task, attempt, stream = self._stream
        for at, line in timed_lines(data, known_marks, start):
            yield LogLine(step, task, attempt, stream, at, line)
