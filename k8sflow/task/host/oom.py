"""The memory of this process's cgroup as the kernel reports it: out-of-memory kills, the limit, the peak.

Both cgroup versions are read (https://docs.kernel.org/admin-guide/cgroup-v2.html, …/cgroup-v1/memory.html).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from k8sflow.task.outcome import Outcome
from k8sflow.task.result import Failure, TaskResult, failed

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")
# cgroup v1 writes "no limit" as a number close to 2^63.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Kills:
    """The out-of-memory kills in a task's cgroup while it ran.

    Args:
        before: How many there had been when it started.
        now: How many there have been when it ended.
        explained: How many of them other tasks' failures account for; None for a task with a cgroup of its own.
        figures: The memory's limit, peak and the like, in bytes.
    """

    before: int = 0
    now: int = 0
    explained: int | None = None
    figures: Mapping[str, int] = field(default_factory=dict)

    def explain(self, *, was_killed: bool) -> bool:
        """Whether they explain why a task failed.

        Where it was killed itself, any kill since its start does. That a child's death made it fail is only likely, so
        in a shared cgroup that takes a kill which explains no other failure.
        """
        known = self.before if was_killed else max(self.before, self.explained or 0)
        return self.now > known


def kills_since(before: int, explained: int | None = None) -> Kills:
    """The kills in this process's cgroup since it counted ``before``; ``explained`` as in ``Kills``."""
    now = count_kills()
    return Kills(before, now, explained, _figures() if now > before else {})


def count_kills() -> int:
    """How many processes of this process's cgroup were killed for want of memory; 0 where no cgroup can be read."""
    for line in _text(_counters()).splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill":
            return int(value)
    return 0


def out_of_memory(seen: Failure, kills: Kills) -> TaskResult:
    """The result of a task of which the kernel killed a process for want of memory.

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
    allowed = f"the limit of {limit / 1e6:.0f} MB here" if limit else "the memory of this machine"
    return failed(
        Outcome.OUT_OF_MEMORY,
        f"the task ran out of memory: together with the processes beside it, it used more than {allowed}",
        detail,
        "Let the step hold less at a time, or run fewer tasks at a time (--max-workers); or run it where there is "
        f"more: @resources({asked}) and --with kubernetes.",
    )


def _figures() -> dict[str, int]:
    """Bytes: the limit and the peak of the innermost cgroup that has a limit; what is available on the machine."""
    figures: dict[str, int] = {}
    for folder in _folders():
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        if limit is not None:
            peak = _number(folder, "memory.peak", "memory.max_usage_in_bytes")
            figures |= {"limit": limit} | ({} if peak is None else {"peak": peak})
            break
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            figures["available on the machine"] = int(line.split()[1]) * 1024
    return figures


@functools.cache
def _folders() -> list[Path]:
    """The folders of this process's cgroup, innermost first; a process stays in its cgroup.

    In a container without a namespace for them (cgroup_namespaces(7)) the path is that on the node, and what is mounted
    here is the cgroup itself.
    """
    found: dict[str, str] = {}
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    root, path = (_V1, found["memory"]) if "memory" in found else (_V2, found.get("", "/"))
    return [folder for folder in _upwards(root / path.lstrip("/"), root) if folder.is_dir()]


@functools.cache
def _counters() -> str:
    """The file with the innermost cgroup's counters."""
    files = [folder / name for folder in _folders() for name in ("memory.events", "memory.oom_control")]
    return str(next((file for file in files if file.exists()), os.devnull))


def _upwards(folder: Path, root: Path) -> Iterator[Path]:
    yield folder
    while folder != root:
        folder = folder.parent
        yield folder


def _number(folder: Path, *names: str) -> int | None:
    for name in names:
        text = _text(f"{folder}/{name}").strip()
        if text.isdigit() and int(text) < _NO_LIMIT:
            return int(text)
    return None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  a Path is slower; it is read for each task
            return file.read()
    except OSError:
        return ""
