"""The requests of a step for its pod or job: fields that are declared once, merged, and kept in the run's record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self


def option(parser: Callable[[object], Any], about: str) -> Any:
    """The field of an option: None while it is not set.

    Args:
        parser: Takes what a user wrote, and raises ValueError for what can't be used.
        about: The help text.
    """
    return field(default=None, metadata={"parse": parser, "help": about})


@dataclass(frozen=True)
class StepRequests:
    """The requests of a step to one system; each field is an option, and None where it is not set."""

    # The options that are joined key by key.
    joined: ClassVar[frozenset[str]] = frozenset()

    def to_document(self) -> dict[str, Any]:
        """The options that are set, as JSON types."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The options that ``to_document`` wrote."""
        return cls(**{name: tuple(found) if isinstance(found, list) else found for name, found in document.items()})

    @classmethod
    def merged(cls, options: Iterable[Self]) -> Self:
        """The options that hold, strongest first."""
        merged = cls()
        for weaker in options:
            merged = merged.over(weaker)
        return merged

    def over(self, weaker: Self) -> Self:
        """These options, completed by those of ``weaker``.

        Labels, tags and environment variables are joined key by key; everything else is replaced whole, so that what
        the user wrote is never mixed with a default.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in values.items():
            other = getattr(weaker, name)
            if value is None:
                values[name] = other
            elif name in self.joined and other is not None:
                values[name] = {**other, **value}
        return replace(self, **values)
