"""Starts each task as a new interpreter, where forking one that has the flow loaded is not safe.

A process that is forked while other threads run has none of them, but all the locks that they held at that moment.
A flow that starts threads when it is imported therefore gets a process that knows nothing of the flow, and that runs
``python flow.py step …`` for each task: slower by the time that the import takes, and with the flow's threads alive.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from k8sflow.executors.zygote import Server, Start
from k8sflow.task.agent import RESULT_FD_VARIABLE

_CODE = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({fd}, {lock}, {driver}, {command!r})"


def is_needed() -> bool:
    """Whether this process has threads, so that it must not be forked to go on running Python."""
    return threading.active_count() > 1


def spawned(store: str, place: str, lock: int | None) -> Start:
    """Starts a process that starts tasks as new interpreters.

    Args:
        store: URL of the store with the run.
        place: The folder of the flow in which the run is.
        lock: A file descriptor that this process keeps open too.
    """
    command = [*flow_command(), "step", "--store", store, "--place", place]

    def start(_ours: socket.socket, theirs: socket.socket) -> int:
        fd = theirs.fileno()
        code = _CODE.format(
            path=sys.path, module=__name__, fd=fd, lock=lock, driver=os.getpid(), command=json.dumps(command)
        )
        inherited = [found for found in (fd, lock) if found is not None]
        for found in inherited:
            os.set_inheritable(found, True)
        try:
            return os.posix_spawn(command[0], [command[0], "-c", code], os.environ)
        finally:
            for found in inherited:
                os.set_inheritable(found, False)

    return start


def flow_command() -> list[str]:
    """How this process was started, without what was asked of the flow: ``python -u [options] flow.py``."""
    python, *options = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    if options and options[-1] == sys.argv[0]:
        main = getattr(sys.modules["__main__"], "__file__", None)
        options[-1] = main or options[-1]  # absolute: the flow may have changed the folder
    return [sys.executable or python, "-u", *options]


def serve(fd: int, lock: int | None, driver: int, command: str) -> NoReturn:
    """The life of the process that starts tasks; does not return.

    Args:
        fd: The socket to the driver.
        lock: What this process keeps open, and the tasks don't.
        driver: The driver's process id.
        command: How a task is started, as JSON.
    """
    found: Sequence[str] = json.loads(command)
    if lock is not None:
        os.set_inheritable(lock, False)

    def become(task: str, result: int) -> int:
        os.set_inheritable(result, True)
        os.environ[RESULT_FD_VARIABLE] = str(result)
        os.execv(found[0], [*found, task])

    sys.exit(Server(socket.socket(fileno=fd), become, driver).serve())
