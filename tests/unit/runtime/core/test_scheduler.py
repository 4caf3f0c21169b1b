"""The scheduler runs every task once, gives joins their inputs in order, comes to an end, and counts nothing twice."""

from __future__ import annotations

import random
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow.checks import graph as lint
from k8sflow.flow.graph import Graph
from k8sflow.runtime.core.scheduler import Scheduler
from k8sflow.task.result import Transition
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.flow.graphs import PLACE, SEQUENCES, Foreach, Part, Plain, Split, taken, unchecked

WIDTHS = st.lists(st.integers(0, 3), min_size=1, max_size=8)


def _checked(parts: tuple[Part, ...]) -> Graph:
    graph, mistakes = lint.check(unchecked(parts), PLACE)
    assert mistakes == []
    return graph


def _width(graph: Graph, task: TaskName, widths: list[int]) -> int | None:
    """The width of the foreach that a task opens: any, but always the same."""
    if graph[task.step].foreach is None:
        return None
    return widths[(list(graph.nodes).index(task.step) + sum(task.path)) % len(widths)]


def _transition(graph: Graph, task: TaskName, widths: list[int], limit: int | None = None) -> Transition:
    """The transition of a task: the same for the same task, whenever it is asked for."""
    steps = taken(graph[task.step], task.path, task.turn, widths)
    return Transition(steps, _width(graph, task, widths), limit if graph[task.step].is_wide else None)


def _expected(graph: Graph, widths: list[int]) -> Counter[TaskName]:
    """Every task of a run, found without the scheduler: step by step along the graph."""
    found: Counter[TaskName] = Counter()
    waiting = [TaskName("start")]
    while waiting:
        task = waiting.pop()
        found[task] += 1
        transition = _transition(graph, task, widths)
        if graph[task.step].is_split:
            waiting.append(TaskName(graph.join_of(task.step).name, task.path))
        for target in transition.steps:
            if graph[target].is_join:
                continue
            paths = [task.path] if transition.width is None else [(*task.path, i) for i in range(transition.width)]
            waiting += [TaskName(target, path, task.turn + 1 if target == task.step else 0) for path in paths]
    return found


def _ends(graph: Graph, task: TaskName, widths: list[int], join: str) -> TaskName:
    """The last task of a branch that begins with ``task``, found without the scheduler."""
    while join not in (steps := _transition(graph, task, widths).steps):
        if graph[task.step].is_split:
            task = TaskName(graph.join_of(task.step).name, task.path)
        else:
            task = TaskName(steps[0], task.path, task.turn + 1 if steps[0] == task.step else 0)
    return task


@given(SEQUENCES, WIDTHS, st.randoms(use_true_random=False))
def test_every_task_runs_once_in_whatever_order_they_finish(
    parts: tuple[Part, ...], widths: list[int], order: random.Random
) -> None:
    """And none before what it reads has finished."""
    graph = _checked(parts)
    scheduler = Scheduler(graph, "r")
    ready: list[TaskSpec] = list(scheduler.begin())
    ran: Counter[TaskName] = Counter()
    while ready:
        assert not scheduler.is_done
        spec = ready.pop(order.randrange(len(ready)))
        for inputs in spec.inputs:
            assert all(ran[inputs[i]] == 1 for i in range(len(inputs)))
        _check_inputs(graph, spec, widths)
        ran[spec.name] += 1
        for group in scheduler.finished(spec.name, _transition(graph, spec.name, widths)):
            ready += group
    assert scheduler.is_done
    assert ran == _expected(graph, widths)
    assert (scheduler._foreaches, scheduler._splits) == ({}, {}), "nothing is kept of what is over"


@given(SEQUENCES, WIDTHS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_no_more_branches_than_allowed_are_under_way(
    parts: tuple[Part, ...], widths: list[int], limit: int, order: random.Random
) -> None:
    """A branch is, from its first task to its join, whatever is nested in it."""
    graph = _checked(parts)
    scheduler = Scheduler(graph, "r")
    ready: list[TaskSpec] = list(scheduler.begin())
    ran: Counter[TaskName] = Counter()
    under_way: Counter[TaskName] = Counter()
    while ready:
        spec = ready.pop(order.randrange(len(ready)))
        ran[spec.name] += 1
        node = graph[spec.name.step]
        transition = _transition(graph, spec.name, widths, limit)
        if node.splits and graph[node.splits[-1]].is_wide and any(graph[step].is_join for step in transition.steps):
            under_way[TaskName(node.splits[-1], spec.name.path[:-1])] -= not node.is_split
        for group in scheduler.finished(spec.name, transition):
            ready += group
            if group.branches is not None:
                under_way[TaskName(group.inputs[0].step, group.path)] += len(group)
        assert all(0 <= count <= limit for count in under_way.values())
    assert scheduler.is_done
    assert ran == _expected(graph, widths)


def _check_inputs(graph: Graph, spec: TaskSpec, widths: list[int]) -> None:
    """A task reads the one before it; a join the last one of each branch, in their order."""
    node = graph[spec.name.step]
    seen = [inputs[i] for inputs in spec.inputs for i in range(len(inputs))]
    if node.joins is None:
        assert len(seen) == (spec.name != TaskName("start"))
        assert all(spec.name.step in _transition(graph, name, widths).steps for name in seen)
        return
    split = graph[node.joins]
    if not split.is_wide:
        firsts = [TaskName(step, spec.name.path) for step in split.next]
        assert seen == [_ends(graph, first, widths, node.name) for first in firsts]
        return
    width = _width(graph, TaskName(node.joins, spec.name.path), widths) or 0
    firsts = [TaskName(split.next[0], (*spec.name.path, i)) for i in range(width)]
    (given,) = spec.inputs
    assert given.until in {"", node.name}
    assert seen == (firsts if given.until else [_ends(graph, first, widths, node.name) for first in firsts])


def test_a_wide_foreach_costs_the_same_for_every_task() -> None:
    """The lines that run per finished task, counted: as many for the last of 100,000 as for the first."""
    graph = _checked((Foreach((Plain(),)),))
    work, after = graph["start"].next[0], graph[graph["start"].next[0]].next[0]
    scheduler = Scheduler(graph, "r")
    scheduler.begin()
    width = 100_000
    (group,) = scheduler.finished(TaskName("start"), Transition(graph["start"].next, width))
    assert len(group) == width
    assert group[width - 1].name == TaskName(work, (width - 1,))
    assert sys.getsizeof(group) < 1000
    costs = Counter[int]()
    for i in range(width):
        measured = i < 3 or width - 4 < i < width - 1
        count = _lines(lambda i=i: scheduler.finished(TaskName(work, (i,)), Transition((after,)))) if measured else None
        if count is None:
            scheduler.finished(TaskName(work, (i,)), Transition((after,)))
        else:
            costs[count] += 1
    assert len(costs) == 1
    ready = [g for i in range(width) for g in scheduler.finished(TaskName(after, (i,)), Transition(graph[after].next))]
    assert [(g.step, len(g), sum(map(len, g.inputs))) for g in ready] == [(graph[after].next[0], 1, width)]


def _lines(call: object) -> int:
    """The number of lines of Python that a call runs."""
    assert callable(call)
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_group_is_a_sequence_made_on_demand() -> None:
    """Slices, negative indices, and an end."""
    graph = _checked((Foreach(()),))
    scheduler = Scheduler(graph, "r")
    (group,) = scheduler.finished(TaskName("start"), Transition(graph["start"].next, 5))
    assert [spec.name.path for spec in group] == [(0,), (1,), (2,), (3,), (4,)]
    assert [spec.name.path for spec in group[3:]] == [(3,), (4,)]
    assert group[-1] == group[4]


def test_branches_of_a_split_are_groups_of_their_own() -> None:
    """They are different steps."""
    graph = _checked((Split(((), (Plain(),), ())),))
    scheduler = Scheduler(graph, "r")
    groups = scheduler.finished(TaskName("start"), Transition(graph["start"].next))
    assert [(g.step, len(g)) for g in groups] == [(name, 1) for name in graph["start"].next]
