"""parallel_map against its peers and the bare operation: one run, minimum of n, two workers.

    .venv-bench/bin/python benchmarks/parallel_map.py [--times 5] [--only TEXT] [--json FILE] [--plot FILE]

Contenders take turns within each round, so that a noisy moment of the machine affects all of them. Each case has its
own bare operations, measured in the same run: two forks, the plain loop, a memcpy. Prints Markdown tables.

A virtual machine returns memory that has been free for some seconds to its host (free page reporting). Touching it
again is slow: 1 to 5 s per GiB, where a memcpy takes 0.2 s. So before each call of a case with large data, as much
memory as the case needs is touched and freed, for each contender alike.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import parallel_cases
from parallel_cases import CASES, Case, nap
from parallel_contenders import INSTALLED, STANDARD, WORKERS, Map, peers
from parallel_report import WAIT, Figures, plot, table, targets
from side_by_side import options, selected, write_json

from k8sflow.parallel import parallel_imap_unordered

LONG_SECONDS = 4.0  # a peer that takes longer runs only once


def main() -> None:
    parser = options("parallel_map against its peers and the bare operation.", times=5)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures into this file")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, Linux {platform.release()}")
    print(f"{len(os.sched_getaffinity(0))} cores; load before: {os.getloadavg()[0]:.1f}\n")
    # First, because peers leave threads behind whose CPU time would count.
    waited = least_waiting() if selected(WAIT, chosen.only) and not chosen.contender else None
    results: dict[str, Figures] = {}
    for case in CASES:
        if selected(case.name, chosen.only):
            with contextlib.redirect_stderr(sys.stdout):
                results[case.name] = measure(case, chosen.times, contenders(case, chosen.contender))
            bare = next((name for name in case.bare if name in results[case.name]), None)
            print(table(case.name, results[case.name], bare), flush=True)
    if not chosen.contender:
        print(targets(results, waited))
    print(f"Load after: {os.getloadavg()[0]:.1f}")
    if chosen.json:
        write_json(chosen.json, {name: as_units(figures) for name, figures in results.items()})
    if chosen.plot and results:
        plot(results, {case.name: set(case.bare) for case in CASES}, chosen.plot)


def contenders(case: Case, names: Sequence[str] | None) -> dict[str, Map]:
    """The contenders of a case: k8sflow and the named ones, or all; peers from PyPI are imported only if named."""

    def wanted(name: str) -> bool:
        return not names or name in names or name == "k8sflow"

    everyone = {**case.bare, **STANDARD}
    if not names or set(names) & set(INSTALLED):
        everyone |= peers(parallel_cases)
    return {name: run for name, run in everyone.items() if name not in case.without and wanted(name)}


def measure(case: Case, times: int, taking_part: dict[str, Map]) -> Figures:
    case.setup()
    figures: Figures = {}
    for round_ in range(max(1, round(times * case.rounds))):
        for name, run in taking_part.items():
            if round_ and figures[name][0] > LONG_SECONDS and name not in case.bare and name != "k8sflow":
                continue
            warm(case.warm_gib)
            new = timed(run, case.func, case.items)
            old = figures.get(name, new)
            figures[name] = min(old[0], new[0]), min(old[1], new[1]), max(old[2], new[2])
    case.teardown()
    return figures


def as_units(figures: Figures) -> dict[str, dict[str, float]]:
    units = ("seconds", "parent_cpu_seconds", "parent_memory_mib")
    return {name: dict(zip(units, values, strict=True)) for name, values in figures.items()}


def least_waiting() -> tuple[float, float]:
    return min((waiting() for _ in range(3)), key=lambda figures: figures[1])


def waiting() -> tuple[float, float]:
    """Seconds that the parent waits for busy workers, and its CPU seconds meanwhile; without their start and end."""
    results = parallel_imap_unordered(nap, [0.5, 0.5, 3.0, 3.0], WORKERS, chunk_size=1)
    next(results), next(results)  # both workers have their next item now
    cpu, started = time.process_time(), time.perf_counter()
    next(results)
    figures = time.perf_counter() - started, time.process_time() - cpu
    results.close()
    return figures


def warm(gib: float) -> None:
    arrays = [np.ones(32 << 20) for _ in range(round(gib * 4))]
    del arrays


def timed(run: Map, func: Callable[[Any], Any], items: Iterable[Any]) -> tuple[float, float, float]:
    """Seconds, CPU seconds of this process, and the peak growth of its memory in MiB."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, proc(5)
    memory = status_mib("VmRSS")
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    result = run(func, items)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    del result
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, status_mib("VmHWM") - memory


def status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


if __name__ == "__main__":
    main()
