"""Random flows from source to result: the real check, scheduler, runner and store, in one process."""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sflow.client import Run
from k8sflow.task.inside.task_runner import TaskRunner
from tests.inprocess import run_all, runner_of
from tests.support import load_flow, write_flow
from tests.unit.flow.graphs import SEQUENCES, Part, source


@settings(max_examples=20, deadline=None)
@given(SEQUENCES, st.lists(st.integers(0, 3), max_size=5), st.randoms(use_true_random=False))
def test_a_random_flow_runs_to_its_end(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...], widths: list[int], order: random.Random
) -> None:
    """Each task knows its foreach branches; each join sees its own in order; whatever order they run in."""
    folder = tmp_path_factory.mktemp("flow")
    flow = load_flow(write_flow(folder, source(parts, widths)))
    runner = runner_of(flow, folder)
    run = run_all(runner, order)
    for step in run:
        for task in step:
            assert task.data.trace == (step.id, _path(runner, step.id, task.id))
            if runner.definition.graph[step.id].joins:
                in_order = runner.definition.graph[str(runner.definition.graph[step.id].joins)].is_wide
                seen = _seen(run, runner, step.id, _path(runner, step.id, task.id))
                assert (task.data.seen if in_order else sorted(task.data.seen)) == seen
    assert Counter(step.id for step in run)["end"] == 1
    del sys.modules[flow.__module__]


def _path(runner: TaskRunner, step: str, task: str) -> tuple[int, ...]:
    """The foreach branches around a task, by its id."""
    return () if runner.definition.graph.depth(step) == 0 else tuple(map(int, task.partition("-")[0].split(".")))


def _seen(run: Run, runner: TaskRunner, join: str, path: tuple[int, ...]) -> list[Any]:
    """The traces that a join has to see: those of the tasks that led to it, by branch and by step."""
    found = []
    for parent in runner.definition.graph[join].parents:
        for task in run[parent] if any(step.id == parent for step in run) else ():
            commit = runner.run_store.read_commit(parent, task.id)
            place = _path(runner, parent, task.id)
            if commit is not None and join in commit.steps and place[: len(path)] == path:
                found.append((parent, place))
    return sorted(found, key=lambda trace: (trace[1], trace[0]))
