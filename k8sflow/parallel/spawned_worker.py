"""The main function of a spawned worker."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, cast

from .channels import read_exactly
from .child_processes import kill_process_group, lead_process_group, mark_as_daemon
from .failures import add_note
from .forking import flush_output
from .limits import set_core_sharers
from .messages import Outbox
from .process_tree import adopt_orphans
from .signals import ignore_interrupt
from .worker import Job, serve


class Socket:
    """The spawned worker's channel to the parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read_into(self, view: memoryview) -> None:
        while view:
            count = self._socket.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]

    def write(self, data: Any) -> None:
        self._socket.sendall(data)


def spawned_process() -> NoReturn:
    """The main function of a spawned worker, called by the code that `Spawned` passes to the interpreter."""
    lead_process_group()
    mark_as_daemon()
    adopt_orphans()
    handle = pickle.load(sys.stdin.buffer)
    lifeline = os.dup(sys.stdin.fileno())
    with open(os.devnull, encoding="utf-8") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdin.fileno())  # a child of the function may read and close stdin
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()
    if sys.platform == "win32":
        connection = socket.fromshare(handle)
    else:
        connection = socket.socket(fileno=handle)
    signal.signal(signal.SIGINT, ignore_interrupt)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # inherited from the parent's `interrupts_held`
    channel = Socket(connection)
    try:
        (size,) = struct.unpack("=q", read_exactly(channel, 8))
        setup, sliced, seeds, core_sharers, authkey = pickle.loads(read_exactly(channel, size))
        set_core_sharers(core_sharers)
        if authkey is not None:
            importlib.import_module("multiprocessing").current_process().authkey = authkey
        func = _loaded(setup)
        outbox = Outbox(channel, by_value=True)
        serve(Job(func, None, sliced, seeds, lambda _: None, channel, outbox))
    except (EOFError, OSError):
        pass  # the parent has stopped listening
    finally:
        flush_output()
        os._exit(1)


def _loaded(pickled: bytes) -> Callable[[Any], Any]:
    """The function; one that raises the reason where it can't be loaded."""
    try:
        return cast("Callable[[Any], Any]", pickle.loads(pickled))
    except Exception as error:  # noqa: BLE001  unpickling is the user's code; the caller gets the error
        reason = error
        add_note(reason, "parallel_map: the function can't be loaded in a worker, which is a new interpreter")

        def fail(_item: object) -> NoReturn:
            raise reason

        return fail


def _exit_with_parent(lifeline: int) -> None:
    while os.read(lifeline, 1):  # ends when the parent does
        pass
    kill_process_group(os.getpid())
    os._exit(1)
