"""The number of cores that the node reports.

The tests ask for pods of two and three cores, some at a time, on machines that have two in all. What counts for the
scheduler is what the kubelet reports, and the kubelet counts the entries that the kernel shows in /sys
(cadvisor's ``sysinfo``): the node is shown eight. Pods share the cores that the machine has, as they do on any
node whose requests are larger than its use.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

CORES = 8
_NODE = Path("/sys/devices/system/node")
_ONLINE = Path("/sys/devices/system/cpu/online")


def mounts(folder: Path) -> list[dict[str, object]]:
    """List kind's ``extraMounts`` that show the node more cores; none if the machine has enough, or shows no node.

    Args:
        folder: Where ``prepare`` writes the entries.
    """
    if (os.cpu_count() or 1) >= CORES or not (_NODE / "node0" / "meminfo").exists():
        return []
    pairs = [(folder / "node", _NODE), (folder / "online", _ONLINE)]
    return [{"hostPath": str(here), "containerPath": str(there), "readOnly": True} for here, there in pairs]


def prepare(folder: Path) -> None:
    """Write the files that ``mounts`` mounts; they have to exist as long as the node."""
    if not mounts(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    node = folder / "node" / "node0"
    for core in range(CORES):
        topology = node / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "core_id").write_text(f"{core}\n")
        (topology / "physical_package_id").write_text("0\n")
    (node / "hugepages").mkdir()
    for name in ("meminfo", "distance"):
        (node / name).write_text((_NODE / "node0" / name).read_text())
    (folder / "online").write_text(f"0-{CORES - 1}\n")
