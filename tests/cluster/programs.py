"""Programs built from Go modules: each pinned by a go.mod and go.sum in tools/, built once, and kept."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import host
from tests.cluster.console import Step, step
from tests.cluster.errors import ClusterError
from tests.cluster.locks import held
from tests.cluster.places import HERE, Places, key_of_files, new_folder
from tests.cluster.process import attempt, run, tail

TOOLS = HERE / "tools"
KUBERNETES_VERSION = "v1.34.3"
KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
)


@dataclass(frozen=True)
class Build:
    """Programs that are built in one go.

    Args:
        name: Their name in the cache, and in messages.
        module: Folder in tools/ that pins the versions.
        packages: Packages to build; a program is named after the last part of its package.
        variables: Values set in packages by the linker.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    def key(self) -> str:
        """Return a key that changes with everything that the programs depend on."""
        folder = TOOLS / self.module
        files = [file for pattern in ("go.mod", "go.sum", "*.go") for file in folder.glob(pattern)]
        return key_of_files(files, folder, platform.machine(), *self.packages, repr(self.variables))

    def folder(self, places: Places) -> Path:
        """Return the folder of the programs, which may not be built yet."""
        return places.programs / f"{self.name}-{self.key()}"


def _kubernetes_version() -> tuple[tuple[str, str], ...]:
    """Return the variables of Kubernetes' own build, as `kubectl version` shows them (hack/lib/version.sh)."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = {"gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple((f"{package}.{name}", value) for package in packages for name, value in values.items())


def _kubernetes(name: str, programs: Iterable[str]) -> Build:
    packages = tuple(f"k8s.io/kubernetes/cmd/{program}" for program in programs)
    return Build(name, "kubernetes", packages, _kubernetes_version())


KUBERNETES = _kubernetes("kubernetes", KUBERNETES_PROGRAMS)
KUBECTL = _kubernetes("kubectl", ["kubectl"])
ETCD = Build("etcd", "etcd", ("go.etcd.io/etcd/server/v3",))
COREDNS = Build("coredns", "coredns", (".",))
NODE_TOOLS = Build("node-tools", "node", ("./cni", "./pause"))
KIND = Build("kind", ".", ("sigs.k8s.io/kind",))
HELM = Build("helm", ".", ("helm.sh/helm/v3/cmd/helm",))
KWOK = Build("kwok", ".", ("sigs.k8s.io/kwok/cmd/kwok",))
KUEUE = Build("kueue", "kueue", ("sigs.k8s.io/kueue/cmd/kueue",))
VERSITYGW = Build("versitygw", ".", ("github.com/versity/versitygw/cmd/versitygw",))
FAKE_GCS_SERVER = Build("fake-gcs-server", "gcs", ("github.com/fsouza/fake-gcs-server",))


def ensure(build: Build, places: Places) -> Path:
    """Return the folder of the programs; build them if necessary."""
    folder = build.folder(places)
    if not folder.exists():
        with held(places.programs / f".{build.name}.lock", f"builds {build.name}"):
            if not folder.exists():  # two processes of the tests may need it at once
                _build(build, places, folder)
    return folder


def _build(build: Build, places: Places, folder: Path) -> None:
    go = host.go()
    host.check_disk(places.root)
    with new_folder(places, build.name) as new, step(f"building {build.name}") as progress:
        _compile(go, build, new, progress)
        new.rename(folder)


def _compile(go: str, build: Build, folder: Path, progress: Step) -> None:
    """Build into ``folder``; `go build -v` names each package that it compiles, which is the progress shown."""
    module, environment = TOOLS / build.module, _environment()
    run(
        [go, "mod", "download"],
        doing=f"fetch the modules of {build.name}",
        advice="Go takes them from GOPROXY; see that `go mod download` works in a module of your own.",
        environment=environment,
        folder=module,
        timeout_seconds=1800,
    )
    total = len(_stale_packages(go, build, environment))
    flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in build.variables)])
    command = [go, "build", "-v", f"-ldflags={flags}", "-o", f"{folder}/", *build.packages]
    said = []
    with subprocess.Popen(
        command,
        cwd=module,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            for line in process.stderr or ():
                said.append(line)
                progress.detail = f"{len(said)} of {max(total, len(said))} packages"
        except BaseException:  # Ctrl-C: end the build too
            process.kill()
            raise
    if process.returncode != 0:
        raise ClusterError(
            f"can't build {build.name}: `go build` ended with exit code {process.returncode}.",
            cause=tail("".join(said)),
            advice="Run `make cluster` again; what was built is kept. If it was killed, memory may have run out.",
        )


def _stale_packages(go: str, build: Build, environment: dict[str, str]) -> list[str]:
    """List the packages that have to be compiled first."""
    template = "{{if .Stale}}{{.ImportPath}}{{end}}"
    listed = attempt(
        [go, "list", "-deps", "-f", template, *build.packages],
        environment=environment,
        folder=TOOLS / build.module,
        timeout_seconds=300,
    )
    return listed.stdout.split()


def _environment() -> dict[str, str]:
    """Return the build's variables: static programs, no paths of this machine inside, only the pinned versions."""
    return {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -trimpath -mod=readonly", "GOWORK": "off"}
