"""Compare k8sflow with its peers and with the bare operation: measure in turns, print a table, write JSON.

Machines are noisy, so only the minimum of each contender counts, and only ratios of one run mean something elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Figures = dict[str, dict[str, float]]  # contender → unit → figure; "seconds" is always there


@dataclass(frozen=True)
class Contender:
    """One of the things that are compared.

    Args:
        name: Its name in tables, in JSON and in ranges.yaml.
        run: Does the work once.
        times: The number of turns.
    """

    name: str
    run: Callable[[], None]
    times: int = 5


@dataclass(frozen=True)
class Comparison:
    """Contenders that do the same work.

    Args:
        name: Its name in tables, in JSON and in ranges.yaml.
        bare: Description of the bare operation.
        contenders: Those that take turns; the first one is the divisor of the table's last column.
    """

    name: str
    bare: str
    contenders: tuple[Contender, ...]

    def only(self, names: Sequence[str]) -> Comparison:
        """The same comparison with the named contenders, or with all of them if none is named."""
        kept = tuple(contender for contender in self.contenders if not names or contender.name in names)
        return Comparison(self.name, self.bare, kept)


def options(description: str, times: int) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--times", type=int, default=times, help="turns of k8sflow and the bare operation [%(default)s]"
    )
    parser.add_argument("--only", action="append", metavar="TEXT", help="run comparisons whose name contains this")
    parser.add_argument("--contender", action="append", metavar="NAME", help="run only this contender (repeatable)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    return parser


def selected(name: str, only: Sequence[str] | None) -> bool:
    """Return whether ``--only`` selects the comparison of this name."""
    return not only or any(text in name for text in only)


def run_all(comparisons: Iterable[Comparison], chosen: argparse.Namespace) -> None:
    """Run the comparisons that the options select, print their tables, and write the JSON file."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    results: dict[str, Figures] = {}
    for comparison in comparisons:
        if selected(comparison.name, chosen.only):
            kept = comparison.only(chosen.contender or ())
            if not kept.contenders:
                continue
            results[comparison.name] = measure(kept)
            print(table(kept, results[comparison.name]), flush=True)
    if chosen.json:
        write_json(chosen.json, results)


def measure(comparison: Comparison) -> Figures:
    """Run the contenders in turns; each one's least seconds, least CPU seconds, and number of turns."""
    turns: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender in comparison.contenders}
    for turn in range(max(contender.times for contender in comparison.contenders)):
        for contender in comparison.contenders:
            if turn < contender.times:
                cpu, started = cpu_seconds(), time.perf_counter()
                contender.run()
                turns[contender.name].append((time.perf_counter() - started, cpu_seconds() - cpu))
    return {name: _least(values) for name, values in turns.items()}


def _least(turns: Sequence[tuple[float, float]]) -> dict[str, float]:
    seconds, cpu = zip(*turns, strict=True)
    return {"seconds": min(seconds), "cpu_seconds": min(cpu), "times": len(turns)}


def cpu_seconds() -> float:
    """CPU time of this process and of those that it and its descendants have waited for (getrusage(2))."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def table(comparison: Comparison, figures: Figures) -> str:
    """The figures of one comparison as a Markdown table."""
    first = comparison.contenders[0].name
    lines = [f"\n{comparison.name} (bare: {comparison.bare})\n", f"| | least seconds | of n | × {first} |"]
    lines.append("|---|---|---|---|")
    for name, figure in figures.items():
        ratio = figure["seconds"] / figures[first]["seconds"]
        lines.append(f"| {name} | {figure['seconds']:.3f} | {figure['times']} | {ratio:.2f} |")
    return "\n".join(lines)


def write_json(path: Path, results: Mapping[str, Figures]) -> None:
    """Write comparison → contender → unit → figure, with the machine that they were measured on."""
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }
    path.write_text(json.dumps({"machine": machine, "comparisons": results}, indent=2) + "\n", encoding="utf-8")


def command(*arguments: str, cwd: str, variables: dict[str, str] | None = None) -> Callable[[], None]:
    """A contender's work that is a command; its output is discarded, and a failure ends the benchmark."""

    def run() -> None:
        done = subprocess.run(
            arguments, cwd=cwd, env={**os.environ, **(variables or {})}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{arguments} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    return run


def peak_megabytes(*arguments: str, cwd: str) -> float:
    """Run a command as ``command`` does; the peak memory of its largest process (getrusage(2))."""
    process = subprocess.Popen(arguments, cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed with {process.returncode}.")
    return usage.ru_maxrss / 1024
