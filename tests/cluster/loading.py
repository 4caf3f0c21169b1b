"""Images from the engine into the node: only the layers that the node does not have yet travel.

``kind load docker-image`` sends every layer every time. A changed checkout changes some megabytes of the k8sflow image,
so the image is rewritten to an OCI layout without the layers that containerd's content store has already.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from typing import IO

from tests.cluster.console import step
from tests.cluster.errors import ClusterError
from tests.cluster.kind import NODE, Kind
from tests.cluster.oci import OCI, architecture
from tests.cluster.places import Places, new_folder
from tests.cluster.process import attempt, run, tail

CTR = ("ctr", "--namespace", "k8s.io")
GZIP_MAGIC = b"\x1f\x8b"


def full_name(reference: str) -> str:
    """The name under which containerd knows an image of docker: ``docker.io/library/`` is what docker leaves out."""
    first, _, rest = reference.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference}" if rest else f"docker.io/library/{reference}"


def loaded(kind: Kind) -> set[str]:
    """Full names of the images in the node."""
    return set(kind.in_node(*CTR, "images", "list", "--quiet", doing="list the node's images").split())


def load(references: Iterable[str], kind: Kind, places: Places) -> None:
    """Bring images of the engine into the node; those whose name is there already stay as they are."""
    there = loaded(kind)
    for reference in references:
        if full_name(reference) not in there:
            _load(reference, kind, places)


def _load(reference: str, kind: Kind, places: Places) -> None:
    with step(f"loading {reference}") as progress, new_folder(places, "load") as work:
        saved = work / "image.tar"
        run(
            ["docker", "save", "--output", saved, reference],
            doing=f"save the image {reference}",
            environment=kind.environment,
        )
        layout = work / "layout.tar"
        with tarfile.open(saved) as source, layout.open("wb") as target:
            sent = rewrite(source, target, full_name(reference), _content(kind))
        progress.detail = f"{sent / 2**20:.0f} MB"
        command = ["docker", "exec", "--interactive", NODE, *CTR, "images", "import", "--snapshotter=overlayfs", "-"]
        with layout.open("rb") as stream:
            done = attempt(command, environment=kind.environment, stdin=stream, timeout_seconds=300)
    if done.returncode != 0:
        raise ClusterError(
            f"can't load the image {reference} into the node.",
            cause=tail(done.stderr),
            advice="If the disk is full, free some space; `make cluster-down cluster` makes the node anew.",
        )


def rewrite(source: tarfile.TarFile, target: IO[bytes], name: str, known: set[str]) -> int:
    """Write what ``docker save`` wrote as an OCI layout without the blobs that are ``known``; bytes of layers written.

    Args:
        source: Archive with a ``manifest.json``, as every version of docker writes.
        target: Where the layout goes, a tar file.
        name: Full name of the image.
        known: Digests (``sha256:...``) of blobs that need not travel.
    """
    entry = json.load(_member(source, "manifest.json"))[0]
    config = _member(source, entry["Config"]).read()
    layers, sent = [], 0
    with tarfile.open(fileobj=target, mode="w") as tar:
        for layer, diff_id in zip(entry["Layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True):
            size = source.getmember(layer).size
            packed = _member(source, layer).read(len(GZIP_MAGIC)) == GZIP_MAGIC
            # a layer that is not compressed is what its diff id is the digest of
            digest = _digest(_member(source, layer)) if packed else diff_id
            media_type = f"{OCI}.layer.v1.{'tar+gzip' if packed else 'tar'}"
            layers.append({"mediaType": media_type, "digest": digest, "size": size})
            if digest not in known:
                known = known | {digest}
                sent += size
                _add(tar, _blob_path(digest), _member(source, layer), size)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": _add_blob(tar, config, f"{OCI}.config.v1+json"),
                "layers": layers,
            }
        ).encode()
        index = {
            **_add_blob(tar, manifest, f"{OCI}.manifest.v1+json"),
            "annotations": {"io.containerd.image.name": name},
            "platform": {"architecture": architecture(), "os": "linux"},
        }
        for file, content in (
            ("index.json", {"schemaVersion": 2, "manifests": [index]}),
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ):
            data = json.dumps(content).encode()
            _add(tar, file, io.BytesIO(data), len(data))
    return sent


def _content(kind: Kind) -> set[str]:
    """Digests in the node's content store; none where its containerd would insist on getting every blob."""
    version = kind.in_node("containerd", "--version", doing="ask for the version of the node's containerd")
    if " 1." not in version and " v1." not in version:  # 2.x imports by its transfer service
        return set()
    return set(kind.in_node(*CTR, "content", "list", "--quiet", doing="list the node's image content").split())


def _member(source: tarfile.TarFile, name: str) -> IO[bytes]:
    content = source.extractfile(name)
    if content is None:  # a folder or a device: not what docker writes
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
