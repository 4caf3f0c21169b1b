"""Serializers of plug-ins: packages that say how the values of a type become bytes, and values again.

A package names them by entry points of the group ``k8sflow.serializers``. The entry point's name is the type, as
``module.Class``; so a package is imported only when a value of its type is saved or loaded. Values are found at any
depth of an artifact, since the pickler looks up each object's type.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, Protocol

from k8sflow.articles import described
from k8sflow.errors import ArtifactError
from k8sflow.storage.objects import Buffer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

SERIALIZERS = "k8sflow.serializers"


class Serializer(Protocol):
    """Says how values of one type are stored. Subclasses of the type are not affected.

    ``version`` is the number of the format that ``write`` writes, from 1 on. ``read`` gets it back, and reads all
    formats up to it; those of a newer version are refused before ``read`` is called.
    """

    version: int

    def write(self, value: Any) -> tuple[object, Sequence[Buffer]] | None:
        """Takes a value apart.

        Args:
            value: The value, which must not be changed.

        Returns:
            A description that can be pickled, such as a dictionary of shapes and names, and contiguous buffers, which
            are written from where they are. None leaves this value to pickle.
        """

    def read(self, description: Any, buffers: Sequence[memoryview], version: int) -> Any:
        """Puts an equal value together; it must have exactly the type of the value.

        Args:
            description: The first part of the result of ``write``.
            buffers: The second. The value may keep them, and may be the only one to use them. They are read-only when a
                value is loaded only to see whether that works, when it is saved.
            version: The version of the format.
        """


@dataclass(frozen=True)
class Installed:
    """A type's serializer in an installed package.

    Args:
        type: The type, as ``module.Class``.
        package: The name of the package.
        package_version: The version of the package.
        point: The entry point.
    """

    type: str
    package: str
    package_version: str
    point: EntryPoint

    @property
    def label(self) -> str:
        """The package and its version, as pip writes them."""
        return f"{self.package}=={self.package_version}"

    def load(self) -> Serializer:
        """The serializer.

        Raises:
            ArtifactError: It can't be imported, or is not a serializer.
        """
        try:
            found = self.point.load()
            serializer: Serializer = found() if isinstance(found, type) else found
        except Exception as error:  # the import runs the package's code, which may raise anything
            raise ArtifactError(
                f"the serializer of {self.type} in the package {self.label} can't be imported: "
                f"{type(error).__name__}: {error}",
                advice=f"Upgrade {self.package}, or uninstall it.",
            ) from error
        version: object = getattr(serializer, "version", None)
        methods = [getattr(serializer, name, None) for name in ("write", "read")]
        if type(version) is not int or version < 1 or not all(map(callable, methods)):
            raise ArtifactError(
                f"{self.point.value} of the package {self.label} is {described(serializer)}, not a serializer.",
                cause="It needs the methods write and read, and a version, which is a number from 1 on.",
                advice=f"Upgrade {self.package}, or uninstall it.",
            )
        return serializer


@cache
def installed() -> dict[str, tuple[Installed, ...]]:
    """The serializers of the installed packages, by type; the result is kept for the life of the process."""
    if not any(map(_may_have_some, sys.path)) and not _are_elsewhere():
        return {}
    from importlib.metadata import entry_points  # noqa: PLC0415  reads the metadata of all that is installed

    found: dict[str, tuple[Installed, ...]] = {}
    for point in entry_points(group=SERIALIZERS):
        name, version = (point.dist.name, point.dist.version) if point.dist is not None else (point.value, "unknown")
        found[point.name] = (*found.get(point.name, ()), Installed(point.name, name, version, point))
    return found


def _may_have_some(folder: object) -> bool:
    """True unless a folder of ``sys.path`` certainly has no package with a serializer.

    Importing ``importlib.metadata`` takes ten times as long as this, which every task would wait for.
    """
    try:
        with os.scandir(str(folder) or os.curdir) as entries:
            return str(folder).endswith(".egg") or any(map(_names_some, entries))
    except NotADirectoryError:
        return True  # an archive
    except OSError:
        return False


def _names_some(entry: os.DirEntry[str]) -> bool:
    if not entry.name.lower().endswith((".dist-info", ".egg-info")):
        return False
    try:
        return SERIALIZERS.encode() in Path(entry.path, "entry_points.txt").read_bytes()
    except OSError:
        return False


def _are_elsewhere() -> bool:
    """True if packages may be installed elsewhere than in the folders of ``sys.path``."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    return any(finder is not PathFinder for finder in finders)


@cache
def _loaded(installed_serializer: Installed) -> Serializer:
    return installed_serializer.load()


def forget_installed() -> None:
    """Looks for serializers again when the next one is needed, since packages may have been installed."""
    installed.cache_clear()
    _loaded.cache_clear()


def serializer_for(kind: type) -> Installed | None:
    """The serializer of a type, if a package has one.

    Raises:
        ArtifactError: Several packages have one.
    """
    if not (table := installed()):
        return None
    found = table.get(f"{kind.__module__}.{kind.__qualname__}", ())
    if len(found) > 1:
        packages = " and ".join(sorted(each.label for each in found))
        raise ArtifactError(
            f"{packages} both have a serializer of {found[0].type}.", advice="Uninstall all but one of them."
        )
    return found[0] if found else None


def reduce_with(chosen: Installed, value: Any, opened: list[PickleBuffer]) -> tuple[Any, ...] | None:
    """The parts of a value for the pickler, as ``__reduce__`` returns them; None if the serializer leaves it to pickle.

    Args:
        chosen: The serializer of the value's type.
        value: The value.
        opened: Gets the buffers, which the caller has to release.

    Raises:
        ArtifactError: The serializer failed.
    """
    serializer = _loaded(chosen)
    try:
        written = serializer.write(value)
        if written is None:
            return None
        description, buffers = written
        first = len(opened)
        for buffer in buffers:
            opened.append(PickleBuffer(buffer))
            opened[-1].raw().release()  # raises if it is not contiguous
        kept = opened[first:]
    except ArtifactError:
        raise
    except Exception as error:  # the package's code may raise anything
        raise ArtifactError(
            f"the serializer of {chosen.type} in the package {chosen.label} failed: {type(error).__name__}: {error}"
        ) from error
    return _read, (chosen.type, chosen.package, chosen.package_version, serializer.version, description, *kept)


def _read(kind: str, package: str, package_version: str, version: int, description: Any, *buffers: Any) -> Any:
    """Loads a value with the serializer that wrote it; pickles contain this function's name, so it can't be renamed.

    Raises:
        ArtifactError: The package is missing, too old, or failed.
    """
    wrote = f"{package}=={package_version}"
    chosen = _of_package(kind, package)
    if chosen is None:
        raise ArtifactError(
            f"it contains a {kind}, which the package {wrote} stored, and that package is not installed here"
            f"{_others(kind)}.",
            cause="The step that set it had the package; this process does not.",
            advice=f"Install it: pip install {wrote}",
        )
    serializer = _loaded(chosen)
    if version > serializer.version:
        raise ArtifactError(
            f"it contains a {kind} in the format {version} of the package {wrote}; {chosen.label}, which is installed "
            f"here, reads the formats up to {serializer.version}.",
            advice=f"Upgrade it: pip install '{package}>={package_version}'",
        )
    views = [memoryview(buffer) for buffer in buffers]
    try:
        value = serializer.read(description, views, version)
    except Exception as error:  # the package's code may raise anything
        raise ArtifactError(
            f"the serializer of {kind} in the package {chosen.label} failed to read what {wrote} wrote: "
            f"{type(error).__name__}: {error}"
        ) from error
    found = f"{type(value).__module__}.{type(value).__qualname__}"
    if found != kind:
        raise ArtifactError(f"the serializer of {kind} in the package {chosen.label} returned a {found}.")
    return value


def _of_package(kind: str, package: str) -> Installed | None:
    for _ in range(2):
        found = next((each for each in installed().get(kind, ()) if each.package == package), None)
        if found is not None:
            return found
        forget_installed()
    return None


def _others(kind: str) -> str:
    """The packages with a serializer of the same type, for an error; another package's may have another format."""
    names = [each.label for each in installed().get(kind, ())]
    return f" (only {', '.join(names)}, whose format may be another one)" if names else ""
