"""The images of the tests: a user's Python, the k8sflow image on top of it, the S3 server.

Each is tagged with a hash of its content: a changed checkout has a new tag, and an existing tag is up to date.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import engine as engines
from tests.cluster import nodeimage, programs, rootfs
from tests.cluster.console import step
from tests.cluster.engine import Engine
from tests.cluster.errors import ClusterError
from tests.cluster.places import CHECKOUT, HERE, Places, files_below, key_of
from tests.cluster.process import attempt, tail

PULLED_PYTHON = "python:3.12-slim"
KEPT = 5  # each change of a checkout creates an image; some of the earlier ones may be another checkout's
ROOTFS = rootfs.Rootfs("python", ("python3", "python3-pip", "ca-certificates"))
S3_DOCKERFILE = HERE / "images" / "s3" / "Dockerfile"
# Programs on this machine find its certificates by these variables, of which the first that is set counts.
CERTIFICATE_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class Recipe:
    """An image for ``docker build``.

    Args:
        name: Its name, without a tag.
        files: Content of the build context: name in the build context to file.
        arguments: Build arguments.
        uncounted: Files that must exist for the build, and whose content doesn't change the tag.
    """

    name: str
    files: Mapping[str, Path]
    arguments: Mapping[str, str] = field(default_factory=dict)
    uncounted: Mapping[str, Path] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """Return name and tag; the tag is a hash of everything that the image depends on."""
        parts: list[str | bytes] = [repr(sorted(self.arguments.items()))]
        for name, file in sorted(self.files.items()):
            parts += [name, file.read_bytes()]
        return f"{self.name}:{key_of(*parts)}"


def s3_server(places: Places) -> Recipe:
    """Return the image of the S3 server."""
    program = programs.VERSITYGW.folder(places) / "versitygw"
    # named after the build's key rather than the program's content, since the program may not be built yet
    name = f"k8sflow-test/s3-{programs.VERSITYGW.key()}"
    return Recipe(name, {"Dockerfile": S3_DOCKERFILE}, uncounted={"versitygw": program})


def python(base: str) -> Recipe:
    """Return the user's image, on an image with Python and pip."""
    files = {file.name: file for file in files_below(HERE / "images" / "python")}
    return Recipe("k8sflow-test/python", files, {"BASE_IMAGE": base})


def torch(base: str) -> Recipe:
    """Return a user's image with PyTorch, on an image of Debian; only the tests that train something build it."""
    return Recipe("k8sflow-test/torch", {"Dockerfile": HERE / "images" / "torch" / "Dockerfile"}, {"BASE_IMAGE": base})


def k8sflow(base: str) -> Recipe:
    """Return the k8sflow image of this checkout, on an image with Python and pip."""
    files = {f"k8sflow/{file.relative_to(CHECKOUT / 'k8sflow')}": file for file in files_below(CHECKOUT / "k8sflow")}
    files |= {name: CHECKOUT / name for name in ("Dockerfile", "pyproject.toml", "requirements.lock")}
    texts = {name: CHECKOUT / name for name in ("README.md", "LICENSE")}
    return Recipe("k8sflow-test/k8sflow", files, {"BASE_IMAGE": base}, uncounted=texts)


def ensure(recipe: Recipe, engine: Engine) -> str:
    """Return name and tag of the image; build it if the engine doesn't have it."""
    reference = recipe.reference
    if not present(reference, engine):
        with step(f"image {reference}"):
            _build(recipe, reference, engine)
        engines.remove_old_images(recipe.name, KEPT, engine)
    return reference


def ensure_python_base(engine: Engine, places: Places) -> str:
    """Return an image with Python and pip: Docker's official one if it can be pulled, else one of Debian packages."""
    built = f"k8sflow-test/debian-python:{ROOTFS.key()}"
    for name in (built, PULLED_PYTHON):
        if present(name, engine):
            return name
    # (if the node image could not be pulled, this one can't be either: no need to wait for the registry again)
    if nodeimage.find(engine) == nodeimage.PULLED and nodeimage.pull(PULLED_PYTHON, engine):
        return PULLED_PYTHON
    tarball = rootfs.ensure(ROOTFS, places)
    with step(f"image {built}"), tarball.open("rb") as layer:
        done = attempt(
            ["docker", "import", "--change", 'CMD ["python3"]', "-", built],
            environment=engine.environment,
            stdin=layer,
            timeout_seconds=300,
        )
    if done.returncode != 0:
        raise ClusterError(
            f"can't import the image {built}.",
            cause=tail(done.stderr),
            advice="See that the engine has disk space left (`docker system df`).",
        )
    return built


def present(reference: str, engine: Engine) -> bool:
    """Report if the engine has the image."""
    return attempt(["docker", "image", "inspect", reference], environment=engine.environment).returncode == 0


def _build(recipe: Recipe, reference: str, engine: Engine) -> None:
    arguments = dict(recipe.arguments)
    arguments |= {name: os.environ[name] for name in (*PIP_VARIABLES, *PROXY_VARIABLES) if name in os.environ}
    command = ["docker", "build", "--network=host", "--tag", reference]
    command += [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    done = subprocess.run(
        [*command, "-"],
        input=context(recipe),
        env={**os.environ, **engine.environment, "DOCKER_BUILDKIT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(
            f"can't build the image {recipe.name}: `docker build` ended with exit code {done.returncode}.",
            cause=tail(done.stdout.decode(errors="replace")),
            advice="If PyPI is behind a proxy or a mirror, set HTTPS_PROXY, PIP_INDEX_URL or PIP_CERT as for pip.",
        )


def context(recipe: Recipe) -> bytes:
    """Return the build context as a tar file; without times and owners docker's cache finds unchanged layers."""
    files = {**recipe.files, **recipe.uncounted}
    certificates = _certificates()
    if certificates is not None:
        files["ca-certificates.crt"] = certificates
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, file in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = file.stat().st_size, 0o755 if os.access(file, os.X_OK) else 0o644
            with file.open("rb") as content:
                tar.addfile(info, content)
    return buffer.getvalue()


def _certificates() -> Path | None:
    named = [Path(os.environ[name]) for name in CERTIFICATE_VARIABLES if os.environ.get(name)]
    return next((file for file in (*named, CERTIFICATES) if file.is_file()), None)
