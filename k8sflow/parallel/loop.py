"""The main loop of a call: keeps every worker busy until all items are done, and always ends the workers."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Generator, Iterable
from typing import Any, Protocol

from .call import Call
from .failures import Stopped
from .limits import core_sharers
from .math_threads import math_threads
from .messages import Reply
from .native import fork_hazard
from .progress import Progress
from .work import LAZY_CHUNK_ITEMS, Chunk, Work

_NOT_FORKED = (
    "Workers of parallel_map can't be forked here: {hazard} has threads in this process, for which they would wait "
    "forever. New interpreters need the function and the items pickled. "
    'Use backend="threads"; or make the object named above picklable; or call parallel_map before the first use of '
    'that library; or use backend="fork" if the function doesn\'t use that library.'
)
_WINDOW_ITEMS = 1024  # parallel_imap: the number of items per worker that may be finished ahead of a slow one
Batch = tuple[int, list[Any]]  # index of the first result, results of consecutive items
START_METHOD = "fork" if sys.platform == "linux" else "spawn"

if START_METHOD == "fork":  # Linux only; the other teams are imported by the calls that use them
    from .forked import ForkTeam


class Team(Protocol):
    """The workers of one call, identified by number."""

    def pack(self, item: Any, index: int) -> Any: ...
    def send(self, number: int, chunk: Chunk) -> None:
        """Sends a chunk to a worker. Its first one starts it, at the latest when `receive` is called."""

    def receive(self) -> tuple[int, Reply]:
        """The next message of any worker; sleeps until there is one.

        Raises:
            WorkerDied: A worker died.
            BaseException: An exception of the function.
        """

    def ready(self) -> bool:
        """True if `receive` would return without sleeping."""

    def stop(self) -> None:
        """Ends the workers and frees their resources."""


def run(call: Call, *, ordered: bool = False) -> Generator[Batch, None, None]:
    """The results in batches, as they arrive or in order; the workers live as long as this generator."""
    if call.length == 0:
        return
    if core_sharers() and call.workers == 1:
        for index, item in enumerate(call.items):  # within a worker whose share is one core
            try:
                value = call.func(item)
            except StopIteration as error:
                raise Stopped(error) from None
            yield index, [value]
        return
    team = _team(call)
    owner = os.getpid()
    math_threads.hold_blas()
    try:
        work = Work(call, team.pack, LAZY_CHUNK_ITEMS if ordered else math.inf)
        batches = _drive(team, call.workers, work, _WINDOW_ITEMS * call.workers if ordered else math.inf)
        with Progress(call) as progress:
            for batch in _in_order(batches) if ordered else batches:
                progress.add(len(batch[1]))
                yield batch
    finally:
        if os.getpid() == owner:  # a forked copy of the caller may close its copy of this generator
            try:
                team.stop()
            finally:  # again, in case a signal handler's exception interrupted it; otherwise this does nothing
                team.stop()
                math_threads.free_blas()


def _team(call: Call) -> Team:
    if call.backend == "threads":
        from .threads import ThreadTeam  # noqa: PLC0415  queues

        return ThreadTeam(call)
    hazard = None
    if START_METHOD == "fork" and call.backend != "spawn":
        hazard = None if call.backend == "fork" else fork_hazard()
        if hazard is None:
            return ForkTeam(call)
    from .spawned import SpawnTeam  # noqa: PLC0415  subprocesses and sockets

    if hazard is None:
        return SpawnTeam(call)
    team = SpawnTeam(call, because=_NOT_FORKED.format(hazard=hazard))
    warnings.warn(
        f"parallel_map starts new interpreters, which is slower than a fork: {hazard} has threads in this process that "
        "forked workers would wait for forever. The function and the items are pickled for them. "
        'backend="spawn" does the same without this warning, backend="threads" needs no copies, and backend="fork" '
        "is faster if the function doesn't use that library.",
        RuntimeWarning,
        stacklevel=4,
    )
    return team


def _drive(team: Team, workers: int, work: Work, window: float) -> Generator[Batch, None, None]:
    """Keeps every worker busy until all items are done.

    Args:
        team: The workers.
        workers: Their number.
        work: The remaining items.
        window: The number of items that work may run ahead of the first item without a result.
    """
    idle = list(range(workers))
    busy: dict[int, Chunk] = {}
    batch: Batch | None = None
    while True:
        limit = min([work.lowest, *(chunk.start for chunk in busy.values())]) + window
        # Available results come before a slow iterator's next chunk; with no worker busy they could only be a death.
        while idle and not (busy and work.slow and team.ready()) and (chunk := work.take(limit)):
            number = idle.pop()
            busy[number] = chunk
            team.send(number, chunk)
        if batch is not None:  # only now, so that the workers are busy while the consumer uses it
            yield batch
        if not busy:
            return
        number, reply = team.receive()
        rest = busy[number].after(reply.start + len(reply.values))
        if reply.done:
            del busy[number]
            idle.append(number)
            work.learn(len(reply.values), reply.seconds, rest)
        else:
            busy[number] = rest
        batch = reply.start, reply.values


def _in_order(batches: Iterable[Batch]) -> Generator[Batch, None, None]:
    head = 0
    waiting: dict[int, list[Any]] = {}
    for start, values in batches:
        waiting[start] = values
        while waiting_head := waiting.pop(head, None):
            yield head, waiting_head
            head += len(waiting_head)
