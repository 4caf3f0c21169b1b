"""Requirements of the machine, checked before they are needed, and Debian packages for missing programs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.console import step
from tests.cluster.errors import ClusterError
from tests.cluster.process import attempt, describe, run, tail

NEEDED_GIB = 15
OLDEST_GO = (1, 21)  # the first that fetches the toolchain which a go.mod asks for
CAP_SYS_RESOURCE = 24  # linux/capability.h
POLICY = Path("/usr/sbin/policy-rc.d")
WHERE_GO_MAY_LIE = ("/usr/local/go/bin", "/usr/lib/go/bin")


def check_linux() -> None:
    """Refuse a machine without a Linux kernel, which containers need."""
    if platform.system() != "Linux":
        raise ClusterError(
            f"the test cluster runs on Linux, and this is {platform.system()}.",
            cause="its node image and its engine are made for Linux.",
            advice="Run it in a Linux virtual machine, or set the K8SFLOW_ variables for a cluster of your own.",
        )


def check_disk(folder: Path) -> None:
    """Refuse a machine without space for the build caches, the engine's data and the node."""
    while not folder.exists():
        folder = folder.parent
    free_gib = shutil.disk_usage(folder).free / 2**30
    if free_gib < NEEDED_GIB:
        raise ClusterError(
            f"only {free_gib:.1f} GB are free at {folder}, and the test cluster needs {NEEDED_GIB}.",
            cause="the build caches, images and the node's data lie there.",
            advice="Free some space, or set XDG_CACHE_HOME to a folder on a bigger disk.",
        )


def check_root(doing: str, *, cause: str) -> None:
    """Refuse a user who isn't root, for work that only root can do."""
    if os.geteuid() != 0:
        raise ClusterError(
            f"only root can {doing}, and this is user {os.geteuid()}.",
            cause=cause,
            advice="See that `docker info` works as this user and can pull images, or run `make cluster` as root.",
        )


def check_port(port: int, variable: str) -> None:
    """Refuse a machine whose port for the S3 server is in use, before a cluster is created."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ClusterError(
                f"port {port} of 127.0.0.1, where the S3 server is to be reached, can't be used: {error.strerror}.",
                cause="another program listens on it (`ss -ltnp` tells which).",
                advice=f"Stop that program, or set {variable} to a free port.",
            ) from error


def may_raise_limits() -> bool:
    """Report if containers here can be given CAP_SYS_RESOURCE (some virtual machines withhold it)."""
    status = Path("/proc/self/status").read_text()
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bounding is not None and bool(int(bounding[1], 16) >> CAP_SYS_RESOURCE & 1)


def go() -> str:
    """Return the path of a Go command that is new enough to build the pinned modules."""
    found = shutil.which("go") or next((f"{d}/go" for d in WHERE_GO_MAY_LIE if Path(d, "go").exists()), None)
    if found is None and _apt_go_is_new_enough():
        install(["golang-go"], doing="install Go")
        found = shutil.which("go")
    if found is None:
        raise _no_go("there is no Go on this machine, and its package archive has none that is new enough.")
    text = run([found, "version"], doing="ask Go for its version")
    if go_version(text) < OLDEST_GO:
        raise _no_go(f"the Go of this machine is too old: {text.strip()}.")
    return found


def go_version(text: str) -> tuple[int, int]:
    """Return (major, minor) from the output of ``go version`` or a package version; (0, 0) if there is none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _no_go(summary: str) -> ClusterError:
    wanted = ".".join(map(str, OLDEST_GO))
    return ClusterError(
        summary,
        cause=f"the cluster's tools are built from Go modules, by Go {wanted} or newer (which fetches a newer one).",
        advice="Install it from https://go.dev/dl/ to /usr/local/go, or from your distribution's backports.",
    )


def _has_package_lists() -> bool:
    return any(Path("/var/lib/apt/lists").glob("*_Packages*"))


def _apt_go_is_new_enough() -> bool:
    if not _has_package_lists():
        attempt(["apt-get", "-q", "update"], timeout_seconds=300)
    policy = attempt(["apt-cache", "policy", "golang-go"])
    candidate = re.search(r"Candidate: (?:\d+:)?(\S+)", policy.stdout)
    return candidate is not None and go_version(candidate[1]) >= OLDEST_GO


def ensure_programs(packages: dict[str, str], *, doing: str) -> None:
    """Install the Debian package of each program that is missing: ``{program: package}``."""
    missing = sorted({package for program, package in packages.items() if shutil.which(program) is None})
    if missing:
        install(missing, doing=doing)


def install(packages: Iterable[str], *, doing: str) -> None:
    """Install Debian packages, without starting the services that come with them."""
    names = list(packages)
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"can't {doing}: {', '.join(names)} is missing, and there is no apt-get to install it with.",
            cause="the harness sets itself up on Debian and its kin; other systems have to be set up by hand.",
            advice="Install what is missing, or start a Docker engine, and run `make cluster` again.",
        )
    check_root(doing, cause=f"{', '.join(names)} is missing, and has to be installed.")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-q", "-y"]
    command = [*apt, "install", "--no-install-recommends", *names]
    with step(f"Debian packages {', '.join(names)}"), _services_not_started():
        attempt(["dpkg", "--configure", "-a"], environment=quiet, timeout_seconds=300)  # after an interrupted install
        if _has_package_lists():
            first = attempt(command, environment=quiet, timeout_seconds=900)
            if first.returncode == 0:
                return
        attempt([*apt, "update"], timeout_seconds=300)  # a part of the archive may fail
        done = attempt(command, environment=quiet, timeout_seconds=900)
    if done.returncode != 0:
        raise ClusterError(
            f"can't {doing}: {describe(command, done)}",
            cause=tail(done.stderr or done.stdout),
            advice="See that `apt-get update` works; or start a Docker engine yourself, which the harness will use.",
        )


@contextmanager
def _services_not_started() -> Iterator[None]:
    """Keep packages from starting their daemons (policy-rc.d, Debian policy 9.3.3): the harness starts its own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
