"""Out-of-memory kills in a task's cgroup, and the diagnosis of a task that they explain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from k8sflow.flow.outcome import Outcome
from k8sflow.parallel.limits import memory_figures, out_of_memory_kills
from k8sflow.task.result import Failure, TaskResult, failed


@dataclass(frozen=True)
class Kills:
    """The out-of-memory kills in a task's cgroup while it ran.

    Args:
        before: How many there had been when it started.
        now: How many there have been when it ended.
        explained: How many of them other tasks' failures account for; None for a task with a cgroup of its own.
        figures: The memory's limit, peak and the like, in bytes.
        in_pod: Whether these tasks share a pod.
    """

    before: int = 0
    now: int = 0
    explained: int | None = None
    figures: Mapping[str, int] = field(default_factory=dict)
    in_pod: bool = False

    def explain(self, *, was_killed: bool) -> bool:
        """True if they explain why a task failed.

        Where it was killed itself, any kill since its start does. That a child's death made it fail is only likely, so
        in a shared cgroup that takes a kill which explains no other failure.
        """
        known = self.before if was_killed else max(self.before, self.explained or 0)
        return self.now > known


def kills_since(before: int, explained: int | None = None) -> Kills:
    """The kills in this process's cgroup since it counted ``before``; ``explained`` as in ``Kills``."""
    now = out_of_memory_kills()
    return Kills(before, now, explained, _figures() if now > before else {}, bool(os.environ.get("K8SFLOW_POD")))


def out_of_memory(seen: Failure, kills: Kills) -> TaskResult:
    """The result of a task of which the kernel killed a process because memory ran out.

    Args:
        seen: How it seemed to end otherwise.
        kills: The kills that explain it.
    """
    figures = ", ".join(f"{name} {count / 1e6:.0f} MB" for name, count in kills.figures.items())
    detail = "The kernel killed one of its processes (SIGKILL)." + (f" Memory: {figures}." if figures else "")
    for part in (seen.summary, seen.detail):
        if part and part not in detail:
            detail += f"\n{part}"
    limit = kills.figures.get("limit")
    asked = f"memory={round(limit / 1e6 * 2)}" if limit else "memory=…"
    if kills.explained is None:
        allowed = f"its limit of {limit / 1e6:.0f} MB" if limit else "the memory of its node"
        advice = f"Ask for more: @resources({asked}); or let the step hold less at a time."
        return failed(Outcome.OUT_OF_MEMORY, f"the task used more memory than {allowed}", detail, advice)
    fewer, more = "--max-workers", f"run it where there is more: @resources({asked}) and --with kubernetes"
    allowed = f"the limit of {limit / 1e6:.0f} MB here" if limit else "the memory of this machine"
    if kills.in_pod:
        fewer, more = "branches_at_a_time", f"ask for more: @kubernetes({asked})"
    return failed(
        Outcome.OUT_OF_MEMORY,
        f"the task ran out of memory: together with the processes beside it, it used more than {allowed}",
        detail,
        f"Let the step hold less at a time, or run fewer tasks at a time ({fewer}); or {more}.",
    )


def _figures() -> dict[str, int]:
    """Bytes: the limit and the peak of the innermost cgroup that has a limit; the memory available on the machine."""
    names = {"limit": "limit", "highest": "peak", "available on the machine": "available on the machine"}
    return {names[name]: size for name, size in memory_figures().items() if name in names}
