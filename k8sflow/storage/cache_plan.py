"""The part of a step's cache key that is known when a run starts, as ``run.json`` keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# The part of a key for the lock of a step with packages of its own.
PACKAGES = "packages of @pypi"


@dataclass(frozen=True)
class CachePlan:
    """The part of ``@cache`` for one step of a run.

    Args:
        parts: The hashes of what the key is made of apart from the task's inputs, by what they are.
        carried: The hash of all code that a value may bring with it: a part of the key of a task that reads such a one.
        carried_refused: Why that code can't be compared with another run's; empty if it can be.
        is_here: True if the tasks run on this machine, with its libraries.
        is_locked: True if the packages of the tasks are those of a lock, which is among the parts.
        of_task: True if the step reads ``current.task_id``.
        own_modules: The modules of that code, by their first names.
        reads: The attributes of ``self`` that the step may read; None if it may read any.
        sets: The attributes of ``self`` that it sets or deletes.
        ignore: The names of artifacts and parameters that the key leaves out.
        max_age: The most seconds since the result was created; None for any age.
        signature: The state of the files from which tasks on this machine run (``storage/package.py``); empty for a
            step whose tasks run from the code package.
        outside: The files with code of the flow that are not in its folder, and those that its code names.
        is_taken: False if results are only kept, and none is taken (``--no-cache``).
        notes: Why the key has more in it than the step's own code.
        refused: Why no result is taken or kept; empty if results are.
    """

    parts: Mapping[str, str]
    carried: str = ""
    carried_refused: tuple[str, ...] = ()
    is_here: bool = False
    is_locked: bool = False
    of_task: bool = False
    own_modules: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    sets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    max_age: float | None = None
    signature: str = ""
    outside: tuple[str, ...] = ()
    is_taken: bool = True
    notes: tuple[str, ...] = field(default=())
    refused: tuple[str, ...] = field(default=())

    def may_read(self, name: str) -> bool:
        """True if the value of an attribute of ``self`` may matter for the result."""
        return name not in self.ignore and (self.reads is None or name in self.reads)

    def to_document(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return asdict(self)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> CachePlan:
        """The plan in a JSON document."""
        lists = ("carried_refused", "own_modules", "sets", "ignore", "outside", "notes", "refused")
        reads = document["reads"]
        return CachePlan(
            **{
                **document,
                **{name: tuple(document[name]) for name in lists},
                "reads": None if reads is None else tuple(reads),
            }
        )
