"""Flows on this machine: k8sflow, Metaflow from PyPI, and the bare operation, in one run.

    make bench-local

Both frameworks run the same file; only its import line differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import Contender, command, compare

FLOWS = Path(__file__).parent / "flows"
WORKERS = 2


def main() -> None:
    """Runs all comparisons."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=5, help="how often k8sflow and the bare operation are run")
    parser.add_argument("--metaflow-times", type=int, default=2, help="how often Metaflow is run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("noops", "three_steps", "big_sum"):
            source = (FLOWS / f"{name}.py").read_text()
            Path(folder, f"{name}_k8sflow.py").write_text(source)
            Path(folder, f"{name}_metaflow.py").write_text(
                source.replace("from k8sflow import", "from metaflow import")
            )
        run_all(folder, options.times, options.metaflow_times)


def run_all(folder: str, times: int, metaflow_times: int) -> None:
    """The comparisons, each of three contenders."""
    workers = ("--max-workers", str(WORKERS))

    def contenders(flow: str, *options: str) -> list[Contender]:
        ours = command(sys.executable, f"{flow}_k8sflow.py", "run", *options, cwd=folder)
        theirs = command(sys.executable, f"{flow}_metaflow.py", "run", *options, cwd=folder,
                         variables={"METAFLOW_USER": "bench", "METAFLOW_HOME": folder})  # fmt: skip
        return [Contender("k8sflow", ours, times), Contender("Metaflow", theirs, metaflow_times)]

    compare(
        f"A foreach of 100 no-ops, {WORKERS} workers (bare: 103 forks that do nothing, {WORKERS} at a time)",
        [*contenders("noops", *workers), Contender("bare", lambda: fork_and_wait(103, WORKERS), times)],
    )
    compare(
        "Three steps, from the shell to the prompt (bare: three Python processes in a row)",
        [*contenders("three_steps"), Contender("bare", lambda: start_pythons(3, folder), times)],
    )
    compare(
        "BigSum of 2 GiB, the whole run (bare: one process that makes the matrix and calls sum())",
        [*contenders("big_sum"), Contender("bare", command(sys.executable, "-c", PLAIN_SUM, cwd=folder), times)],
    )


PLAIN_SUM = "import numpy as np; print(np.random.ranf((16384, 16384)).sum())"


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


def start_pythons(count: int, folder: str) -> None:
    """Starts so many interpreters, one after the other."""
    run = command(sys.executable, "-c", "pass", cwd=folder)
    for _ in range(count):
        run()


if __name__ == "__main__":
    print(f"numpy {np.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    main()
