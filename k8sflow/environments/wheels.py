"""The wheels of a lock on this machine, from where they go into the bucket."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from k8sflow.environments import cache, credentials
from k8sflow.environments.lock import Lock, LockedPackage, StoredWheel, Wheel
from k8sflow.errors import DependencyError

_SECONDS = 60


def stored_files(what: str, lock: Lock) -> tuple[StoredWheel, ...]:
    """The files of a lock, as they are named in the bucket.

    Args:
        what: The environment, as the subject of an error.
        lock: The lock.

    Raises:
        DependencyError: A package has no wheel with a hash.
    """
    return tuple(_stored(what, package) for package in lock.packages)


def _stored(what: str, package: LockedPackage) -> StoredWheel:
    wheel = package.wheel
    if wheel is None or not wheel.sha256:
        raise DependencyError(
            f"{what} can't be installed in pods: {package.name} {package.version} has no wheel.".replace("  ", " "),
            cause="A pod compiles nothing. Packages from git, folders and source archives have to be built first.",
            advice="Build its wheel with `uv build --wheel`, and name the file: {'NAME': './dist/NAME-1.0-….whl'}",
        )
    return StoredWheel(package.name, package.version, wheel.name, wheel.sha256, package.is_direct)


def size_of(wheel: Wheel) -> int | None:
    """The size of a wheel in bytes, from the lock or the cache; None where neither has it."""
    if wheel.size:
        return wheel.size
    try:
        return (cache.folder("wheels") / wheel.sha256).stat().st_size
    except OSError:
        return None


def fetched(what: str, wheel: Wheel, folder: Path, indexes: Sequence[str] = ()) -> bytes:
    """The content of a wheel, from the cache or from where the lock says that it is.

    Args:
        what: The environment, as the subject of an error.
        wheel: The wheel.
        folder: The folder from which uv looks for its settings.
        indexes: The addresses of indexes with credentials that requirements files name.

    Raises:
        DependencyError: It can't be fetched, or is not the one that was locked.
    """
    kept = cache.folder("wheels") / wheel.sha256
    try:
        data = kept.read_bytes()
    except OSError:
        data = _read(what, wheel, folder, indexes)
        _verify(what, wheel, data)
        cache.write(kept, data)
        return data
    if hashlib.sha256(data).hexdigest() == wheel.sha256:
        with contextlib.suppress(OSError):  # a cache that can be read only
            os.utime(kept)  # ``prune`` spares what was used
        return data
    kept.unlink(missing_ok=True)
    return fetched(what, wheel, folder, indexes)


def _verify(what: str, wheel: Wheel, data: bytes) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != wheel.sha256:
        raise DependencyError(
            f"{what} can't be installed: {wheel.name} is not the file that was locked.",
            cause=f"Its sha256 is {found}, and {wheel.sha256} was locked.",
            advice="If the index has another file of the same name on purpose, add --refresh-environments.",
        )


def _read(what: str, wheel: Wheel, folder: Path, indexes: Sequence[str]) -> bytes:
    parts = urllib.parse.urlsplit(wheel.url)
    try:
        if parts.scheme == "file":
            return Path(urllib.parse.unquote(parts.path)).read_bytes()
        with urllib.request.urlopen(_request(parts, folder, indexes), timeout=_SECONDS) as answer:  # noqa: S310  an index is http
            data: bytes = answer.read()
            return data
    except (OSError, ValueError) as error:
        where = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        raise DependencyError(
            f"{what} can't be fetched: {where}: {error}",
            cause="The run's driver puts the wheels into the bucket, from where pods install them.",
            advice="Look at the network, and at the credentials of the index (docs/environments.md).",
        ) from error


def _request(parts: urllib.parse.SplitResult, folder: Path, indexes: Sequence[str]) -> urllib.request.Request:
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = urllib.request.Request(urllib.parse.urlunsplit(bare))  # noqa: S310  as above
    if (found := credentials.of(parts, folder, indexes)) is not None:
        value = base64.b64encode(":".join(found).encode()).decode()
        # Not to the bucket to which an index may redirect, which would refuse it, and has no need to know it.
        request.add_unredirected_header("Authorization", f"Basic {value}")
    return request
