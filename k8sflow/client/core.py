"""Flow, Run, Step, Task and DataArtifact: a tree that is read from the store when it is looked at.

Flow("BigSum").latest_run["end"].task.data.total
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from k8sflow.client.stores import known_stores
from k8sflow.errors import K8sflowError
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import SPINS, Commit, OutcomeRecord, RunRecord, RunStore, started_at
from k8sflow.task.outcome import Outcome


class NotFoundError(K8sflowError, KeyError):
    """There is no such flow, run, step, task or artifact in any store that is known here."""

    def __str__(self) -> str:
        return K8sflowError.__str__(self)


class Flow:
    """The runs of a flow, in every store that is known here.

    Args:
        name: The flow's class name.

    Raises:
        NotFoundError: It has no run.
    """

    def __init__(self, name: str) -> None:
        self.id = name
        self._runs: dict[str, ObjectStore] = {}
        stores = known_stores()
        for store in stores:
            self._runs |= dict.fromkeys(store.list_folders(f"{name}/runs/"), store)
        if not self._runs:
            raise NotFoundError(
                f"there is no run of a flow {name!r} in {' or '.join(s.url for s in stores) or 'any known store'}.",
                advice="Look from the flow's folder, or set K8SFLOW_ROOT; for a bucket, K8SFLOW_BUCKET.",
            )

    @property
    def pathspec(self) -> str:
        """The flow's name."""
        return self.id

    @property
    def latest_run(self) -> Run:
        """The run that was started last."""
        return next(iter(self))

    @property
    def latest_successful_run(self) -> Run:
        """The last run that reached its end.

        Raises:
            NotFoundError: None did.
        """
        for run in self:
            if run.successful:
                return run
        raise NotFoundError(f"no run of {self.id} was successful.")

    def runs(self, *tags: str) -> Iterator[Run]:
        """The runs that have all the tags, the latest first."""
        return (run for run in self if run.tags.issuperset(tags))

    def __iter__(self) -> Iterator[Run]:
        """The runs, the latest first."""
        runs = [Run(RunStore(store, self.id, run)) for run, store in self._runs.items()]
        yield from sorted(runs, key=_started, reverse=True)

    def __getitem__(self, run: str) -> Run:
        if run not in self._runs:
            raise NotFoundError(f"there is no run {self.id}/{run}.", advice=f"The latest is {self.latest_run.id}.")
        return Run(RunStore(self._runs[run], self.id, run))

    def __contains__(self, run: str) -> bool:
        return run in self._runs

    def __repr__(self) -> str:
        return f"Flow({self.id!r})"


class Run:
    """One run of a flow. ``Run("BigSum/20260301-142530-482913")``, or a flow's ``latest_run``.

    What the command ``spin`` has left is read in the same way: ``Run("BigSum/spins/20260301-142530-482913")``.
    """

    def __init__(self, run: str | RunStore) -> None:
        self._run_store = _find(run) if isinstance(run, str) else run
        self.id = self._run_store.run

    @property
    def pathspec(self) -> str:
        """``flow/run``."""
        return self._run_store.pathspec

    @cached_property
    def _record(self) -> RunRecord:
        return self._run_store.read()

    @property
    def _end(self) -> Commit | None:
        return self._run_store.read_commit(self._record.end, "0")

    @property
    def successful(self) -> bool:
        """Whether the run reached its end."""
        return self._end is not None

    @property
    def finished(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.successful or self._run_store.read_run_outcome() is not None

    @property
    def finished_at(self) -> datetime | None:
        """When the run ended, or None while it runs."""
        outcome = self._run_store.read_run_outcome()
        return _moment(outcome.finished) if outcome is not None else None

    @property
    def outcome(self) -> OutcomeRecord | None:
        """How the run ended, or None while it runs."""
        return self._run_store.read_run_outcome()

    @property
    def created_at(self) -> datetime:
        """When the run was started."""
        return _moment(self._record.created)

    @property
    def origin_run_id(self) -> str | None:
        """The id of the run that this one resumes, or None."""
        return self._record.origin_run_id

    @property
    def tags(self) -> frozenset[str]:
        """The words that the user gave the run."""
        return frozenset(self._record.tags)

    @property
    def end_task(self) -> Task | None:
        """The end step's task, or None where the run did not get there."""
        return self[self._record.end].task if self.successful else None

    @property
    def data(self) -> TaskData | None:
        """The artifacts of the end step, or None where the run did not get there."""
        return self[self._record.end].task.data if self.successful else None

    def steps(self) -> Iterator[Step]:
        """The steps that have started, in the order of the source."""
        return iter(self)

    def __iter__(self) -> Iterator[Step]:
        started = set(self._run_store.steps())
        return (Step(self._run_store, name, self._record) for name in self._record.steps if name in started)

    def __getitem__(self, step: str) -> Step:
        if step not in self._record.steps:
            raise NotFoundError(
                f"{self.pathspec} has no step {step!r}.", advice=f"Its steps are {', '.join(self._record.steps)}."
            )
        return Step(self._run_store, step, self._record)

    def __contains__(self, step: str) -> bool:
        return step in self._record.steps

    def __repr__(self) -> str:
        return f"Run({self.pathspec!r})"


class Step:
    """The tasks of one step of a run."""

    def __init__(self, run_store: RunStore, name: str, record: RunRecord) -> None:
        self._run_store = run_store
        self._record = record
        self.id = name

    @property
    def pathspec(self) -> str:
        """``flow/run/step``."""
        return f"{self._run_store.pathspec}/{self.id}"

    @property
    def task(self) -> Task:
        """The step's only task, or the first of its foreach branches.

        Raises:
            NotFoundError: None has started.
        """
        for task in self:
            return task
        raise NotFoundError(
            f"step {self.pathspec} has no task.",
            cause="The run took another way, did not get there, or is not there yet.",
        )

    def tasks(self) -> Iterator[Task]:
        """The step's tasks, in the order of their foreach branches."""
        return iter(self)

    def __iter__(self) -> Iterator[Task]:
        return (Task(self._run_store, self.id, task, self._record) for task in self._run_store.tasks(self.id))

    def __getitem__(self, task: str | int) -> Task:
        if str(task) not in self._run_store.tasks(self.id):
            raise NotFoundError(f"there is no task {self.pathspec}/{task}.")
        return Task(self._run_store, self.id, str(task), self._record)

    def __repr__(self) -> str:
        return f"Step({self.pathspec!r})"


class Task:
    """One task of a step: its artifacts, its output, how it ended."""

    def __init__(self, run_store: RunStore, step: str, task: str, record: RunRecord) -> None:
        self._run_store = run_store
        self._step = step
        self._record = record
        self.id = task

    @property
    def pathspec(self) -> str:
        """``flow/run/step/task``."""
        return f"{self._run_store.pathspec}/{self._step}/{self.id}"

    @property
    def origin_pathspec(self) -> str | None:
        """``flow/run/step/task`` of the task whose result this is, where it was taken over from another run."""
        if self._commit is None or self._commit.origin is None:
            return None
        return f"{self._commit.origin}/{self._step}/{self.id}"

    @cached_property
    def _commit(self) -> Commit | None:
        return self._run_store.read_commit(self._step, self.id)

    @property
    def _ran_in(self) -> RunStore:
        """The records of the run in which the task ran."""
        if self._commit is None or self._commit.origin is None:
            return self._run_store
        flow, _, run = self._commit.origin.partition("/")
        return RunStore(self._run_store.store, flow, run)

    @property
    def _outcome(self) -> OutcomeRecord | None:
        return self._run_store.read_outcome(self._step, self.id, self.current_attempt)

    @property
    def current_attempt(self) -> int:
        """The execution that committed, or the last one."""
        if self._commit is not None:
            return self._commit.attempt
        return max(self._run_store.attempts(self._step, self.id), default=0)

    @property
    def successful(self) -> bool:
        """Whether the task has a result."""
        return self._commit is not None

    @property
    def finished(self) -> bool:
        """Whether the task has ended, in whatever way."""
        return self.successful or self._outcome is not None

    @property
    def finished_at(self) -> datetime | None:
        """When the task's step returned, or when it failed."""
        if self._commit is not None:
            return _moment(self._commit.finished)
        outcome = self._outcome
        return _moment(outcome.finished) if outcome is not None else None

    @property
    def exception(self) -> str | None:
        """What happened, with the traceback, where the task failed."""
        outcome = self._outcome
        if self.successful or outcome is None or outcome.outcome == Outcome.SUCCEEDED.value:
            return None
        return "\n".join(filter(None, [outcome.summary, outcome.detail]))

    @property
    def index(self) -> int | None:
        """The task's index in its foreach, or None outside of any."""
        return self._commit.stack[-1].index if self._commit is not None and self._commit.stack else None

    @property
    def stdout(self) -> str:
        """What the task printed."""
        return self._log("stdout")

    @property
    def stderr(self) -> str:
        """What the task wrote to its standard error."""
        return self._log("stderr")

    @property
    def data(self) -> TaskData:
        """The task's artifacts as attributes; each is loaded when it is touched."""
        return TaskData(self)

    @property
    def artifacts(self) -> dict[str, DataArtifact]:
        """The task's artifacts by name, the run's parameters and the class's constants among them."""
        refs = dict(self._record.parameters)
        if self._commit is not None:
            refs |= self._commit.artifacts
        return {name: DataArtifact(self, name, ref) for name, ref in refs.items()}

    def __getitem__(self, name: str) -> DataArtifact:
        found = self.artifacts
        if name not in found:
            raise NotFoundError(
                f"the task {self.pathspec} has no artifact {name!r}.",
                cause="" if self.successful else "It has not finished.",
                advice=f"It has {', '.join(sorted(found)) or 'none'}.",
            )
        return found[name]

    def __contains__(self, name: str) -> bool:
        return name in self.artifacts

    def __iter__(self) -> Iterator[DataArtifact]:
        return iter(self.artifacts.values())

    def __repr__(self) -> str:
        return f"Task({self.pathspec!r})"

    def _log(self, stream: str) -> str:
        data = self._ran_in.read_log(self._step, self.id, self.current_attempt, stream)
        return data.decode("utf-8", "replace")

    def _load(self, name: str, ref: ArtifactRef) -> Any:
        return ArtifactStore(self._run_store.store, self._run_store.flow).load(ref, f"{self.pathspec}/{name}")


class TaskData:
    """A task's artifacts as attributes."""

    def __init__(self, task: Task) -> None:
        self._k8sflow_task = task

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            value = self._k8sflow_task[name].data
        except NotFoundError as error:
            raise AttributeError(str(error)) from None
        self.__dict__[name] = value
        return value

    def __contains__(self, name: str) -> bool:
        return name in self._k8sflow_task

    def __dir__(self) -> list[str]:
        return sorted(self._k8sflow_task.artifacts)

    def __repr__(self) -> str:
        return f"<data of {self._k8sflow_task.pathspec}: {', '.join(dir(self))}>"


class DataArtifact:
    """One artifact: its value, and what is known of it without loading it."""

    def __init__(self, task: Task, name: str, ref: ArtifactRef) -> None:
        self._task = task
        self._ref = ref
        self.id = name

    @property
    def pathspec(self) -> str:
        """``flow/run/step/task/name``."""
        return f"{self._task.pathspec}/{self.id}"

    @property
    def data(self) -> Any:
        """The value, verified and loaded."""
        return self._task._load(self.id, self._ref)  # noqa: SLF001  the two are one module's business

    @property
    def size(self) -> int:
        """Length of the stored value in bytes."""
        return self._ref.size

    @property
    def sha(self) -> str:
        """sha256 of the stored value."""
        return self._ref.blob

    @property
    def type(self) -> str:
        """The value's type, as ``module.Class``."""
        return self._ref.type

    def __repr__(self) -> str:
        return f"DataArtifact({self.pathspec!r}, {self.type}, {self.size} bytes)"


def _started(run: Run) -> datetime:
    """When a run was started: most ids tell; the record of one with a name of the user's is read."""
    try:
        return started_at(run.id)
    except ValueError:
        return run.created_at


def _find(pathspec: str) -> RunStore:
    flow, _, run = pathspec.strip("/").partition("/")
    if run.startswith(f"{SPINS}/"):
        for store in known_stores():
            found = RunStore(store, flow, run.removeprefix(f"{SPINS}/"), SPINS)
            if store.exists(f"{found.prefix}/run.json"):
                return found
        raise NotFoundError(
            f"there is no {pathspec}.", advice="The command spin makes such ones, and tells their names."
        )
    return Flow(flow)[run]._run_store  # noqa: SLF001  the two are one module's business


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
