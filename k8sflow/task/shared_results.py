"""The ends of tasks that shared a pod, as one small JSON document: the pod's termination message.

Tasks with the same end are listed together, by their positions among the pod's tasks. What has no room is left out:
first the details of failures, which the log and the store have, then the ends of the last tasks, which the store knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from k8sflow.task.result import TERMINATION_MESSAGE_BYTES, Failure, TaskResult

_ENDS = "ends"
_SHORT = 200


@dataclass(frozen=True)
class SharedEnds:
    """The ends of the tasks of a pod that are known, by their positions among its tasks."""

    ends: Mapping[int, TaskResult] = field(default_factory=dict)

    def to_termination_message(self) -> str:
        """The ends in JSON of at most 4096 bytes."""
        text = _document(_grouped(self.ends))
        if len(text.encode()) <= TERMINATION_MESSAGE_BYTES:
            return text
        groups = _grouped({position: _shortened(result) for position, result in self.ends.items()})
        while len(text := _document(groups)) > TERMINATION_MESSAGE_BYTES:
            groups.popitem()
        return text

    @staticmethod
    def from_json(text: str) -> SharedEnds:
        """The ends that ``to_termination_message`` wrote.

        Raises:
            ValueError: The text is not such a document.
        """
        try:
            found = json.loads(text)[_ENDS]
            return SharedEnds(
                {
                    position: TaskResult.from_json(json.dumps(result))
                    for positions, result in found
                    for position in _positions(positions)
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the ends of tasks: {text[:200]!r}") from error


def _grouped(ends: Mapping[int, TaskResult]) -> dict[str, list[int]]:
    """Positions by the JSON of the result; the successes first, whose ends are the shortest."""
    found: dict[str, list[int]] = {}
    for position, result in sorted(ends.items(), key=lambda end: (end[1].outcome.is_failure, end[0])):
        found.setdefault(result.to_json(), []).append(position)
    return found


def _document(groups: Mapping[str, list[int]]) -> str:
    ends = ",".join(f'["{_ranges(positions)}",{result}]' for result, positions in groups.items())
    return f'{{"{_ENDS}":[{ends}]}}'


def _shortened(result: TaskResult) -> TaskResult:
    if result.failure is None:
        return result
    found = result.failure
    return replace(
        result, failure=Failure(found.summary[:_SHORT], error_type=found.error_type, is_final=found.is_final), note=""
    )


def _ranges(positions: Iterable[int]) -> str:
    """Ascending positions as text: ``0-3,7``."""
    found = list(positions)
    starts = [found[0], *(after for before, after in pairwise(found) if after != before + 1)]
    ends = [*(before for before, after in pairwise(found) if after != before + 1), found[-1]]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _positions(text: str) -> Iterable[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
