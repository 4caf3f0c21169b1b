"""The records of a run: run.json, a commit for each task, an outcome for each attempt (I1 to I3).

Their keys are in ``storage/layout.py``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from k8sflow.debug_log import DebugLog
from k8sflow.errors import AccessError, ObjectNotFoundError, RunError, StorageError
from k8sflow.storage.ends import TaskEnd, ends_of, name_of_end
from k8sflow.storage.layout import task_order
from k8sflow.storage.log_times import SUFFIX, Mark, TimedLog, append, marks, missing_end
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import (
    FORMAT,
    LAYERED_FORMAT,
    CancelRequest,
    Commit,
    KeptRecord,
    OutcomeRecord,
    RunRecord,
    dump,
    to_bytes,
)
from k8sflow.storage.run_index import RunIndex
from k8sflow.storage.usage import Usage, together
from k8sflow.storage.written import get_written

# The folders of a flow's runs, and of the tasks that ``spin`` ran, which belong to no run.
RUNS, SPINS = "runs", "spins"
# The marks of each gc that is about to delete a run (storage/garbage.py).
MARKS = "deleting/"
# Written when all clones are; it has the names of their ends.
CLONED = "cloned.json"
_log = DebugLog(__name__)
_START = "start.json"
Record = TypeVar("Record")


@dataclass(frozen=True)
class RunStore:
    """Reads and writes the records of one run.

    Args:
        store: The store of the records.
        flow: The flow's class name.
        run: The run's id.
        folder: The folder of the flow in which the run is: RUNS or SPINS.
    """

    store: ObjectStore
    flow: str
    run: str
    folder: str = RUNS

    @property
    def pathspec(self) -> str:
        """``flow/run``, as users write it."""
        return f"{self.flow}/{self.run}" if self.folder == RUNS else f"{self.flow}/{self.folder}/{self.run}"

    @property
    def prefix(self) -> str:
        """The prefix of all of its keys."""
        return f"{self.flow}/{self.folder}/{self.run}"

    def create(self, record: RunRecord) -> None:
        """Writes the run's first record.

        Raises:
            RunError: The run exists already.
        """
        key, data = f"{self.prefix}/run.json", dump(record.to_document())
        # The client retries by itself when it gets no answer from the store, and may then find its own record.
        if not self.store.put_new(key, data) and bytes(get_written(self.store, key)) != data:
            self.refuse_existing()
        if self._index is not None:
            self._index.created(record)

    @property
    def _index(self) -> RunIndex | None:
        """The run's entries in the index of its flow; None for a trial task of ``spin``."""
        return RunIndex(self.store, self.flow, self.run) if self.folder == RUNS else None

    def refuse_existing(self) -> None:
        """Returns if the run doesn't exist yet.

        Raises:
            RunError: It exists.
        """
        if self.store.exists(f"{self.prefix}/run.json"):
            raise RunError(
                f"the run {self.pathspec} exists already, in {self.store.url}.",
                advice="Omit --run-id, or choose another one.",
            )

    def hold_origin(self, record: RunRecord) -> None:
        """Returns if no gc deletes the run to which this one refers, and none will; to be called after ``create``.

        Raises:
            RunError: It is being deleted, or was just deleted. The record of this run is deleted again.
        """
        if record.origin_run_id is None:
            return
        origin = RunStore(self.store, self.flow, record.origin_run_id)
        marks = self.store.list_keys(f"{origin.prefix}/{MARKS}")
        if next(iter(marks), None) is None and self.store.exists(f"{origin.prefix}/run.json"):
            return
        entries = self.store.list_keys(f"{self.flow}/index/{self.run}/") if self.folder == RUNS else ()
        self.store.delete([*entries, f"{self.prefix}/run.json"])
        raise RunError(
            f"the run {origin.pathspec} is being deleted.",
            cause="The command gc has found that nobody needs it, before this run referred to it.",
            advice="Start a new run. To keep runs that may be resumed, give gc a larger --older-than.",
        )

    def read(self) -> RunRecord:
        """The run's record.

        Raises:
            RunError: There is no such run.
            StorageError: The record was written by a newer k8sflow, or is damaged.
        """
        try:
            return self._load("run.json", RunRecord.from_document)
        except ObjectNotFoundError as error:
            raise RunError(
                f"there is no run {self.pathspec} in {self.store.url}.",
                cause="It has no run.json, or an empty one, which may happen after a power cut.",
            ) from error

    def commit(self, step: str, task: str, commit: Commit, *, is_one_of_several: bool = False) -> bool:
        """Commits a task's result; returns False if another attempt has committed before.

        Args:
            step: The task's step.
            task: The task's id.
            commit: The result.
            is_one_of_several: Whether the task has to run together with others. They are run again as one, so the
                results of their earlier attempts are replaced.
        """
        key, data = self.task_key(step, task, "commit.json"), to_bytes(commit.to_document())
        if self.store.put_new(key, data):
            self._note_end(step, task, commit)
            return True
        if is_one_of_several:
            earlier = self.read_commit(step, task)
            if earlier is not None and earlier.attempt < commit.attempt:
                self.store.put(key, [data])
                self._note_end(step, task, commit)
                return True
        return False

    def _note_end(self, step: str, task: str, commit: Commit) -> None:
        """Makes the end of a task visible in listings."""
        key = f"{self.prefix}/ends/{step}/{name_of_end(task, TaskEnd.of(commit))}"
        try:
            self.store.put(key, [b"{}"])
        except (StorageError, AccessError) as error:  # the commit itself was written
            _log.debug("%s was not written: %s", key, error)

    def ends(self, step: str) -> dict[str, TaskEnd]:
        """The ends of a step's tasks by id, from a listing; a task with a commit may be missing, as a clone is."""
        prefix = f"{self.prefix}/ends/{step}/"
        return ends_of(key.removeprefix(prefix) for key in self.store.list_keys(prefix))

    def all_ends(self) -> dict[str, dict[str, TaskEnd]]:
        """The ends of the run's own tasks by step and id, from a listing; clones are left out."""
        prefix, names = f"{self.prefix}/ends/", dict[str, list[str]]()
        for key in self.store.list_keys(prefix):
            step, _, name = key.removeprefix(prefix).partition("/")
            names.setdefault(step, []).append(name)
        return {step: ends_of(of_step) for step, of_step in names.items()}

    def usage(self) -> dict[str, Usage]:
        """The resources that the run's own tasks used, by step, from a listing; clones are left out."""
        found = {step: together(end.usage for end in ends.values()) for step, ends in self.all_ends().items()}
        return {step: usage for step, usage in found.items() if usage is not None}

    def read_commit(self, step: str, task: str, *, is_written: bool = False) -> Commit | None:
        """A task's commit, or None if it has none yet; ``Tables`` adds inherited artifacts.

        If it has one for certain (``is_written``), a store that doesn't show it yet is asked again.
        """
        key = self.task_key(step, task, "commit.json")
        try:
            data = get_written(self.store, key) if is_written else self.store.get(key)
            return self.parsed(key, bytes(data), Commit.from_document)
        except ObjectNotFoundError:
            return None

    def task_keys(self) -> Iterator[tuple[str, str, str]]:
        """The objects of all tasks, as step, task's id and the rest of the key, in ascending order of the keys."""
        prefix = f"{self.prefix}/tasks/"
        for key in self.store.list_keys(prefix):
            step, task, name = key.removeprefix(prefix).split("/", 2)
            yield step, task, name

    def committed(self, step: str) -> set[str]:
        """The ids of the step's tasks that have a commit, from one listing."""
        prefix = f"{self.prefix}/tasks/{step}/"
        keys = (key.removeprefix(prefix) for key in self.store.list_keys(prefix))
        return {task for task, _, name in (key.partition("/") for key in keys) if name == "commit.json"}

    def write_outcome(self, step: str, task: str, attempt: int, record: OutcomeRecord) -> None:
        """Writes the outcome of an attempt."""
        self.store.put(self.task_key(step, task, f"{attempt}/outcome.json"), [dump(record.to_document())])

    def withdraw_outcome(self, step: str, task: str, attempt: int) -> None:
        """Deletes the outcome of an attempt, which somebody else knows better."""
        self.store.delete([self.task_key(step, task, f"{attempt}/outcome.json")])

    def read_outcome(self, step: str, task: str, attempt: int) -> OutcomeRecord | None:
        """The outcome of an attempt, or None if there is none."""
        try:
            return self._load(f"tasks/{step}/{task}/{attempt}/outcome.json", OutcomeRecord.from_document)
        except ObjectNotFoundError:
            return None

    def write_start(self, step: str, task: str, attempt: int) -> None:
        """Records that an attempt is about to start; only the calls of exit hooks have such a record."""
        self.store.put(self.task_key(step, task, f"{attempt}/{_START}"), [dump({"started": time.time()})])

    def is_started(self, step: str, task: str, attempt: int) -> bool:
        """True if ``write_start`` has recorded the attempt."""
        return self.store.exists(self.task_key(step, task, f"{attempt}/{_START}"))

    def write_kept(self, step: str, task: str, attempt: int, record: KeptRecord) -> None:
        """Writes the artifacts that a failed attempt had set."""
        self.store.put(self.task_key(step, task, f"{attempt}/kept.json"), [dump(asdict(record))])

    def read_kept(self, step: str, task: str, attempt: int) -> KeptRecord | None:
        """The artifacts that a failed attempt had set, or None if they were not kept."""
        try:
            return self._load(f"tasks/{step}/{task}/{attempt}/kept.json", KeptRecord.from_document)
        except ObjectNotFoundError:
            return None

    def write_run_outcome(self, record: OutcomeRecord, end: str | None = None) -> None:
        """Writes the outcome of the run.

        Args:
            record: The outcome.
            end: The name of the last step, whose result the index then has; None if it need not.
        """
        index = self._index
        writer = index.ending() if index is not None else ""
        self.store.put(f"{self.prefix}/outcome.json", [dump(record.to_document())])
        if index is not None:
            last = self.read_commit(end, "0") if end is not None and self.store.is_shared else None
            index.ended(writer, record, last, is_complete=end is not None)

    def read_run_outcome(self) -> OutcomeRecord | None:
        """The outcome of the run, or None if it has not ended."""
        try:
            return self._load("outcome.json", OutcomeRecord.from_document)
        except ObjectNotFoundError:
            return None

    def request_cancel(self, request: CancelRequest) -> None:
        """Asks the driver of the run, wherever it is, to cancel it."""
        self.store.put(f"{self.prefix}/cancel.json", [dump(asdict(request))])

    def read_cancel_request(self) -> CancelRequest | None:
        """The request to cancel the run, or None if there is none."""
        try:
            return self._load("cancel.json", CancelRequest.from_document)
        except ObjectNotFoundError:
            return None

    def read_tags(self, first: Callable[[], tuple[str, ...]] | None = None) -> tuple[str, ...]:
        """The current user tags.

        Args:
            first: Returns those of ``run.json``, for a caller who has read it already.
        """
        return self._newest_tags(first)[1]

    def change_tags(self, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> tuple[str, ...]:
        """Changes the user tags and returns them; no simultaneous change is lost.

        Args:
            change: Returns the new tags for the current ones; called again if another process was faster.
        """
        while True:
            version, before = self._newest_tags()
            tags = change(before)
            if tags == before:
                return tags
            key, index = f"{self.prefix}/tags/{version + 1:08}.json", RunIndex(self.store, self.flow, self.run)
            index.tagging(version + 1)
            if self.store.put_new(key, dump({"tags": tags})):
                index.tagged(version + 1, tags)
                return tags
            _log.debug("Another process has written %s. Retrying.", key)

    def _newest_tags(self, first: Callable[[], tuple[str, ...]] | None = None) -> tuple[int, tuple[str, ...]]:
        """The number of the newest version of the tags, and the tags; 0 and those of run.json before any change."""
        names = [key.rpartition("/")[2] for key in self.store.list_keys(f"{self.prefix}/tags/")]
        if not names:
            return 0, self.read().tags if first is None else first()
        tags = self._load(f"tags/{names[-1]}", lambda document: tuple(document["tags"]))
        return int(names[-1].partition(".")[0]), tags

    def open_log(self, step: str, task: str, attempt: int, stream: str, limit_bytes: int | None = None) -> TimedLog:
        """A writer for an attempt's output, up to a size; nothing is written before the first bytes."""
        key = self.task_key(step, task, f"{attempt}/{stream}")
        return TimedLog(self.store.open_log(key), self.store.open_log(key + SUFFIX), limit_bytes)

    def read_log(self, step: str, task: str, attempt: int, stream: str, start: int = 0) -> bytes:
        """An attempt's output so far, from an offset on."""
        return self.store.tail(self.task_key(step, task, f"{attempt}/{stream}"), start)

    def complete_log(self, step: str, task: str, attempt: int, stream: str, end: bytes) -> None:
        """Adds what is missing to an attempt's output, whose writer is dead.

        Args:
            step: The step.
            task: The task's id.
            attempt: The attempt.
            stream: The stream.
            end: Its output, from wherever on it is known, to the end.
        """
        known = self.read_marks(step, task, attempt, stream)
        start = known[-1].offset if known else 0
        stored = self.read_log(step, task, attempt, stream, start)
        if missing := missing_end(stored, start, end):
            key = self.task_key(step, task, f"{attempt}/{stream}")
            size = start + len(stored)
            append(self.store, key, size, missing)
            marks_size = len(self.store.tail(key + SUFFIX, 0))
            append(self.store, key + SUFFIX, marks_size, b"%d %d\n" % (size, int(time.time() * 1000)))

    def read_marks(self, step: str, task: str, attempt: int, stream: str) -> list[Mark]:
        """The times of an attempt's output."""
        return marks(self.store.tail(self.task_key(step, task, f"{attempt}/{stream}{SUFFIX}"), 0))

    def steps(self) -> Iterator[str]:
        """The steps that have tasks."""
        return self.store.list_folders(f"{self.prefix}/tasks/")

    def tasks(self, step: str) -> list[str]:
        """The ids of a step's tasks, in the order of their foreach branches and of the turns of a loop."""
        found = self.store.list_folders(f"{self.prefix}/tasks/{step}/")
        return sorted(found, key=task_order)

    def has_task(self, step: str, task: str) -> bool:
        """True if a task has written anything."""
        if not task or "/" in task:
            return False
        return next(iter(self.store.list_keys(f"{self.prefix}/tasks/{step}/{task}/")), None) is not None

    def attempts(self, step: str, task: str) -> list[int]:
        """The attempts of a task that have written anything."""
        found = self.store.list_folders(f"{self.prefix}/tasks/{step}/{task}/")
        return sorted(int(name) for name in found if name.isdigit())

    def task_key(self, step: str, task: str, name: str) -> str:
        """The key of an object of a task."""
        return f"{self.prefix}/tasks/{step}/{task}/{name}"

    def _load(self, name: str, parse: Callable[[dict[str, Any]], Record]) -> Record:
        key = f"{self.prefix}/{name}"
        return self.parsed(key, bytes(self.store.get(key)), parse)

    def parsed(self, key: str, data: bytes, parse: Callable[[dict[str, Any]], Record]) -> Record:
        """The content of an object of the run.

        Raises:
            StorageError: It was written by a newer k8sflow, or is damaged.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            found = document.pop("format")
            if found in {FORMAT, LAYERED_FORMAT}:
                return parse(document)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StorageError(f"{key} in {self.store.url} is damaged: {type(error).__name__}: {error}.") from error
        raise StorageError(
            f"{key} in {self.store.url} has the format {found}; this k8sflow reads {LAYERED_FORMAT} and older.",
            advice="A newer k8sflow wrote it: upgrade.",
        )
