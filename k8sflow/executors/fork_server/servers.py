"""The fork servers of a run: one for each environment that its steps have."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Mapping, Sequence

from k8sflow.executors.fork_server.client import Exit, ForkServer, ServerDied
from k8sflow.executors.fork_server.start import RunToServe, start_server
from k8sflow.task.host.supervise import STREAMS, Stream
from k8sflow.task.spec import TaskSpec


class ForkServers:
    """Starts fork servers as steps need them. Steps with the same ``@environment`` and the same packages share one.

    A server that dies while it imports libraries, as where memory is short, says nothing about any step: another one
    that imports none replaces it, and from then on each task imports what it needs.

    Args:
        run: The run.
        lock: A file descriptor that the servers keep open until the last task has ended, and no task.
        variables_of: The environment variables that ``@environment`` sets for a step.
        selector: Gets each server's socket, with the server as data.
        python_of: The interpreter of a step's environment; None for that of this process.
    """

    def __init__(
        self,
        run: RunToServe,
        lock: int | None,
        variables_of: Callable[[str], Mapping[str, str]],
        selector: selectors.BaseSelector,
        python_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._run = run
        self._lock = lock
        self._variables_of = variables_of
        self._selector = selector
        self._python_of = python_of
        self._servers: dict[tuple[str | None, tuple[tuple[str, str], ...]], ForkServer] = {}
        self._bare: list[ForkServer] = []  # those that import no libraries
        self._notice = ""  # why tasks import libraries by themselves, where a server died of it
        self._shown: set[str] = set()
        self._is_cancelled = False

    def all(self) -> list[ForkServer]:
        """The servers that run."""
        return list(self._servers.values())

    def of(self, step: str) -> ForkServer:
        """The server for a step's tasks.

        Raises:
            RunError: It can't be started.
        """
        variables, python = self._variables_of(step), self._python_of(step)
        key = (python, tuple(sorted(variables.items())))
        if key not in self._servers:
            start = start_server(self._run, self._lock, variables, preloads=not self._notice, python=python)
            self._servers[key] = ForkServer(start)
            if self._notice:
                self._bare.append(self._servers[key])
            self._selector.register(self._servers[key].socket, selectors.EVENT_READ, self._servers[key])
        return self._servers[key]

    def spawn(self, task: TaskSpec, ends: Mapping[Stream, int]) -> tuple[ForkServer, int]:
        """Starts a task's process with these pipes; returns its server and its pid.

        Raises:
            RunError: No process can be made.
        """
        server = self.of(task.name.step)
        try:
            return server, server.spawn(task.to_json(), *(ends[stream] for stream in STREAMS))
        except ServerDied as error:
            self._replace(server, error)
            return self.spawn(task, ends)

    def exits_of(self, server: ForkServer) -> Sequence[Exit]:
        """The tasks of a server that have ended; waits for one where none was reported yet.

        Raises:
            RunError: The server died.
        """
        try:
            return server.exits()
        except ServerDied as error:
            self._replace(server, error)
            return ()

    def _replace(self, server: ForkServer, error: ServerDied) -> None:
        """Forgets a server that has died; the next one imports no libraries.

        Raises:
            ServerDied: It imported none already, or the run was cancelled.
        """
        if self._is_cancelled or server in self._bare:
            raise error
        self._notice = f"each task imports all libraries by itself: {error.summary}"
        self._selector.unregister(server.socket)
        server.close()
        self._servers = {key: found for key, found in self._servers.items() if found is not server}

    def new_notices(self, server: ForkServer) -> list[str]:
        """Why tasks take longer to start than they might; each reason once."""
        left_out = (server.left_out or {}).items()
        notices = [self._notice, *(f"each task imports {library} by itself: {why}." for library, why in left_out)]
        new = [notice for notice in notices if notice and notice not in self._shown]
        self._shown.update(new)
        return new

    def cancel(self) -> None:
        """Ends the servers that still import libraries."""
        self._is_cancelled = True
        for server in self.all():
            server.kill_unless_ready()

    def close(self, *, spare_orphans: bool) -> None:
        """Ends all servers, and with them the tasks that still run.

        Args:
            spare_orphans: Whether processes that tasks have left running may continue.
        """
        for server in self.all():
            server.close(spare_orphans=spare_orphans)
