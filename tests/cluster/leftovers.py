"""Leftovers of an engine that was killed with -9: processes, mounts, network links and firewall rules.

The engine itself copes with much of this, but not with containers that outlived their shim: their processes continue
under pid 1, with mounts and sockets that the next engine needs. So before the harness starts its engine, and after it
stopped it, everything that belonged to it is ended here. All of it is found by location (data and run folders) or by a
container's id, never by a program's name.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from tests.cluster.process import attempt

ENDED_WITHIN_SECONDS = 15.0
ENGINE_PROGRAMS = frozenset({"dockerd", "containerd", "containerd-shim", "runc"})


def processes_of_engine(folders: Collection[Path]) -> set[int]:
    """List the processes of the engine that keeps its files in ``folders``; not the pager that shows one of them."""
    found = set()
    for pid in processes_named(*ENGINE_PROGRAMS):
        with suppress(OSError):  # it ended
            command = Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace")
            if any(str(folder) in command for folder in folders):
                found.add(pid)
    return found


def processes_named(*programs: str) -> set[int]:
    """List the processes that run one of these programs (by the kernel's name for them, of at most 15 letters)."""
    found = set()
    for process in _processes():
        with suppress(OSError):  # it ended
            if (process / "comm").read_text().strip() in programs:
                found.add(int(process.name))
    return found


def processes_at_work(path: str) -> set[int]:
    """List the processes of an interrupted build: ``path`` is on their command line, or begins their root directory."""
    mine = _this_and_parents()
    found = set()
    for process in _processes():
        with suppress(OSError):  # it ended, or is a kernel thread
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            if int(process.name) not in mine and path in command + str((process / "root").readlink()):
                found.add(int(process.name))
    return found


def processes_of_containers(ids: Collection[str]) -> set[int]:
    """List the processes in the cgroup of one of these containers, regardless of their current parents."""
    found = set()
    for process in _processes():
        with suppress(OSError):  # it ended
            groups = (process / "cgroup").read_text()
            if any(container in groups for container in ids):
                found.add(int(process.name))
    return found


def kill(pids: Collection[int]) -> None:
    """Kill processes and wait until they have ended."""
    descriptors = []
    for pid in pids:
        with suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(descriptors[-1], signal.SIGKILL)
    wait_for_end(descriptors)


def wait_for_end(descriptors: list[int], seconds: float = ENDED_WITHIN_SECONDS) -> bool:
    """Report if all processes behind these pidfds ended in time, and close these."""
    poll = select.poll()
    waiting = set(descriptors)
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + seconds
    while waiting and (remaining := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(remaining * 1000):
            poll.unregister(descriptor)
            waiting.discard(descriptor)
    for descriptor in descriptors:
        os.close(descriptor)
    return not waiting


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """List mount points at or below ``folder``, the innermost first (proc(5): the fifth field, with octal escapes)."""
    points = [_unescape(line.split(" ")[4]) for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(folder)]


def unmount_below(folder: Path) -> None:
    """Unmount everything at or below ``folder``."""
    for point in mounts_below(folder, Path("/proc/self/mountinfo").read_text()):
        attempt(["umount", "--lazy", point])


def remove_links(names: Collection[str]) -> None:
    """Delete network bridges."""
    for name in names:
        if Path("/sys/class/net", name).exists():
            attempt(["ip", "link", "delete", name])


def remove_cgroups(ids: Collection[str]) -> None:
    """Delete the empty cgroups of containers that have ended."""
    for container in ids:
        for group in [*Path("/sys/fs/cgroup").glob(f"*/docker/{container}"), Path("/sys/fs/cgroup/docker", container)]:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):  # still in use by a process that is just ending: harmless
                    Path(folder).rmdir()


def remove_firewall_rules() -> None:
    """Delete Docker's iptables chains and everything that refers to them; only for when no engine is running.

    Docker also sets the policy of FORWARD to DROP; this sets it back to the kernel's default.
    """
    for table in ("nat", "filter"):
        listed = attempt(["iptables", "-w", "-t", table, "-S"])
        for arguments in docker_rules(listed.stdout):
            attempt(["iptables", "-w", "-t", table, *arguments])
    attempt(["iptables", "-w", "-P", "FORWARD", "ACCEPT"])


def docker_rules(listing: str) -> list[list[str]]:
    """List arguments of iptables that delete Docker's rules, from a listing by ``iptables -S``."""
    rules = [line.split() for line in listing.splitlines()]
    dockers = re.compile(r"DOCKER(-[A-Z0-9-]+)?|docker0|br-[0-9a-f]{12}")
    delete = [["-D", *rule[1:]] for rule in rules if rule[0] == "-A" and any(dockers.fullmatch(word) for word in rule)]
    chains = [rule[1] for rule in rules if rule[0] == "-N" and dockers.fullmatch(rule[1])]
    return [*delete, *(["-F", chain] for chain in chains), *(["-X", chain] for chain in chains)]


def _processes() -> Iterator[Path]:
    """List the folders in /proc of running processes; one that ended and waits to be reaped holds nothing any more."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has ended
                if _status(entry)[0] not in "ZX":
                    yield entry


def _status(process: Path) -> list[str]:
    """Return state, parent and so on (proc(5), stat, from the third field; the second, a name, may be anything)."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def _this_and_parents() -> set[int]:
    found, pid = set(), os.getpid()
    while pid > 0:
        found.add(pid)
        pid = int(_status(Path("/proc", str(pid)))[1])
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
