"""Flows on this machine: k8sflow, Metaflow from PyPI, and the bare operation, in one run.

    make bench-local

Both frameworks run the same files; only the import line differs. What Metaflow needs more than a quarter of an hour
for is run without it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from side_by_side import Contender, command, compare, peak_megabytes

FLOWS = Path(__file__).parent / "flows"
WORKERS = 2
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
    """Runs all comparisons."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=5, help="how often k8sflow and the bare operation are run")
    parser.add_argument("--metaflow-times", type=int, default=2, help="how often Metaflow is run")
    options = parser.parse_args()
    told = ", ".join(f"{name} {version(name)}" for name in ("numpy", "metaflow"))
    load = os.getloadavg()[0]
    print(f"{told}, Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {load:.1f} at the start")
    with tempfile.TemporaryDirectory() as folder:
        for file in FLOWS.glob("*.py"):
            source = file.read_text()
            Path(folder, f"{file.stem}_k8sflow.py").write_text(source)
            other = source.replace("from k8sflow import", "from metaflow import")
            Path(folder, f"{file.stem}_metaflow.py").write_text(other)
        Rows(folder, options.times, options.metaflow_times).run()


class Rows:
    """The comparisons.

    Args:
        folder: Where the flows are, and leave their runs.
        times: How often k8sflow and the bare operation are run.
        metaflow_times: How often Metaflow is run.
    """

    def __init__(self, folder: str, times: int, metaflow_times: int) -> None:
        self._folder = folder
        self._times = times
        self._metaflow_times = metaflow_times

    def run(self) -> None:
        """One after the other."""
        workers = ("--max-workers", str(WORKERS))
        self._starts()
        self._compare("three_steps", "Three steps, from the shell to the prompt (bare: three Pythons in a row)",
                      lambda: self._pythons(3))  # fmt: skip
        self._compare("noops", f"A foreach of 100 no-ops, {WORKERS} workers (bare: 103 forks that do nothing)",
                      lambda: fork_and_wait(103, WORKERS), *workers)  # fmt: skip
        for size in (300_000_000, 0):
            what = f"An artifact of {size // 10**6} MB, made and touched, the whole run"
            self._compare("artifact", f"{what} (bare: hashed, written, read and hashed by one process)",
                          self._python(PLAIN_ARTIFACT.format(size=size)), "--size", str(size))  # fmt: skip
        self._compare("big_sum", "BigSum of 2 GiB, the whole run (bare: one process that makes it and calls sum())",
                      self._python(PLAIN_SUM))  # fmt: skip
        self._wide()
        simulate()

    def _starts(self) -> None:
        helps = [self._command(f"three_steps_{name}.py", "--help") for name in ("k8sflow", "metaflow")]
        imports = [self._python(f"import {name}") for name in ("k8sflow", "metaflow")]
        for what, (ours, theirs) in {"python flow.py --help": helps, "import of the package": imports}.items():
            compare(f"{what} (bare: python -c pass)", [
                Contender("k8sflow", ours, self._times),
                Contender("Metaflow", theirs, self._times),
                Contender("bare", self._python("pass"), self._times),
            ])  # fmt: skip

    def _compare(self, flow: str, title: str, bare: Callable[[], None], *options: str) -> None:
        compare(title, [
            Contender("k8sflow", self._command(f"{flow}_k8sflow.py", "run", *options), self._times),
            Contender("Metaflow", self._command(f"{flow}_metaflow.py", "run", *options), self._metaflow_times),
            Contender("bare", bare, self._times),
        ])  # fmt: skip

    def _wide(self) -> None:
        """A wide foreach, and how much memory its driver takes."""
        options = ["--width", str(WIDE), "--max-workers", str(WORKERS), "--run-id", "wide"]
        peaks = []

        def run() -> None:
            peaks.append(peak_megabytes(sys.executable, "noops_k8sflow.py", "run", *options, cwd=self._folder))

        compare(
            f"A foreach of {WIDE:,} no-ops, {WORKERS} workers (bare: as many forks that do nothing)",
            [
                Contender("k8sflow", run, 1),
                Contender("bare", lambda: fork_and_wait(WIDE + 3, WORKERS), 1),
            ],
        )
        tasks = Path(self._folder, ".k8sflow", "Noops", "runs", "wide", "tasks", "work")
        files = sum(len(names) for _, _, names in os.walk(tasks))
        print(f"\nThe largest of its processes took {peaks[0]:.0f} MB; {files / WIDE:.1f} files for each task.")

    def _command(self, *arguments: str):
        variables = {"METAFLOW_USER": "bench", "METAFLOW_HOME": self._folder}
        return command(sys.executable, *arguments, cwd=self._folder, variables=variables)

    def _python(self, code: str):
        return command(sys.executable, "-c", code, cwd=self._folder)

    def _pythons(self, count: int) -> None:
        for _ in range(count):
            self._python("pass")()


def simulate() -> None:
    """The scheduler alone: a foreach whose tasks all finish at once, and its join."""
    from k8sflow.flow.compile import compile_flow
    from k8sflow.runtime.core.scheduler import Scheduler
    from k8sflow.task.result import Transition

    sys.path.insert(0, str(FLOWS))
    from noops import Noops

    graph = compile_flow(Noops).graph
    scheduler = Scheduler(graph, "simulated")
    began = time.process_time()
    ready, ended = [scheduler.begin()], 0
    while ready:
        for task in ready.pop():
            width = SIMULATED if task.name.step == "start" else None
            ready += scheduler.finished(task.name, Transition(graph[task.name.step].next, width))
            ended += 1
    took = time.process_time() - began
    print(f"\nThe scheduler alone: {ended:,} tasks in {took:.2f} s of CPU, {took / ended * 1e6:.1f} us each.")


def fork_and_wait(count: int, workers: int) -> None:
    """Forks so many processes, some at a time, each of which ends at once."""
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
