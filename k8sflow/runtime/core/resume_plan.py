"""The plan of a run that resumes another one: the results that it takes over, and the tasks that run again, and why.

The current graph is walked from its start over the results of the origin: a result is taken over if all results before
it are, and if it is still valid. Tasks after one that runs again are not reached, and so run again by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from k8sflow.flow.graph import Graph, Node
from k8sflow.runtime.core.scheduler import Scheduler, TaskGroup
from k8sflow.storage.clones import RawCommit, read_commits
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import Transition
from k8sflow.task.spec import TaskName, TaskSpec

# Whether the user asks for another run of a task, whatever its result; given its name.
IsWanted = Callable[[TaskName], bool]


@dataclass(frozen=True)
class Kept:
    """A result that is taken over.

    Args:
        name: The task.
        commit: The commit of the origin.
        steps: The next steps in the current graph.
    """

    name: TaskName
    commit: RawCommit
    steps: tuple[str, ...]

    def clone(self, origin: str) -> tuple[str, str, bytes]:
        """Step, id and commit of the clone of a task of the run with the pathspec ``origin``."""
        return self.name.step, self.name.id, self.commit.clone(origin, self.steps)


@dataclass(frozen=True)
class Rerun:
    """A task that runs again, and before which all results are taken over.

    Args:
        task: The task.
        why: Why the origin's result is not valid; None where there is no such result.
    """

    task: TaskSpec
    why: str | None


@dataclass
class ResumePlan:
    """The results that are taken over, and the tasks with which the run starts."""

    kept: list[Kept] = field(default_factory=list)
    reruns: list[Rerun] = field(default_factory=list)


def plan(origin: RunStore, before: Graph, graph: Graph, is_wanted: IsWanted) -> ResumePlan:
    """The plan for a new run of a flow.

    Args:
        origin: The run that is resumed.
        before: Its graph.
        graph: The flow's current graph.
        is_wanted: Whether the user asks for another run of a task.

    Raises:
        StorageError: The origin can't be read.
    """
    changed = {name: _change(before.nodes.get(name), node) for name, node in graph.nodes.items()}
    scheduler = Scheduler(graph, origin.run)
    found = ResumePlan()
    ready = [scheduler.begin()]
    while ready:
        results = _results(origin, ready)
        ready, wave = [], ready
        for group in wave:
            commits = [next(results) for _ in group]
            for task, kept in _decide(group, commits, graph[group.step], changed[group.step], is_wanted):
                if isinstance(kept, Rerun):
                    found.reruns.append(kept)
                    continue
                found.kept.append(kept)
                # Without the limit on branches: else one that runs again would hide the results of those behind it.
                ready += scheduler.finished(task.name, Transition(kept.steps, kept.commit.width))
    return found


def _results(origin: RunStore, groups: Sequence[TaskGroup]) -> Iterator[RawCommit | None]:
    return read_commits(origin, [(task.name.step, task.name.id) for group in groups for task in group])


def _decide(
    group: TaskGroup, commits: Sequence[RawCommit | None], node: Node, change: str | None, is_wanted: IsWanted
) -> Iterable[tuple[TaskSpec, Kept | Rerun]]:
    """For each task of a group, whether its result is taken over. Tasks that run together run again together."""
    found: list[tuple[TaskSpec, Kept | Rerun]] = []
    for task, commit in zip(group, commits, strict=True):
        found.append((task, _decide_one(task, commit, node, change, is_wanted)))
    if group.nodes > 1 and any(isinstance(kept, Rerun) for _, kept in found):
        together = "the processes of a num_parallel step run together"
        return [(t, k if isinstance(k, Rerun) else Rerun(t, together)) for t, k in found]
    return found


def _decide_one(
    task: TaskSpec, commit: RawCommit | None, node: Node, change: str | None, is_wanted: IsWanted
) -> Kept | Rerun:
    if commit is None:
        return Rerun(task, None)
    if change is not None:
        return Rerun(task, change)
    if is_wanted(task.name):
        return Rerun(task, "as you asked")
    if node.condition is None:
        return Kept(task.name, commit, node.next)
    if not set(commit.steps) <= set(node.next):
        return Rerun(task, "its switch has changed")
    return Kept(task.name, commit, commit.steps)


def _change(before: Node | None, node: Node) -> str | None:
    """The change of a step in the graph that makes an old result invalid; None where there is none."""
    if before is None:
        return "it is a new step"
    parts: dict[str, Callable[[Node], object]] = {
        "it joins other branches than before": lambda step: (step.is_join, step.joins),
        "it comes after other steps than before": lambda step: set(step.parents),
        "it is in other branches than before": lambda step: step.splits,
        "it opens other branches than before": lambda step: (step.foreach, step.num_parallel),
        "its switch has changed": lambda step: (step.condition, step.cases),
    }
    return next((change for change, part in parts.items() if part(before) != part(node)), None)
