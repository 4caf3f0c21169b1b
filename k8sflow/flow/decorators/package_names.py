"""Names of packages."""

from __future__ import annotations

import re


def normalized(name: str) -> str:
    """A package's name as indexes compare it: ``Scikit_Learn`` is ``scikit-learn``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def bare(name: str) -> str:
    """A package's name without its extras: ``pandas[parquet]`` is ``pandas``."""
    return name.partition("[")[0].strip()


def leading(line: str) -> str:
    """The name at the beginning of a line of a requirements file; empty if there is none."""
    found = re.match(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", line.strip())
    return found[0] if found is not None else ""
