"""Runs commands in turns and prints a table of ratios: machines are noisy, so only the minimum of each counts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """One of the things that are compared.

    Args:
        name: What the table calls it.
        run: Does the work once.
        times: How often at most.
    """

    name: str
    run: Callable[[], None]
    times: int = 5


def command(*arguments: str, cwd: str, variables: dict[str, str] | None = None) -> Callable[[], None]:
    """A contender's work that is a command; its output is thrown away, and a failure ends the benchmark."""

    def run() -> None:
        done = subprocess.run(
            arguments, cwd=cwd, env={**os.environ, **(variables or {})}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{arguments} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    return run


def peak_megabytes(*arguments: str, cwd: str) -> float:
    """Runs a command as ``command`` does; how much memory the largest of its processes took (getrusage(2))."""
    process = subprocess.Popen(arguments, cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed with {process.returncode}.")
    return usage.ru_maxrss / 1024


def compare(title: str, contenders: Sequence[Contender]) -> dict[str, float]:
    """Runs the contenders in turns, prints a table, and returns each one's least seconds.

    The first contender is what the others are divided by.
    """
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(max(contender.times for contender in contenders)):
        for contender in contenders:
            if turn < contender.times:
                began = time.perf_counter()
                contender.run()
                seconds[contender.name].append(time.perf_counter() - began)
    least = {name: min(values) for name, values in seconds.items()}
    first = least[contenders[0].name]
    print(f"\n{title}\n\n| | least seconds | of n | × {contenders[0].name} |\n|---|---|---|---|")
    for name, value in least.items():
        print(f"| {name} | {value:.3f} | {len(seconds[name])} | {value / first:.2f} |")
    return least
