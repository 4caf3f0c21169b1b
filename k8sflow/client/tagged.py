"""Tags: those of a run are those of everything in it."""

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


class TaggedAsParent:
    """A part of a run."""

    parent: Tagged

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
