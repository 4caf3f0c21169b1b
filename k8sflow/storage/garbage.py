"""Deletes runs that nothing needs any more, and then the blobs to which no record refers.

A run is deleted in three phases, so that a run which resumes it at the same time either is seen, or sees it:

- the gc writes a mark into the run, ``deleting/<gc>.json``, then lists all runs again, and takes the mark back if one
  of them refers to it; before it deletes the first object, it writes ``deleting/<gc>.started.json``;
- a process that creates a run which refers to another one writes ``run.json``, then looks for marks of the other one,
  and gives up if there is one (``RunStore.hold_origin``); for cached results, it writes a list of their blobs, then
  looks (``task/cached.py``).

The marks of a gc that died are an hour old. If it had started to delete the run, the next gc deletes the rest of it;
else it takes the mark back, and the run is like any other.

Then ``storage/sweep.py`` deletes blobs, as ``storage/condemned.py`` describes, after all references of the remaining
runs were read.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from k8sflow.errors import RunError, StorageError
from k8sflow.storage.lease import FolderLease, folder_lease_of, lease_of
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord, dump
from k8sflow.storage.run_store import MARKS, RUNS, SPINS, RunStore
from k8sflow.storage.stale_uploads import end_stale_uploads
from k8sflow.storage.sweep import OLD_MARK_SECONDS, Collected, Sweep, each_of, index_of

_ENDED_LONG_AGO_SECONDS = _STARTING_SECONDS = 24 * 3600.0
_LONGEST_TRIAL_SECONDS = 7 * 24 * 3600.0
_STARTED = ".started.json"
# A lease that is held takes a file descriptor.
_MOST_LEASES = 100


@dataclass(frozen=True)
class KnownRun:
    """A run, or a trial task of ``spin``, that gc considers.

    Args:
        run_store: Its records.
        record: What was asked for.
        ended: When it ended, in seconds since 1970; None if it has no recorded end.
        tags: Its tags, those of the system too.
    """

    run_store: RunStore
    record: RunRecord
    ended: float | None
    tags: frozenset[str]


# Chooses the runs that may be deleted, from all runs of a flow.
Select = Callable[[Sequence[KnownRun]], Sequence[KnownRun]]


class GarbageCollector:
    """Deletes the garbage of one flow.

    Args:
        store: The store.
        flow: The flow's name.
        select: Chooses the runs that may be deleted, from all runs with their ends.
        tags_of: The tags of a run, those of the system too.
        is_dry_run: True to delete nothing.
    """

    def __init__(
        self,
        store: ObjectStore,
        flow: str,
        select: Select,
        tags_of: Callable[[RunStore, RunRecord], frozenset[str]],
        *,
        is_dry_run: bool = False,
    ) -> None:
        self._store = store
        self._flow = flow
        self._select = select
        self._tags_of = tags_of
        self._is_dry_run = is_dry_run
        self._found = Collected(flow)
        self._records: dict[str, RunRecord] = {}
        self._me = secrets.token_hex(8)

    def collect(self) -> Collected:
        """Deletes what may be deleted, and returns what that was.

        Raises:
            StorageError: The store can't be reached, or refuses.
        """
        leases: list[FolderLease] = []
        indexed = index_of(self._store, self._flow)
        try:
            records = self._all_records()
            known = each_of(self._store, self._known, list(records.values()))
            runs = [run for run in known if run is not None]
            chosen = self._deletable([*self._select(runs), *filter(self._is_half_deleted, runs)], leases)
            chosen = self._without_needed(chosen, records)
            if not self._is_dry_run:
                each_of(self._store, lambda run: self._store.put(self._mark(run), [dump({})]), list(chosen.values()))
                chosen = self._without_needed(chosen, self._all_records())
        except _UnreadableError as error:
            self._found.problem = f"nothing is deleted: {error}"
            return self._found
        else:
            deleted = self._delete_runs(list(chosen.values()))
            Sweep(self._store, self._found, self._me, is_dry_run=self._is_dry_run).run(deleted, indexed)
            end_stale_uploads(self._store, self._found, is_dry_run=self._is_dry_run)
            return self._found
        finally:
            for lease in leases:
                lease.release()

    @property
    def is_flow(self) -> bool:
        """True if the folder had objects of k8sflow."""
        return bool(self._records) or self._found != Collected(self._flow)

    def _mark(self, run: RunStore) -> str:
        return f"{run.prefix}/{MARKS}{self._me}.json"

    # ------------------------------------------------------------------ runs

    def _known(self, run: tuple[RunStore, RunRecord]) -> KnownRun | None:
        """A run with its end and its tags; None if another gc has deleted it meanwhile.

        Raises:
            _UnreadableError: They can't be read.
        """
        run_store, record = run
        try:
            outcome = run_store.read_run_outcome()
            tags = self._tags_of(run_store, record)
        except (RunError, StorageError) as error:
            if not self._store.exists(f"{run_store.prefix}/run.json"):
                return None
            raise _UnreadableError(str(error)) from error
        return KnownRun(run_store, record, outcome.finished if outcome is not None else None, tags)

    def _is_half_deleted(self, run: KnownRun) -> bool:
        """True if a gc has died while it deleted the run; the mark of one that died before that is taken back."""
        marks = list(self._store.list_objects(f"{run.run_store.prefix}/{MARKS}"))
        old = [mark.key for mark in marks if mark.age > OLD_MARK_SECONDS]
        if any(key.endswith(_STARTED) for key in old):
            return True
        if old and not self._is_dry_run and not any(mark.key.endswith(_STARTED) for mark in marks):
            self._store.delete(old)
        return False

    def _all_records(self) -> dict[str, tuple[RunStore, RunRecord]]:
        """All runs by prefix; a record that was read once is not read again.

        Raises:
            _UnreadableError: A record can't be read, so it is unknown what the run needs.
        """
        found = ((run, self._record(run)) for run in self._run_stores())
        return {run.prefix: (run, record) for run, record in found if record is not None}

    def _run_stores(self) -> Iterator[RunStore]:
        for folder in (RUNS, SPINS):
            for run in self._store.list_folders(f"{self._flow}/{folder}/"):
                yield RunStore(self._store, self._flow, run, folder)

    def _record(self, run_store: RunStore) -> RunRecord | None:
        """The record of a run; None if there is none, as of a run that was deleted meanwhile.

        Raises:
            _UnreadableError: It can't be read.
        """
        if run_store.prefix not in self._records:
            if not self._store.exists(f"{run_store.prefix}/run.json"):
                return None
            try:
                self._records[run_store.prefix] = run_store.read()
            except RunError:  # another gc has deleted it just now
                return None
            except StorageError as error:
                raise _UnreadableError(str(error)) from error
        return self._records[run_store.prefix]

    def _deletable(self, chosen: Sequence[KnownRun], leases: list[FolderLease]) -> dict[str, RunStore]:
        """The chosen runs that no process drives, by prefix; in a folder, none can until the leases are released."""
        found = {}
        for run in chosen:
            if run.run_store.prefix in found:
                continue
            if why := self._why_alive(run, leases):
                self._found.needed[run.run_store.pathspec] = why
            else:
                found[run.run_store.prefix] = run.run_store
        return found

    def _why_alive(self, run: KnownRun, leases: list[FolderLease]) -> str:
        """Why a run may still be driven; empty if no process can drive it."""
        if (why := _why_young(run)) or run.run_store.folder == SPINS:  # nobody holds a lease on a trial task
            return why
        lease = folder_lease_of(run.run_store)
        if self._is_dry_run or lease is None:
            return _why_held(run, is_certain=self._is_dry_run)
        if len(leases) >= _MOST_LEASES:
            return "many others are deleted first; run gc again"
        try:
            if not lease.acquire():
                return f"it is driven by {lease.holder() or 'another process'}"
        except StorageError:
            if self._store.exists(f"{run.run_store.prefix}/run.json"):
                raise
            return "another gc has deleted it"
        if run.ended is not None:
            lease.release()  # nobody can drive it any more
        else:
            leases.append(lease)
        return ""

    def _without_needed(
        self, chosen: dict[str, RunStore], runs: Mapping[str, tuple[RunStore, RunRecord]]
    ) -> dict[str, RunStore]:
        """The chosen runs, less those to which another run refers, directly or through the run that it resumes."""
        origins = {prefix: self._origin(record) for prefix, (_, record) in runs.items()}
        needed: dict[str, str] = {}
        for prefix, (run_store, _) in runs.items():
            origin = None if prefix in chosen else origins[prefix]
            while origin is not None and origin not in needed:
                needed[origin] = run_store.pathspec
                origin = origins.get(origin)
        for prefix in needed.keys() & chosen.keys():
            self._found.needed[chosen[prefix].pathspec] = f"{needed[prefix]} refers to it"
            if not self._is_dry_run:
                marks = self._store.list_objects(f"{prefix}/{MARKS}")
                old = [mark.key for mark in marks if mark.age > OLD_MARK_SECONDS]
                self._store.delete([self._mark(chosen[prefix]), *old])
        return {prefix: run for prefix, run in chosen.items() if prefix not in needed}

    def _origin(self, record: RunRecord) -> str | None:
        return f"{self._flow}/{RUNS}/{record.origin_run_id}" if record.origin_run_id else None

    def _delete_runs(self, runs: Sequence[RunStore]) -> set[str]:
        """Deletes runs: the entries in the index first, the record last, so that an interrupted gc can continue.

        Returns:
            The prefixes of those that were deleted, or would be.
        """
        deleted = set()
        for run in runs:
            objects = list(self._store.list_objects(f"{run.prefix}/"))
            own = (
                each for each in objects if not each.key.startswith((f"{run.prefix}/{MARKS}", f"{run.prefix}/driver."))
            )
            self._found.runs[run.pathspec] = sum(each.size for each in own)
            if self._is_dry_run or self._start(run):
                deleted.add(run.prefix)
            if self._is_dry_run or run.prefix not in deleted:
                continue
            marks, entries = f"{run.prefix}/{MARKS}", list(self._store.list_keys(f"{self._flow}/index/{run.run}/"))
            if run.folder == RUNS and entries:
                self._store.delete(entries)
            first = [each.key for each in objects if not each.key.startswith((f"{run.prefix}/run.json", marks))]
            for keys in (first, [f"{run.prefix}/run.json"], list(self._store.list_keys(marks))):
                if keys:
                    self._store.delete(keys)
        return deleted

    def _start(self, run: RunStore) -> bool:
        """Says that the run is deleted from now on; False if another gc took this one for dead, and its mark back."""
        started = f"{run.prefix}/{MARKS}{self._me}{_STARTED}"
        self._store.put(started, [dump({})])
        if self._store.exists(self._mark(run)):
            return True
        self._store.delete([started])
        del self._found.runs[run.pathspec]
        self._found.needed[run.pathspec] = "this gc was interrupted for an hour; run it again"
        return False


class _UnreadableError(Exception):
    """The record of a run can't be read."""


def _why_young(run: KnownRun) -> str:
    """Why the start of a run without an end protects it: its driver may not have the lease yet; empty if it doesn't."""
    age = time.time() - run.record.created
    if run.ended is not None or age >= _LONGEST_TRIAL_SECONDS:
        return ""
    if run.run_store.folder == SPINS:
        return "it was started less than a week ago, and has no end"
    return "it was started less than a day ago, and has no end" if age < _STARTING_SECONDS else ""


def _why_held(run: KnownRun, *, is_certain: bool) -> str:
    """Why a process may drive a run, from what its lease says.

    Args:
        run: The run.
        is_certain: True to believe a lease that nobody seems to hold, False to take it.
    """
    holder = lease_of(run.run_store).holder()
    is_over = holder is None or holder.is_over or holder.is_dead
    if run.ended is None:
        record = run.record
        if record.is_detached or record.pods or record.batch:
            return "it has no end; `kubernetes kill` or `batch kill` ends it"
        # Nobody can drive it once its lease is held; nothing releases it, since that would write into a deleted run.
        is_free = is_over and (is_certain or lease_of(run.run_store).acquire())
        return "" if is_free else f"it has no end, and its driver, {holder or 'another process'}, may be alive"
    has_long_ended = time.time() - run.ended > _ENDED_LONG_AGO_SECONDS
    return "" if is_over or has_long_ended else f"it has just ended, and is still driven by {holder}"
