"""The parent's view of forked workers; Linux only."""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import operator
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from .call import Call
from .channels import readable_within
from .child_processes import kill_process_group
from .deadlocks import ADVICE, LOOK_SECONDS, DeadlockWatch
from .executors import running_executors
from .failures import EXIT_WAIT_SECONDS, WorkerDied, add_note, death_error, exit_description, short_repr
from .forked_worker import PipeEnds, Pipes, forked_process, open_pipes
from .forking import flush_output, fork_process, private_fds, renew_output, start_lock, wait_for_imports
from .limits import core_sharers_with, out_of_memory_kills
from .math_threads import math_threads
from .memory import read_memory
from .messages import Outbox, Reply, pickled_item, receive_reply, send_chunk
from .process_tree import ProcessTree, prepare_adoption
from .signals import HeldSignals, interrupts_held, is_refusal
from .work import Chunk
from .worker import Job, draw_seeds

_LIMITS_REACHED = "a limit of processes (ulimit -u, a pod's pids) or of open descriptors (ulimit -n) may be reached"
# The errors of pidfd_open(2) for a process that was already waited for; they depend on the kernel and the moment.
_NO_PROCESS = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})
_FORKS_AT_ONCE = 32  # limits the descriptors that are open while workers start


class Forked:
    """One forked worker, in the parent."""

    def __init__(self, team: ForkTeam, number: int, pid: int, ends: PipeEnds, chunk: Chunk) -> None:
        self.number = number
        self.pid = pid
        self.chunk: Chunk | None = chunk
        self.commands = ends.commands_in
        self.results = ends.results_out
        self._exitcode: int | None = None
        self._reaped = False
        self.pidfd = -1  # if none can be opened, the end of its pipe shows its death
        try:
            if hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"):  # not in every build
                self.pidfd = os.pidfd_open(pid)
        except OSError as error:  # an old kernel or a seccomp profile
            if not is_refusal(error):
                raise
            self._reaped = error.errno in _NO_PROCESS  # a handler of the caller was faster
        if self.pidfd >= 0:
            private_fds.add(self.pidfd)
        self._fds = {self.commands, self.results, ends.lifeline_in, self.pidfd} - {-1}
        self._team = team

    def kill_below(self, tree: ProcessTree) -> None:
        """Kills the processes that it started, except trackers of shared memory, and then the worker itself."""
        if self._reaped:
            return
        tree.kill_below(self.pid)
        self._kill_alone()

    def kill(self) -> None:
        """Kills the process and its group."""
        if self._reaped:
            return
        self._kill_alone()
        kill_process_group(self.pid)

    def _kill_alone(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd >= 0:  # the pid may belong to another process, if a handler of the caller reaped ours
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> int | None:
        """Kills the process if it still runs and waits for its end. Returns its exit code; None if it was lost."""
        self.kill()
        if not self._reaped:
            with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, or a handler of the caller reaped it
                self._exitcode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._reaped = True
        return self._exitcode

    def close(self) -> None:
        private_fds.difference_update(self._fds)
        while self._fds:
            os.close(self._fds.pop())

    def write(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.commands, view) :]
            except BlockingIOError:
                self._wait(self.commands, select.POLLOUT)
            except BrokenPipeError:
                raise self.death() from None

    def read_into(self, view: memoryview) -> None:
        while view:
            try:
                count = os.readv(self.results, [view])
            except BlockingIOError:
                self._wait(self.results, select.POLLIN)
                continue
            if count == 0:
                raise self.death()
            view = view[count:]

    def read_memory(self, address: int, view: memoryview) -> None:
        try:
            read_memory(self.pid, address, view)
        except ProcessLookupError:
            raise self.death() from None

    def _wait(self, fd: int, event: int) -> None:
        """Sleeps until the pipe is ready. Notices a dead worker even if a child of its own keeps the pipe open."""
        poll = select.poll()
        poll.register(fd, event)
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        if all(ready != fd for ready, _ in poll.poll()):
            raise self.death()

    def death(self) -> WorkerDied:
        """The error for this worker's death."""
        alive = self.pidfd >= 0 and not readable_within(self.pidfd, EXIT_WAIT_SECONDS)
        with interrupts_held():
            code = self.reap()
        index, item = self._position()
        how = "closed its pipe to the parent, or hid its memory from it," if alive else exit_description(code)
        return death_error(f"(pid {self.pid}) {how} {item}", index, None if alive else code, self._team.kills_before)

    def deadlock(self) -> WorkerDied:
        """The error for a worker that waits forever in native code."""
        index, item = self._position()
        return WorkerDied(f"a worker of parallel_map (pid {self.pid}) waits forever {item}\n{ADVICE}", index)

    def _position(self) -> tuple[int | None, str]:
        """The index of the item that it is busy with, and its description for an error."""
        if self.chunk is None:
            return None, "between two items"
        index = self._team.busy_with[self.number]
        return index, f"at item {index}: {self._team.repr_of_item(self.chunk, index)}"


class ForkTeam:
    """The forked workers of one call."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._workers: dict[int, Forked] = {}
        self._new: dict[int, Chunk] = {}  # the first chunks of workers that are about to be forked
        self._poll = select.poll()
        self._by_fd: dict[int, Forked] = {}
        self._readable: deque[Forked] = deque()
        self._watch = DeadlockWatch()
        self._seeds = draw_seeds()
        self._hold_openmp = math_threads.openmp_holder()
        self.busy_with = memoryview(mmap.mmap(-1, 8 * call.workers)).cast("q")  # shared: worker → index of its item
        self._core_sharers = core_sharers_with(call.workers)
        self._executors = running_executors() if threading.active_count() > 1 else []
        prepare_adoption()
        self.kills_before = out_of_memory_kills()  # before the fork: after it each page that is touched is copied

    pack = staticmethod(pickled_item)

    def _start(self) -> None:
        """Forks workers, one right after the other: code that runs between two forks costs the parent page faults.

        They start on their first chunks at once, while the others are still being forked.
        """
        new, self._new = self._new, {}
        flush_output()
        pids: dict[int, int] = {}
        pipes: dict[int, PipeEnds] = {}
        jobs: dict[int, Callable[[HeldSignals], NoReturn]] = {}
        threads = threading.active_count() > 1
        if threads:
            wait_for_imports()
        with start_lock(), interrupts_held() as held:
            try:
                for number, chunk in new.items():
                    pipes[number] = open_pipes()
                    jobs[number] = self._job(number, chunk, pipes[number])
                    self.busy_with[number] = chunk.start
                for number in new:
                    pids[number] = fork_process()
                    if pids[number] == 0:
                        del pipes[number]
                        _become_worker(jobs[number], held, pipes.values(), threads=threads)
            except OSError as error:
                add_note(
                    error,
                    f"parallel_map can't start {self._call.workers} workers: {_LIMITS_REACHED}. Lower max_parallel.",
                )
                raise
            finally:
                for number, ends in pipes.items():
                    if number in pids:
                        self._adopt(Forked(self, number, pids[number], ends, new[number]))
                    else:
                        ends.close_parents()
                    ends.close_workers()

    def _job(self, number: int, chunk: Chunk, ends: PipeEnds) -> Callable[[HeldSignals], NoReturn]:
        """The main function of a worker that is about to be forked."""
        pipes = Pipes(ends)
        report_index = functools.partial(operator.setitem, self.busy_with, number)
        first = (chunk.start, chunk.stop) if chunk.items is None else None
        outbox = Outbox(pipes, by_value=False)
        sliced = self._call.chunk_size is None
        job = Job(self._call.func, self._call.items, sliced, self._seeds, report_index, pipes, outbox, first)
        return functools.partial(forked_process, job, pipes, self._core_sharers, self._hold_openmp, self._executors)

    def _adopt(self, worker: Forked) -> None:
        self._workers[worker.number] = worker
        for fd in {worker.results, worker.pidfd} - {-1}:
            self._by_fd[fd] = worker
            self._poll.register(fd, select.POLLIN)

    def send(self, number: int, chunk: Chunk) -> None:
        if (worker := self._workers.get(number)) is not None:
            worker.chunk = chunk
            self.busy_with[number] = chunk.start
            send_chunk(worker, chunk)
            return
        self._new[number] = chunk
        if chunk.items is not None:  # items of an iterator are sent now, since it may change them later
            self._start()
            send_chunk(self._workers[number], chunk)
        elif len(self._new) == _FORKS_AT_ONCE:
            self._start()

    def receive(self) -> tuple[int, Reply]:
        if self._new:
            self._start()
        while not self._readable:
            events = self._poll.poll(LOOK_SECONDS * 1000)
            if not events:
                self._look_for_deadlocks()
            with_data = [
                self._by_fd[fd] for fd, event in events if event & select.POLLIN and fd == self._by_fd[fd].results
            ]
            for fd, _ in events:
                if self._by_fd[fd] not in with_data:  # it died without a message: an error, even if others work
                    raise self._by_fd[fd].death()
            self._readable.extend(with_data)
        worker = self._readable.popleft()
        reply = receive_reply(worker)
        if reply.done:
            worker.chunk = None
        return worker.number, reply

    def _look_for_deadlocks(self) -> None:
        busy = {worker.pid: worker for worker in self._workers.values() if worker.chunk is not None}
        if (pid := self._watch.first_dead(busy)) is not None:
            raise busy[pid].deadlock()

    def ready(self) -> bool:
        return bool(self._readable or self._poll.poll(0))

    def stop(self) -> None:
        if not self._workers:
            return
        with start_lock(), interrupts_held():
            tree = ProcessTree()
            for worker in self._workers.values():
                worker.kill_below(tree)
            tree.wait_for_trackers()
            for worker in self._workers.values():
                worker.reap()
                worker.close()
            self._workers.clear()
            tree.reap()

    def repr_of_item(self, chunk: Chunk, index: int) -> str:
        items: Any = self._call.items
        try:
            return short_repr(items[index] if chunk.items is None else chunk.items[index - chunk.start][0])
        except Exception as error:  # noqa: BLE001  the item is the user's; an error of its repr must not hide the worker's death
            return f"<its repr failed: {error!r}>"


def _become_worker(
    live: Callable[[HeldSignals], NoReturn], held: HeldSignals, others: Iterable[PipeEnds], *, threads: bool
) -> NoReturn:
    try:
        if threads:
            renew_output()
        for ends in others:
            ends.close_workers()
        live(held)
    finally:
        os._exit(1)  # no exception may reach the frames of the caller
