"""k8sflow itself for the environments of steps: a folder with it and the packages that it needs, and nothing else.

The folder is the last entry of an environment's ``sys.path``. So a step that has one of these packages gets its own
version; that it is one that k8sflow can use, the constraints of the resolution see to.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import k8sflow
from k8sflow.environments import cache
from k8sflow.flow.decorators.package_names import leading, normalized
from k8sflow.version import VERSION

# The driver alone uses them: no step is kept from another version, and none finds them without asking for them.
_OF_DRIVER = frozenset({"aiohttp", "kubernetes"})
# Only some buckets are reached by it; older versions serve a step that asks for one.
_OF_BUCKETS = frozenset({"boto3"})
_OUTSIDE = ("..", os.sep)


@functools.cache
def constraints() -> tuple[str, ...]:
    """The versions that a step's environment may have of the packages that k8sflow itself uses in a task."""
    return tuple(line for name, line in sorted(_requirements("k8sflow").items()) if name not in _OF_BUCKETS)


@functools.cache
def folder() -> Path:
    """The folder, which is created where it doesn't exist yet.

    Raises:
        DependencyError: It can't be written.
    """
    entries = dict(sorted(_entries()))
    name = hashlib.sha256(repr((VERSION, entries)).encode()).hexdigest()[:16]
    found = cache.folder("runtime") / name / "site-packages"
    if found.is_dir():
        return found
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
