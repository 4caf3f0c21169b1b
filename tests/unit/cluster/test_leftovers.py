"""Leftovers of a killed engine: they are found by their location, and nothing else is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster import leftovers

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /cache/docker/data/overlay2/a/merged rw - overlay overlay rw
31 30 0:41 / /cache/docker/data/overlay2/a/merged/proc rw - proc proc rw
32 22 0:42 / /cache/docker-other rw - tmpfs tmpfs rw
33 22 0:43 / /cache/docker/with\\040space rw - tmpfs tmpfs rw
"""

RULES = """\
-P INPUT ACCEPT
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N MINE
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -o eth0 -j MINE
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A MINE -m comment --comment DOCKERS-friend -j ACCEPT
"""


def test_mounts_are_unmounted_innermost_first() -> None:
    """Only mounts in the folder are, each before the one that contains it."""
    assert leftovers.mounts_below(Path("/cache/docker"), MOUNTINFO) == [
        "/cache/docker/with space",
        "/cache/docker/data/overlay2/a/merged/proc",
        "/cache/docker/data/overlay2/a/merged",
    ]


def test_only_dockers_firewall_rules_are_deleted() -> None:
    """Rules are deleted first, then the chains, which are emptied before; other rules stay."""
    assert leftovers.docker_rules(RULES) == [
        ["-D", "FORWARD", "-j", "DOCKER-ISOLATION-STAGE-1"],
        ["-D", "FORWARD", "-o", "docker0", "-j", "DOCKER"],
        ["-D", "DOCKER-ISOLATION-STAGE-1", "-j", "RETURN"],
        ["-F", "DOCKER"],
        ["-F", "DOCKER-ISOLATION-STAGE-1"],
        ["-X", "DOCKER"],
        ["-X", "DOCKER-ISOLATION-STAGE-1"],
    ]


def test_leftover_work_is_ended_and_waited_for(tmp_path: Path) -> None:
    """A process with the work folder on its command line is found and ended; this one is spared."""
    worker = subprocess.Popen([sys.executable, "-c", "input()", str(tmp_path / "x")], stdin=subprocess.PIPE)
    try:
        assert leftovers.processes_at_work(str(tmp_path)) == {worker.pid}
        leftovers.kill({worker.pid})
        assert worker.poll() == -9
    finally:
        worker.kill()
        worker.communicate()


def test_a_pager_on_the_engines_log_is_spared(tmp_path: Path) -> None:
    """Only the engine's own programs count as its processes, no matter which other program has its files open."""
    pager = subprocess.Popen([sys.executable, "-c", "input()", str(tmp_path / "dockerd.log")], stdin=subprocess.PIPE)
    try:
        assert leftovers.processes_of_engine([tmp_path]) == set()
    finally:
        pager.kill()
        pager.communicate()
