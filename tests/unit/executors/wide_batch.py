"""A run with a foreach of 10,000 on a scripted AWS Batch: prints the finished branches, the MB, and the requests."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from k8sflow.config import Settings
from k8sflow.executors.base import Executor, Report
from k8sflow.executors.batch.executor import BatchExecutor
from k8sflow.executors.context import RunContext
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.batch_options import DEFAULT_BATCH_OPTIONS, BatchOptions, merge_batch
from k8sflow.runtime.core.loop import Loop
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.run_state import RunState
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit, ForeachItems, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskSpec
from tests.support import load_flow, write_flow
from tests.unit.executors.fake_batch import FakeBatch

WIDTH = 10_000
SOURCE = """
    class F(FlowSpec):
        @step
        def start(self):
            self.items = list(range(10_000))
            self.next(self.work, foreach="items")
        @step
        def work(self): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""
NEXT = {"start": ("work",), "work": ("join",), "join": ("end",), "end": ()}


def main() -> None:
    folder = Path(sys.argv[1])
    graph = compile_flow(load_flow(write_flow(folder, SOURCE))).graph
    run_store = RunStore(FolderStore(str(folder / "store")), "F", "r1")
    record = RunRecord("F", "r1", "flow.py", {}, graph)
    run_store.create(record)
    done: list[str] = []

    def on_end(spec: TaskSpec) -> None:
        step = spec.name.step
        foreach = ForeachItems(WIDTH, ()) if step == "start" else None
        now = time.time()
        run_store.commit(step, spec.name.id, Commit(0, NEXT[step], {}, foreach=foreach, started=now, finished=now))
        if step == "work":
            done.append(spec.name.id)

    server = FakeBatch(runs=2000, on_end=on_end)
    options = merge_batch(BatchOptions(queue="q", image="k8sflow:1"), DEFAULT_BATCH_OPTIONS)

    def executors(report: Report) -> dict[str, Executor]:
        context = RunContext(report, record, run_store, Settings(bucket="b"), batch=dict.fromkeys(graph.nodes, options))
        return {"batch": BatchExecutor(context, lambda: server)}

    loop = Loop(
        graph,
        run_store,
        state=lambda: RunState(graph, "r1"),
        executors=executors,
        executor_of=lambda _: "batch",
        observer=Observer(),
    )
    assert loop.run().is_success
    print(len(done), peak_megabytes(), server.calls["describe_jobs"])


def peak_megabytes() -> float:
    """The most memory of this program; ``ru_maxrss`` would count that of the process which started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
