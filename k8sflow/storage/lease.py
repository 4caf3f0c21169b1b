"""Who drives a run: one process at a time, known to be alive or dead without a server (invariant I5).

In a folder it is a lock on a file, flock(2), which the kernel gives back when its holder is gone: at once, however that
came. In a bucket it is an object under a name that counts up, which its holder writes again from time to time; another
machine takes over when it has seen no change for a while, this one as soon as the holder's process is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from k8sflow.errors import ObjectNotFoundError, StorageError
from k8sflow.storage.run_store import RunStore

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 30.0
_JOIN_SECONDS = 5.0
_LOCK_NAME = "driver.lock"
# The states of a process that is dead, and only not yet waited for (proc(5)).
_ENDED = ("Z", "X")


@dataclass(frozen=True)
class Holder:
    """The process that drives a run.

    Args:
        id: Tells it from every other one.
        host: The machine's name, for people.
        pid: Its process id there.
        process: What no other process has, on this machine or another, now or later; empty where nobody can tell.
        beat: How often it has said that it is alive.
        is_over: Whether it has given the run back.
        is_resuming: Whether it doesn't drive the run, but makes a new one of it.
    """

    id: str
    host: str
    pid: int
    process: str = ""
    beat: int = 0
    is_over: bool = False
    is_resuming: bool = False

    @staticmethod
    def this(*, is_resuming: bool = False) -> Holder:
        """The process that asks."""
        me = Holder(secrets.token_hex(8), socket.gethostname(), os.getpid(), _identity(os.getpid()))
        return replace(me, is_resuming=is_resuming)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be dead: it ran on this machine, and there is no such process any more."""
        return bool(self.process) and _machine(self.process) == _machine(_identity(os.getpid())) != "" and (
            _identity(self.pid) != self.process
        )  # fmt: skip


class Lease(Protocol):
    """The right to drive one run."""

    def acquire(self) -> bool:
        """Takes it where nobody has it; to be asked again where somebody may die. Whether it is held now."""

    def keep(self, on_lost: Callable[[], None]) -> None:
        """Begins to say that the holder is alive; may start a thread.

        Args:
            on_lost: Called in whatever thread when another machine has taken the run over.
        """

    @property
    def descriptor(self) -> int | None:
        """A file descriptor by which other processes hold it too while they have it open; None without one."""

    def release(self) -> None:
        """Gives it back; nothing happens where it is not held."""

    def holder(self) -> Holder | None:
        """Who has it, or has had it last."""


def lease_of(run_store: RunStore) -> Lease:
    """The right to drive a run, wherever its records are."""
    return folder_lease_of(run_store) or ObjectLease(run_store)


def folder_lease_of(run_store: RunStore, *, is_resuming: bool = False) -> FolderLease | None:
    """The right to a run in a folder; None where it is in a bucket.

    Args:
        run_store: The run.
        is_resuming: Whether it is not to be driven, but a new one to be made of it.
    """
    folder = run_store.store.folder
    return None if folder is None else FolderLease(folder / run_store.prefix / _LOCK_NAME, is_resuming=is_resuming)


class FolderLease:
    """A lock on a file. The fork server has the file open too, and so holds the lock while it ends the tasks.

    Args:
        path: The file; its folder is there.
        is_resuming: Whether the run is not to be driven, but a new one to be made of it.
    """

    def __init__(self, path: Path, *, is_resuming: bool = False) -> None:
        self._path = path
        self._is_resuming = is_resuming
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Takes it where nobody has it.

        Raises:
            StorageError: The file can't be made.
        """
        if self._fd is not None:
            return True
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StorageError(
                f"{self._path} can't be opened: {error.strerror}.",
                cause="Whoever drives a run has to be able to write into its folder.",
            ) from error
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
        with contextlib.suppress(OSError):  # a full disk; nobody but a person reads it
            os.pwrite(fd, _dump(Holder.this(is_resuming=self._is_resuming)).ljust(os.fstat(fd).st_size), 0)
        return True

    def keep(self, on_lost: Callable[[], None]) -> None:
        """Nothing: the kernel does."""

    @property
    def descriptor(self) -> int | None:
        """The locked file."""
        return self._fd

    def release(self) -> None:
        """Unlocks the file, for whoever else has it open too."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def holder(self) -> Holder | None:
        """What the file says."""
        with contextlib.suppress(OSError):
            return _parse(self._path.read_bytes())
        return None


class ObjectLease:
    """Objects ``drivers/<number>.json``: whoever makes the next one (``If-None-Match: *``) has taken over.

    Args:
        run_store: The run.
        beat_seconds: How often the holder says that it is alive.
        expiry_seconds: After how long a silence another machine takes over.
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
        self._me = Holder.this()
        self._number: int | None = None
        self._seen: tuple[Holder, float] | None = None  # the last change of somebody else's, and when it was seen
        self._looked_at: float | None = None
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> bool:
        """Takes it where nobody has it, or where its holder is dead or has been silent since it was first asked."""
        if self._number is not None:
            return True
        latest, holder = self._latest()
        if holder is not None and not (holder.is_over or holder.is_dead or self._is_silent(holder)):
            return False
        key, mine = self._key(latest + 1), _dump(self._me)
        # A client that had no answer from the store tries again by itself, and then finds its own object there.
        if not self._store.put_new(key, mine) and bytes(self._store.get(key)) != mine:
            return False
        self._number = latest + 1
        return True

    def keep(self, on_lost: Callable[[], None]) -> None:
        """Starts the thread that writes the object again and again."""
        if self._number is not None and self._thread is None:
            self._thread = threading.Thread(
                target=self._beat, args=(self._number, on_lost), name="k8sflow-lease", daemon=True
            )
            self._thread.start()

    @property
    def descriptor(self) -> None:
        """None: another process has no thread that could keep it."""
        return

    def release(self) -> None:
        """Says that the holder is done."""
        if self._number is None:
            return
        self._released.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)  # it may be in the middle of a request that nobody answers
        with contextlib.suppress(StorageError):  # then it is taken over after a silence
            self._store.put(self._key(self._number), [_dump(replace(self._me, is_over=True))])
        self._number = None

    def holder(self) -> Holder | None:
        """What the last object says."""
        return self._latest()[1]

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:06}.json"

    def _latest(self) -> tuple[int, Holder | None]:
        latest = ""
        for key in self._store.list_keys(self._prefix):
            latest = key
        if not latest:
            return 0, None
        number = int(latest.rpartition("/")[2].removesuffix(".json"))
        with contextlib.suppress(ObjectNotFoundError):
            return number, _parse(bytes(self._store.get(latest)))
        return number, None

    def _is_silent(self, holder: Holder) -> bool:
        """Whether nothing has changed since this process first looked; no two machines' clocks are compared."""
        now = self._now()
        # While this process couldn't look, as in an outage of the bucket, the holder couldn't write either.
        could_not_look = self._looked_at is not None and now - self._looked_at > self._expiry_seconds
        self._looked_at = now
        if self._seen is None or self._seen[0] != holder or could_not_look:
            self._seen = (holder, now)
        return now - self._seen[1] >= self._expiry_seconds

    def _beat(self, number: int, on_lost: Callable[[], None]) -> None:
        beat = 0
        while not self._released.wait(self._beat_seconds):
            beat += 1
            try:
                is_lost = self._store.exists(self._key(number + 1))
                if not is_lost:
                    self._store.put(self._key(number), [_dump(replace(self._me, beat=beat))])
            except Exception:  # noqa: BLE001,S112  the thread's border: without it nobody would notice a new driver
                # Where the bucket can't be reached for a while, nobody else can see the silence either. Whatever else
                # it is (keys that expired), the next beat tries again, and notices if another driver has taken over.
                continue
            if is_lost:
                on_lost()
                return


def _dump(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _parse(data: bytes) -> Holder | None:
    """Whom a text names; None where it is not whole, as that of a holder who is just writing it."""
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _identity(pid: int) -> str:
    """Machine, process namespace, number and start of a process; empty where there is none, or no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        # The command's name, in brackets, may hold anything; the start is the 22nd field of all.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _ENDED else f"{boot}/{namespace}/{pid}/{fields[19]}"


def _machine(identity: str) -> str:
    """The part of an identity that all processes of a machine, and of a container on it, have in common."""
    return "/".join(identity.split("/")[:2])
