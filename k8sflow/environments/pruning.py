"""Removes environments and wheels that no run has used for some time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from k8sflow.environments import cache, local

_DAY_SECONDS = 24 * 3600


def prune(days: int) -> tuple[int, int]:
    """Removes what is unused from the cache; locks stay.

    Args:
        days: For how long it has not been used; 0 for everything.

    Returns:
        The number of environments, and the bytes of all files that were removed. Files that uv has linked from its own
        cache count too.
    """
    before = time.time() - days * _DAY_SECONDS
    count = size = 0
    for folder in sorted(cache.folder(local.ENVIRONMENTS).iterdir()):
        if not folder.is_dir() or (days and folder.stat().st_mtime > before):
            continue
        name = folder.name.partition(".")[0]
        with cache.locked(folder.with_name(f"{name}.lock")):  # nobody is creating it
            if folder.exists():
                size += sum(_sizes(folder))
                count += not folder.name.endswith(".tmp")
                remains = folder.with_name(f"{name}.{os.getpid()}.pruned.tmp")
                folder.rename(remains)  # at once: one that is half removed would be taken for a complete one
                shutil.rmtree(remains, ignore_errors=True)
    for wheel in cache.folder("wheels").iterdir():
        if not days or wheel.stat().st_mtime <= before:
            size += wheel.stat().st_size
            wheel.unlink(missing_ok=True)
    return count, size


def _sizes(folder: Path) -> Iterator[int]:
    for root, _, names in os.walk(folder):
        yield from (os.lstat(os.path.join(root, name)).st_size for name in names)  # noqa: PTH118  for each file
