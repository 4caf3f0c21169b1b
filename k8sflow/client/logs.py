"""The output of tasks, line by line: what is there, and what comes while a run goes on."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from k8sflow.storage.logs import timed_lines
from k8sflow.storage.run_store import RunStore

STREAMS = ("stdout", "stderr")
# So many looks without anything new, and what has ended will bring nothing more.
QUIET_POLLS = 3


@dataclass(frozen=True)
class LogLine:
    """A line that a task wrote.

    Args:
        step: The task's step.
        task: Its id.
        attempt: Which execution of it.
        stream: ``stdout`` or ``stderr``.
        at: When its first byte came, in seconds since 1970, or None where that was not kept.
        data: The line as it was written, without its end.
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
    """The stream.

    Raises:
        ValueError: It is neither stdout nor stderr.
    """
    if stream not in STREAMS:
        raise ValueError(f"a task has no stream {stream!r}: there are stdout and stderr.")
    return stream


def read(run_store: RunStore, step: str, task: str, attempt: int, streams: tuple[str, ...]) -> Iterator[LogLine]:
    """The lines of an execution, in the order in which they came; without times, stream by stream."""
    tails = [_Tail(run_store, step, task, attempt, known(stream)).rest() for stream in streams]
    return heapq.merge(*tails, key=_time)


def _time(line: LogLine) -> float:
    return line.at or 0.0


class Follower:
    """The lines of a run, or of some of its tasks, as they come.

    Args:
        run_store: The run.
        step: The only step, or None for all of them.
        task: The only task, or None for all of the step.
        streams: Which of stdout and stderr.
        attempt: The only execution, or None for all that come.
    """

    def __init__(
        self, run_store: RunStore, step: str | None, task: str | None, streams: tuple[str, ...], attempt: int | None
    ) -> None:
        self._run_store = run_store
        self._prefix = "/".join(filter(None, [f"{run_store.flow}/runs/{run_store.run}/tasks", step, task])) + "/"
        self._streams = tuple(map(known, streams))
        self._attempt = attempt
        self._tails: dict[tuple[str, str, int, str], _Tail] = {}
        self._closed: set[tuple[str, str, int]] = set()
        self._quiet: Counter[tuple[str, str, int]] = Counter()

    def poll(self, *, to_the_end: bool = False) -> list[LogLine]:
        """The whole lines that came since the last time, the older ones first; ends of executions that are over.

        Args:
            to_the_end: Whether nothing more can come, so that a last line without an end is told too.
        """
        there, ended = self._look()
        found: list[LogLine] = []
        for execution, streams in there.items():
            if execution in self._closed:
                continue
            # Its end is written by the task itself, and its last output by others a moment later.
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
        """The executions with their streams, and those that have ended, from one listing."""
        there: dict[tuple[str, str, int], list[str]] = defaultdict(list)
        ended = set()
        for key in self._run_store.store.list_keys(self._prefix):
            step, task, *rest = key.partition("/tasks/")[2].split("/")
            if len(rest) != 2 or not rest[0].isdigit():  # noqa: PLR2004  an execution, and what it left
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
    """One stream of one execution, read as it grows."""

    def __init__(self, run_store: RunStore, step: str, task: str, attempt: int, stream: str) -> None:
        self._run_store = run_store
        self._place = (step, task, attempt, stream)
        self._position = 0

    def lines(self) -> Iterator[LogLine]:
        """The whole lines that came since the last time."""
        data = self._run_store.read_log(*self._place, self._position)
        return self._take(data[: data.rfind(b"\n") + 1])

    def rest(self) -> Iterator[LogLine]:
        """What came since the last time, with a last line that has no end."""
        return self._take(self._run_store.read_log(*self._place, self._position))

    def _take(self, data: bytes) -> Iterator[LogLine]:
        if not data:
            return
        start, self._position = self._position, self._position + len(data)
        known_marks = self._run_store.read_marks(*self._place)
        step, task, attempt, stream = self._place
        for at, line in timed_lines(data, known_marks, start):
            yield LogLine(step, task, attempt, stream, at, line)
