"""The parent's view of workers that are new interpreters, for when forking is impossible or would hang."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from .call import Call
from .child_processes import kill_process_group
from .failures import EXIT_WAIT_SECONDS, WorkerDied, death_error, exit_description
from .forking import flush_output, private_fds, start_lock
from .math_threads import ONE_THREAD_EACH
from .messages import Reply, pickled_item, receive_reply, send_chunk
from .pickling import dumps
from .process_tree import ProcessTree
from .signals import interrupts_held
from .threads import ThreadTeam
from .work import Chunk
from .worker import draw_seeds

_BOOT = (
    "import sys, pickle, importlib; path, name = pickle.load(sys.stdin.buffer); "
    "sys.path[:] = path; importlib.import_module(name).spawned_process()"
)


class Spawned:
    """One spawned worker, in the parent."""

    def __init__(self, setup: bytes) -> None:
        self.chunk: Chunk | None = None
        self._ending = False
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                windows = sys.platform == "win32"
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BOOT],
                    stdin=subprocess.PIPE,
                    pass_fds=() if windows else (theirs.fileno(),),
                    env={**os.environ, **ONE_THREAD_EACH},
                )
                stdin: Any = self._process.stdin
                handle = getattr(theirs, "share", lambda _: theirs.fileno())(
                    self._process.pid
                )  # share: on Windows alone
                with contextlib.suppress(BrokenPipeError):  # it died already; the first read notices that
                    stdin.write(pickle.dumps((sys.path, f"{__package__}.spawned_worker")) + pickle.dumps(handle))
                    stdin.flush()  # and stays open: when it ends, the worker knows that the parent has died
            undo.pop_all()
        self._socket = ours
        self._fds = {ours.fileno(), stdin.fileno()}
        private_fds.update(self._fds)
        self._setup = setup

    def introduce(self) -> None:
        self.write(struct.pack("=q", len(self._setup)) + self._setup)

    def write(self, data: Any) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            raise self.death() from None

    def read_into(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view)
            except OSError:
                count = 0
            if count == 0:
                raise self.death()
            view = view[count:]

    def read_memory(self, address: int, view: memoryview) -> None:  # noqa: ARG002
        raise PermissionError

    def death(self) -> WorkerDied:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_WAIT_SECONDS)
        code = self._process.poll()
        if not self._ending:
            kill_process_group(self._process.pid)  # its children keep the group's number in use
            self.kill()
        index, item = None, "at its start"
        if self.chunk is not None:
            first, last = self.chunk.start, self.chunk.stop - 1
            index = first if first == last else None
            item = f"at item {first}" if first == last else f"at one of the items {first} to {last}"
        how = "closed its socket to the parent" if code is None else exit_description(code)
        return death_error(f"(pid {self._process.pid}) {how} {item}", index, code, 0)

    def kill_below(self, tree: ProcessTree) -> None:
        """Kills the processes that it started, except trackers of shared memory, and then the worker itself."""
        self._ending = True
        if self._process.returncode is None:
            tree.kill_below(self._process.pid)
            self._process.kill()

    def kill(self) -> None:
        """Kills the worker and the processes that it started."""
        if self._process.returncode is None:  # otherwise the pid may belong to another process
            kill_process_group(self._process.pid)
            self._process.kill()

    def reap(self) -> None:
        self.kill()
        self._process.wait()
        private_fds.difference_update(self._fds)
        self._socket.close()
        stdin: Any = self._process.stdin
        with contextlib.suppress(OSError):  # unread data is lost
            stdin.close()


def _authkey() -> bytes | None:
    """The key by which a worker may use managers of the caller; None where the caller doesn't use multiprocessing."""
    process: Any = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if hasattr(process, "current_process") else None


class SpawnTeam(ThreadTeam):
    """Threads that each have an interpreter of their own call the function.

    Args:
        call: The call.
        because: The reason for new interpreters and possible remedies, if the caller didn't ask for them.
    """

    def __init__(self, call: Call, because: str = "") -> None:
        super().__init__(call)
        self._spawned: dict[int, Spawned] = {}
        self._because = because
        with self._explained("the function can't be sent to a worker"):
            func = dumps(call.func, by_value=True)
        self._setup = pickle.dumps((func, call.chunk_size is None, draw_seeds(), self._core_sharers, _authkey()))

    def pack(self, item: Any, index: int) -> Any:
        with self._explained(f"item {index} can't be sent to a worker"):
            return pickled_item(item, index, by_value=True)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Explains why the object must be pickled, if the caller didn't ask for new interpreters."""
        try:
            yield
        except Exception as error:  # pickling is the user's code
            if not self._because:
                raise
            raise RuntimeError(f"parallel_map: {what}: {type(error).__name__}: {error}\n{self._because}") from error

    def _start(self, number: int) -> None:
        flush_output()
        with start_lock(), interrupts_held():
            self._spawned[number] = Spawned(self._setup)
        super()._start(number)

    def _prepare(self, number: int) -> None:
        super()._prepare(number)
        self._spawned[number].introduce()

    def _replies(self, number: int, chunk: Chunk) -> Iterator[Reply]:
        worker = self._spawned[number]
        worker.chunk = chunk
        if chunk.items is None:
            items: Any = self._call.items
            packed = [(None, self.pack(items[index], index)) for index in range(chunk.start, chunk.stop)]
            chunk = Chunk(chunk.start, chunk.stop, packed)
        send_chunk(worker, chunk)
        reply = receive_reply(worker)
        while not reply.done:
            yield reply
            reply = receive_reply(worker)
        worker.chunk = None
        yield reply

    def stop(self) -> None:
        tree = ProcessTree()
        with start_lock(), interrupts_held():
            for worker in self._spawned.values():
                worker.kill_below(tree)  # this also wakes the worker's thread
        super().stop()  # without the lock: a thread may be pickling an item that makes a call of its own
        with start_lock(), interrupts_held():
            tree.wait_for_trackers()
            for worker in self._spawned.values():
                worker.reap()
            tree.reap()
