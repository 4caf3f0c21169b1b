"""Messages between a driver and its fork server.

The driver sends a task with the file descriptors that the task writes to; the server answers with the task's pid, and
reports how each one ended.

Messages are sent over a stream socket, each a length of 4 bytes and JSON. Requests are answered one at a time, so the
descriptors (SCM_RIGHTS, unix(7)) always belong to the request that they come with.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")
_FDS = 3


def send(connection: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Sends a message, with descriptors for the other end."""
    data = json.dumps(message).encode()
    # The descriptors travel with the length, so that one recvmsg of 4 bytes takes exactly them.
    if fds:
        socket.send_fds(connection, [_LENGTH.pack(len(data))], fds)
        connection.sendall(data)
    else:
        connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Waits for a message; None where the connection was closed. With it come its descriptors."""
    header, fds, _, _ = socket.recv_fds(connection, _LENGTH.size, _FDS)
    if not header:
        return None, []
    header += _exactly(connection, _LENGTH.size - len(header))
    message: dict[str, Any] = json.loads(_exactly(connection, _LENGTH.unpack(header)[0]))
    return message, fds


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the other end closed the connection in the middle of a message")
        data += piece
    return data
