"""Debian root file systems, created by debootstrap from the mirror of this machine's apt, and kept as tar files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import host
from tests.cluster.console import step
from tests.cluster.errors import ClusterError
from tests.cluster.places import Places, key_of, new_folder
from tests.cluster.process import attempt, run, tail

SUITE = "bookworm"  # the last whose systemd starts on cgroup v1
DEFAULT_MIRROR = "http://deb.debian.org/debian"
SUPERFLUOUS = (
    "var/cache/apt/*",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/lintian/*",
    "usr/share/bug/*",
)


@dataclass(frozen=True)
class Rootfs:
    """A minimal Debian with these packages."""

    name: str
    packages: tuple[str, ...]

    def key(self) -> str:
        """Return a key that changes with the packages; a mirror's newer versions of them don't change it."""
        return key_of(SUITE, *self.packages, *SUPERFLUOUS)

    def tarball(self, places: Places) -> Path:
        """Return the path of the tar file."""
        return places.rootfs / f"{self.name}-{self.key()}.tar"


def ensure(rootfs: Rootfs, places: Places) -> Path:
    """Return the tar file of the root file system; create it if necessary."""
    tarball = rootfs.tarball(places)
    if not tarball.exists():
        host.check_root("run debootstrap", cause="images that can't be pulled here are made of Debian packages.")
        host.check_disk(places.root)
        host.ensure_programs({"debootstrap": "debootstrap"}, doing="install debootstrap")
        with new_folder(places, rootfs.name) as work, step(f"Debian packages for {rootfs.name}") as progress:
            made = _bootstrap(rootfs, work, progress_of=lambda text: setattr(progress, "detail", text))
            tarball.parent.mkdir(parents=True, exist_ok=True)
            made.rename(tarball)
    return tarball


def unpack(tarball: Path, folder: Path) -> None:
    """Unpack a root file system, keeping owners and modes."""
    run(
        ["tar", "-C", folder, "--numeric-owner", "-xpf", tarball],
        doing=f"unpack {tarball.name}",
        advice=f"If the file is damaged, delete {tarball}: it is created again.",
    )


def mirror() -> str:
    """Return the Debian mirror of this machine's apt."""
    listed = attempt(["apt-get", "indextargets", "--format", "$(SITE)", "Origin: Debian", "Label: Debian"])
    return next(iter(listed.stdout.split()), DEFAULT_MIRROR)


def _bootstrap(rootfs: Rootfs, work: Path, progress_of: Callable[[str], None]) -> Path:
    root, site = work / "root", mirror()
    root.mkdir()
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(rootfs.packages)}", SUITE, str(root), site]
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                said.append(line)
                progress_of(line.removeprefix("I: ").strip()[:60])
        except BaseException:  # Ctrl-C: end the program too
            process.kill()
            raise
    if process.returncode != 0:
        raise ClusterError(
            f"debootstrap can't make a Debian {SUITE} from {site}.",
            cause=tail("".join(said)),
            advice=f"See that `apt-get update` works, and that the mirror carries {SUITE}; then run this again.",
        )
    for pattern in SUPERFLUOUS:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    tarball = work / "root.tar"
    run(["tar", "-C", root, "--numeric-owner", "-cf", tarball, "."], doing="pack a root file system")
    return tarball
