"""The order in which a step with packages of its own looks for modules."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable


def packages_first(path: Iterable[str]) -> list[str]:
    """``sys.path`` with the folders of PYTHONPATH behind those of the environment.

    PYTHONPATH comes from the shell or the image, and often leads to other packages. Before those of the environment,
    a step would run with another version than the locked one, without a word.

    Args:
        path: ``sys.path`` as a new interpreter of the environment has it.
    """
    users = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]  # noqa: PTH100  links stay
    entries = list(dict.fromkeys(path))
    late = [entry for entry in entries[1:] if entry and os.path.abspath(entry) in users]  # noqa: PTH100  as above
    found = [entry for entry in entries if entry not in late]
    packages = [
        number
        for number, entry in enumerate(found)
        if entry in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    ]
    position = packages[-1] + 1 if packages else len(found)
    return [*found[:position], *late, *found[position:]]
