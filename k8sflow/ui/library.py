"""The runs of all flows in the stores, as the list of runs shows them; ended runs are read once."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from k8sflow.client import Flow, Run
from k8sflow.errors import K8sflowError, NotFoundError
from k8sflow.runtime.lookup import Runs, flow_names
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.run_store import RunStore
from k8sflow.ui.names import checked
from k8sflow.ui.progress import RunReader

STATUSES = ("running", "succeeded", "failed", "cancelled", "no driver", "unreadable")
_KEPT_READERS = 16


@dataclass(frozen=True)
class RunRow:
    """A run in the list.

    Args:
        flow: Its flow.
        run: Its id.
        status: One of STATUSES.
        created: When it was started, in seconds since 1970; 0 if unknown.
        finished: When it ended; None while it runs.
        user: Who started it.
        tags: The tags that people gave it.
        system_tags: The tags that follow from how it was started.
        memory_bytes: The largest peak of a task's memory; None if unknown.
        cpu_seconds: The CPU time of all tasks; None if unknown.
        error: Why it can't be read.
    """

    flow: str
    run: str
    status: str
    created: float = 0.0
    finished: float | None = None
    user: str = ""
    tags: tuple[str, ...] = ()
    system_tags: tuple[str, ...] = ()
    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Filter:
    """Which runs are wanted; what is empty selects all.

    Args:
        flow: Those of a flow.
        status: Those with a status.
        user: Those of a user.
        tags: Those that have all of these tags.
        since: Those that were started at this time or later, in seconds since 1970.
        until: Those that were started before this time.
        text: Those with this in their id, flow or tags.
    """

    flow: str = ""
    status: str = ""
    user: str = ""
    tags: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    text: str = ""

    def wants(self, row: RunRow) -> bool:
        """True if a run is wanted."""
        tags = {*row.tags, *row.system_tags}
        words = [f"{row.flow}/{row.run}", *row.tags]
        return (
            self.flow in {"", row.flow}
            and self.status in {"", row.status}
            and self.user in {"", row.user}
            and tags.issuperset(self.tags)
            and (self.since is None or row.created >= self.since)
            and (self.until is None or row.created < self.until)
            and (not self.text or any(self.text.casefold() in word.casefold() for word in words))
        )


class Library:
    """The runs in several stores; safe for threads.

    Args:
        stores: The stores; where two have a run of the same flow and id, the first one's counts.
    """

    def __init__(self, stores: Sequence[ObjectStore]) -> None:
        self.stores = tuple(stores)
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._error: K8sflowError | None = None
        self._rows: list[RunRow] = []
        self._read_at = float("-inf")
        self._known: dict[tuple[str, str], tuple[object, RunRow]] = {}
        self._running: dict[tuple[str, str], Run] = {}
        self._readers: OrderedDict[tuple[str, str], RunReader] = OrderedDict()

    @property
    def poll_seconds(self) -> float:
        """The seconds after which a page asks again."""
        return max(0.5, *(store.poll_seconds for store in self.stores))

    @property
    def oldest_seconds(self) -> float:
        """The greatest age of what is shown: less than a page waits, which asks at its own times."""
        return self.poll_seconds / 2

    def rows(self) -> list[RunRow]:
        """All runs, the newest first.

        Raises:
            StorageError: A store can't be read.
        """
        with self._listing:  # a store that fails slowly is asked once for all who wait
            if time.monotonic() - self._read_at >= self.oldest_seconds:
                self._error = None
                try:
                    self._rows = self._listed()
                except K8sflowError as error:
                    self._error = error
                self._read_at = time.monotonic()
            if self._error is not None:
                raise self._error.with_traceback(None)
            return self._rows

    def _listed(self) -> list[RunRow]:
        found: list[Run] = []
        for name in flow_names(self.stores):
            flow = Flow(name, stores=self.stores, everyone=True, is_checked=False)
            _ = flow.lookup.facts  # with them at hand, even the latest run needs no request
            found += flow
        at_once = max(store.parallel_reads for store in self.stores)
        if at_once == 1:
            rows = [self._row(run) for run in found]
        else:
            with ThreadPoolExecutor(at_once) as pool:
                rows = list(pool.map(self._row, found))
        there = {(row.flow, row.run) for row in rows}
        self._known = {name: known for name, known in self._known.items() if name in there}
        self._running = {name: run for name, run in self._running.items() if name in there}
        return sorted(rows, key=lambda row: (row.created, row.run), reverse=True)

    def _row(self, run: Run) -> RunRow:
        name = (run.run_store.flow, run.id)
        if run.run_store.store.folder is None:
            if name in self._running:
                run.share_record(self._running.pop(name))
            row = _described(run)
            if row.finished is None and not row.error:
                self._running[name] = run
            return row
        state = _state_of_files(run.run_store)
        if name in self._known and self._known[name][0] == state:
            return self._known[name][1]
        run = self._running.setdefault(name, run)
        row = _described(run)
        if row.finished is not None or row.error:
            self._known[name] = (state, row)
            self._running.pop(name, None)
        return row

    def run(self, flow: str, run: str) -> Run:
        """A run.

        Raises:
            NotFoundError: There is none.
        """
        return Run(Runs(checked(flow), self.stores)[checked(run)])

    def reader(self, flow: str, run: str) -> RunReader:
        """The reader that follows a run: one for all pages about it.

        Raises:
            NotFoundError: There is no such run.
            StorageError: Its record can't be read.
        """
        name = (flow, run)
        with self._lock:
            found = self._readers.get(name)
            if found is not None and not found.is_deleted():
                self._readers.move_to_end(name)
                return found
            self._readers.pop(name, None)
        found = RunReader(self.run(flow, run))
        with self._lock:
            found = self._readers.setdefault(name, found)
            while len(self._readers) > _KEPT_READERS:
                self._readers.popitem(last=False)
        return found

    def has_ended(self, flow: str, run: str) -> bool:
        """True if nothing more is to be expected of a run, or it was deleted; False if that can't be found out."""
        try:
            reader = self.reader(flow, run)
            reader.poll()
        except NotFoundError:
            return True
        except K8sflowError:
            return False
        return reader.has_ended and not reader.error

    def beside(self, flow: str, run: str) -> tuple[str | None, str | None]:
        """The ids of the runs of the same flow before and after a run.

        Raises:
            StorageError: A store can't be read.
        """
        ids = [row.run for row in self._rows if row.flow == flow]
        if run not in ids:  # it was opened by its address, or is newer than the list
            ids = [each.run for each in Runs(checked(flow), self.stores)]
        if run not in ids:
            return None, None
        at = ids.index(run)
        return (ids[at + 1] if at + 1 < len(ids) else None, ids[at - 1] if at else None)


def wanted(rows: Sequence[RunRow], chosen: Filter) -> Iterator[RunRow]:
    """The runs that a filter selects."""
    return (row for row in rows if chosen.wants(row))


def _state_of_files(run_store: RunStore) -> object:
    """A value that changes with the end of a run in a folder, and with its tags."""
    folder = run_store.store.folder
    assert folder is not None
    base = f"{folder}/{run_store.prefix}"
    return [_changed_at(f"{base}/{name}") for name in ("outcome.json", "tags", "run.json")]


def _changed_at(path: str) -> int:
    """When a file or a folder was changed, in nanoseconds; 0 if there is none."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116  a Path takes longer than the call
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _described(run: Run) -> RunRow:
    """A run's row in the list. One that can't be read gets a row with the error, so that it doesn't hide the others."""
    row = RunRow(run.run_store.flow, run.id, "unreadable")
    try:
        end, created = run.end, run.created
        status = run.status_after(end)
        if status == "running" and run.has_dead_driver:
            status = "no driver"
        usage = end.usage if end is not None else None
        found = replace(
            row,
            status=status,
            created=created + 0.0,
            finished=None if end is None else end.finished + 0.0,
            user=str(run.user_name),
            tags=tuple(sorted(map(str, run.user_tags))),
            system_tags=tuple(sorted(run.system_tags)),
        )
        if usage is None:
            return found
        return replace(found, memory_bytes=usage.memory_bytes, cpu_seconds=usage.cpu_seconds)
    except K8sflowError as error:
        return replace(row, error=str(error))
    except Exception as error:  # noqa: BLE001  a damaged record may have a value of any type anywhere
        return replace(row, error=f"its records are damaged: {type(error).__name__}: {error}")
