"""The parts of a key that say on which machine and by which Python a step runs."""

from __future__ import annotations

import locale
import os
import platform
import sys
import time
from collections.abc import Collection, Mapping

from k8sflow.runtime.caching.outside import uses_zone
from k8sflow.storage.file_state import hashed

_OF_CORES = frozenset({"available_cores", "cpu_count", "process_cpu_count", "sched_getaffinity", "virtual_memory"})


def of_machine(modules: Collection[str], names: Collection[str], requested: Mapping[str, str] | None) -> dict[str, str]:
    """The parts for this machine.

    Args:
        modules: The modules that code uses.
        names: The names in the code.
        requested: What ``@resources`` asks for.
    """
    encoding = locale.getpreferredencoding(do_setlocale=False)
    python = [sys.implementation.name, *sys.version_info[:3], sys.flags.optimize, encoding.lower()]
    found = {"python": hashed(python), "platform": hashed([sys.platform, platform.machine()])}
    if uses_zone(modules, names):
        found["time zone"] = hashed(time.tzname)
    if not _OF_CORES.isdisjoint(names):
        found["cores and memory"] = hashed([os.cpu_count(), sorted((requested or {}).items())])
    return found
