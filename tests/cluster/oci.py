"""Container images without an engine: an OCI layout of one-layer images, as containerd imports it.

The layout is described at https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

OCI = "application/vnd.oci.image"
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = 0  # every file's time: the same content gives the same image


@dataclass(frozen=True)
class Link:
    """A symbolic link in an image."""

    target: str


@dataclass(frozen=True)
class Image:
    """An image of one layer.

    Args:
        reference: Its full name, with registry and tag.
        files: Content: path in the image to a file here, a link, or None for an empty folder.
        entrypoint: The program that it runs, unless pods name another.
    """

    reference: str
    files: Mapping[str, Path | Link | None]
    entrypoint: Sequence[str] = ()


def architecture() -> str:
    """Return this machine's name in Go and in image manifests."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def write_layout(images: Sequence[Image], folder: Path) -> None:
    """Write all images to ``folder``; layers are packed concurrently, since compressing takes the time."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        manifests = list(pool.map(lambda image: _image(image, blobs), images))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))


def _image(image: Image, blobs: Path) -> dict[str, object]:
    name = hashlib.sha256(image.reference.encode()).hexdigest()
    plain, packed = blobs / f"{name}.tar", blobs / f"{name}.tar.gz"
    _write_tar(image.files, plain)
    with plain.open("rb") as source, gzip.GzipFile(packed, "wb", compresslevel=1, mtime=EPOCH) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Env": [f"PATH={PATH}"], "Entrypoint": list(image.entrypoint)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest_of(plain)}"]},
    }
    plain.unlink()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _json_blob(config, f"{OCI}.config.v1+json", blobs),
        "layers": [_blob(packed, f"{OCI}.layer.v1.tar+gzip", blobs)],
    }
    named = {"annotations": {"io.containerd.image.name": image.reference}}
    return _json_blob(manifest, f"{OCI}.manifest.v1+json", blobs) | named


def _write_tar(files: Mapping[str, Path | Link | None], target: Path) -> None:
    folders: set[str] = set()
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in sorted(files.items()):
            parents = [str(parent) for parent in reversed(Path(name).parents)][1:]
            for folder in [*parents, *([name] if content is None else [])]:
                if folder not in folders:
                    folders.add(folder)
                    tar.addfile(_folder(folder))
            match content:
                case Path():
                    with content.open("rb") as source:
                        tar.addfile(_file(name, content), source)
                case Link(target=to):
                    tar.addfile(_link(name, to))
                case None:
                    pass


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    return info


def _file(name: str, content: Path) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    status = content.stat()
    info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
    return info


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _json_blob(content: object, media_type: str, blobs: Path) -> dict[str, object]:
    data = json.dumps(content).encode()
    temporary = blobs / f"{hashlib.sha256(data).hexdigest()}.json"
    temporary.write_bytes(data)
    return _blob(temporary, media_type, blobs)


def _blob(file: Path, media_type: str, blobs: Path) -> dict[str, object]:
    """Return the descriptor of a file that becomes one of the blobs."""
    digest, size = digest_of(file), file.stat().st_size
    file.rename(blobs / digest)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}
