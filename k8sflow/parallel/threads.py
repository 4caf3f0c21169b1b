"""Worker threads."""

from __future__ import annotations

import contextlib
import math
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from .call import Call
from .failures import Stopped, add_note, short_repr
from .limits import core_sharers_with, set_thread_core_sharers
from .math_threads import math_threads
from .messages import Reply
from .work import SLICE_SECONDS, Chunk

_INTERRUPTIBLE_SECONDS = 1.0 if sys.platform == "win32" else None  # Windows: Ctrl-C doesn't end a wait for a lock
_Event = tuple[int, "Reply | BaseException"]


class ThreadTeam:
    """Threads of this process that call the function themselves."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._core_sharers = core_sharers_with(call.workers)
        self._inboxes: dict[int, queue.SimpleQueue[Chunk | None]] = {}
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def pack(self, item: Any, index: int) -> Any:  # noqa: ARG002  same signature as the other teams
        return item

    def send(self, number: int, chunk: Chunk) -> None:
        if number not in self._inboxes:
            self._start(number)
        self._inboxes[number].put(chunk)

    def _start(self, number: int) -> None:
        thread = threading.Thread(target=self._live, args=(number,), name=f"parallel_map-{number}", daemon=True)
        self._inboxes[number] = queue.SimpleQueue()
        self._threads.append(thread)
        thread.start()

    def receive(self) -> tuple[int, Reply]:
        while True:
            with contextlib.suppress(queue.Empty):
                number, event = self._events.get(timeout=_INTERRUPTIBLE_SECONDS)
                break
        if isinstance(event, BaseException):
            raise event
        return number, event

    def ready(self) -> bool:
        return not self._events.empty()

    def stop(self) -> None:
        """Ends the threads. A busy one ends after its current item: a thread can't be killed."""
        self._stopping = True
        for inbox in self._inboxes.values():
            inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        is_ready = False
        while (chunk := self._inboxes[number].get()) is not None:
            try:
                if not is_ready:
                    self._prepare(number)
                    is_ready = True
                for reply in self._replies(number, chunk):
                    self._events.put((number, reply))
            except BaseException as error:  # noqa: BLE001  SystemExit too: raised in the caller's thread
                self._events.put((number, error))

    def _prepare(self, number: int) -> None:  # noqa: ARG002  same signature as for spawned workers
        """Runs in the thread before its first chunk."""
        set_thread_core_sharers(self._core_sharers)
        if hold_openmp := math_threads.openmp_holder():
            hold_openmp()

    def _replies(self, number: int, chunk: Chunk) -> Iterator[Reply]:  # noqa: ARG002  same signature as for spawned workers
        started = time.perf_counter()
        deadline = started + SLICE_SECONDS if self._call.chunk_size is None else math.inf
        values: list[Any] = []
        items: Any = self._call.items
        for index in range(chunk.start, chunk.stop):
            item = None
            try:
                item = items[index] if chunk.items is None else chunk.items[index - chunk.start][0]
                values.append(self._call.func(item))
            except BaseException as error:  # any exception of the function, raised again with a note
                add_note(error, f"parallel_map: raised at item {index}: {short_repr(item)}")
                if isinstance(error, StopIteration):
                    raise Stopped(error) from None
                raise
            if self._stopping or time.perf_counter() > deadline:
                break
        yield Reply(chunk.start, values, time.perf_counter() - started, done=True)
