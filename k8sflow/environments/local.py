"""The environments of this machine: one for each lock, shared by all flows of a user."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from k8sflow.environments import cache, runtime, uv
from k8sflow.environments.lock import Lock
from k8sflow.errors import DependencyError

ENVIRONMENTS = "environments"
_PATH_FILE = "_k8sflow.pth"


def python(lock: Lock) -> Path:
    """The interpreter of a lock's environment, which need not exist yet.

    Raises:
        DependencyError: The cache can't be written.
    """
    return _folder(lock) / "bin" / "python"


def ensure(
    what: str,
    lock: Lock,
    notice: Callable[[], None] = lambda: None,
    settings: Path | None = None,
    indexes: Callable[[], Sequence[str]] = tuple,
) -> Path:
    """The interpreter of a lock's environment; the environment is created if it doesn't exist.

    Others see it complete or not at all. Where two processes need it at a time, one makes it, and the other one waits.

    Args:
        what: The environment, as the subject of an error.
        lock: The lock.
        notice: Called before it is created, which may take seconds.
        settings: The folder in which, and above which, uv looks for its settings; None for those of the user alone.
        indexes: Returns the addresses of indexes with credentials that requirements files name.

    Raises:
        DependencyError: It can't be made.
    """
    found, folder = python(lock), _folder(lock)
    if found.exists():
        with contextlib.suppress(OSError):  # a cache that can be read only
            os.utime(folder)  # ``prune`` spares what was used
        return found
    import shutil  # noqa: PLC0415  most runs find the environment

    with cache.locked(folder.with_name(f"{folder.name}.lock")):
        if found.exists():
            return found
        notice()
        for remains in folder.parent.glob(f"{folder.name}.*.tmp"):  # of a process that was killed
            shutil.rmtree(remains, ignore_errors=True)
        made = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        try:
            _make(what, lock, made, settings or folder.parent, indexes)
            if folder.exists():  # its Python was removed
                shutil.rmtree(folder)
            made.rename(folder)
        except OSError as error:
            raise cache.unwritable(folder, error) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return found


def _folder(lock: Lock) -> Path:
    """The folder of an environment, also named after the k8sflow and the interpreter that it leads to."""
    own = os.path.realpath(sys.executable) if _is_own(lock) else ""
    name = hashlib.sha256(f"{lock.id} {runtime.folder()} {own}".encode()).hexdigest()[:24]
    return cache.folder(ENVIRONMENTS) / name


def _is_own(lock: Lock) -> bool:
    """True if the environment has the Python of this process."""
    return bool(sys.executable) and "{}.{}".format(*sys.version_info) == lock.python


def _make(what: str, lock: Lock, made: Path, here: Path, indexes: Callable[[], Sequence[str]]) -> None:
    version = sys.executable if _is_own(lock) else lock.python
    uv.call(what, ["venv", "--quiet", "--relocatable", "--no-project", f"--python={version}", str(made)], here)
    (made / "pylock.toml").write_text(lock.text, encoding="utf-8")
    if lock.packages:
        _install(what, lock, made, here, indexes)
    (_site(made) / _PATH_FILE).write_text(f"{runtime.folder()}\n", encoding="utf-8")


def _install(what: str, lock: Lock, made: Path, here: Path, indexes: Callable[[], Sequence[str]]) -> None:
    # uv would take the build of a folder from its cache, whose key is that of a few files only.
    built = [f"--reinstall-package={package.name}" for package in lock.packages if package.is_folder]
    arguments = [f"--python={made / 'bin' / 'python'}", *built, str(made / "pylock.toml")]
    if all(package.wheel is not None and package.wheel.sha256 for package in lock.packages):
        # Wheels that uv has verified before are linked from its cache. Online, it fetches some of a pylock.toml again.
        with contextlib.suppress(DependencyError):
            uv.call(what, ["pip", "sync", "--quiet", "--offline", *arguments], here)
            return
    # uv takes the credentials for the wheels from it; the lock says where they are.
    keys = " ".join([os.environ.get("UV_EXTRA_INDEX_URL", ""), *indexes()]).strip()
    variables = {"UV_EXTRA_INDEX_URL": keys} if keys else {}
    uv.call(what, ["pip", "sync", "--quiet", *arguments], here, variables=variables)


def _site(environment: Path) -> Path:
    """The folder of an environment's packages.

    Raises:
        DependencyError: It has none.
    """
    if (found := next(environment.glob("lib/python3*/site-packages"), None)) is not None:
        return found
    raise DependencyError(f"uv has made no environment in {environment}.", advice="Look at the version of uv.")
