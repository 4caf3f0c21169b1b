"""The Docker engine: one that is running already is used; otherwise the harness starts its own.

Its own engine has its data in the user's cache folder and its own socket, so `stop` can end exactly that one. It may
have been killed with -9 at any moment: its leftovers are ended before it is started again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import host, leftovers
from tests.cluster.console import step
from tests.cluster.errors import ClusterError
from tests.cluster.places import HERE, Places
from tests.cluster.process import attempt, tail

ANSWERS_WITHIN_SECONDS = 60.0
STOPS_WITHIN_SECONDS = 30.0
DEFAULT_MTU = 1500
NETWORK = "k8sflow-test"
PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker-cli",
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
}


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers.

    Args:
        own: Whether the harness started it, and may stop it.
        environment: Variables by which docker and kind find it.
    """

    own: bool
    environment: Mapping[str, str] = field(default_factory=dict)


def find(places: Places) -> Engine | None:
    """Return the engine that answers now: the harness's own if it runs, else the one that ``docker`` finds."""
    if _socket(places).exists() and _answers(mine := _environment(places)):
        return Engine(own=True, environment=mine)
    if _answers({}):
        return Engine(own=False)
    return None


def ensure(places: Places) -> Engine:
    """Return an engine that answers; start one if there is none."""
    found = find(places)
    if found is not None:
        return found
    host.check_root("start a Docker engine", cause="no engine answers to this user, so the harness has to start one.")
    host.check_disk(places.root)
    # docker.io brings the command line on some releases, docker-cli on others
    host.ensure_programs({p: n for p, n in PACKAGES.items() if p != "docker"}, doing="install the Docker engine")
    host.ensure_programs({"docker": PACKAGES["docker"]}, doing="install the Docker command line")
    with step("Docker engine"):
        _end_leftovers(places)
        _start(places)
    return Engine(own=True, environment=_environment(places))


def stop(places: Places) -> None:
    """Stop the harness's own engine, and end all its leftovers; do nothing if there are none."""
    if not leftovers.processes_of_engine([places.docker, places.run]) and not places.run.exists():
        return
    links = _bridges(places)
    daemon = _daemon(places)
    if daemon is not None:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(daemon)
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            leftovers.wait_for_end([descriptor], STOPS_WITHIN_SECONDS)
    _end_leftovers(places)
    if not _other_engine():
        leftovers.remove_links([*links, "docker0"])
        leftovers.remove_firewall_rules()


def remove_old_images(name: str, kept: int, engine: Engine) -> None:
    """Remove all but the newest images of this name; those that a container uses stay."""
    command = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name]
    listed = attempt(command, environment=engine.environment).stdout.split()
    for reference in listed[kept:]:  # the newest are first
        attempt(["docker", "image", "rm", reference], environment=engine.environment)


def has_containers(places: Places) -> bool:
    """Report if the harness's own engine, which may not be running, still has containers."""
    return any((places.docker / "data" / "containers").glob("*"))


def _start(places: Places) -> None:
    places.docker.mkdir(parents=True, exist_ok=True)
    places.run.mkdir(mode=0o700, exist_ok=True)
    log = places.docker / "dockerd.log"
    command = [
        "dockerd",
        f"--data-root={places.docker / 'data'}",
        f"--exec-root={places.run / 'exec'}",
        f"--pidfile={places.run / 'dockerd.pid'}",
        f"--host=unix://{_socket(places)}",
        f"--mtu={_uplink_mtu()}",
        *_runtime_options(places),
    ]
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True
        )
    deadline = time.monotonic() + ANSWERS_WITHIN_SECONDS
    while not _answers(_environment(places)):
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            raise ClusterError(
                "the Docker engine of the test cluster does not start.",
                cause=tail(log.read_text(errors="replace")),
                advice=f"The whole log is in {log}. An engine of your own is used where `docker info` works.",
            )
        time.sleep(0.1)
    # Outlives this process; if it ends before, this leaves no zombie.
    threading.Thread(target=daemon.wait, daemon=True).start()


def _runtime_options(places: Places) -> list[str]:
    """Let privileged containers do without CAP_SYS_RESOURCE if the kernel withholds it; they would be refused."""
    if host.may_raise_limits():
        return []
    wrapper = places.docker / "runc-without-sys-resource"
    if not wrapper.exists():
        shutil.copy2(HERE / "node" / wrapper.name, places.docker / "wrapper.new")
        (places.docker / "wrapper.new").rename(wrapper)
    return [f"--add-runtime=runc-without-sys-resource={wrapper}", "--default-runtime=runc-without-sys-resource"]


def _uplink_mtu() -> int:
    """Return the MTU of the default route, which the bridges must not exceed (it may be less than 1500)."""
    route = attempt(["ip", "-4", "route", "show", "default"]).stdout.split()
    with suppress(ValueError, IndexError, OSError):  # no default route: nothing to adapt to
        return min(DEFAULT_MTU, int(Path("/sys/class/net", route[route.index("dev") + 1], "mtu").read_text()))
    return DEFAULT_MTU


def _end_leftovers(places: Places) -> None:
    """End everything of an engine that the harness started: processes, mounts and sockets; its data stays."""
    containers = [folder.name for folder in (places.docker / "data" / "containers").glob("*")]
    folders = [places.docker, places.run]
    pids = leftovers.processes_of_engine(folders) | leftovers.processes_of_containers(containers)
    while pids:
        leftovers.kill(pids)
        again = leftovers.processes_of_engine(folders) | leftovers.processes_of_containers(containers)
        if again == pids:
            raise ClusterError(
                f"processes of an earlier Docker engine can't be killed: {sorted(pids)}.",
                cause="they may wait for a disk or a network file system (state D in `ps`).",
                advice="See `ps -fp PID`; restart the machine if they stay.",
            )
        pids = again
    for folder in folders:
        leftovers.unmount_below(folder)
    leftovers.remove_cgroups(containers)
    shutil.rmtree(places.run, ignore_errors=True)


def _bridges(places: Places) -> list[str]:
    """List the links of the engine's networks, which must be running."""
    listed = attempt(
        ["docker", "network", "ls", "--quiet", "--filter", "driver=bridge"],
        environment=_environment(places),
        timeout_seconds=10,
    )
    return [f"br-{network}" for network in listed.stdout.split()]


def _other_engine() -> bool:
    return bool(leftovers.processes_named("dockerd"))


def _daemon(places: Places) -> int | None:
    """Return the process of the harness's dockerd; its pid file may be stale, and the pid another program's by now."""
    try:
        pid = int((places.run / "dockerd.pid").read_text())
        command = Path("/proc", str(pid), "cmdline").read_bytes().decode()
    except (OSError, ValueError):
        return None
    return pid if f"--data-root={places.docker / 'data'}" in command else None


def _socket(places: Places) -> Path:
    return places.run / "docker.sock"


def _environment(places: Places) -> dict[str, str]:
    return {"DOCKER_HOST": f"unix://{_socket(places)}", "DOCKER_CONTEXT": ""}


def _answers(environment: Mapping[str, str]) -> bool:
    asked = attempt(
        ["docker", "version", "--format", "{{.Server.Version}}"], environment=environment, timeout_seconds=10
    )
    return asked.returncode == 0 and bool(asked.stdout.strip())
