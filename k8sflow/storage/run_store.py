"""Where the records of a run lie: run.json, a commit for each task, an outcome for each execution (I1 to I3).

<flow>/runs/<run>/run.json
<flow>/runs/<run>/outcome.json
<flow>/runs/<run>/tags/<version>.json, which takes the place of the tags in run.json
<flow>/runs/<run>/cloned.json            where it resumes another one: all that is taken over from that is there
<flow>/runs/<run>/driver.lock, drivers/  who drives it (storage/lease.py)
<flow>/runs/<run>/tasks/<step>/<task>/commit.json
<flow>/runs/<run>/tasks/<step>/<task>/<attempt>/{start.json,outcome.json,kept.json,stdout,stderr,stdout.times,stderr.times}
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from k8sflow.errors import ObjectNotFoundError, RunError, StorageError
from k8sflow.storage.logs import SUFFIX, Mark, TimedLog, marks
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import (
    FORMAT,
    LAYERED_FORMAT,
    Commit,
    KeptRecord,
    OutcomeRecord,
    RunRecord,
    dump,
    to_bytes,
)

# The folders of a flow with its runs, and with what ``spin`` has tried, which is no run.
RUNS, SPINS = "runs", "spins"
_START = "start.json"
Record = TypeVar("Record")


@dataclass(frozen=True)
class RunStore:
    """Reads and writes the records of one run.

    Args:
        store: Where they are.
        flow: The flow's class name.
        run: The run's id.
        place: The folder of the flow in which the run is: RUNS, or SPINS.
    """

    store: ObjectStore
    flow: str
    run: str
    place: str = RUNS

    @property
    def pathspec(self) -> str:
        """``flow/run``, as a person names it."""
        return f"{self.flow}/{self.run}" if self.place == RUNS else f"{self.flow}/{self.place}/{self.run}"

    @property
    def prefix(self) -> str:
        """Below which all of it is."""
        return f"{self.flow}/{self.place}/{self.run}"

    def create(self, record: RunRecord) -> None:
        """Starts the run's records.

        Raises:
            RunError: The run is there already.
        """
        key, data = f"{self.prefix}/run.json", dump(record.to_document())
        # A client that had no answer from the store tries again by itself, and then finds its own record there.
        if not self.store.put_new(key, data) and bytes(self.store.get(key)) != data:
            self.refuse_existing()

    def refuse_existing(self) -> None:
        """Returns where there is no such run yet.

        Raises:
            RunError: There is.
        """
        if self.store.exists(f"{self.prefix}/run.json"):
            raise RunError(
                f"the run {self.pathspec} is there already, in {self.store.url}.",
                advice="Leave --run-id out, or give another one.",
            )

    def read(self) -> RunRecord:
        """What was asked for.

        Raises:
            RunError: There is no such run.
            StorageError: The record was written by a newer k8sflow, or is damaged.
        """
        try:
            return self._load("run.json", RunRecord.from_document)
        except ObjectNotFoundError as error:
            raise RunError(
                f"there is no run {self.pathspec} in {self.store.url}.",
                cause="It has no run.json, or an empty one, as after a power cut.",
            ) from error

    def commit(self, step: str, task: str, commit: Commit) -> bool:
        """Commits a task's result; False where another execution did so before."""
        return self.store.put_new(self.task_key(step, task, "commit.json"), to_bytes(commit.to_document()))

    def read_commit(self, step: str, task: str) -> Commit | None:
        """A task's result, or None where it has none yet; with the artifacts that it holds itself (``Tables``)."""
        try:
            return self._load(f"tasks/{step}/{task}/commit.json", Commit.from_document)
        except ObjectNotFoundError:
            return None

    def task_keys(self) -> Iterator[tuple[str, str, str]]:
        """Step, task's id and the rest of the key of all that tasks have left, in ascending order of the keys."""
        prefix = f"{self.prefix}/tasks/"
        for key in self.store.list_keys(prefix):
            step, task, name = key.removeprefix(prefix).split("/", 2)
            yield step, task, name

    def write_outcome(self, step: str, task: str, attempt: int, record: OutcomeRecord) -> None:
        """Writes how an execution of a task ended."""
        self.store.put(self.task_key(step, task, f"{attempt}/outcome.json"), [dump(asdict(record))])

    def read_outcome(self, step: str, task: str, attempt: int) -> OutcomeRecord | None:
        """How an execution of a task ended, or None where that is not known."""
        try:
            return self._load(f"tasks/{step}/{task}/{attempt}/outcome.json", OutcomeRecord.from_document)
        except ObjectNotFoundError:
            return None

    def write_start(self, step: str, task: str, attempt: int) -> None:
        """Records that an execution is about to start; only the calls of exit hooks have such a record."""
        self.store.put(self.task_key(step, task, f"{attempt}/{_START}"), [dump({"started": time.time()})])

    def is_started(self, step: str, task: str, attempt: int) -> bool:
        """Whether ``write_start`` has recorded an execution."""
        return self.store.exists(self.task_key(step, task, f"{attempt}/{_START}"))

    def write_kept(self, step: str, task: str, attempt: int, record: KeptRecord) -> None:
        """Writes what a failed execution of a task had set."""
        self.store.put(self.task_key(step, task, f"{attempt}/kept.json"), [dump(asdict(record))])

    def read_kept(self, step: str, task: str, attempt: int) -> KeptRecord | None:
        """What a failed execution of a task had set, or None where nothing was kept."""
        try:
            return self._load(f"tasks/{step}/{task}/{attempt}/kept.json", KeptRecord.from_document)
        except ObjectNotFoundError:
            return None

    def write_run_outcome(self, record: OutcomeRecord) -> None:
        """Writes how the run ended."""
        self.store.put(f"{self.prefix}/outcome.json", [dump(asdict(record))])

    def read_run_outcome(self) -> OutcomeRecord | None:
        """How the run ended, or None where it has not."""
        try:
            return self._load("outcome.json", OutcomeRecord.from_document)
        except ObjectNotFoundError:
            return None

    def read_tags(self) -> tuple[str, ...]:
        """The user's tags as they are now."""
        return self._newest_tags()[1]

    def change_tags(self, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> tuple[str, ...]:
        """Changes the user's tags and returns them; of two who do so at once, neither loses anything.

        Args:
            change: Makes the new tags from those that are there; called again where somebody else was faster.
        """
        while True:
            version, before = self._newest_tags()
            tags = change(before)
            key = f"{self.prefix}/tags/{version + 1:08}.json"
            if tags == before or self.store.put_new(key, dump({"tags": tags})):
                return tags

    def _newest_tags(self) -> tuple[int, tuple[str, ...]]:
        """The number of the newest version of the tags, and the tags; 0 and those of run.json where none changed."""
        names = [key.rpartition("/")[2] for key in self.store.list_keys(f"{self.prefix}/tags/")]
        if not names:
            return 0, self.read().tags
        tags = self._load(f"tags/{names[-1]}", lambda document: tuple(document["tags"]))
        return int(names[-1].partition(".")[0]), tags

    def open_log(self, step: str, task: str, attempt: int, stream: str) -> TimedLog:
        """A writer for an execution's output; nothing is written before the first bytes."""
        key = self.task_key(step, task, f"{attempt}/{stream}")
        return TimedLog(self.store.open_log(key), self.store.open_log(key + SUFFIX))

    def read_log(self, step: str, task: str, attempt: int, stream: str, start: int = 0) -> bytes:
        """An execution's output so far, from an offset on."""
        return self.store.tail(self.task_key(step, task, f"{attempt}/{stream}"), start)

    def read_marks(self, step: str, task: str, attempt: int, stream: str) -> list[Mark]:
        """When an execution's output came."""
        return marks(self.store.tail(self.task_key(step, task, f"{attempt}/{stream}{SUFFIX}"), 0))

    def steps(self) -> Iterator[str]:
        """The steps that have tasks."""
        return self.store.list_folders(f"{self.prefix}/tasks/")

    def tasks(self, step: str) -> list[str]:
        """The ids of a step's tasks, in the order of their foreach branches and of the turns of a loop."""
        found = self.store.list_folders(f"{self.prefix}/tasks/{step}/")
        return sorted(found, key=_task_order)

    def attempts(self, step: str, task: str) -> list[int]:
        """The executions of a task that left anything."""
        found = self.store.list_folders(f"{self.prefix}/tasks/{step}/{task}/")
        return sorted(int(name) for name in found if name.isdigit())

    def task_key(self, step: str, task: str, name: str) -> str:
        """Where something is that belongs to a task."""
        return f"{self.prefix}/tasks/{step}/{task}/{name}"

    def _load(self, name: str, parse: Callable[[dict[str, Any]], Record]) -> Record:
        key = f"{self.prefix}/{name}"
        return self.parsed(key, bytes(self.store.get(key)), parse)

    def parsed(self, key: str, data: bytes, parse: Callable[[dict[str, Any]], Record]) -> Record:
        """What an object of the run says.

        Raises:
            StorageError: It was written by a newer k8sflow, or is damaged.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            found = document.pop("format")
            if found in {FORMAT, LAYERED_FORMAT}:
                return parse(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"{key} in {self.store.url} is damaged: {type(error).__name__}: {error}.") from error
        raise StorageError(
            f"{key} in {self.store.url} has the format {found}; this k8sflow reads {LAYERED_FORMAT} and older.",
            advice="A newer k8sflow wrote it: upgrade.",
        )


def _task_order(task: str) -> tuple[list[int], int]:
    """``3.1-2`` is in the branch 1 of the branch 3, and there the third turn."""
    path, _, turn = task.partition("-")
    return [int(part) if part.isdigit() else 0 for part in path.split(".")], int(turn) if turn.isdigit() else 0
