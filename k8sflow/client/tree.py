"""Common parts of the tree's levels: access to the parent, the tags and namespace of the run, local times.

A module imports only the levels below its own. Each level registers its class here, so that a part that is given by its
pathspec can find its parent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from k8sflow.client.flow import Flow
    from k8sflow.client.run import Run
    from k8sflow.client.step import Step
    from k8sflow.client.task import Task

_Part = TypeVar("_Part")


class Level(Generic[_Part]):
    """A level of the tree, for the modules of the levels below it."""

    def __init__(self) -> None:
        self._find: Callable[[str], _Part]

    def register(self, find: Callable[[str], _Part]) -> None:
        """Sets the function that finds a part of this level by its pathspec."""
        self._find = find

    def find(self, pathspec: str) -> _Part:
        """The part with a pathspec.

        Raises:
            NotFoundError: There is none.
        """
        return self._find(pathspec)


FLOWS: Level[Flow] = Level()
RUNS: Level[Run] = Level()
STEPS: Level[Step] = Level()
TASKS: Level[Task] = Level()


class Tagged(Protocol):
    """An object with tags."""

    @property
    def tags(self) -> frozenset[str]:
        """All tags."""

    @property
    def user_tags(self) -> frozenset[str]:
        """The tags that people added."""

    @property
    def system_tags(self) -> frozenset[str]:
        """The tags that follow from how the run was started: by which user, when, where."""

    def is_in_namespace(self) -> bool:
        """True if a reader in the current namespace finds it."""


def components(pathspec: str) -> list[str]:
    """The parts of a pathspec: ``["BigSum", "my-run", "train", "3"]``."""
    return pathspec.split("/")


def local_time(seconds: float) -> datetime:
    """A time as Metaflow's client gives it: in the reader's time zone, and naive like ``datetime.now()``.

    In the hour that occurs twice when summer time ends, ``fold`` tells the two apart, so ``timestamp()`` is exact.

    Args:
        seconds: Seconds since 1970.
    """
    return datetime.fromtimestamp(seconds)  # noqa: DTZ006  naive on purpose


class TaggedAsParent:
    """A part of a run, with the run's tags."""

    parent: Tagged

    @property
    def pathspec(self) -> str:
        """The names of the levels above it and its own, separated by slashes."""
        raise NotImplementedError

    @property
    def path_components(self) -> list[str]:
        """The parts of the pathspec."""
        return components(self.pathspec)

    def is_in_namespace(self) -> bool:
        """True if the run has the tag of the current namespace."""
        return self.parent.is_in_namespace()

    @property
    def tags(self) -> frozenset[str]:
        """The tags of the run."""
        return self.parent.tags

    @property
    def user_tags(self) -> frozenset[str]:
        """The run's tags that people added."""
        return self.parent.user_tags

    @property
    def system_tags(self) -> frozenset[str]:
        """The run's tags that follow from how it was started."""
        return self.parent.system_tags
