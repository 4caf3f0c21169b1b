"""Random flows from source to result: the real check, scheduler, runner and store, in one process."""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    file = write_flow(folder, f"WIDTHS = {widths}\n" + source(parts))
    flow = load_flow(file)
    runner = runner_of(flow, folder)
    run = run_all(runner, order)
    graph = runner.graph
    for step in run:
        for task in step:
            path = () if task.id == "0" and graph.depth(step.id) == 0 else tuple(map(int, task.id.split(".")))
            assert task.data.trace == (step.id, path)
            if graph[step.id].joins:
                assert task.data.seen == _seen(run, graph, step.id, path)
    assert Counter(step.id for step in run)["end"] == 1
    del sys.modules[flow.__module__]


def _seen(run: Any, graph: Any, join: str, path: tuple[int, ...]) -> list[Any]:
    """What a join has to see of its branches: their last steps, in order."""
    split = graph[graph[join].joins]
    if split.foreach is None:
        return [(parent, path) for parent in graph[join].parents]
    width = len(list(run[split.name][".".join(map(str, path)) or "0"].data.items))
    return [(graph[join].parents[0], (*path, i)) for i in range(width)]
