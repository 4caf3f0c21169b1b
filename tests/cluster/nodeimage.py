"""The node image: kindest/node if it can be pulled; otherwise one of Debian packages and Go modules.

The built one contains the same as kindest/node: systemd, containerd and runc, kubelet and kubeadm, and in containerd's
store the images of the control plane. It differs in two ways: it also starts on hosts with cgroup v1, and where
the kernel withholds CAP_SYS_RESOURCE.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import textwrap
from pathlib import Path

from tests.cluster import programs, rootfs
from tests.cluster.console import say, step
from tests.cluster.engine import Engine, remove_old_images
from tests.cluster.oci import Image, Link, write_layout
from tests.cluster.places import HERE, Places, files_below, key_of, key_of_files, new_folder
from tests.cluster.process import attempt, run

PULLED = f"kindest/node:{programs.KUBERNETES_VERSION}"
NAME = "k8sflow-test/node"
CNI_IMAGE = "localhost/k8sflow-test/cni:1"
REGISTRY_ANSWERS_WITHIN_SECONDS = 15.0
RECIPE = 1  # changes when the functions below build something else from the same files
FILES = HERE / "node" / "files"
ROOTFS = rootfs.Rootfs(
    "node",
    (
        *("systemd", "containerd", "runc", "containernetworking-plugins"),
        *("iptables", "nftables", "conntrack", "iproute2", "ethtool", "socat"),
        *("mount", "kmod", "procps", "jq", "util-linux", "ca-certificates", "curl", "busybox-static"),
    ),
)
UNUSED_CNI_PLUGINS = (
    *("dhcp", "ipvlan", "macvlan", "vlan", "vrf", "sbr", "bandwidth", "firewall", "host-device", "tuning", "static"),
)
# The default target is reached as soon as containerd answers; a container doesn't need what manages hardware.
MASKED_UNITS = (
    *("systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-control.socket"),
    *("systemd-udevd-kernel.socket", "systemd-logind.service", "systemd-resolved.service"),
    *("systemd-timesyncd.service", "systemd-networkd.service", "systemd-binfmt.service"),
    *("systemd-tmpfiles-setup.service", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-clean.timer"),
    *("systemd-modules-load.service", "systemd-hwdb-update.service", "systemd-remount-fs.service"),
    *("systemd-random-seed.service", "systemd-update-utmp.service", "systemd-journal-flush.service"),
    *("systemd-firstboot.service", "dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount"),
    *("getty.target", "console-getty.service", "apt-daily.timer", "apt-daily-upgrade.timer"),
    *("dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "nftables.service"),
)
ENABLED_UNITS = ("containerd", "kubelet", "node-booted")
BUILDS = (programs.KUBERNETES, programs.ETCD, programs.COREDNS, programs.NODE_TOOLS)


def built_name() -> str:
    """Return the name of the image that this checkout would build."""
    settings = (MASKED_UNITS, ENABLED_UNITS, UNUSED_CNI_PLUGINS, CNI_IMAGE, RECIPE)
    files = key_of_files(files_below(FILES), FILES, repr(settings))
    return f"{NAME}:{key_of(files, ROOTFS.key(), *(build.key() for build in BUILDS))}"


def find(engine: Engine) -> str | None:
    """Return the node image that the engine has already."""
    for name in (PULLED, built_name()):
        if attempt(["docker", "image", "inspect", name], environment=engine.environment).returncode == 0:
            return name
    return None


def ensure(engine: Engine, places: Places) -> str:
    """Return the name of a node image that the engine has: found, pulled or built."""
    found = find(engine)
    if found is not None:
        return found
    if pull(PULLED, engine):
        return PULLED
    say(f"{PULLED} can't be pulled here: building a node image from Go modules and Debian packages (once, kept)")
    folders = {build.name: programs.ensure(build, places) for build in BUILDS}
    tarball = rootfs.ensure(ROOTFS, places)
    with new_folder(places, "node") as work, step("node image") as progress:
        root = work / "root"
        root.mkdir()
        rootfs.unpack(tarball, root)
        references = _references(folders["kubernetes"])
        progress.detail = "configuration"
        _configure(root, folders["kubernetes"], references["pause"])
        progress.detail = "images of the control plane"
        write_layout(_images(root, folders, references), work / "layout")
        progress.detail = "unpacking them"
        _preload(root, work / "layout")
        progress.detail = "docker import"
        _import(root, built_name(), engine)
    remove_old_images(NAME, 1, engine)
    return built_name()


def pull(name: str, engine: Engine) -> bool:
    """Report if the engine could pull an image; give up soon if the registry does not answer."""
    with step(f"pulling {name}") as progress:
        process = subprocess.Popen(
            ["docker", "pull", name],
            env={**os.environ, **engine.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        output = process.stdout
        assert output is not None  # it is a pipe
        try:
            # its first line comes once the registry has answered with the manifest
            ready, _, _ = select.select([output], [], [], REGISTRY_ANSWERS_WITHIN_SECONDS)
            if not ready:
                return False
            for line in output:
                progress.detail = line.decode(errors="replace").strip()
            return process.wait() == 0
        finally:
            process.kill()
            process.wait()
            output.close()


def _references(kubernetes: Path) -> dict[str, str]:
    """Return the full names of the control plane's images as kubeadm requests them, by the last part of their path."""
    listed = run(
        [kubernetes / "kubeadm", "config", "images", "list", "--kubernetes-version", programs.KUBERNETES_VERSION],
        doing="ask kubeadm for its images",
    )
    return {re.split("[/:]", reference)[-2]: reference for reference in listed.split()}


def _configure(root: Path, kubernetes: Path, pause_image: str) -> None:
    """Copy the programs and everything below node/files/ into the root file system."""
    for name in ("kubeadm", "kubelet", "kubectl"):
        shutil.copy2(kubernetes / name, root / "usr/bin" / name)
    for name in UNUSED_CNI_PLUGINS:
        (root / "usr/lib/cni" / name).unlink(missing_ok=True)
    for folder in ("opt/cni", "etc/cni/net.d", "etc/kubernetes/manifests", "kind"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "opt/cni/bin").symlink_to("/usr/lib/cni")
    (root / "kind/version").write_text(programs.KUBERNETES_VERSION)
    values = {"@PAUSE_IMAGE@": pause_image, "@CNI_IMAGE@": CNI_IMAGE}
    for file in files_below(FILES):
        text, target = file.read_text(), root / file.relative_to(FILES)
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
    _set_units(root / "etc/systemd/system")
    # The default container spec caps open files at 1024; without a cap they inherit the host's.
    spec = run(["chroot", root, "sh", "-c", "ctr oci spec | jq 'del(.process.rlimits)'"], doing="make a container spec")
    (root / "etc/containerd/base-spec.json").write_text(spec)


def _set_units(units: Path) -> None:
    for folder in units.glob("*.wants"):
        shutil.rmtree(folder)
    for name in MASKED_UNITS:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    wants = units / "multi-user.target.wants"
    wants.mkdir()
    for name in ENABLED_UNITS:
        (wants / f"{name}.service").symlink_to(f"/etc/systemd/system/{name}.service")


def _images(root: Path, folders: dict[str, Path], references: dict[str, str]) -> list[Image]:
    """Return the images that a node needs before it can pull any."""
    kubernetes, tools = folders["kubernetes"], folders["node-tools"]
    network = _network_tools(root)
    control_plane = {
        name: {f"usr/local/bin/{name}": kubernetes / name, "tmp": None, "etc": None}
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    }
    return [
        *(Image(references[name], files) for name, files in control_plane.items()),
        Image(references["kube-proxy"], {**network, "usr/local/bin/kube-proxy": kubernetes / "kube-proxy"}),
        Image(references["etcd"], {"usr/local/bin/etcd": folders["etcd"] / "server", "tmp": None, "etc": None}),
        Image(references["coredns"], {"coredns": folders["coredns"] / "coredns"}, ["/coredns"]),
        Image(references["pause"], {"pause": tools / "pause"}, ["/pause"]),
        Image(CNI_IMAGE, {**network, "usr/local/bin/cni": tools / "cni"}),
    ]


def _network_tools(root: Path) -> dict[str, Path | Link | None]:
    """Copy iptables, conntrack, nft, ip and a shell, with every library that they load.

    All of iptables' extensions go in with *their* libraries: libxt_statistic, which kube-proxy's rules use, needs libm,
    and without it no Service works while the control plane looks healthy.
    """
    found = [str(path.relative_to(root)) for path in root.glob("usr/lib/*/xtables/*.so")]
    found += ["usr/sbin/xtables-nft-multi", "usr/sbin/conntrack", "usr/sbin/nft", "usr/bin/busybox"]
    # (ldd fails for busybox among them, which is static and needs nothing)
    loaded = attempt(["chroot", root, "ldd", *(f"/{name}" for name in found)]).stdout
    libraries = {name.lstrip("/") for name in re.findall(r"(/\S+\.so\S*) \(0x", loaded)}
    files: dict[str, Path | Link | None] = {name: root / name for name in found}
    for name in libraries:
        # the folders of a merged-/usr system: /lib is a link to /usr/lib
        files[name if name.startswith("usr/") else f"usr/{name}"] = Path(os.path.realpath(root / name))
    files |= {name: Link(f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")}
    programs_of = {"xtables-nft-multi": ("iptables", "ip6tables"), "../bin/busybox": ()}
    for name in programs_of["xtables-nft-multi"]:
        files |= {f"usr/sbin/{name}{suffix}": Link("xtables-nft-multi") for suffix in ("", "-save", "-restore")}
    files |= {f"usr/bin/{name}": Link("busybox") for name in ("sh", "ip", "cat", "ls")}
    return files | {"usr/lib64": None, "run": None, "tmp": None, "etc": None}


def _preload(root: Path, layout: Path) -> None:
    """Unpack the images into the store of the rootfs's own containerd, run in a chroot with its own namespaces."""
    shutil.rmtree(root / "var/lib/containerd", ignore_errors=True)
    images = root / "layout.tar"
    run(["tar", "-C", layout, "-cf", images, "."], doing="pack the control plane's images")
    script = """
        mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mount -t devtmpfs dev /dev 2>/dev/null
        printf 'version = 2\\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\\n' >/run/config.toml
        containerd --config /run/config.toml >/run/log 2>&1 &
        for _ in $(seq 200); do ctr version >/dev/null 2>&1 && break || sleep 0.1; done
        ctr --namespace k8s.io images import --snapshotter overlayfs /layout.tar >/run/import 2>&1 ||
            { tail -n 5 /run/log /run/import >&2; exit 1; }
    """
    run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", root, "sh", "-c", script],
        doing="unpack the control plane's images",
        advice="The cache folder must lie on a disk whose file system overlayfs can use (ext4, xfs).",
    )
    images.unlink()
    shutil.rmtree(root / "run", ignore_errors=True)
    (root / "run").mkdir()


def _import(root: Path, name: str, engine: Engine) -> None:
    """Pass the root file system to the engine, with the commands that start and stop systemd."""
    layer = f"{name}-rootfs"
    tar = subprocess.Popen(["tar", "-C", root, "--numeric-owner", "-cf", "-", "."], stdout=subprocess.PIPE)
    try:
        advice = "See that the engine has disk space left (`docker system df`)."
        run(
            ["docker", "import", "-", layer],
            doing="import the node image",
            advice=advice,
            environment=engine.environment,
            stdin=tar.stdout,
        )
    finally:
        tar.kill()
        tar.wait()
        if tar.stdout is not None:
            tar.stdout.close()
    dockerfile = f"""
        FROM {layer}
        ENV container=docker
        STOPSIGNAL SIGRTMIN+3
        ENTRYPOINT ["/usr/local/bin/entrypoint"]
    """
    run(
        ["docker", "build", "--quiet", "--tag", name, "-"],
        doing="describe the node image",
        environment={**engine.environment, "DOCKER_BUILDKIT": "0"},
        stdin=textwrap.dedent(dockerfile),
    )
    attempt(["docker", "image", "rm", layer], environment=engine.environment)  # its layer stays, in the image
