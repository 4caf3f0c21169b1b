"""The records of a run: run.json, one commit per task, one outcome per execution (invariants I1 to I3).

<flow>/runs/<run>/run.json
<flow>/runs/<run>/outcome.json
<flow>/runs/<run>/tags/<version>.json, which takes the place of the tags in run.json
<flow>/runs/<run>/cloned.json            where it resumes another one: all that is taken over from that is there
<flow>/runs/<run>/driver.lock, drivers/  who drives it (storage/lease.py)
<flow>/runs/<run>/tasks/<step>/<task>/commit.json
<flow>/runs/<run>/tasks/<step>/<task>/<attempt>/{outcome.json,stdout,stderr,stdout.times,stderr.times}
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

from k8sflow.errors import RunError, StorageError
from k8sflow.flow.rows import MAX_NUM_SPLITS
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.logs import SUFFIX, Mark, TimedLog, marks
from k8sflow.storage.objects import ObjectNotFoundError, ObjectStore

FORMAT = 1
# The folders of a flow with its runs, and with what ``spin`` has tried, which is no run.
RUNS, SPINS = "runs", "spins"
Record = TypeVar("Record")
_RUN_ID = "%Y%m%d-%H%M%S-%f"


@dataclass(frozen=True)
class ForeachFrame:
    """One foreach branch around a task.

    Args:
        step: The step that opened the foreach.
        index: Which of its branches this is.
        width: How many there are.
        chunk: A list of consecutive items, one of which is this branch's.
        offset: The item's place in the chunk.
    """

    step: str
    index: int
    width: int
    chunk: ArtifactRef
    offset: int


@dataclass(frozen=True)
class ForeachItems:
    """The items of a foreach, frozen: lists of consecutive items, each an artifact of its own.

    Args:
        width: How many items there are.
        chunks: The index of each chunk's first item, and the chunk.
        max_parallel: How many of the branches may be under way at a time; None for any number.
    """

    width: int
    chunks: tuple[tuple[int, ArtifactRef], ...]
    max_parallel: int | None = None


@dataclass(frozen=True)
class Commit:
    """What a task left: written once, by whichever execution comes first.

    Args:
        attempt: The execution that wrote it.
        steps: The next steps.
        artifacts: Every artifact that a reader or the next step sees, by name.
        stack: The foreach branches around the task, the outermost first.
        foreach: The items of the foreach that it opens.
        started: When the step's function was called, in seconds since 1970.
        finished: When it returned.
        origin: The run in which the task ran, where this commit was taken over by another one that resumes it.
    """

    attempt: int
    steps: tuple[str, ...]
    artifacts: Mapping[str, ArtifactRef]
    stack: tuple[ForeachFrame, ...] = ()
    foreach: ForeachItems | None = None
    started: float = 0.0
    finished: float = 0.0
    origin: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """What was asked for when a run was started.

    Args:
        flow: The flow's class name.
        run: The run's id.
        file: The flow's file, relative to the code package.
        parameters: The parameters' values and the class's constants, by attribute.
        graph: The steps in the order of the source, as ``Graph.to_document`` gives them.
        pods: What the steps that run on Kubernetes ask of their pods, by step.
        package: sha256 of the code package, or None for a run on this machine alone.
        user: Who started it.
        created: When, in seconds since 1970.
        tags: Words that the user gave it.
        decorators: What ``--with`` added.
        origin_run_id: The run that this one resumes.
        flow_decorators: What the flow's own decorators say, by name: project, schedule, trigger, …
        policies: Retries, timeout and catch by step, as ``StepPolicy.to_document`` gives them.
        source: The flow's file on the machine where the run was started.
        namespace: The tag by which its tasks look for runs; that of the user where it is empty.
        origin_step: The step from which on everything runs again, where the user of ``resume`` named one.
        is_detached: Whether it was handed to the controller in the cluster, which sees to it that it has a driver.
        max_num_splits: How many branches a foreach may open.
    """

    flow: str
    run: str
    file: str
    parameters: Mapping[str, ArtifactRef]
    graph: list[dict[str, Any]]
    pods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    package: str | None = None
    user: str = ""
    created: float = 0.0
    tags: tuple[str, ...] = ()
    decorators: tuple[str, ...] = ()
    origin_run_id: str | None = None
    flow_decorators: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = ""
    namespace: str = ""
    origin_step: str | None = None
    is_detached: bool = False
    max_num_splits: int = MAX_NUM_SPLITS

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps, in the order of the source."""
        return tuple(node["name"] for node in self.graph)

    @property
    def end(self) -> str:
        """The name of the step with which a run has reached its end."""
        return next((str(node["name"]) for node in self.graph if node.get("is_end")), "end")


@dataclass(frozen=True)
class OutcomeRecord:
    """How an execution of a task, or a whole run, ended.

    Args:
        outcome: The outcome's name.
        finished: When, in seconds since 1970.
        summary: What happened.
        detail: The evidence, for example the traceback.
        resolution: What to do.
    """

    outcome: str
    finished: float
    summary: str = ""
    detail: str = ""
    resolution: str = ""


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
        key, data = f"{self.prefix}/run.json", _dump(asdict(record))
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
            return self._load("run.json", _run_record)
        except ObjectNotFoundError as error:
            raise RunError(
                f"there is no run {self.pathspec} in {self.store.url}.",
                cause="It has no run.json, or an empty one, as after a power cut.",
            ) from error

    def commit(self, step: str, task: str, commit: Commit) -> bool:
        """Commits a task's result; False where another execution did so before."""
        document = asdict(commit)
        if commit.origin is None:
            del document["origin"]
        return self.store.put_new(self.task_key(step, task, "commit.json"), _dump(document))

    def read_commit(self, step: str, task: str) -> Commit | None:
        """A task's result, or None where it has none yet."""
        try:
            return self._load(f"tasks/{step}/{task}/commit.json", _commit)
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
        self.store.put(self.task_key(step, task, f"{attempt}/outcome.json"), [_dump(asdict(record))])

    def read_outcome(self, step: str, task: str, attempt: int) -> OutcomeRecord | None:
        """How an execution of a task ended, or None where that is not known."""
        try:
            return self._load(f"tasks/{step}/{task}/{attempt}/outcome.json", _outcome_record)
        except ObjectNotFoundError:
            return None

    def write_run_outcome(self, record: OutcomeRecord) -> None:
        """Writes how the run ended."""
        self.store.put(f"{self.prefix}/outcome.json", [_dump(asdict(record))])

    def read_run_outcome(self) -> OutcomeRecord | None:
        """How the run ended, or None where it has not."""
        try:
            return self._load("outcome.json", _outcome_record)
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
            if tags == before or self.store.put_new(key, _dump({"tags": tags})):
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
            if found == FORMAT:
                return parse(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"{key} in {self.store.url} is damaged: {type(error).__name__}: {error}.") from error
        raise StorageError(
            f"{key} in {self.store.url} has the format {found}; this k8sflow reads {FORMAT}.",
            advice="A newer k8sflow wrote it: upgrade.",
        )


def _run_record(document: dict[str, Any]) -> RunRecord:
    parameters = {name: ArtifactRef.from_document(ref) for name, ref in document.pop("parameters").items()}
    for key in ("tags", "decorators"):
        document[key] = tuple(document[key])
    return RunRecord(parameters=parameters, **document)


def _commit(document: dict[str, Any]) -> Commit:
    foreach = document["foreach"]
    return Commit(
        attempt=document["attempt"],
        steps=tuple(document["steps"]),
        artifacts={name: ArtifactRef.from_document(ref) for name, ref in document["artifacts"].items()},
        stack=tuple(
            ForeachFrame(**{**frame, "chunk": ArtifactRef.from_document(frame["chunk"])})
            for frame in document["stack"]
        ),
        foreach=None if foreach is None else ForeachItems(
            foreach["width"],
            tuple((first, ArtifactRef.from_document(ref)) for first, ref in foreach["chunks"]),
            foreach["max_parallel"],
        ),
        started=document["started"],
        finished=document["finished"],
        origin=document.get("origin"),
    )  # fmt: skip


def _outcome_record(document: dict[str, Any]) -> OutcomeRecord:
    return OutcomeRecord(**document)


def new_run_id(now: float | None = None) -> str:
    """An id that sorts by time: ``20260301-142530-482913``, to the microsecond in UTC."""
    moment = datetime.now(timezone.utc) if now is None else datetime.fromtimestamp(now, timezone.utc)
    return moment.strftime(_RUN_ID)


def started_at(run_id: str) -> datetime:
    """The time that an id was made from.

    Raises:
        ValueError: It was not made from a time.
    """
    return datetime.strptime(run_id, _RUN_ID).replace(tzinfo=timezone.utc)


def current_user() -> str:
    """The name under which this machine knows the user."""
    try:
        return os.environ.get("K8SFLOW_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _task_order(task: str) -> tuple[list[int], int]:
    """``3.1-2`` is in the branch 1 of the branch 3, and there the third turn."""
    path, _, turn = task.partition("-")
    return [int(part) if part.isdigit() else 0 for part in path.split(".")], int(turn) if turn.isdigit() else 0


def _dump(document: dict[str, Any]) -> bytes:
    return to_bytes({"format": FORMAT, **document})


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as it lies in the store."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
