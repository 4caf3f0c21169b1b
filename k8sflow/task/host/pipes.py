"""What is in a pipe now."""

from __future__ import annotations

import fcntl
import sys
import termios


def waiting_bytes(fd: int) -> int:
    """How many bytes a pipe holds: what a process that has ended left, whoever else goes on writing."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
