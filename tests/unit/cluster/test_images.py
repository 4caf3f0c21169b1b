"""Images: tags from their content, copies without known layers, and correct digests."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster import images, loading, oci
from tests.cluster.oci import Image, Link

LAYERS = (b"a layer", b"another layer")


def test_the_tag_follows_the_content_of_an_image(tmp_path: Path) -> None:
    """A changed file or argument changes the tag; a file that only has to exist does not."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "README.md").write_text("one")
    recipe = images.Recipe("k8sflow-test/x", {"Dockerfile": tmp_path / "Dockerfile"}, {"BASE_IMAGE": "a"})
    read_too = replace(recipe, uncounted={"README.md": tmp_path / "README.md"})
    tag = recipe.reference
    assert read_too.reference == tag
    assert replace(recipe, arguments={"BASE_IMAGE": "b"}).reference != tag
    (tmp_path / "Dockerfile").write_text("FROM scratch \n")
    assert recipe.reference != tag


def test_the_context_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Times and owners are left out, so docker finds the layers that it has."""
    file = tmp_path / "f"
    file.write_text("content")
    recipe = images.Recipe("x", {"f": file})
    before = images.context(recipe)
    file.touch()
    assert images.context(recipe) == before


def test_the_context_has_this_machines_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build reaches PyPI with the trust store that pip uses here; the tag stays the same."""
    for name in images.CERTIFICATE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "ca.pem").write_text("a certificate")
    recipe = images.Recipe("x", {})
    tag = recipe.reference
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with tarfile.open(fileobj=io.BytesIO(images.context(recipe))) as tar:
        content = tar.extractfile("ca-certificates.crt")
        assert content is not None
        assert content.read() == b"a certificate"
    assert recipe.reference == tag


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("debian", "docker.io/library/debian"),
        ("k8sflow-test/python:1", "docker.io/k8sflow-test/python:1"),
        ("localhost/x:1", "localhost/x:1"),
        ("registry.k8s.io/pause:3", "registry.k8s.io/pause:3"),
        ("host:5000/x", "host:5000/x"),
    ],
)
def test_full_names_are_those_of_containerd(reference: str, full: str) -> None:
    """Docker omits its own registry; containerd needs it."""
    assert loading.full_name(reference) == full


def test_known_layers_are_not_copied(tmp_path: Path) -> None:
    """The layout names every layer, and contains those that the node lacks."""
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in LAYERS]
    saved = saved_by_docker(tmp_path / "image.tar", digests)
    with tarfile.open(saved) as source, (tmp_path / "layout.tar").open("wb") as target:
        sent = loading.rewrite(source, target, {digests[0]})
    assert sent == len(LAYERS[1])
    with tarfile.open(tmp_path / "layout.tar") as layout:
        index = json.load(content_of(layout, "index.json"))["manifests"][0]
        manifest = json.load(content_of(layout, f"blobs/{index['digest'].replace(':', '/')}"))
        assert [layer["digest"] for layer in manifest["layers"]] == digests
        assert index["annotations"]["io.containerd.image.name"] == "docker.io/k8sflow-test/x:1"
        assert content_of(layout, f"blobs/{digests[1].replace(':', '/')}").read() == LAYERS[1]
        assert f"blobs/{digests[0].replace(':', '/')}" not in layout.getnames()


def test_the_layout_matches_its_digests(tmp_path: Path) -> None:
    """Every blob has the content that it is named after, and the layer has the requested files, links and folders."""
    program = tmp_path / "program"
    program.write_text("#!")
    program.chmod(0o755)
    files: dict[str, Path | Link | None] = {"usr/bin/program": program, "bin": Link("usr/bin"), "tmp": None}
    oci.write_layout([Image("localhost/x:1", files, ["/bin/program"])], tmp_path / "layout")
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    for blob in blobs.iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    index = json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"][0]
    manifest = json.loads((blobs / index["digest"].removeprefix("sha256:")).read_text())
    with tarfile.open(blobs / manifest["layers"][0]["digest"].removeprefix("sha256:")) as layer:
        assert layer.getmember("usr/bin/program").mode == 0o755
        assert layer.getmember("bin").linkname == "usr/bin"
        assert layer.getmember("tmp").mode == 0o1777


def saved_by_docker(file: Path, digests: list[str]) -> Path:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": digests}}).encode()
    manifest = [{"Config": "config.json", "RepoTags": ["k8sflow-test/x:1"], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    members = {"config.json": config, "manifest.json": json.dumps(manifest).encode()}
    members |= {f"{number}/layer.tar": layer for number, layer in enumerate(LAYERS)}
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def content_of(tar: tarfile.TarFile, name: str) -> io.BufferedReader:
    content = tar.extractfile(name)
    assert isinstance(content, io.BufferedReader)
    return content
