"""The scheduler runs every task once, gives joins their inputs in order, comes to an end, and counts nothing twice."""

from __future__ import annotations

import random
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow import lint
from k8sflow.flow.graph import Graph
from k8sflow.runtime.scheduler import Scheduler
from k8sflow.task.result import Transition
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.flow.graphs import PLACE, SEQUENCES, Foreach, Part, Plain, Split, unchecked

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


def _expected(graph: Graph, widths: list[int]) -> Counter[TaskName]:
    """Every task of a run, found without the scheduler: step by step along the graph."""
    found: Counter[TaskName] = Counter()
    waiting = [TaskName("start")]
    joins = {node.joins: name for name, node in graph.nodes.items() if node.joins}
    while waiting:
        task = waiting.pop()
        found[task] += 1
        node = graph[task.step]
        width = _width(graph, task, widths)
        if node.is_split:
            waiting.append(TaskName(joins[node.name], task.path))
        for target in node.next:
            if graph[target].is_join:
                continue
            paths = [task.path] if width is None else [(*task.path, i) for i in range(width)]
            waiting += [TaskName(target, path) for path in paths]
    return found


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
        transition = Transition(graph[spec.name.step].next, _width(graph, spec.name, widths))
        for group in scheduler.finished(spec.name, transition):
            ready += group
    assert scheduler.is_done
    assert ran == _expected(graph, widths)
    assert (scheduler._widths, scheduler._arrived) == ({}, {}), "nothing is kept of what is over"


def _check_inputs(graph: Graph, spec: TaskSpec, widths: list[int]) -> None:
    node = graph[spec.name.step]
    seen = [inputs[i] for inputs in spec.inputs for i in range(len(inputs))]
    if node.joins is None:
        assert len(seen) == (node.name != "start")
    elif graph[node.joins].foreach is not None:
        width = _width(graph, TaskName(node.joins, spec.name.path), widths) or 0
        assert seen == [TaskName(node.parents[0], (*spec.name.path, i)) for i in range(width)]
    else:
        assert [name.path for name in seen] == [spec.name.path] * len(graph[node.joins].next)
        firsts = [_first_after(graph, node.joins, name.step) for name in seen]
        assert firsts == list(graph[node.joins].next), "in the order of self.next()"


def _first_after(graph: Graph, split: str, step: str) -> str:
    """The branch of a split that a step is in."""
    while split not in graph[step].parents:
        step = graph[step].parents[0]
    return step


def test_a_wide_foreach_costs_the_same_for_every_task() -> None:
    """Lines of ours that run per finished task, counted: as many for the last of 100,000 as for the first."""
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
    """How many lines of Python a call runs."""
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
