"""Build and check what is released: `make release`, or `make release VERSION=0.2.0` to set the version first.

The wheel, the sdist and the chart are written to dist/; the image is built in the local Docker engine. Nothing is
published, tagged or committed: docs/releasing.md has the steps that follow.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import engine as engines
from tests.cluster import images, programs
from tests.cluster.places import Places
from tools import version

CHECKOUT = version.CHECKOUT
DIST = CHECKOUT / "dist"
CHART = CHECKOUT / "charts" / "k8sflow"
OLDEST_KUBERNETES = "1.29.0"  # kubeVersion of the chart


class ReleaseError(Exception):
    """Something built is not fit for a release."""


def run(*command: str | Path, cwd: Path = CHECKOUT, environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output.

    Raises:
        ReleaseError: It failed; its output is in the message.
    """
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def prepare(new: str, helm: Path) -> None:
    """Set the version, write the changelog's section and render the manifests."""
    version.put(new)
    run(sys.executable, "-m", "towncrier", "build", "--yes", "--version", new)
    render(helm)


def render(helm: Path) -> None:
    """Write manifests/install.yaml from the chart."""
    path = f"{helm.parent}:/usr/local/bin:/usr/bin:/bin"
    rendered = run(CHECKOUT / "manifests" / "render", environment={"PATH": path})
    (CHECKOUT / "manifests" / "install.yaml").write_text(rendered)


def build_packages(work: Path) -> tuple[Path, Path]:
    """Build sdist and wheel into dist/.

    Raises:
        ReleaseError: The wheel built from the sdist differs from the one built from the checkout.
    """
    run(sys.executable, "-m", "build", "--outdir", DIST)  # the sdist, and from it the wheel
    run(sys.executable, "-m", "build", "--wheel", "--outdir", work)
    [sdist], [wheel], [direct] = DIST.glob("*.tar.gz"), DIST.glob("*.whl"), work.glob("*.whl")
    if wheel.read_bytes() != direct.read_bytes():
        raise ReleaseError(f"{wheel.name} built from the sdist differs from the one built from the checkout.")
    check_sdist(sdist)
    return sdist, wheel


def check_sdist(sdist: Path) -> None:
    """Check that the sdist has every tracked file, and no other one.

    Raises:
        ReleaseError: A file is missing, or one that is not tracked is in it.
    """
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if not member.isdir()} - {"PKG-INFO"}
    tracked = {name for name in run("git", "ls-files").splitlines() if (CHECKOUT / name).exists()}
    if packed != tracked:
        raise ReleaseError(f"{sdist.name} differs from the tracked files: {sorted(packed ^ tracked)}")


def check_wheel(wheel: Path, work: Path) -> None:
    """Install the wheel in a new environment, and run a flow there.

    Raises:
        ReleaseError: The version is another one, or the flow didn't run.
    """
    environment = work / "venv"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    said = run(environment / "bin" / "k8sflow", "version", cwd=work)
    if said != f"k8sflow {version.current()}\n":
        raise ReleaseError(f"the installed command says {said!r}, not version {version.current()}.")
    flow = shutil.copy(CHECKOUT / "examples" / "branches.py", work / "branches.py")
    run(python, flow, "run", cwd=work)


def build_chart(helm: Path) -> Path:
    """Check the chart and package it into dist/.

    Raises:
        ReleaseError: helm finds a fault, or manifests/install.yaml is not what the chart renders.
    """
    run(helm, "lint", "--strict", CHART)
    before = (CHECKOUT / "manifests" / "install.yaml").read_text()
    render(helm)
    if (CHECKOUT / "manifests" / "install.yaml").read_text() != before:
        raise ReleaseError("manifests/install.yaml was out of date with the chart; it is rendered now: commit it.")
    several = ("--set", "watchNamespaces={team-a,team-b}", "--kube-version", OLDEST_KUBERNETES)
    run(helm, "template", "k8sflow", CHART, *several)
    run(helm, "package", CHART, "--destination", DIST)
    return DIST / f"k8sflow-{version.current()}.tgz"


def build_image(places: Places) -> str:
    """Build the k8sflow image as the test cluster does, tag it with the version, and run its command.

    Raises:
        ReleaseError: The image's command says another version.
    """
    engine = engines.ensure(places)
    base = images.ensure(images.python(images.ensure_python_base(engine, places)), engine)
    built = images.ensure(images.k8sflow(base), engine)
    name = f"k8sflow:{version.current()}"
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **engine.environment}
    run("docker", "tag", built, name, environment=environment)
    command = ("docker", "run", "--rm", "--network=none", name, "/opt/venv/bin/k8sflow", "version")
    said = run(*command, environment=environment)
    if said != f"k8sflow {version.current()}\n":
        raise ReleaseError(f"the image {name} says {said!r}, not version {version.current()}.")
    return name


def find_helm(places: Places) -> Path:
    """Return helm: the one on the PATH, else the test cluster's."""
    found = shutil.which("helm")
    return Path(found) if found else programs.ensure(programs.HELM, places) / "helm"


def release(new: str | None) -> None:
    """Do everything, and print what was built."""
    places = Places.of_user()
    helm = find_helm(places)
    if new:
        prepare(new, helm)
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="k8sflow-release-") as work:
        sdist, wheel = build_packages(Path(work))
        print(f"sdist  {sdist.relative_to(CHECKOUT)}: every tracked file, and builds the same wheel")
        check_wheel(wheel, Path(work))
        print(f"wheel  {wheel.relative_to(CHECKOUT)}: installs into a new environment, and runs a flow")
    print(f"chart  {build_chart(helm).relative_to(CHECKOUT)}: passes helm lint and helm template")
    print(f"image  {build_image(places)}: says its version")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description="Build and check a release.")
    parser.add_argument("--version", help="set this version first, and write the changelog's section")
    new = parser.parse_args().version
    if new and not version.VALID.fullmatch(new):
        parser.error(f"{new!r} is not a version such as 1.2.3")
    try:
        release(new)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
