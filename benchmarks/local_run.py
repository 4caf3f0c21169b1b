"""Flows on this machine: k8sflow, Metaflow from PyPI, and the bare operation, in one run.

    make bench-local

Both frameworks run the same files; only the import line differs. Metaflow does not take part where it would need more
than a quarter of an hour.
"""

from __future__ import annotations

import graphlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from side_by_side import Comparison, Contender, command, options, peak_megabytes, run_all

FLOWS = Path(__file__).parent / "flows"
WORKERS = 2
# The agent of a pod, its client of the bucket, and what its fork needs beyond the flow's own imports.
IN_A_POD = ("k8sflow.task.host.agent", "k8sflow.storage.s3", "k8sflow.runtime.commands.step")
WIDE = 10_000
SIMULATED = 100_000
PLAIN_SUM = "import numpy as np; print(np.random.ranf((16384, 16384)).sum())"
PLAIN_ARTIFACT = """
import hashlib, numpy as np
data = np.arange({size} // 8, dtype=np.float64)
print(hashlib.sha256(data).hexdigest())
open("plain", "wb").write(data)
print(hashlib.sha256(open("plain", "rb").read()).hexdigest())
"""


def main() -> None:
    """Run the comparisons."""
    parser = options("Local flows against Metaflow and the bare operation.", times=5)
    parser.add_argument("--metaflow-times", type=int, default=2, help="turns of Metaflow [%(default)s]")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for file in FLOWS.glob("*.py"):
            source = file.read_text()
            Path(folder, f"{file.stem}_k8sflow.py").write_text(source)
            other = source.replace("from k8sflow import", "from metaflow import")
            Path(folder, f"{file.stem}_metaflow.py").write_text(other)
        run_all(Comparisons(folder, chosen.times, chosen.metaflow_times).all(), chosen)


class Comparisons:
    """The comparisons of this benchmark.

    Args:
        folder: The folder of the flows and of their runs.
        times: Turns of k8sflow and the bare operation.
        metaflow_times: Turns of Metaflow.
    """

    def __init__(self, folder: str, times: int, metaflow_times: int) -> None:
        self._folder = folder
        self._times = times
        self._metaflow_times = metaflow_times

    def all(self) -> list[Comparison]:
        """From the shortest to the longest, and the scheduler, which runs in this process, last."""
        workers = ("--max-workers", str(WORKERS))
        artifact = "hashed, written, read and hashed by one process"
        starts = {f"import_{name}": self._python(f"import {name}") for name in ("k8sflow", "metaflow")}
        starts["import_pod"] = self._python(f"import {', '.join(IN_A_POD)}")
        starts |= {
            f"help_{name}": self._command(f"three_steps_{name}.py", "--help") for name in ("k8sflow", "metaflow")
        }
        return [
            self._start("import of the package", starts["import_k8sflow"], starts["import_metaflow"]),
            self._start("flow.py --help", starts["help_k8sflow"], starts["help_metaflow"]),
            Comparison("imports of a task's pod", "python -c pass", (
                Contender("k8sflow", starts["import_pod"], 2 * self._times),
                Contender("bare", self._python("pass"), 2 * self._times),
            )),
            self._flow("three steps", "three Pythons in a row", "three_steps", lambda: self._pythons(3)),
            self._flow("foreach of 100 no-ops", "103 forks that do nothing", "noops",
                       lambda: fork_and_wait(103, WORKERS), *workers),
            self._flow("artifact of 300 MB", artifact, "artifact",
                       self._python(PLAIN_ARTIFACT.format(size=300_000_000)), "--size", "300000000"),
            self._flow("empty artifact", artifact, "artifact",
                       self._python(PLAIN_ARTIFACT.format(size=0)), "--size", "0"),
            self._flow("BigSum of 2 GiB", "one process that creates the matrix and calls sum()", "big_sum",
                       self._python(PLAIN_SUM)),
            self._wide(),
            scheduler(self._times),
        ]  # fmt: skip

    def _start(self, name: str, ours: Callable[[], None], theirs: Callable[[], None]) -> Comparison:
        """A comparison of milliseconds: it takes twice as many turns."""
        contenders = (
            Contender("k8sflow", ours, 2 * self._times),
            Contender("Metaflow", theirs, self._times),
            Contender("bare", self._python("pass"), 2 * self._times),
        )
        return Comparison(name, "python -c pass", contenders)

    def _flow(self, name: str, description: str, flow: str, bare: Callable[[], None], *arguments: str) -> Comparison:
        """A comparison of whole runs, from the shell to the prompt."""
        contenders = (
            Contender("k8sflow", self._command(f"{flow}_k8sflow.py", "run", *arguments), self._times),
            Contender("Metaflow", self._command(f"{flow}_metaflow.py", "run", *arguments), self._metaflow_times),
            Contender("bare", bare, self._times),
        )
        return Comparison(name, description, contenders)

    def _wide(self) -> Comparison:
        """A wide foreach, once; prints the memory and the files that it took."""
        arguments = ["--width", str(WIDE), "--max-workers", str(WORKERS), "--run-id", "wide"]

        def run() -> None:
            peak = peak_megabytes(sys.executable, "noops_k8sflow.py", "run", *arguments, cwd=self._folder)
            tasks = Path(self._folder, ".k8sflow", "Noops", "runs", "wide", "tasks", "work")
            files = sum(len(names) for _, _, names in os.walk(tasks))
            print(f"\n{WIDE:,} tasks: the largest process took {peak:.0f} MB; {files / WIDE:.1f} files per task.")

        bare = Contender("bare", lambda: fork_and_wait(WIDE + 3, WORKERS), 1)
        return Comparison(f"foreach of {WIDE:,} no-ops", "as many forks that do nothing",
                          (Contender("k8sflow", run, 1), bare))  # fmt: skip

    def _command(self, *arguments: str) -> Callable[[], None]:
        variables = {"METAFLOW_USER": "bench", "METAFLOW_HOME": self._folder}
        return command(sys.executable, *arguments, cwd=self._folder, variables=variables)

    def _python(self, code: str) -> Callable[[], None]:
        return command(sys.executable, "-c", code, cwd=self._folder)

    def _pythons(self, count: int) -> None:
        for _ in range(count):
            self._python("pass")()


def scheduler(times: int) -> Comparison:
    """The scheduler alone: a wide foreach whose tasks all finish at once, and its join."""
    contenders = (Contender("k8sflow", simulate, times), Contender("bare", sort_topologically, times))
    return Comparison(
        f"scheduler alone, {SIMULATED:,} tasks", "graphlib.TopologicalSorter on the same tasks", contenders
    )


def simulate() -> None:
    from k8sflow.flow.compile import compile_flow
    from k8sflow.runtime.core.scheduler import Scheduler
    from k8sflow.task.result import Transition

    if str(FLOWS) not in sys.path:
        sys.path.insert(0, str(FLOWS))
    from noops import Noops

    graph = compile_flow(Noops).graph
    scheduler = Scheduler(graph, "simulated")
    ready, finished = [scheduler.begin()], 0
    while ready:
        for task in ready.pop():
            width = SIMULATED if task.name.step == "start" else None
            ready += scheduler.finished(task.name, Transition(graph[task.name.step].next, width))
            finished += 1
    assert finished == SIMULATED + 3


def sort_topologically() -> None:
    branches = [f"work/{index}" for index in range(SIMULATED)]
    tasks: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter({"join": branches, "end": ["join"]})
    for branch in branches:
        tasks.add(branch, "start")
    tasks.prepare()
    while tasks.is_active():
        for task in tasks.get_ready():
            tasks.done(task)


def fork_and_wait(count: int, workers: int) -> None:
    """Fork this many processes that exit at once, with at most ``workers`` of them at the same time."""
    running = 0
    for _ in range(count):
        if running == workers:
            os.wait()
            running -= 1
        if os.fork() == 0:
            os._exit(0)
        running += 1
    for _ in range(running):
        os.wait()


if __name__ == "__main__":
    main()
