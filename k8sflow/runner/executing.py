"""``ExecutingRun`` and ``ExecutingTask``: a run or task that a ``Runner`` started, during and after it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from k8sflow.client import Run, Task
from k8sflow.errors import RunError
from k8sflow.runner.child import Child, Stream

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has none before Python 3.11

Status = Literal["running", "successful", "failed", "timeout"]
Started = TypeVar("Started", Run, Task)


class ExecutingProcess(Generic[Started]):
    """A started run or task and its process; a context manager that ends the process if it is still running.

    Args:
        child: The process.
        command: The command line of the process, for people.
        find: Returns the client's object for the run or task that the process reported.
    """

    _kind: ClassVar[str]

    def __init__(self, child: Child, command: str, find: Callable[[str], Started]) -> None:
        self._child = child
        self._find: Callable[[str], Started] = find
        self._found: Started | None = None
        self._timed_out = False
        self._shown: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        self.command = command

    @property
    def started(self) -> Started:
        """The run or the task, as the client reads it.

        Raises:
            RunError: The process has ended before there was one.
        """
        if self._found is None:
            answer = self._child.started.result()
            if answer is None:
                raise self._not_started()
            self._found = self._find(answer)
        return self._found

    @property
    def status(self) -> Status:
        """``running``, ``successful``, ``failed`` (or cancelled), or ``timeout`` (in ``wait``)."""
        if self._timed_out:
            return "timeout"
        if self.returncode is None:
            return "running"
        return "successful" if self.returncode == 0 else "failed"

    @property
    def returncode(self) -> int | None:
        """The exit code of the process, negative if a signal ended it; None while it runs."""
        return self._child.ended.result() if self._child.ended.done() else None

    @property
    def stdout(self) -> str:
        """The standard output of the process so far."""
        return self._child.output("stdout").decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """The standard error of the process so far."""
        return self._child.output("stderr").decode("utf-8", "replace")

    async def wait(self, timeout: float | None = None, stream: Stream | None = None) -> Self:
        """Waits until the end.

        Args:
            timeout: Seconds after which the run or task is cancelled, with the ``status`` ``timeout``.
            stream: ``stdout`` or ``stderr``, to be printed meanwhile; None for neither.

        Returns:
            This object.
        """
        try:
            await asyncio.wait_for(self._wait(stream), timeout)
        except asyncio.TimeoutError:
            self._timed_out = True
            await asyncio.to_thread(self._child.stop)
        return self

    async def stream_log(self, stream: Stream, position: int | None = None) -> AsyncIterator[tuple[int, str]]:
        """The lines of the output as they are written, until the end.

        Args:
            stream: ``stdout`` or ``stderr``.
            position: The position from which to read; by default the beginning.

        Yields:
            The position after a line, from which a later call continues, and the line.
        """
        start, rest = position or 0, b""
        is_over = False
        while not is_over:
            changed = self._child.changed
            is_over = self._child.ended.done()
            rest += self._child.output(stream, start + len(rest))
            *lines, rest = rest.split(b"\n")
            for line in lines:
                start += len(line) + 1
                yield start, line.decode("utf-8", "replace")
            if not is_over:
                await asyncio.wrap_future(changed)
        if rest:
            yield start + len(rest), rest.decode("utf-8", "replace")

    def show_until_end(self) -> None:
        """Waits for the end while copying the output to this process's; a second call continues after the first."""
        is_over = False
        while not is_over:
            changed = self._child.changed
            is_over = self._child.ended.done()
            for stream, position in self._shown.items():
                data = self._child.output(stream, position)
                cut = data if is_over else data[: data.rfind(b"\n") + 1]
                getattr(sys, stream).write(cut.decode("utf-8", "replace"))
                getattr(sys, stream).flush()
                self._shown[stream] += len(cut)  # only now: a Ctrl-C in between repeats a line rather than losing one
            if not is_over:
                changed.result()

    async def when_started(self, timeout: float | None = None) -> Self:
        """Waits until the run or task has started; cancelling the wait cancels the run or task too.

        Args:
            timeout: Seconds after which it is cancelled; None to wait as long as it takes.

        Raises:
            RunError: The process has ended before that, or the time is over.
        """
        try:
            if await asyncio.wait_for(asyncio.wrap_future(self._child.started), timeout) is None:
                await asyncio.wrap_future(self._child.ended)
                raise self._not_started()
        except asyncio.TimeoutError:
            self._timed_out = True
            await asyncio.to_thread(self._child.stop)
            raise RunError(
                f"{self.command} started no {self._kind} within {timeout:g} s.",
                advice="Give it more time: Runner(…, file_read_timeout=SECONDS).",
            ) from None
        except asyncio.CancelledError:  # no caller will get an object with which to end it
            self._child.ask_to_stop()
            raise
        return self

    def wait_until_end(self) -> None:
        """Waits for the end, in this thread."""
        self._child.ended.result()

    def cleanup(self) -> None:
        """Cancels the run or task if it is running, and returns when all of its processes have ended."""
        self._child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.command}, {self.status}>"

    def _not_started(self) -> RunError:
        output = "\n".join(filter(None, [self.stdout.strip(), self.stderr.strip()]))
        return RunError(
            f"{self.command} ended with exit code {self.returncode}, and no {self._kind} was started.", cause=output
        )

    async def _wait(self, stream: Stream | None) -> None:
        if stream is not None:
            async for _, line in self.stream_log(stream):
                print(line)  # noqa: T201  as the caller asked
        await asyncio.wrap_future(self._child.ended)


class ExecutingRun(ExecutingProcess[Run]):
    """A run and the process that drives it."""

    _kind = "run"

    @property
    def run(self) -> Run:
        """The run, as the client reads it.

        Raises:
            RunError: The process has ended before there was one.
        """
        return self.started


class ExecutingTask(ExecutingProcess[Task]):
    """A task that ``spin`` runs, and its process."""

    _kind = "task"

    @property
    def task(self) -> Task:
        """The task, as the client reads it.

        Raises:
            RunError: The process has ended before there was one.
        """
        return self.started
