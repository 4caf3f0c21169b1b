"""Images from the engine into the node: only the layers that the node does not have yet are copied.

``kind load docker-image`` sends every layer every time. A changed checkout changes some megabytes of the k8sflow image,
so the image is rewritten to an OCI layout without the layers that containerd's content store has already.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from tests.cluster.console import step
from tests.cluster.errors import ClusterError
from tests.cluster.kind import NODE, Kind
from tests.cluster.oci import OCI, architecture
from tests.cluster.places import Places, new_folder
from tests.cluster.process import attempt, run, tail

CTR = ("ctr", "--namespace", "k8s.io")
GZIP_MAGIC = b"\x1f\x8b"


def full_name(reference: str) -> str:
    """Return containerd's name of an image of docker: docker omits ``docker.io/library/``."""
    first, _, rest = reference.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference}" if rest else f"docker.io/library/{reference}"


def loaded(kind: Kind) -> set[str]:
    """List the full names of the images in the node."""
    return set(kind.in_node(*CTR, "images", "list", "--quiet", doing="list the node's images").split())


def load(references: Iterable[str], kind: Kind, places: Places) -> None:
    """Copy images of the engine into the node; those whose name exists already stay as they are."""
    there = loaded(kind)
    missing = [reference for reference in references if full_name(reference) not in there]
    if not missing:
        return
    with step(f"loading {', '.join(missing)}") as progress, new_folder(places, "load") as work:
        saved, layout = work / "images.tar", work / "layout.tar"
        run(["docker", "save", "--output", saved, *missing], doing="save images", environment=kind.environment)
        with tarfile.open(saved) as source, layout.open("wb") as target:
            sent = rewrite(source, target, _content(kind))
        progress.detail = f"{sent / 2**20:.0f} MB"
        command = ["docker", "exec", "--interactive", NODE, *CTR, "images", "import", "--snapshotter=overlayfs", "-"]
        with layout.open("rb") as stream:
            done = attempt(command, environment=kind.environment, stdin=stream, timeout_seconds=300)
    if done.returncode != 0:
        raise ClusterError(
            f"can't load {', '.join(missing)} into the node.",
            cause=tail(done.stderr),
            advice="If the disk is full, free some space; `make cluster-down cluster` creates the node again.",
        )


def rewrite(source: tarfile.TarFile, target: IO[bytes], known: set[str]) -> int:
    """Write the output of ``docker save`` as an OCI layout without the ``known`` blobs; return the bytes written.

    Args:
        source: Archive with a ``manifest.json``, as every version of docker writes.
        target: Where the layout goes, a tar file.
        known: Digests (``sha256:...``) of blobs that need not be copied.
    """
    with tarfile.open(fileobj=target, mode="w") as tar:
        writer = _Layout(source, tar, set(known))
        manifests = [writer.add_image(entry) for entry in json.load(_member(source, "manifest.json"))]
        for name, content in (
            ("index.json", {"schemaVersion": 2, "manifests": manifests}),
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ):
            data = json.dumps(content).encode()
            _add(tar, name, io.BytesIO(data), len(data))
    return writer.sent


@dataclass
class _Layout:
    """An OCI layout that is being written; several images may share layers."""

    source: tarfile.TarFile
    tar: tarfile.TarFile
    known: set[str]
    sent: int = 0

    def add_image(self, entry: Mapping[str, Any]) -> dict[str, object]:
        """Add an image of ``manifest.json``; return its entry in the index."""
        config = _member(self.source, entry["Config"]).read()
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": _add_blob(self.tar, config, f"{OCI}.config.v1+json"),
            "layers": [self._add_layer(*layer) for layer in zip(entry["Layers"], diff_ids, strict=True)],
        }
        return {
            **_add_blob(self.tar, json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json"),
            "annotations": {"io.containerd.image.name": full_name(entry["RepoTags"][0])},
            "platform": {"architecture": architecture(), "os": "linux"},
        }

    def _add_layer(self, name: str, diff_id: str) -> dict[str, object]:
        content = _member(self.source, name)  # (follows the links by which docker names a layer a second time)
        packed = content.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        size = content.seek(0, io.SEEK_END)
        content.seek(0)
        # the digest of a layer that is not compressed is its diff id
        digest = _digest(content) if packed else diff_id
        if digest not in self.known:
            self.known.add(digest)
            self.sent += size
            content.seek(0)
            _add(self.tar, _blob_path(digest), content, size)
        return {"mediaType": f"{OCI}.layer.v1.{'tar+gzip' if packed else 'tar'}", "digest": digest, "size": size}


def _content(kind: Kind) -> set[str]:
    """List the digests in the node's content store; none if its containerd would insist on getting every blob."""
    version = kind.in_node("containerd", "--version", doing="ask for the version of the node's containerd")
    if " 1." not in version and " v1." not in version:  # 2.x imports by its transfer service
        return set()
    return set(kind.in_node(*CTR, "content", "list", "--quiet", doing="list the node's image content").split())


def _member(source: tarfile.TarFile, name: str) -> IO[bytes]:
    content = source.extractfile(name)
    if content is None:  # a folder or a device: docker writes none
        raise ClusterError(f"the archive of an image has no file {name}.", cause="this docker writes another format.")
    return content


def _digest(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := content.read(1 << 20):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add_blob(tar: tarfile.TarFile, data: bytes, media_type: str) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _add(tar, _blob_path(digest), io.BytesIO(data), len(data))
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    tar.addfile(info, content)
