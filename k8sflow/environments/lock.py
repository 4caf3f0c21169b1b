"""A lock: the exact packages of an environment, with their hashes, as uv has resolved them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

FOLDERS = "# folders: "


@dataclass(frozen=True)
class Wheel:
    """The file from which a package is installed.

    Args:
        url: Its address; ``file:`` for one of this machine.
        sha256: Its hash; empty where none is known, as for a git repository.
        size: Its size in bytes; 0 where it isn't known.
    """

    url: str
    sha256: str
    size: int = 0

    @property
    def name(self) -> str:
        """The file's name."""
        return unquote(self.url.partition("#")[0].partition("?")[0].rpartition("/")[2])


@dataclass(frozen=True)
class LockedPackage:
    """One package of a lock.

    Args:
        name: Its name, normalized.
        version: Its version; empty for a folder or a repository whose version the build decides.
        wheel: Its wheel; None for a package that has to be built.
        is_direct: Whether it was named by a file or an address: its version may say nothing of its content.
        is_folder: Whether it is built from a folder of this machine.
    """

    name: str
    version: str
    wheel: Wheel | None
    is_direct: bool = False
    is_folder: bool = False

    @property
    def shown(self) -> str:
        """The version as people read it."""
        return self.version or ("(from a folder)" if self.is_folder else "(from its source)")


@dataclass(frozen=True)
class StoredWheel:
    """A wheel in the bucket.

    Args:
        name: The package.
        version: Its version.
        file: The name of the wheel's file.
        blob: Its sha256, under which it is stored.
        is_direct: Whether it was named by a file or an address: its version may say nothing of its content.
    """

    name: str
    version: str
    file: str
    blob: str
    is_direct: bool = False


@dataclass(frozen=True)
class Lock:
    """A resolved environment.

    Args:
        requirements: What was asked for, as lines of a requirements file, and names of files.
        python: The version of Python, such as ``3.12``.
        platform: The platform, as uv names it.
        text: The file pylock.toml (PEP 751).
        files: The wheels in the bucket, for pods; empty for an environment of this machine.
        inputs: A hash of what the files that it was made from said; empty if it was made from decorators alone.
    """

    requirements: tuple[str, ...]
    python: str
    platform: str
    text: str
    files: tuple[StoredWheel, ...] = ()
    inputs: str = ""

    @cached_property
    def id(self) -> str:
        """A name for it: the same packages for the same Python have the same."""
        parts = json.dumps([self.python, self.platform, self.text])
        return hashlib.sha256(parts.encode()).hexdigest()[:24]

    @cached_property
    def packages(self) -> tuple[LockedPackage, ...]:
        """The packages, in alphabetical order."""
        from k8sflow import toml  # noqa: PLC0415  a pod with Python 3.10 has no parser

        return tuple(_packages(toml.loads(self.text)))

    @cached_property
    def editable_folders(self) -> tuple[str, ...]:
        """The folders of packages whose files are used where they are, so that a change of one needs no new lock."""
        if "editable" not in self.text:
            return ()
        from k8sflow import toml  # noqa: PLC0415  as above

        named = [
            package["directory"] for package in toml.loads(self.text).get("packages", ()) if "directory" in package
        ]
        return tuple(folder["path"] for folder in named if folder.get("editable"))

    @property
    def folders(self) -> str:
        """The line that stands for the files of the folders from which packages are built; empty without such."""
        last = self.text.rstrip("\n").rpartition("\n")[2]
        return last if last.startswith(FOLDERS) else ""

    def to_document(self) -> dict[str, Any]:
        """The lock as JSON types."""
        return {
            "requirements": list(self.requirements),
            "python": self.python,
            "platform": self.platform,
            "lock": self.text,
            "files": [vars(file) for file in self.files],
            **({"inputs": self.inputs} if self.inputs else {}),
        }

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Lock:
        """The lock in a JSON document."""
        files = tuple(StoredWheel(**file) for file in document.get("files", ()))
        requirements, inputs = tuple(document["requirements"]), document.get("inputs", "")
        return Lock(requirements, document["python"], document["platform"], document["lock"], files, inputs)


def _packages(document: Mapping[str, Any]) -> Iterator[LockedPackage]:
    for package in document.get("packages", ()):
        files = [*package.get("wheels", ()), *([package["archive"]] if "archive" in package else ())]
        found = [wheel for wheel in map(_wheel, files) if wheel.name.endswith(".whl")]
        yield LockedPackage(
            package["name"],
            package.get("version", ""),
            found[0] if found else None,
            is_direct="archive" in package,
            is_folder="directory" in package,
        )


def _wheel(file: Mapping[str, Any]) -> Wheel:
    url = file.get("url") or Path(file["path"]).as_uri()
    return Wheel(url, file.get("hashes", {}).get("sha256", ""), file.get("size", 0))


def to_documents(locks: Mapping[str, Lock]) -> dict[str, Any]:
    """The locks of a run's steps as JSON types, each lock once."""
    return {
        "steps": {step: _recorded_name(lock) for step, lock in locks.items()},
        "locks": {_recorded_name(lock): lock.to_document() for lock in locks.values()},
    }


def _recorded_name(lock: Lock) -> str:
    """A name for a lock and what was asked for: different requests may have the same packages."""
    facts = [lock.id, lock.requirements, *([lock.inputs] if lock.inputs else [])]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def from_documents(document: Mapping[str, Any]) -> dict[str, Lock]:
    """The locks by step that ``to_documents`` wrote."""
    locks = {name: Lock.from_document(found) for name, found in document.get("locks", {}).items()}
    return {step: locks[name] for step, name in document.get("steps", {}).items()}
