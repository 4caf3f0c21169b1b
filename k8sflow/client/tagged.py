"""Tags, namespace and place: those of a run are those of everything in it."""

from __future__ import annotations

from typing import Protocol


class Tagged(Protocol):
    """What has tags."""

    @property
    def tags(self) -> frozenset[str]:
        """All of them."""

    @property
    def user_tags(self) -> frozenset[str]:
        """Those that a person gave."""

    @property
    def system_tags(self) -> frozenset[str]:
        """Those that say by whom and where the run was started."""

    def is_in_namespace(self) -> bool:
        """Whether a reader in this namespace finds it."""


def components(pathspec: str) -> list[str]:
    """The parts of a pathspec: ``["BigSum", "my-run", "train", "3"]``."""
    return pathspec.split("/")


class TaggedAsParent:
    """A part of a run."""

    parent: Tagged

    @property
    def pathspec(self) -> str:
        """The names that lead to it, with slashes between them."""
        raise NotImplementedError

    @property
    def path_components(self) -> list[str]:
        """The parts of the pathspec."""
        return components(self.pathspec)

    def is_in_namespace(self) -> bool:
        """Whether the run has the tag by which runs are looked for."""
        return self.parent.is_in_namespace()

    @property
    def tags(self) -> frozenset[str]:
        """The tags of the run."""
        return self.parent.tags

    @property
    def user_tags(self) -> frozenset[str]:
        """The user's tags of the run."""
        return self.parent.user_tags

    @property
    def system_tags(self) -> frozenset[str]:
        """The system's tags of the run."""
        return self.parent.system_tags
