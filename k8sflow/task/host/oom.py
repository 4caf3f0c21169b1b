"""The diagnosis of a task that the kernel killed because memory ran out."""

from __future__ import annotations

from k8sflow.parallel.limits import memory_figures
from k8sflow.task.outcome import Diagnosis, Outcome


def out_of_memory(seen: Diagnosis | None, *, in_pod: bool) -> Diagnosis:
    """Describes why the kernel killed a process of a task.

    Args:
        seen: The diagnosis of the task's end without that knowledge.
        in_pod: The task has the cgroup to itself; otherwise other processes share it.
    """
    figures = _figures()
    sizes = ", ".join(f"{name} {count / 1e6:.0f} MB" for name, count in figures.items())
    detail = "The kernel killed one of its processes (SIGKILL)." + (f" Memory: {sizes}." if sizes else "")
    for part in (seen.summary, seen.detail) if seen is not None else ():
        if part and part not in detail:
            detail += f"\n{part}"
    limit = figures.get("limit")
    asked = f"memory={round(limit / 1e6 * 2)}" if limit else "memory=…"
    if in_pod:
        allowed = f"its limit of {limit / 1e6:.0f} MB" if limit else "the memory of its node"
        advice = f"Ask for more: @resources({asked}); or let the step hold less at a time."
        return Diagnosis(Outcome.OUT_OF_MEMORY, f"the task used more memory than {allowed}", detail, advice)
    allowed = f"the limit of {limit / 1e6:.0f} MB here" if limit else "the memory of this machine"
    return Diagnosis(
        Outcome.OUT_OF_MEMORY,
        f"the task ran out of memory: it and the processes beside it used more than {allowed}",
        detail,
        "Let the step hold less at a time, or fewer tasks run at a time (--max-workers); or run it where there is "
        f"more: @resources({asked}) and --with kubernetes.",
    )


def _figures() -> dict[str, int]:
    """Bytes: the limit and the peak of the innermost cgroup that has a limit; the memory available on the machine."""
    names = {"limit": "limit", "highest": "peak", "available on the machine": "available on the machine"}
    return {names[name]: size for name, size in memory_figures().items() if name in names}
