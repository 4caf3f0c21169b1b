"""Threads of native libraries: they don't survive a fork, and a library that waits for them in the child hangs."""

from __future__ import annotations

import array
import bisect
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .limits import lines_of
from .math_threads import can_hold_openmp, math_threads, pause_openmp, thread_ids
from .signals import is_refusal

_TASKS = "/proc/self/task"
# Libraries that keep working in a forked child, each tested or documented by the library. OpenBLAS and MKL are limited
# to one thread; Arrow, numexpr, tokenizers and gRPC have fork handlers; DuckDB works with the calling thread alone;
# ZeroMQ's contexts know their process; PyTorch's DataLoader forks; LLVM's OpenMP starts new threads.
_FORKABLE = re.compile(
    r"(^|/)(python|libpython|libopenblas|libscipy_openblas|libblis|libmkl_|libarrow|libparquet|libzmq|cygrpc"
    r"|tokenizers\.|_?duckdb|libiomp5|libomp\.|libtorch|libc10)|(^|/)numexpr/"
)
_FORKABLE_THREADS = frozenset({"jemalloc_bg_thd", "polars-ooc-clea"})  # an allocator's, which handles forks; a cleaner
_GNU_OPENMP = re.compile(r"(^|/)libgomp[-.]")
# Frames between a thread's first one and the library that started it.
_RUNTIMES = re.compile(r"(^|/)(libc|ld-linux.*|ld-musl.*|libpthread|lib(std)?c\+\+|libgcc_s|libm|libjemalloc)[-.]")
_UNNAMED_LIBRARIES = re.compile(r"polars|tokio|rayon")  # recognised by the names of their threads
_STACK_BYTES = 64 * 1024  # from the start of a stack, which refers to the function that the thread runs
# The longest wait for a running thread, which can't be examined until it sleeps. OpenBLAS's threads run for a while
# after a call that limited them; if GNU's OpenMP is loaded, whose threads must not be mistaken for them, wait longer.
_RUNNING_SECONDS = 0.002
_OPENMP_RUNNING_SECONDS = 0.05


@dataclass(frozen=True)
class _Thread:
    name: str
    library: str  # the path of the library's file; "" if unknown


_seen: tuple[frozenset[int], list[_Thread]] = (
    frozenset(),
    [],
)  # the threads of this process when they were last examined


def fork_hazard() -> str | None:
    """The library in this process that a forked worker could wait for forever; None if forking is safe.

    Makes GNU's OpenMP safe: its idle threads are ended, and start again when the caller next needs them.
    """
    if sys.modules.get("numba.np.ufunc.omppool") is not None:  # it aborts any forked process that uses it
        return "numba (threading layer omp)"
    hazards: dict[str, list[str]] = {}
    for thread in _native_threads():
        if _GNU_OPENMP.search(thread.library):
            if not pause_openmp(thread.library) and not can_hold_openmp():
                hazards.setdefault("OpenMP (libgomp)", [])
        elif _can_hang_forks(thread):
            hazards.setdefault(_library_name(thread), []).append(thread.name)
    return ", ".join(_described(name, threads) for name, threads in hazards.items()) or None


def _can_hang_forks(thread: _Thread) -> bool:
    if thread.name in _FORKABLE_THREADS:
        return False
    if not thread.library:
        return bool(_UNNAMED_LIBRARIES.match(thread.name))
    return not _FORKABLE.search("/".join(thread.library.split("/")[-2:]))


def _described(library: str, threads: Iterable[str]) -> str:
    names = sorted({re.sub(r"-?\d+$", "", name) for name in threads} - {"", _own_name()})
    return f"{library} (its threads: {', '.join(names)})" if names else library


def _library_name(thread: _Thread) -> str:
    """The import name of the package that the file belongs to, or the file's own name."""
    parts = thread.library.split("/")
    for folder in ("site-packages", "dist-packages"):
        if folder in parts[:-2]:
            package = parts[parts.index(folder) + 1].strip("_").removesuffix(".libs")
            names = [name for name in list(sys.modules) if "." not in name and package.startswith(name)]
            return max(names, key=len, default=package)
    return parts[-1] or thread.name.split("-")[0]


def _own_name() -> str:
    return "".join(lines_of("/proc/self/comm"))


def _native_threads() -> list[_Thread]:
    """The threads that Python didn't start, examined again only if there are other ones."""
    global _seen  # noqa: PLW0603  examining threads costs milliseconds
    try:
        if os.stat(_TASKS).st_nlink - 2 == len(sys._current_frames()):  # noqa: PTH116, SLF001  takes one microsecond
            return []
    except OSError as error:  # not Linux, or no /proc
        if not is_refusal(error):
            raise
        return []
    tids = thread_ids() - math_threads.blas_threads - {os.getpid()}
    if tids != _seen[0]:
        _seen = tids, list(_inspected(tids))
    return _seen[1]


def _inspected(tids: Iterable[int]) -> Iterator[_Thread]:
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY)
    except OSError:
        memory = -1
    try:
        stacks = _Stacks(memory)
        deadline = time.monotonic() + (_OPENMP_RUNNING_SECONDS if stacks.has_openmp else _RUNNING_SECONDS)
        for tid in tids:
            name = "".join(lines_of(f"{_TASKS}/{tid}/comm"))
            library = stacks.library_of(tid)
            while library is None and time.monotonic() < deadline:
                time.sleep(0.001)
                library = stacks.library_of(tid)
            yield _Thread(name, library or "")
    finally:
        if memory >= 0:
            os.close(memory)


class _Stacks:
    """Finds the library of a thread by the code addresses at the start of its stack."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._starts: list[int] = []
        self._regions: list[tuple[int, int, str]] = []
        self._code: list[tuple[int, int, str]] = []
        for line in lines_of("/proc/self/maps"):  # proc(5)
            fields = line.split(None, 5)
            start, end = (int(address, 16) for address in fields[0].split("-"))
            self._regions.append((start, end, fields[5] if len(fields) > 5 else ""))  # noqa: PLR2004  the path, if there is one
            if "x" in fields[1]:
                self._code.append(self._regions[-1])
        self._starts = [start for start, _, _ in self._regions]
        self._code_starts = [start for start, _, _ in self._code]

    @property
    def has_openmp(self) -> bool:
        """True if GNU's OpenMP is loaded."""
        return any(_GNU_OPENMP.search(path) for _, _, path in self._code)

    def library_of(self, tid: int) -> str | None:
        """The path of the library's file; "" if unknown; None while the thread is running."""
        words = " ".join(lines_of(f"{_TASKS}/{tid}/syscall")).split()
        if words == ["running"]:
            return None
        if len(words) < 3 or self._memory < 0:  # noqa: PLR2004  at least the number, the stack pointer and the program counter
            return ""
        pointer = int(words[-2], 16)
        position = bisect.bisect_right(self._starts, pointer) - 1
        _, end, _ = self._regions[max(position, 0)]
        if not self._starts or not pointer < end:
            return ""
        for size in (_STACK_BYTES // 16, _STACK_BYTES):
            if library := self._first_named(max(pointer & ~7, end - size), end):
                return library
        return ""

    def _first_named(self, start: int, end: int) -> str:
        stack = array.array("Q")
        with contextlib.suppress(OSError, ValueError):  # the thread has ended
            stack.frombytes(os.pread(self._memory, end - start, start))
        lowest, highest = self._code[0][0], self._code[-1][1]
        for word in reversed(stack):
            if lowest <= word < highest:
                start, end, path = self._code[bisect.bisect_right(self._code_starts, word) - 1]
                if word < end and path.startswith("/") and not _RUNTIMES.search(path):
                    return path
        return ""
