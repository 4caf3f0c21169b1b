"""Resuming a run of 10,000 finished tasks, beside the bare operation: copying as many small files.

make bench-resume
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from side_by_side import Contender, compare

from k8sflow.flow.graph import Graph
from k8sflow.runtime.commands.clone import plan_from
from k8sflow.runtime.core.loop import Driver
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
    """Makes a run as the tasks of a foreach would have left it, and resumes it from its join on."""
    with tempfile.TemporaryDirectory() as folder:
        graph = _graph(Path(folder))
        store = FolderStore(f"{folder}/store")
        origin = RunStore(store, "F", "origin")
        record = RunRecord("F", "origin", "flow.py", {}, graph.to_document())
        origin.create(record)
        _fill(origin)
        print(f"{TASKS} tasks, Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        turn = iter(range(10**6))

        def clone() -> None:
            new = RunStore(store, "F", f"r{next(turn)}")
            found = plan_from(origin, record, graph, "join")
            put_commits(new, ((k.name.step, k.name.id, k.commit.clone("F/origin", k.steps)) for k in found.kept))
            mark_complete(new)
            assert len(found.kept) == TASKS + 1

        def bare() -> None:
            shutil.copytree(f"{folder}/store/F/runs/origin/tasks", f"{folder}/bare{next(turn)}")

        compare(f"Plan and clone {TASKS} finished tasks (bare: shutil.copytree of their folders)",
                [Contender("k8sflow", clone, 3), Contender("bare", bare, 3)])  # fmt: skip
        print(f"\nA driver finds its place among them in {_seconds(lambda: _take_up(origin, graph)):.2f} s")


def _graph(folder: Path) -> Graph:
    import importlib.util

    from k8sflow.flow.compile import compile_flow

    (folder / "flow.py").write_text(SOURCE % TASKS)
    spec = importlib.util.spec_from_file_location("flow", folder / "flow.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["flow"] = module
    spec.loader.exec_module(module)
    return compile_flow(module.F).graph


def _fill(run: RunStore) -> None:
    """What the tasks of a foreach leave: a commit each, with some artifacts, and an outcome."""
    value = ArtifactRef("0" * 64, 200, "pickle", "builtins.str", "x" * 268)
    chunk = ArtifactRef("1" * 64, 100_000, "pickle", "builtins.list")
    done = OutcomeRecord("succeeded", time.time())
    run.commit("start", "0", Commit(0, ("work",), {"items": chunk}, foreach=ForeachItems(TASKS, ((0, chunk),))))
    for index in range(TASKS):
        frame = ForeachFrame("start", index, TASKS, chunk, index)
        run.commit("work", str(index), Commit(0, ("join",), {"items": chunk, "y": value}, (frame,)))
        run.write_outcome("work", str(index), 0, done)


def _take_up(run: RunStore, graph: Graph) -> None:
    """Lets a driver come to the first task that has no result."""

    class Reached(BaseException):
        pass

    class Nobody:
        def submit(self, tasks: Any) -> None:
            raise Reached

        def cancel(self) -> None:
            pass

        close = cancel

    try:
        Driver(graph, run, executors=lambda _: {"": Nobody()}, executor_of=lambda _: "", observers=[]).run(go_on=True)
    except Reached:
        return


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
