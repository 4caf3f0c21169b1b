"""k8sflow itself for the environments of steps: a folder with it and the packages that it needs, and nothing else.

The folder is the last entry of an environment's ``sys.path``. So a step that has one of these packages gets its own
version; that it is one that k8sflow can use, the constraints of the resolution see to.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import k8sflow
from k8sflow.environments import cache
from k8sflow.flow.decorators.package_names import leading, normalized
from k8sflow.version import VERSION

# The driver alone uses them: no step is kept from another version, and none finds them without asking for them.
_OF_DRIVER = frozenset({"aiohttp", "kubernetes"})
# Only some buckets are reached by it; older versions serve a step that asks for one.
_OF_BUCKETS = frozenset({"boto3"})
_PACKAGES = frozenset({"site-packages", "dist-packages"})
_OUTSIDE = ("..", os.sep)


@dataclass(frozen=True)
class _Installed:
    """The part of what is installed here that a step's environment needs.

    Args:
        constraints: As ``constraints`` returns it.
        entries: The names of the modules and packages in the folder, and where each is.
    """

    constraints: tuple[str, ...]
    entries: Mapping[str, str]


def constraints() -> tuple[str, ...]:
    """The versions that a step's environment may have of the packages that k8sflow itself uses in a task."""
    return _installed().constraints


def folder() -> Path:
    """The folder, which is created where it doesn't exist yet, or no longer: users remove caches while a run uses them.

    Raises:
        DependencyError: It can't be written.
    """
    entries = _installed().entries
    name = _name()
    found = cache.folder("runtime") / name / "site-packages"
    if found.is_dir():
        return found
    import shutil  # noqa: PLC0415  most runs find the folder
    import tempfile  # noqa: PLC0415

    try:
        made = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=found.parent.parent))
        (made / "site-packages").mkdir()
        for entry, target in entries.items():
            (made / "site-packages" / entry).symlink_to(target)
        with suppress(OSError):  # another process has just made it
            made.rename(found.parent)
        if made.exists():
            shutil.rmtree(made)
    except OSError as error:
        raise cache.unwritable(found, error) from error
    return found


@functools.cache
def _installed() -> _Installed:
    """Reads what is installed, which takes a tenth of a second, or what an earlier run has noted of it."""
    stamp = _stamp()
    file = cache.folder("runtime") / f"{stamp}.json"
    try:
        known = json.loads(file.read_bytes()) if stamp else {}
        if known and all(map(os.path.exists, known["entries"].values())):
            return _Installed(tuple(known["constraints"]), known["entries"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    lines = tuple(line for name, line in sorted(_requirements("k8sflow").items()) if name not in _OF_BUCKETS)
    found = _Installed(lines, dict(sorted(_entries())))
    if stamp:
        cache.write(file, json.dumps(vars(found)).encode())
    return found


@functools.cache
def _name() -> str:
    return hashlib.sha256(repr((VERSION, _installed().entries)).encode()).hexdigest()[:16]


def _stamp() -> str:
    """A name for the state of the folders with packages, which each installation changes; empty if it can't be read."""
    folders = [entry for entry in sys.path if os.path.basename(entry) in _PACKAGES]  # noqa: PTH119  a text
    with suppress(OSError):
        times = [(entry, os.stat(entry).st_mtime_ns) for entry in folders if os.path.isdir(entry)]  # noqa: PTH112, PTH116  as above
        return hashlib.sha256(repr((VERSION, k8sflow.__file__, sys.version, times)).encode()).hexdigest()[:32]
    return ""


def _requirements(distribution: str) -> dict[str, str]:
    """The requirements of a distribution on this system, without extras, by name."""
    from importlib import metadata  # noqa: PLC0415  it takes 10 ms, which runs without environments don't need

    found: dict[str, str] = {}
    for line in metadata.requires(distribution) or ():
        requirement, _, marker = line.partition(";")
        name = normalized(leading(requirement))
        if name and "extra" not in marker and name not in _OF_DRIVER:
            found[name] = line.strip()
    return found


def _entries() -> Iterator[tuple[str, str]]:
    """The names of the modules and packages in the folder, and where each is."""
    from importlib import metadata  # noqa: PLC0415  as above

    yield "k8sflow", str(Path(k8sflow.__file__).parent)
    seen: set[str] = set()
    waiting = ["k8sflow"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
            waiting += _requirements(name)
        except metadata.PackageNotFoundError:  # not needed with this version of Python
            continue
        for file in found.files or () if name != "k8sflow" else ():
            top = file.parts[0]
            if not str(file).startswith(_OUTSIDE) and top != "__pycache__" and not top.endswith(".pth"):
                yield top, str(found.locate_file(top))
