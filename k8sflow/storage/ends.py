"""The ends of a run's tasks in the names of objects, so that one page of a listing shows those of a thousand tasks.

<flow>/runs/<run>/ends/<step>/<task>_a<attempt>_s<started>_f<finished>[_c]

Times are in seconds since 1970; ``c`` says that ``@catch`` made the result. The commit is written first and
counts: a task that has no such object, because it is a clone or its process died in between, is read by its commit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from k8sflow.storage.records import Commit

_SEPARATOR = "_"


@dataclass(frozen=True)
class TaskEnd:
    """The part of a task's commit that a list of tasks shows.

    Args:
        attempt: The attempt that wrote the commit.
        started: The time at which the step's function was called, in seconds since 1970.
        finished: The time at which it returned.
        is_caught: True if the step failed, and ``@catch`` let the run continue.
    """

    attempt: int
    started: float
    finished: float
    is_caught: bool = False

    @staticmethod
    def of(commit: Commit) -> TaskEnd:
        """The end that a commit records."""
        return TaskEnd(commit.attempt, commit.started, commit.finished, commit.is_caught)


def name_of_end(task: str, end: TaskEnd) -> str:
    """The name of the object that represents the end of a task.

    Args:
        task: The task's id.
        end: Its end.
    """
    words = [task, f"a{end.attempt}", f"s{end.started!r}", f"f{end.finished!r}"]
    return _SEPARATOR.join([*words, "c"] if end.is_caught else words)


def ends_of(names: Iterable[str]) -> dict[str, TaskEnd]:
    """The ends by task, from the names of objects; of several attempts, the last one's. Other names are ignored."""
    found: dict[str, TaskEnd] = {}
    for name in names:
        task, *words = name.split(_SEPARATOR)
        fields = {word[:1]: word[1:] for word in words}
        try:
            end = TaskEnd(int(fields["a"]), float(fields["s"]), float(fields["f"]), "c" in fields)
        except (KeyError, ValueError):
            continue
        if task not in found or found[task].attempt <= end.attempt:
            found[task] = end
    return found
