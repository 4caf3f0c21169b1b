"""One step of a run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from k8sflow.client.html import step_html
from k8sflow.client.step_results import StepResults
from k8sflow.client.task import Task
from k8sflow.client.tree import RUNS, STEPS, TaggedAsParent
from k8sflow.errors import NotFoundError
from k8sflow.runtime.lookup import among, split
from k8sflow.storage.usage import Usage, together

if TYPE_CHECKING:
    from k8sflow.client.run import Run


class Step(TaggedAsParent):
    """The tasks of one step of a run.

    Args:
        pathspec: ``flow/run/step``, or the step's name if a parent is given.
        parent: The run.

    Raises:
        NotFoundError: There is no such step.
    """

    def __init__(self, pathspec: str, *, parent: Run | None = None) -> None:
        if parent is None:
            run, self.id = split(pathspec, "flow/run/step")
            parent = RUNS.find(run)[self.id].parent
        else:
            self.id = pathspec
        self.parent: Run = parent

    @property
    def pathspec(self) -> str:
        """``flow/run/step``."""
        return f"{self.parent.pathspec}/{self.id}"

    @property
    def origin_pathspec(self) -> str | None:
        """The pathspec of the same step in the origin run, or None."""
        above = self.parent.origin_pathspec
        return f"{above}/{self.id}" if above else None

    @property
    def created_at(self) -> datetime | None:
        """The time at which its first task started, or None if it is not known yet."""
        return min((task.created_at for task in self if task.created_at is not None), default=None)

    @property
    def finished_at(self) -> datetime | None:
        """The time at which its last task ended, or None while a task is running."""
        moments = [task.finished_at for task in self]
        ended = [moment for moment in moments if moment is not None]
        return max(ended) if ended and len(ended) == len(moments) else None

    @property
    def usage(self) -> Usage | None:
        """The resources that its finished tasks used, without clones: the largest peak of memory, and sums."""
        return together(end.usage for end in self.parent.run_store.ends(self.id).values())

    @property
    def task(self) -> Task:
        """The step's only task, or the newest one: of the last foreach branch, and the last turn of a loop.

        Raises:
            NotFoundError: No task has started.
        """
        for task in self:
            return task
        raise NotFoundError(
            f"step {self.pathspec} has no task.",
            cause="The run took another branch, failed before it, or has not reached it yet.",
        )

    @property
    def control_task(self) -> Task | None:
        """The first process of a ``num_parallel`` step; None for any other step."""
        return next(iter(self.control_tasks()), None)

    def control_tasks(self, *tags: str) -> Iterator[Task]:
        """The first processes of a ``num_parallel`` step, one for each foreach branch around it.

        Args:
            tags: Tags that the run must have.
        """
        node = self.parent.node(self.id)
        is_parallel = node is not None and node.is_parallel
        return (task for task in self.tasks(*tags) if is_parallel and task.index == 0)

    @property
    def environment_info(self) -> dict[str, str] | None:
        """The code and the versions that the step used; None for a run without a code package."""
        return self.parent.environment_info

    @property
    def parent_steps(self) -> Iterator[Step]:
        """The steps of the run that lead to this one, in the order of the source; evaluated lazily."""
        if (node := self.parent.node(self.id)) is not None:
            yield from self.parent.started_steps(node.parents)

    @property
    def child_steps(self) -> Iterator[Step]:
        """The steps of the run that follow this one, in the order of the source; evaluated lazily."""
        if (node := self.parent.node(self.id)) is not None:
            yield from self.parent.started_steps(node.next)

    def tasks(self, *tags: str) -> Iterator[Task]:
        """The step's tasks, from the last foreach branch to the first, if the run has all the tags."""
        return iter(self) if self.tags.issuperset(tags) else iter(())

    def __iter__(self) -> Iterator[Task]:
        ids = self.parent.task_ids(self.id)
        if len(ids) < _FEW:
            return (Task(task, parent=self) for task in reversed(ids))
        results = StepResults(self.parent.run_store, self.id, len(ids))
        return (Task(task, parent=self, results=results) for task in reversed(ids))

    def __getitem__(self, task: str | int) -> Task:
        if task not in self:
            known = self.parent.task_ids(self.id)
            raise NotFoundError(
                f"there is no task {self.pathspec}/{task}.",
                advice=among(str(task), known, "The step's tasks are") if known else "The step has no task.",
            )
        return Task(str(task), parent=self)

    def __contains__(self, task: object) -> bool:
        if self.parent.node(self.id) is None:  # the parameters
            return str(task) in self.parent.task_ids(self.id)
        return self.parent.run_store.has_task(self.id, str(task))

    def __repr__(self) -> str:
        return f"Step({self.pathspec!r})"

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return step_html(self)


# So many tasks are read one by one.
_FEW = 4

STEPS.register(Step)
