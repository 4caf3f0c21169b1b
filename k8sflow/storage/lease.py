"""The lease on a run, which lets one process at a time drive it, without a server (invariant I6).

In a folder it is a lock on a file, flock(2), which the kernel releases as soon as its holder dies. In a bucket it is an
object with a number in its name, which the holder rewrites from time to time. Another machine takes over after it has
seen no change for a while; a process on the same machine does so as soon as the holder's process is dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from k8sflow.debug_log import DebugLog
from k8sflow.errors import AccessError, ObjectNotFoundError, StorageError
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.written import get_written

_log = DebugLog(__name__)
BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 30.0
_JOIN_SECONDS = 5.0
_LOCK_NAME = "driver.lock"
# The states of a dead process whose parent has not waited for it yet (proc(5)).
_DEAD_STATES = ("Z", "X")


@dataclass(frozen=True)
class LeaseHolder:
    """The process that drives a run.

    Args:
        id: A random id of this holder.
        host: The machine's name, for people.
        pid: The process id there.
        process: Globally unique process identity (boot id, pid namespace, pid, start time); empty if unknown.
        beat: The number of times that it has reported that it is alive.
        is_over: True after it released the lease.
        is_resuming: True if it doesn't drive the run, but creates a new one from it.
    """

    id: str
    host: str
    pid: int
    process: str = ""
    beat: int = 0
    is_over: bool = False
    is_resuming: bool = False

    @staticmethod
    def this(*, is_resuming: bool = False) -> LeaseHolder:
        """This process."""
        me = LeaseHolder(secrets.token_hex(8), socket.gethostname(), os.getpid(), _identity(os.getpid()))
        return replace(me, is_resuming=is_resuming)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_dead(self) -> bool:
        """True if it is known to be dead: it ran on this machine, and the process no longer exists."""
        here = _machine(_identity(os.getpid()))
        return here != "" and _machine(self.process) == here and _identity(self.pid) != self.process


class Lease(Protocol):
    """The right to drive one run, which one process holds at a time."""

    def acquire(self) -> bool:
        """Takes the lease if it is free; returns True if this process holds it now."""

    def keep(self, on_lost: Callable[[], None], on_beat: Callable[[], None]) -> None:
        """Starts to report that the holder is alive; may start a thread.

        Args:
            on_lost: Called in any thread when another machine has taken over the run.
            on_beat: Called in any thread each time that the holder has reported.
        """

    @property
    def descriptor(self) -> int | None:
        """A file descriptor through which other processes that have it open hold the lease too, or None."""

    def release(self) -> None:
        """Releases the lease, if it is held."""

    def holder(self) -> LeaseHolder | None:
        """The current holder, or the last one."""


def lease_of(run_store: RunStore) -> Lease:
    """The lease on a run, in whichever kind of store its records are."""
    return folder_lease_of(run_store) or ObjectLease(run_store)


def folder_lease_of(run_store: RunStore, *, is_resuming: bool = False) -> FolderLease | None:
    """The lease on a run in a folder; None if the run is in a bucket.

    Args:
        run_store: The run.
        is_resuming: True to create a new run from it instead of driving it.
    """
    folder = run_store.store.folder
    return None if folder is None else FolderLease(folder / run_store.prefix / _LOCK_NAME, is_resuming=is_resuming)


class FolderLease:
    """A lock on a file. The fork server has the file open too, so it holds the lock while it ends the tasks.

    Args:
        path: The file; its folder exists.
        is_resuming: True to create a new run from this one instead of driving it.
    """

    def __init__(self, path: Path, *, is_resuming: bool = False) -> None:
        self._path = path
        self._is_resuming = is_resuming
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Takes the lock if it is free.

        Raises:
            StorageError: The file can't be created or locked.
        """
        if self._fd is not None:
            return True
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StorageError(
                f"{self._path} can't be opened: {error.strerror}.",
                cause="The process that drives a run needs write permission for its folder.",
            ) from error
        import fcntl  # noqa: PLC0415  not on Windows, from where runs in a bucket can be driven

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError as error:
            os.close(fd)
            raise StorageError(
                f"{self._path} can't be locked: {error.strerror}.", cause="The file system may not support flock(2)."
            ) from error
        self._fd = fd
        _log.debug("Locked %s.", self._path)
        with contextlib.suppress(OSError):  # a full disk; only people read the content
            os.pwrite(fd, _dump(LeaseHolder.this(is_resuming=self._is_resuming)).ljust(os.fstat(fd).st_size), 0)
        return True

    def keep(self, on_lost: Callable[[], None], on_beat: Callable[[], None]) -> None:
        """Does nothing: the kernel knows whether the holder is alive."""

    @property
    def descriptor(self) -> int | None:
        """The locked file."""
        return self._fd

    def release(self) -> None:
        """Unlocks the file, also for the other processes that have it open."""
        if self._fd is not None:
            import fcntl  # noqa: PLC0415  as above

            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def holder(self) -> LeaseHolder | None:
        """The holder that the file names."""
        with contextlib.suppress(OSError):
            return _parse(self._path.read_bytes())
        return None


class ObjectLease:
    """Objects ``drivers/<number>.json``: the process that creates the next one (``If-None-Match: *``) takes over.

    Args:
        run_store: The run.
        beat_seconds: The interval at which the holder reports that it is alive.
        expiry_seconds: The silence after which another machine takes over.
        now: The clock.
    """

    def __init__(
        self,
        run_store: RunStore,
        *,
        beat_seconds: float = BEAT_SECONDS,
        expiry_seconds: float = EXPIRY_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = run_store.store
        self._prefix = f"{run_store.prefix}/drivers/"
        self._beat_seconds = beat_seconds
        self._expiry_seconds = expiry_seconds
        self._now = now
        self._me = LeaseHolder.this()
        self._number: int | None = None
        self._seen: tuple[LeaseHolder, float] | None = (
            None  # the last change by another holder, and when this process saw it
        )
        self._looked_at: float | None = None
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> bool:
        """Takes the lease if it is free, or if its holder is dead or has been silent since the first call."""
        if self._number is not None:
            return True
        latest, holder = self._latest()
        if holder is not None and not (holder.is_over or holder.is_dead or self._is_silent(holder)):
            return False
        key, mine = self._key(latest + 1), _dump(self._me)
        # The client retries by itself when it gets no answer from the store, and may then find its own object.
        if not self._store.put_new(key, mine) and bytes(get_written(self._store, key)) != mine:
            _log.debug("Another process has taken the lease %s.", key)
            return False
        _log.debug("Took the lease %s; the previous holder: %s.", key, holder or "none")
        self._number = latest + 1
        return True

    def keep(self, on_lost: Callable[[], None], on_beat: Callable[[], None]) -> None:
        """Starts the thread that rewrites the object."""
        if self._number is not None and self._thread is None:
            self._thread = threading.Thread(
                target=self._beat, args=(self._number, on_lost, on_beat), name="k8sflow-lease", daemon=True
            )
            self._thread.start()

    @property
    def descriptor(self) -> None:
        """Always None: another process has no thread that could keep the lease."""
        return

    def release(self) -> None:
        """Records that the holder is done."""
        if self._number is None:
            return
        self._released.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)  # it may be waiting for an answer that never comes
        with contextlib.suppress(StorageError, AccessError):  # then another process takes over after a silence
            self._store.put(self._key(self._number), [_dump(replace(self._me, is_over=True))])
        self._number = None

    def holder(self) -> LeaseHolder | None:
        """The holder that the last object names."""
        return self._latest()[1]

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:06}.json"

    def _latest(self) -> tuple[int, LeaseHolder | None]:
        latest = ""
        for key in self._store.list_keys(self._prefix):
            latest = key
        if not latest:
            return 0, None
        number = int(latest.rpartition("/")[2].removesuffix(".json"))
        with contextlib.suppress(ObjectNotFoundError):
            return number, _parse(bytes(get_written(self._store, latest)))
        return number, None

    def _is_silent(self, holder: LeaseHolder) -> bool:
        """True if nothing has changed since this process first looked; clocks of machines are never compared."""
        now = self._now()
        # While this process couldn't look, as during an outage of the bucket, the holder couldn't write either.
        could_not_look = self._looked_at is not None and now - self._looked_at > self._expiry_seconds
        self._looked_at = now
        if self._seen is None or self._seen[0] != holder or could_not_look:
            self._seen = (holder, now)
        return now - self._seen[1] >= self._expiry_seconds

    def _beat(self, number: int, on_lost: Callable[[], None], on_beat: Callable[[], None]) -> None:
        beat = 0
        while not self._released.wait(self._beat_seconds):
            beat += 1
            try:
                is_lost = self._store.exists(self._key(number + 1))
                if not is_lost:
                    self._store.put(self._key(number), [_dump(replace(self._me, beat=beat))])
                    on_beat()
            except Exception as error:  # noqa: BLE001  a dead thread would never notice a new driver
                # While the bucket can't be reached, other processes can't see the silence either. After other errors,
                # such as expired keys, the next beat tries again, and notices if another driver has taken over.
                _log.debug(
                    "The lease %s was not renewed: %s Retrying in %.1f s.", self._key(number), error, self._beat_seconds
                )
                continue
            if is_lost:
                _log.debug("Lost the lease %s to another process.", self._key(number))
                on_lost()
                return


def _dump(holder: LeaseHolder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _parse(data: bytes) -> LeaseHolder | None:
    """The holder in a text; None if the text is incomplete, because the holder is just writing it."""
    try:
        return LeaseHolder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _identity(pid: int) -> str:
    """Boot id, pid namespace, pid and start time of a process; empty if there is no such process, or no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        # The command's name, in brackets, may contain anything; the start time is field 22 of the whole line.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _DEAD_STATES else f"{boot}/{namespace}/{pid}/{fields[19]}"


def _machine(identity: str) -> str:
    """The part of an identity that all processes of one machine, or of one container on it, share."""
    return "/".join(identity.split("/")[:2])
