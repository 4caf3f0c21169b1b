"""``current``: facts about the running task and its run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k8sflow import hooks
from k8sflow.flow.checkpoint import Checkpoint
from k8sflow.flow.problems import did_you_mean

if TYPE_CHECKING:
    from k8sflow.client import Run, Task
    from k8sflow.storage.run_store import RunStore


@dataclass(frozen=True)
class Parallel:
    """A process among those of a ``num_parallel`` step.

    Args:
        main_ip: Where the first of them can be reached.
        num_nodes: How many there are.
        node_index: Which of them this is; the first is 0.
        control_task_id: The id of the first one's task.
    """

    main_ip: str
    num_nodes: int
    node_index: int
    control_task_id: str | None = None


@dataclass(frozen=True)
class TaskFacts:
    """Facts about a task, known when it starts.

    Args:
        flow_name: The flow's class name.
        run_id: The run's id.
        step_name: The step.
        task_id: The task's name within its step.
        retry_count: Which execution of the task this is, from 0.
        origin_run_id: The run that this one resumes.
        username: The user who started the run.
        tags: The tags that the user gave the run.
        namespace: The tag by which the run's tasks look for runs, where it isn't that of the user.
        parameter_names: The attributes through which the run's parameters are read.
        graph: Makes the flow's graph as JSON types.
        run_store: The records of the run.
        parallel: Its position among the processes of a ``num_parallel`` step.
        checkpoint: The folder that the next attempt finds again.
        notice_file: The path of a file that exists as soon as its pod is on its way out.
        more: What decorators add, by name.
    """

    flow_name: str
    run_id: str
    step_name: str
    task_id: str
    retry_count: int = 0
    origin_run_id: str | None = None
    username: str = ""
    tags: tuple[str, ...] = ()
    namespace: str = ""
    parameter_names: tuple[str, ...] = ()
    graph: Callable[[], dict[str, Any]] = dict
    run_store: RunStore | None = None
    parallel: Parallel | None = None
    checkpoint: Checkpoint | None = None
    notice_file: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


# Fields that only a decorator provides, for the message where it is missing.
_BROUGHT_BY = {
    "project_name": "@project",
    "project_flow_name": "@project",
    "branch_name": "@project",
    "is_user_branch": "@project",
    "is_production": "@project",
}


class Current:
    """The task that this process runs.

    Outside of a task ``is_running_flow`` is False, the plain fields are None, ``get`` gives its default, and what a
    decorator brings is an AttributeError.
    """

    def __init__(self) -> None:
        self._facts: TaskFacts | None = None

    @property
    def is_running_flow(self) -> bool:
        """True if this process runs a task."""
        return self._facts is not None

    @property
    def flow_name(self) -> str | None:
        """The flow's class name."""
        return self._facts.flow_name if self._facts else None

    @property
    def run_id(self) -> str | None:
        """The run's id."""
        return self._facts.run_id if self._facts else None

    @property
    def step_name(self) -> str | None:
        """The step's name."""
        return self._facts.step_name if self._facts else None

    @property
    def task_id(self) -> str | None:
        """The task's name within its step: ``3.1``."""
        return self._facts.task_id if self._facts else None

    @property
    def retry_count(self) -> int | None:
        """The number of earlier attempts of the task."""
        return self._facts.retry_count if self._facts else None

    @property
    def origin_run_id(self) -> str | None:
        """The id of the run that this one resumes, or None."""
        return self._facts.origin_run_id if self._facts else None

    @property
    def pathspec(self) -> str | None:
        """``flow/run/step/task``."""
        if self._facts is None:
            return None
        return f"{self._facts.flow_name}/{self._facts.run_id}/{self._facts.step_name}/{self._facts.task_id}"

    @property
    def username(self) -> str | None:
        """The user who started the run."""
        return self._facts.username if self._facts else None

    @property
    def namespace(self) -> str | None:
        """The tag by which the client looks for runs in a task: ``--namespace``, or ``user:NAME`` of who started it."""
        if self._facts is None:
            return None
        return self._facts.namespace or f"user:{self._facts.username}"

    @property
    def tags(self) -> frozenset[str]:
        """The tags that the user gave the run."""
        return frozenset(self._facts.tags if self._facts else ())

    @property
    def tempdir(self) -> str | None:
        """The folder for temporary files: that in memory of ``@kubernetes(use_tmpfs=True)``, else Python's."""
        if self._facts is None:
            return None
        return os.environ.get("K8SFLOW_TEMPDIR") or tempfile.gettempdir()

    @property
    def parameter_names(self) -> list[str]:
        """The attributes through which the run's parameters are read."""
        return list(self._facts.parameter_names) if self._facts else []

    @property
    def graph(self) -> dict[str, Any] | None:
        """The flow's graph: ``file``, ``doc``, ``parameters``, and ``steps`` by name."""
        return self._facts.graph() if self._facts else None

    @property
    def graph_info(self) -> dict[str, Any] | None:
        """The same as ``graph``."""
        return self.graph

    @property
    def is_parallel(self) -> bool:
        """True if the task is one of the processes of a ``num_parallel`` step."""
        return self._facts is not None and self._facts.parallel is not None

    @property
    def parallel(self) -> Parallel:
        """The task's position among the processes of its ``num_parallel`` step.

        Raises:
            AttributeError: It is not one of them.
        """
        if self._facts is None or self._facts.parallel is None:
            raise AttributeError  # __getattr__, which Python asks next, explains it
        return self._facts.parallel

    @property
    def checkpoint(self) -> Checkpoint:
        """A folder that the next attempt of the task finds again: ``directory``, ``is_loaded``, ``save()``, ``load()``.

        Raises:
            AttributeError: No task is running.
        """
        if self._facts is None or self._facts.checkpoint is None:
            raise AttributeError  # __getattr__, which Python asks next, explains it
        return self._facts.checkpoint

    @property
    def preempted(self) -> bool:
        """True as soon as the task's pod is on its way out: it was sent SIGTERM, or its spot node is to be taken away.

        Always False for a task on this machine.
        """
        return self._facts is not None and os.path.exists(self._facts.notice_file)  # noqa: PTH110  asked in loops

    @property
    def spot_termination_notice(self) -> str | None:
        """The path of a file that exists as soon as ``preempted`` is True."""
        return self._facts.notice_file if self._facts else None

    @property
    def trigger(self) -> None:
        """The event that started the run; None for a run that a person started."""
        return

    @property
    def run(self) -> Run | None:
        """The run, as the client reads it."""
        if self._facts is None:
            return None
        run: Run = hooks.call("current_run", self._facts.run_store)
        return run

    @property
    def task(self) -> Task | None:
        """The task, as the client reads it."""
        if self._facts is None:
            return None
        facts = self._facts
        task: Task = hooks.call("current_task", facts.run_store, facts.step_name, facts.task_id)
        return task

    def get(self, name: str, default: Any = None) -> Any:
        """A field's value, or the default where there is none."""
        try:
            found = getattr(self, name)
        except AttributeError:
            return default
        return default if found is None else found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        facts = self.__dict__.get("_facts")
        if facts is not None and name in facts.more:
            return facts.more[name]
        if name in _BROUGHT_BY:
            where = "exists only in a running task" if facts is None else f"needs {_BROUGHT_BY[name]} above the flow"
            raise AttributeError(f"current.{name} {where}.")
        if name == "card":
            where = "exists only in a running task" if facts is None else "needs @card above the step"
            raise AttributeError(f"current.card {where}.")
        if name == "checkpoint":
            raise AttributeError("current.checkpoint exists only in a running task.")
        if name == "parallel":
            raise AttributeError("current.parallel exists only in the step of self.next(..., num_parallel=N).")
        known = [field for field in dir(type(self)) if not field.startswith("_")] + list(_BROUGHT_BY)
        raise AttributeError(f"current has no field {name!r}. {did_you_mean(name, known)}".rstrip())

    @contextmanager
    def running(self, facts: TaskFacts) -> Iterator[None]:
        """Makes a task the current one for a while."""
        before, self._facts = self._facts, facts
        try:
            yield
        finally:
            self._facts = before

    def __repr__(self) -> str:
        return f"<current {self.pathspec or 'outside of a task'}>"


current = Current()


def run_records() -> RunStore | None:
    """The records of the run of this process's task; None outside of a task, and in a test of a step."""
    facts = current._facts  # noqa: SLF001  not a field for users
    return None if facts is None else facts.run_store
