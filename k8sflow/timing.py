"""``profile``: how long a part of a step takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager


@contextmanager
def profile(label: str, stats_dict: MutableMapping[str, int] | None = None) -> Iterator[None]:
    """Measures the time that a block takes.

    Args:
        label: The name of what is measured.
        stats_dict: The milliseconds by label, to which those of the block are added, also if it fails; None to print
            when the block starts and ends.
    """
    if stats_dict is None:
        sys.stdout.write(f"PROFILE: {label} starting\n")
    began = time.perf_counter()
    try:
        yield
    finally:
        milliseconds = round((time.perf_counter() - began) * 1000)
        if stats_dict is None:
            sys.stdout.write(f"PROFILE: {label} completed in {milliseconds}ms\n")
        else:
            stats_dict[label] = stats_dict.get(label, 0) + milliseconds
