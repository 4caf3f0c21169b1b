"""Compares the packages of two runs, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from k8sflow.environments.lock import Lock, LockedPackage

PYTHON, PLATFORM = "(Python)", "(platform)"  # no package has such a name


@dataclass(frozen=True)
class Difference:
    """Something that differs between the environments that a step has in two runs.

    Args:
        step: The step.
        name: The package; ``PYTHON`` or ``PLATFORM`` for these.
        before: Its version in the first run; None where it isn't there.
        after: That in the second run.
    """

    step: str
    name: str
    before: str | None
    after: str | None

    @property
    def change(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


def differences(before: Mapping[str, Lock], after: Mapping[str, Lock]) -> list[Difference]:
    """The differences between the environments of two runs, by step, in the order of the first run's steps.

    Args:
        before: The locks of the first run, by step.
        after: Those of the second run.
    """
    return [
        found for step in dict.fromkeys([*before, *after]) for found in _of(step, before.get(step), after.get(step))
    ]


def _of(step: str, before: Lock | None, after: Lock | None) -> Iterator[Difference]:
    for name, old, new in zip((PYTHON, PLATFORM), _where(before), _where(after), strict=True):
        if old != new:
            yield Difference(step, name, old, new)
    olds, news = _by_name(before), _by_name(after)
    for name in sorted({*olds, *news}):
        if (found := _changed(olds.get(name), news.get(name))) is not None:
            yield Difference(step, name, *found)


def _where(lock: Lock | None) -> tuple[str | None, str | None]:
    return (None, None) if lock is None else (lock.python, lock.platform)


def _by_name(lock: Lock | None) -> dict[str, tuple[LockedPackage, str]]:
    """The packages of a lock, with what their folders have, if they are built from any."""
    if lock is None:
        return {}
    return {found.name: (found, lock.folders if found.is_folder else "") for found in lock.packages}


def _changed(
    old: tuple[LockedPackage, str] | None, new: tuple[LockedPackage, str] | None
) -> tuple[str | None, str | None] | None:
    """The texts to show for a package in both runs; None where it is the same."""
    before, after = old and old[0].shown, new and new[0].shown
    if old is None or new is None or before != after:
        return before, after
    # Wheels of several platforms differ; those of one with another hash are other files.
    files = [package.wheel for package, _ in (old, new) if package.wheel is not None and package.wheel.sha256]
    others = len(files) == 2 and files[0].name == files[1].name and files[0].sha256 != files[1].sha256  # noqa: PLR2004
    return (before, f"{after}, other files") if others or old[1] != new[1] else None
