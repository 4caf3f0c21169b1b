"""Resuming a run of 10,000 finished tasks, and copying as many small files as the bare operation.

make bench-resume
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from side_by_side import Comparison, Contender, options, run_all

from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.commands.clone import plan_from
from k8sflow.runtime.core.earlier import read_earlier
from k8sflow.runtime.core.loop import Loop
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.run_state import RunState
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.clones import mark_complete, put_commits
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit, ForeachFrame, ForeachItems, OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore

TASKS = 10_000
SOURCE = """
from k8sflow import FlowSpec, step
class F(FlowSpec):
    @step
    def start(self):
        self.items = range(%d)
        self.next(self.work, foreach="items")
    @step
    def work(self): self.next(self.join)
    @step
    def join(self, inputs): self.next(self.end)
    @step
    def end(self): pass
"""


def main() -> None:
    """Write the records of a foreach's finished tasks, and resume the run at its join."""
    chosen = options("Resuming a run of 10,000 finished tasks.", times=3).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_all([resuming(Path(folder), chosen.times)], chosen)


def resuming(folder: Path, times: int) -> Comparison:
    graph = definition_in(folder).graph
    store = FolderStore(str(folder / "store"))
    origin = RunStore(store, "F", "origin")
    record = RunRecord("F", "origin", "flow.py", {}, graph)
    origin.create(record)
    _fill(origin)
    turns: Iterator[int] = itertools.count()

    def clone() -> None:
        new = RunStore(store, "F", f"r{next(turns)}")
        found = plan_from(origin, record, graph, "join")
        put_commits(new, ((k.name.step, k.name.id, k.commit.clone("F/origin", k.steps)) for k in found.kept))
        mark_complete(new)
        assert len(found.kept) == TASKS + 1

    def copy() -> None:
        shutil.copytree(folder / "store/F/runs/origin/tasks", folder / f"copy{next(turns)}")

    contenders = (
        Contender("plan and clone", clone, times),
        Contender("take over", lambda: _take_over(origin, graph), times),
        Contender("bare", copy, times),
    )
    return Comparison(f"{TASKS:,} finished tasks", "shutil.copytree of their folders", contenders)


def definition_in(folder: Path) -> FlowDefinition:
    """The definition of a flow with a foreach, whose file is written to a folder."""
    import importlib.util

    from k8sflow.flow.compile import compile_flow

    (folder / "flow.py").write_text(SOURCE % TASKS)
    spec = importlib.util.spec_from_file_location("flow", folder / "flow.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["flow"] = module
    spec.loader.exec_module(module)
    return compile_flow(module.F)


def _fill(run: RunStore) -> None:
    """Write the records of the foreach: for each task a commit with some artifacts, and an outcome."""
    value = ArtifactRef("0" * 64, 200, "pickle", "builtins.str", "x" * 268)
    chunk = ArtifactRef("1" * 64, 100_000, "pickle", "builtins.list")
    done = OutcomeRecord(Outcome.SUCCEEDED, time.time())
    run.commit("start", "0", Commit(0, ("work",), {"items": chunk}, foreach=ForeachItems(TASKS, ((0, chunk),))))
    for index in range(TASKS):
        frame = ForeachFrame("start", index, TASKS, chunk, index)
        run.commit("work", str(index), Commit(0, ("join",), {"items": chunk, "y": value}, (frame,)))
        run.write_outcome("work", str(index), 0, done)


def _take_over(run: RunStore, graph: Graph) -> None:
    """Run a driver until it submits the first task that has no result."""

    class Reached(BaseException):
        pass

    class Nobody:
        def submit(self, tasks: Any) -> None:
            raise Reached

        def cancel(self) -> None:
            pass

        close = cancel

    try:
        Loop(
            graph,
            run,
            state=lambda: RunState(graph, run.run, earlier=read_earlier(run, graph)),
            executors=lambda _: {"": Nobody()},
            executor_of=lambda _: "",
            observer=Observer(),
        ).run()
    except Reached:
        return


if __name__ == "__main__":
    main()
