"""When a task could have started: the end of the tasks before it, from the graph and the ids of tasks alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from k8sflow.flow.graph import Graph
from k8sflow.storage.ends import TaskEnd


def ready_times(
    graph: Graph, created: float, ends: Mapping[tuple[str, str], TaskEnd]
) -> Callable[[tuple[str, str]], float | None]:
    """A function that returns when the tasks before a task had ended; None if that is not known.

    Args:
        graph: The graph.
        created: When the run was started.
        ends: The ends of tasks, by step and id.
    """
    last: dict[tuple[str, tuple[str, ...]], float] = {}  # the last end at a path, and directly below it
    for (step, task), end in ends.items():
        path = _path(graph, step, task)
        for name in (path, path[:-1]) if path else (path,):
            last[step, name] = max(last.get((step, name), 0.0), end.finished)

    def ready(key: tuple[str, str]) -> float | None:
        step, task = key
        if (turn := task.partition("-")[2]).isdecimal() and int(turn):
            before = f"{task.partition('-')[0]}-{int(turn) - 1}" if int(turn) > 1 else task.partition("-")[0]
            return ends[step, before].finished if (step, before) in ends else None
        node = graph[step]
        path = _path(graph, step, task)
        found = []
        for parent in node.parents:
            if parent != step:
                is_opened = graph[parent].is_wide and not node.is_join
                found.append(last.get((parent, path[:-1] if is_opened else path)))
        known = [at for at in found if at is not None]
        if not known:
            return created if node.is_start else None
        end = ends.get(key)
        at = max(known)
        return at if end is None or at <= end.started else end.started

    return ready


def _path(graph: Graph, step: str, task: str) -> tuple[str, ...]:
    """The foreach indices of a task; none outside of any foreach, where ids are ``0``."""
    return tuple(task.partition("-")[0].split(".")) if graph.depth(step) else ()
