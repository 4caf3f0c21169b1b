"""The life of a spawned worker."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import sys
import threading
from typing import Any, NoReturn

from .channels import read_exactly
from .descendants import be_daemon, kill_group, lead_group
from .forking import flush_output
from .limits import join_crowd
from .messages import Outbox
from .process_tree import adopt_orphans
from .signals import leave_it_to_the_parent
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
    """The whole life of a spawned worker; the code that `Spawned` gives its interpreter calls it."""
    lead_group()
    be_daemon()
    adopt_orphans()
    handle = pickle.load(sys.stdin.buffer)
    lifeline = os.dup(sys.stdin.fileno())
    with open(os.devnull, encoding="utf-8") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdin.fileno())  # what the function forks may read and close its standard input
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()
    if sys.platform == "win32":
        connection = socket.fromshare(handle)
    else:
        connection = socket.socket(fileno=handle)
    signal.signal(signal.SIGINT, leave_it_to_the_parent)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # it was inherited from the parent's `interrupts_held`
    channel = Socket(connection)
    try:
        (size,) = struct.unpack("=q", read_exactly(channel, 8))
        func, sliced, seeds, crowd = pickle.loads(read_exactly(channel, size))
        join_crowd(crowd)
        outbox = Outbox(channel, by_value=True)
        serve(Job(func, None, sliced, seeds, lambda _: None, channel, outbox))
    except (EOFError, OSError):
        pass  # the parent doesn't listen any more
    finally:
        flush_output()
        os._exit(1)


def _exit_with_parent(lifeline: int) -> None:
    while os.read(lifeline, 1):  # it ends when the parent does
        pass
    kill_group(os.getpid())
    os._exit(1)
