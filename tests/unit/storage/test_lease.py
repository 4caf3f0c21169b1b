"""One process drives a run; its death is noticed at once on its machine, and after a silence elsewhere (I6)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from k8sflow.errors import ConfigurationError, StorageError
from k8sflow.storage import lease as leases
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.lease import FolderLease, Lease, LeaseHolder, ObjectLease, lease_of
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.run_store import RunStore
from tests.support import wait_for


def _run(store: ObjectStore) -> RunStore:
    store.put("F/runs/r/run.json", [b"{}"])
    return RunStore(store, "F", "r")


@pytest.fixture(params=["folder", "object", pytest.param("s3", marks=pytest.mark.s3)])
def make(request: pytest.FixtureRequest) -> Callable[[], Lease]:
    """Makes leases of one run: a lock, or objects in either kind of store."""
    store = request.getfixturevalue("s3_store" if request.param == "s3" else "folder_store")
    run = _run(store)
    return (lambda: lease_of(run)) if request.param != "object" else (lambda: ObjectLease(run))


def _child(make: Callable[[], Lease]) -> int:
    """A process that has taken the lease when this returns."""
    read_end, write_end = os.pipe()
    if (pid := os.fork()) == 0:
        with suppress(BaseException):
            lease = make()
            os.write(write_end, b"1" if lease.acquire() else b"0")
            while True:
                signal.pause()
        os._exit(0)
    assert os.read(read_end, 1) == b"1"
    os.close(read_end)
    os.close(write_end)
    return pid


def test_one_process_has_the_lease_until_it_releases_it(make: Callable[[], Lease]) -> None:
    """Acquiring again succeeds for the holder; another process succeeds after the release."""
    first, second = make(), make()
    assert first.holder() is None
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    holder = second.holder()
    assert holder is not None
    assert holder.pid == os.getpid()
    assert str(os.getpid()) in str(holder)
    first.release()
    assert second.acquire()
    assert not make().acquire()
    second.release()


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_killed_holder_loses_the_lease(make: Callable[[], Lease], is_reaped: bool) -> None:
    """It does so at once on its own machine, even before its parent has waited for it."""
    pid = _child(make)
    ours = make()
    assert not ours.acquire()
    os.kill(pid, signal.SIGKILL)
    if is_reaped:
        os.waitpid(pid, 0)
    wait_for(ours.acquire)
    ours.release()
    if not is_reaped:
        os.waitpid(pid, 0)


def test_a_forked_process_holds_the_lock_until_it_exits(folder_store: FolderStore) -> None:
    """So that a driver's fork server, which ends the tasks, holds it as long as a task may run; and a task doesn't."""
    run = _run(folder_store)
    ours, other = lease_of(run), lease_of(run)
    assert ours.acquire()
    assert ours.descriptor is not None
    left, go = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        os.read(go[0], 1)
        os.close(ours.descriptor)
        os.write(left[1], b"1")
        signal.pause()
    os.close(ours.descriptor)  # as if this process had died
    assert not other.acquire()
    os.write(go[1], b"1")
    os.read(left[0], 1)
    assert other.acquire()
    other.release()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for fd in (*left, *go):
        os.close(fd)


def test_an_unwritable_folder_is_reported(folder_store: FolderStore) -> None:
    """A process without the lease can't drive the run."""
    lease = FolderLease(folder_store.root / "no" / "such" / "folder.lock")
    with pytest.raises(StorageError, match="can't be opened"):
        lease.acquire()


def _elsewhere(lease: ObjectLease) -> ObjectLease:
    """The lease of a process on another machine."""
    lease._me = replace(lease._me, host="elsewhere", process="another-boot/1/2/3")
    return lease


class Clock:
    """A clock that a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_lease_on_another_machine_expires_after_a_silence(store: ObjectStore) -> None:
    """The silence is measured by this process's clock, from its first look or the last sign of life."""
    run, clock = _run(store), Clock()
    theirs = _elsewhere(ObjectLease(run))
    ours = ObjectLease(run, now=clock, expiry_seconds=30)
    clock.seconds = 1000.0
    assert theirs.acquire()
    assert not ours.acquire()
    clock.seconds += 29
    assert not ours.acquire()
    store.put("F/runs/r/drivers/000001.json", [leases._dump(replace(theirs._me, beat=1))])
    clock.seconds += 29
    assert not ours.acquire()
    clock.seconds += 29
    assert not ours.acquire()
    clock.seconds += 1
    assert ours.acquire()
    ours.release()


def test_one_of_many_processes_takes_over(store: ObjectStore) -> None:
    """If-None-Match decides the race."""
    run = _run(store)
    dead = ObjectLease(run)
    dead._me = replace(dead._me, process=dead._me.process.rpartition("/")[0] + "/1")  # this number, another process
    assert dead.acquire()
    rivals = [ObjectLease(run) for _ in range(8)]
    won: list[bool] = []
    threads = [threading.Thread(target=lambda lease=lease: won.append(lease.acquire())) for lease in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 1
    assert sum(lease.acquire() for lease in rivals) == 1


def test_the_holder_renews_the_lease_and_notices_its_loss(store: ObjectStore) -> None:
    """A machine that was asleep may lose it."""
    run = _run(store)
    ours = ObjectLease(run, beat_seconds=0.02)
    assert ours.acquire()
    lost, beaten = threading.Event(), threading.Event()
    ours.keep(lost.set, beaten.set)

    def beats() -> bool:
        holder = ObjectLease(run).holder()
        return holder is not None and holder.beat >= 2

    wait_for(beats)
    assert beaten.is_set()
    assert not lost.is_set()
    assert store.put_new("F/runs/r/drivers/000002.json", leases._dump(LeaseHolder("x", "elsewhere", 1)))
    assert lost.wait(10)
    ours.release()
    successor = ObjectLease(run).holder()
    assert successor is not None
    assert successor.id == "x", "who lost it writes under its own number alone"


def test_a_release_is_seen_at_once(store: ObjectStore, tmp_path: Path) -> None:
    """Another machine sees it too."""
    run = _run(store)
    theirs = _elsewhere(ObjectLease(run, beat_seconds=100))
    assert theirs.acquire()
    theirs.keep(lambda: None, lambda: None)
    theirs.release()
    assert ObjectLease(run).acquire()


def test_a_write_whose_answer_was_lost_takes_the_lease(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client retries by itself, and finds its own object."""
    run = _run(folder_store)
    lease = ObjectLease(run)
    put_new = folder_store.put_new
    monkeypatch.setattr(folder_store, "put_new", lambda key, data: put_new(key, data) and put_new(key, data))
    assert lease.acquire()
    assert not ObjectLease(run).acquire()


def test_an_outage_does_not_count_as_silence(store: ObjectStore) -> None:
    """The holder could not write either, so the silence is counted again from its end."""
    run, clock = _run(store), Clock()
    theirs = _elsewhere(ObjectLease(run))
    ours = ObjectLease(run, now=clock, expiry_seconds=30)
    assert theirs.acquire()
    assert not ours.acquire()
    clock.seconds += 48
    assert not ours.acquire()
    clock.seconds += 29
    assert not ours.acquire()
    clock.seconds += 1
    assert ours.acquire()


@pytest.mark.parametrize("error", [StorageError("away"), ConfigurationError("keys expired"), RuntimeError("a bug")])
def test_no_error_ends_the_thread_that_keeps_a_lease(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Otherwise nothing would notice that another process has taken over."""
    run, lost, tried = _run(folder_store), threading.Event(), threading.Event()
    lease = ObjectLease(run, beat_seconds=0.01)
    assert lease.acquire()
    exists = folder_store.exists

    def failing(key: str, size: int | None = None) -> bool:
        if not tried.is_set():
            tried.set()
            raise error
        return exists(key, size)

    monkeypatch.setattr(folder_store, "exists", failing)
    lease.keep(lost.set, lambda: None)
    assert tried.wait(10)
    folder_store.put("F/runs/r/drivers/000002.json", [b"{}"])
    assert lost.wait(10)
    lease.release()


def test_taking_missing_and_losing_a_lease_is_logged(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed renewal is reported nowhere else, as the next one may succeed."""
    caplog.set_level("DEBUG", "k8sflow")
    run = _run(store)
    lease = ObjectLease(run, beat_seconds=0.01)
    assert lease.acquire()
    lost = threading.Event()
    with monkeypatch.context() as failing:
        failing.setattr(type(store), "exists", lambda *_: (_ for _ in ()).throw(StorageError("the keys expired.")))
        lease.keep(lost.set, lambda: None)
        wait_for(lambda: "not renewed" in caplog.text)
    store.put(f"{run.prefix}/drivers/000002.json", [b"{}"])
    assert lost.wait(20)

    key = f"{run.prefix}/drivers/000001.json"
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == f"Took the lease {key}; the previous holder: none."
    assert messages[1] == f"The lease {key} was not renewed: the keys expired. Retrying in 0.0 s."
    assert messages[-1] == f"Lost the lease {key} to another process."
    assert {record.name for record in caplog.records} == {"k8sflow.storage.lease"}
