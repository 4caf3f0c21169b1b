"""Large buffers, read straight from a worker's memory."""

from __future__ import annotations

import errno
import mmap
import os
import pickle
from collections import deque
from typing import Any, NoReturn

from .channels import READ_BYTES, WorkerEnd
from .signals import refusals_ignored

TAKEN, STREAM = b"t", b"s"  # answers to a message with addresses: "memory was read"; "unreadable, write it instead"
LARGE_BYTES = 128 * 1024  # a buffer of this size or more is read from the worker's memory instead of sent
_HUGE_PAGE_BYTES = 4 * 1024 * 1024  # from this size on, new memory asks for huge pages, as numpy's does


class Memory:
    """The pieces of one message that are given by their address."""

    def __init__(self, channel: WorkerEnd) -> None:
        self._channel = channel
        self.streaming = False  # True if the memory is unreadable (spawned, seccomp): the worker sends the pieces

    def fetch(self, address: int, length: int) -> mmap.mmap:
        """A piece in writable memory of its own, which is freed with the object that uses it."""
        memory = new_memory(length)
        with memoryview(memory) as view:
            self.read_into(address, view)
        return memory

    def read_into(self, address: int, view: memoryview) -> None:
        if not self.streaming:
            try:
                self._channel.read_memory(address, view)
            except PermissionError:
                self.streaming = True
                self._channel.write(STREAM)
        if self.streaming:
            self._channel.read_into(view)


def new_memory(length: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, length)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if length < _HUGE_PAGE_BYTES:
        flags |= getattr(mmap, "MAP_POPULATE", 0)  # all page faults at once
    try:
        memory = mmap.mmap(-1, length, flags=flags)
    except OSError as error:
        raise MemoryError(f"failed to allocate {length:,} bytes of a result: {error.strerror}") from None
    if length >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with refusals_ignored():  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Stream:
    """The Unpickler's file: pieces that came with the message, and pieces still in the worker's memory."""

    def __init__(self, table: list[tuple[int, int]], body: memoryview, memory: Memory) -> None:
        self._pieces = deque(table)
        self._body = body
        self._memory = memory

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        wanted = len(view)
        while view and self._pieces:
            address, length = self._pieces.popleft()
            count = min(len(view), length)
            if address:
                self._memory.read_into(address, view[:count])
            else:
                view[:count] = self._body[:count]
                self._body = self._body[count:]
            if count < length:
                self._pieces.appendleft((address and address + count, length - count))
            view = view[count:]
        return wanted - len(view)

    def read(self, size: int) -> bytearray:
        data = bytearray(size)
        del data[self.readinto(data) :]
        return data

    def readline(self) -> NoReturn:
        raise pickle.UnpicklingError("pickle protocol 5 reads no lines")


def read_memory(pid: int, address: int, view: memoryview) -> None:
    """Copies from another process's memory, process_vm_readv(2)."""
    import ctypes  # noqa: PLC0415  costs milliseconds that only large results need to pay

    read = getattr(ctypes.CDLL(None, use_errno=True), "process_vm_readv", None)
    if read is None:
        raise PermissionError
    read.restype = ctypes.c_ssize_t
    read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    target = ctypes.addressof(ctypes.c_char.from_buffer(view))
    done = 0
    while done < len(view):
        count = min(len(view) - done, READ_BYTES)
        here = (ctypes.c_size_t * 2)(target + done, count)  # struct iovec: base, length
        there = (ctypes.c_size_t * 2)(address + done, count)
        got = read(pid, here, 1, there, 1, 0)
        if got <= 0:
            number = ctypes.get_errno()
            if number in (errno.EPERM, errno.ENOSYS):
                raise PermissionError(number, os.strerror(number))
            raise ProcessLookupError(number, os.strerror(number))  # dead or dying
        done += got


def address_of(view: Any) -> int:
    """The address of a buffer in memory; read-only ones too, for which ctypes has no function."""
    import ctypes  # noqa: PLC0415

    buffer = (ctypes.c_void_p * 16)()  # Py_buffer: its first word is the address, all of it is 80 bytes
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    address = buffer[0] or 0
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return int(address)
