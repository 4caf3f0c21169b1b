"""One task of a step: its artifacts, its output, its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from k8sflow.client import logs
from k8sflow.client.artifact import DataArtifact, TaskArtifacts, TaskData
from k8sflow.client.code import Code
from k8sflow.client.html import task_html
from k8sflow.client.lineage import children, indices, parents
from k8sflow.client.metadatum import Metadatum
from k8sflow.client.step_results import StepResults
from k8sflow.client.tree import STEPS, TASKS, TaggedAsParent, local_time
from k8sflow.errors import CaughtError, NotFoundError
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.lookup import among, split
from k8sflow.storage.ends import TaskEnd
from k8sflow.storage.log_times import Mark, scrub
from k8sflow.storage.records import Commit, OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.usage import Usage
from k8sflow.task.catch_commit import caught
from k8sflow.task.spec import TaskName
from k8sflow.task.stored_results import recorded_result
from k8sflow.user import current_user

if TYPE_CHECKING:
    from k8sflow.client.step import Step


class Task(TaggedAsParent):
    """One task of a step.

    Args:
        pathspec: ``flow/run/step/task``, or the task's id if a parent is given.
        parent: The step.
        attempt: The attempt to read; None for the one that committed, or the last one.
        results: What a listing shows of the step's tasks; None to read the task's own records.

    Raises:
        NotFoundError: There is no such task, or it had no such attempt.
    """

    def __init__(
        self,
        pathspec: str,
        *,
        parent: Step | None = None,
        attempt: int | None = None,
        results: StepResults | None = None,
    ) -> None:
        self.id = pathspec
        self._results = results
        if parent is None:
            step, self.id = split(pathspec, "flow/run/step/task")
            parent = STEPS.find(step)[self.id].parent
        self.parent: Step = parent
        self._attempt = attempt
        if attempt is not None and attempt not in self.attempts:
            known = ", ".join(map(str, self.attempts)) or "none"
            raise NotFoundError(f"{self.pathspec} had no attempt {attempt}.", advice=f"Its attempts: {known}.")

    @property
    def pathspec(self) -> str:
        """``flow/run/step/task``."""
        return f"{self.parent.pathspec}/{self.id}"

    @property
    def _run_store(self) -> RunStore:
        return self.parent.parent.run_store

    @property
    def _end(self) -> TaskEnd | None:
        """The end that the task's commit records, or None if it has no commit."""
        if self._results is not None:
            if (end := self._results.end(self.id)) is not None:
                return end
            if not self._results.has_commit(self.id):
                return None
        return TaskEnd.of(self._commit) if self._commit is not None else None

    @cached_property
    def _commit(self) -> Commit | None:
        found = self.parent.parent.commit(self.parent.id, self.id)
        return found if found is not None and self._attempt in {None, found.attempt} else None

    @property
    def _outcome(self) -> OutcomeRecord | None:
        return self._run_store.read_outcome(self.parent.id, self.id, self.current_attempt)

    @property
    def attempts(self) -> list[int]:
        """The attempts of the task that have written anything."""
        if self.parent.parent.node(self.parent.id) is None:
            return [self.current_attempt]
        return self._run_store.attempts(self.parent.id, self.id)

    @property
    def current_attempt(self) -> int:
        """The attempt that is read: the chosen one, the one that committed, or the last one."""
        if self._attempt is not None:
            return self._attempt
        if (end := self._end) is not None:
            return end.attempt
        return max(self.attempts, default=0)

    @property
    def successful(self) -> bool:
        """True if the task's step succeeded, unless it failed and ``@catch`` let the run continue."""
        end = self._end
        return end is not None and not end.is_caught

    @property
    def finished(self) -> bool:
        """True if the task has a result, including one from ``@catch``; ``has_ended`` covers failed tasks too."""
        return self._end is not None

    @property
    def has_ended(self) -> bool:
        """True if the task has ended in any way."""
        return self.finished or self._outcome is not None

    @property
    def created_at(self) -> datetime | None:
        """The time at which the task's step was called; without a result, the time of its first output, if any."""
        if (end := self._end) is not None:
            return local_time(end.started)
        first = [mark.at for stream in logs.STREAMS for mark in self._marks(stream)[:1]]
        return local_time(min(first)) if first else None

    def _marks(self, stream: str) -> list[Mark]:
        return self._run_store.read_marks(self.parent.id, self.id, self.current_attempt, stream)

    @property
    def finished_at(self) -> datetime | None:
        """The time at which the task's step returned or failed."""
        if (end := self._end) is not None:
            return local_time(end.finished)
        outcome = self._outcome
        return local_time(outcome.finished) if outcome is not None else None

    @property
    def usage(self) -> Usage | None:
        """The resources that the task used; None if it has no result, or if they were not measured."""
        return None if (end := self._end) is None else end.usage

    @property
    def exception(self) -> CaughtError | None:
        """The exception that made the task fail: its type, text and stacktrace.

        None if ``@catch`` let the run continue; then it is in the artifact named by ``@catch(var=...)``.
        """
        outcome = None if self.finished else self._outcome
        if outcome is None or outcome.outcome == Outcome.SUCCEEDED:
            return None
        return caught(recorded_result(outcome))

    @property
    def failure(self) -> str | None:
        """The failure for people: one sentence, followed by the traceback."""
        outcome = None if self.finished else self._outcome
        if outcome is None or outcome.outcome == Outcome.SUCCEEDED:
            return None
        return "\n".join(filter(None, [outcome.summary, outcome.detail]))

    @property
    def index(self) -> int | None:
        """The task's index in its foreach, or None outside any foreach."""
        return self._indices[-1] if self._indices else None

    @property
    def _indices(self) -> tuple[int, ...]:
        node = self.parent.parent.node(self.parent.id)
        return () if node is None else indices(self.parent.parent.graph, self.parent.id, self.id)

    @property
    def runtime_name(self) -> str:
        """``kubernetes``, ``batch``, or ``dev``, Metaflow's name for the local machine."""
        record = self.parent.parent.record
        if self.parent.id in record.batch:
            return "batch"
        return "kubernetes" if self.parent.id in record.pods else "dev"

    @property
    def is_cached(self) -> bool:
        """True if ``@cache`` took the task's result from an earlier run, which ``origin_pathspec`` names."""
        return self._commit is not None and self._commit.cached is not None

    @property
    def origin_pathspec(self) -> str | None:
        """The pathspec of the task that made the result, if this task is a clone, or ``@cache`` took the result."""
        origin = self._origin
        return origin.pathspec if origin is not None else None

    @cached_property
    def _origin(self) -> Task | None:
        if self._commit is None or self._commit.origin is None:
            return None
        flow, _, run = self._commit.origin.partition("/")
        step, _, task = (self._commit.cached or f"{self.parent.id}/{self.id}").partition("/")
        return Task(task, parent=self.parent.parent.beside(flow, run).unchecked_step(step))

    @property
    def origin_task(self) -> Task | None:
        """The task that ran in place of this one, if this task is a clone."""
        return self._origin

    # ------------------------------------------------------------------ context

    @property
    def code(self) -> Code | None:
        """The run's code package, or None for a run without one."""
        return self.parent.parent.code

    @property
    def metadata(self) -> list[Metadatum]:
        """The properties of the task in the run's records, apart from its artifacts."""
        return [
            Metadatum(name, value, name, self.created_at, self.pathspec) for name, value in self.metadata_dict.items()
        ]

    @property
    def metadata_dict(self) -> dict[str, str]:
        """The properties of the task in the run's records, apart from its artifacts, as strings by name."""
        record = self.parent.parent.record
        known = {
            "attempt": str(self.current_attempt),
            "attempt_ok": str(self.finished) if self.has_ended else "",
            "runtime": self.runtime_name,
            "user": record.user,
            "script-name": record.file,
            "python_version": record.python_version,
            "k8sflow_version": record.k8sflow_version,
            "ds-type": "s3" if self._run_store.store.is_shared else "local",
            "ds-root": self._run_store.store.url,
            "origin-run-id": record.origin_run_id or "",
            "code-package-sha": record.package or "",
            "foreach-indices": ".".join(map(str, self._indices)),
        }
        return {name: value for name, value in known.items() if value}

    @property
    def parent_tasks(self) -> Iterator[Task]:
        """The tasks from which this one got its inputs; evaluated lazily, as in Metaflow."""
        return self._tasks(parents)

    @property
    def child_tasks(self) -> Iterator[Task]:
        """The started tasks that got this one's result; evaluated lazily, as in Metaflow."""
        return self._tasks(children)

    @property
    def parent_task_pathspecs(self) -> Iterator[str]:
        """The pathspecs of ``parent_tasks``."""
        return (task.pathspec for task in self.parent_tasks)

    @property
    def child_task_pathspecs(self) -> Iterator[str]:
        """The pathspecs of ``child_tasks``."""
        return (task.pathspec for task in self.child_tasks)

    @property
    def environment_info(self) -> dict[str, str] | None:
        """The code and the versions that the task used; None for a run without a code package."""
        return self.parent.environment_info

    def _tasks(self, find: Callable[[Graph, RunStore, str, str], Iterator[TaskName]]) -> Iterator[Task]:
        run = self.parent.parent
        if run.node(self.parent.id) is None:
            return
        for name in find(run.graph, run.run_store, self.parent.id, self.id):
            yield Task(name.id, parent=run.unchecked_step(name.step))

    # ------------------------------------------------------------------ output

    @property
    def stdout(self) -> str:
        """The task's standard output."""
        return self.log("stdout").decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """The task's standard error, followed by the traceback if it failed."""
        return self._with_failure(self.log("stderr")).decode("utf-8", "replace")

    @property
    def stdout_size(self) -> int:
        """The length of ``stdout`` in bytes."""
        return len(self.log("stdout"))

    @property
    def stderr_size(self) -> int:
        """The length of ``stderr`` in bytes."""
        return len(self._with_failure(self.log("stderr")))

    def loglines(self, stream: str, as_unicode: bool = True) -> Iterator[tuple[datetime | None, Any]]:  # noqa: FBT001, FBT002  as in Metaflow
        """The lines of ``stdout`` or ``stderr``, each with its local time (None if it was not recorded).

        Args:
            stream: ``stdout`` or ``stderr``.
            as_unicode: True for strings, False for bytes as they were written.
        """
        for line in self.lines((stream,)):
            moment = local_time(line.at) if line.at is not None else None
            yield moment, line.text if as_unicode else line.data
        if stream == "stderr":
            for data in self._with_failure(b"").splitlines():
                yield self.finished_at, data.decode("utf-8", "replace") if as_unicode else data

    def _with_failure(self, written: bytes) -> bytes:
        """Standard error, followed by the failure if the task failed."""
        outcome = None if self.finished else self._outcome
        if outcome is None:
            return written
        failure = f"{outcome.detail or outcome.summary}\n".encode("utf-8", "backslashreplace")
        return written + (b"\n" if written and not written.endswith(b"\n") else b"") + failure

    def log(self, stream: str) -> bytes:
        """A stream's bytes as the task wrote them."""
        source = self._origin or self
        run_store = source.parent.parent.run_store
        return run_store.read_log(source.parent.id, source.id, source.current_attempt, logs.known(stream))

    def lines(self, streams: tuple[str, ...] = logs.STREAMS) -> Iterator[logs.LogLine]:
        """The lines of the streams in the order of their times, as far as they were recorded."""
        source = self._origin or self
        run_store = source.parent.parent.run_store
        return logs.read(run_store, source.parent.id, source.id, source.current_attempt, streams)

    def scrub(self, streams: tuple[str, ...] = logs.STREAMS) -> int:
        """Deletes the task's output, and that of its origin if it is a clone; a line that says so replaces it.

        Args:
            streams: ``stdout``, ``stderr`` or both.

        Returns:
            The number of streams that had output.
        """
        source = self._origin or self
        run_store = source.parent.parent.run_store
        keys = [
            run_store.task_key(source.parent.id, source.id, f"{source.current_attempt}/{logs.known(stream)}")
            for stream in streams
        ]
        return sum(scrub(run_store.store, key, current_user()) for key in keys)

    # ------------------------------------------------------------------ artifacts

    @property
    def data(self) -> TaskData:
        """The task's artifacts as attributes; each is loaded when it is read."""
        return TaskData(self)

    @property
    def artifacts(self) -> TaskArtifacts:
        """The task's artifacts, including the run's parameters and the class's constants."""
        refs = dict(self.parent.parent.record.parameters)
        if self._commit is not None:
            refs |= self.parent.parent.tables.table(f"{self.parent.id}/{self.id}", self._commit).refs()
        return TaskArtifacts({name: DataArtifact(name, parent=self, ref=ref) for name, ref in refs.items()})

    def __getitem__(self, name: str) -> DataArtifact:
        found = self.artifacts
        if name not in found:
            raise NotFoundError(
                f"the task {self.pathspec} has no artifact {name!r}.",
                cause="" if self._commit is not None else "It has not finished.",
                advice=among(name, dir(found), "It has"),
            )
        return found[name]

    def __contains__(self, name: str) -> bool:
        return name in self.artifacts

    def __iter__(self) -> Iterator[DataArtifact]:
        return iter(self.artifacts)

    def __repr__(self) -> str:
        return f"Task({self.pathspec!r})"

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return task_html(self)


TASKS.register(Task)
