"""What the kernel knows about this container's memory: its limit, its peak, and how often it killed for it.

Both cgroup versions are read (https://docs.kernel.org/admin-guide/cgroup-v2.html, …/cgroup-v1/memory.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")
# cgroup v1 tells "no limit" by a number close to 2^63.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class MemoryState:
    """A look at the container's memory.

    Args:
        oom_kills: How many of its processes the kernel has killed for want of memory.
        limit_bytes: The most that it may use, or None.
        peak_bytes: The most that it has used, or None where the kernel doesn't tell.
    """

    oom_kills: int
    limit_bytes: int | None
    peak_bytes: int | None


def look(v2: Path = _V2, v1: Path = _V1) -> MemoryState:
    """The state now; zeros where no cgroup can be read."""
    if (v2 / "memory.events").exists():
        return MemoryState(
            _counter(v2 / "memory.events", "oom_kill"), _number(v2 / "memory.max"), _number(v2 / "memory.peak")
        )
    return MemoryState(
        _counter(v1 / "memory.oom_control", "oom_kill"),
        _number(v1 / "memory.limit_in_bytes"),
        _number(v1 / "memory.max_usage_in_bytes"),
    )


def _counter(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
