"""The ends of a run's tasks in the names of objects, so that one page of a listing shows those of a thousand tasks.

<flow>/runs/<run>/ends/<step>/<task>_a<attempt>_s<started>_f<finished>[_c][_m<memory>][_u<cpu>][_r<read>][_w<written>][_p]

Times are in seconds since 1970, CPU time is in seconds, the other amounts are in bytes; ``c`` says that ``@catch`` made
the result, ``p`` that the memory is not that of all processes. The commit is written first and counts: a task that has
no such object, because its process died in between, is read by its commit. The same names of clones, which many tasks
of a run may be, are in the one object ``cloned.json``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from k8sflow.storage.records import Commit
from k8sflow.storage.usage import Usage

_SEPARATOR = "_"
_AMOUNTS = {"m": "memory_bytes", "u": "cpu_seconds", "r": "read_bytes", "w": "written_bytes"}


@dataclass(frozen=True)
class TaskEnd:
    """The part of a task's commit that a list of tasks shows.

    Args:
        attempt: The attempt that wrote the commit.
        started: The time at which the step's function was called, in seconds since 1970.
        finished: The time at which it returned.
        is_caught: True if the step failed, and ``@catch`` let the run continue.
        usage: The resources that the attempt used; None if they were not measured.
    """

    attempt: int
    started: float
    finished: float
    is_caught: bool = False
    usage: Usage | None = None

    @staticmethod
    def of(commit: Commit) -> TaskEnd:
        """The end that a commit records."""
        return TaskEnd(commit.attempt, commit.started, commit.finished, commit.is_caught, commit.usage)

    @staticmethod
    def of_document(document: Mapping[str, Any]) -> TaskEnd:
        """The end in the JSON document of a commit."""
        times, is_caught = (document["started"], document["finished"]), bool(document.get("is_caught"))
        return TaskEnd(document["attempt"], *times, is_caught, Usage.from_document(document.get("usage")))


def name_of_end(task: str, end: TaskEnd) -> str:
    """The name of the object that represents the end of a task.

    Args:
        task: The task's id.
        end: Its end.
    """
    words = [task, f"a{end.attempt}", f"s{end.started!r}", f"f{end.finished!r}"]
    words += ["c"] if end.is_caught else []
    if (usage := end.usage) is not None:
        amounts = {letter: getattr(usage, name) for letter, name in _AMOUNTS.items()}
        words += [f"{letter}{amount}" for letter, amount in amounts.items() if amount is not None]
        words += ["p"] if usage.is_partial else []
    return _SEPARATOR.join(words)


def ends_of(names: Iterable[str]) -> dict[str, TaskEnd]:
    """The ends by task, from the names of objects; of several attempts, the last one's. Other names are ignored."""
    found: dict[str, TaskEnd] = {}
    for name in names:
        task, *words = name.split(_SEPARATOR)
        fields = {word[:1]: word[1:] for word in words}
        try:
            end = TaskEnd(int(fields["a"]), float(fields["s"]), float(fields["f"]), "c" in fields, _usage(fields))
        except (KeyError, ValueError):
            continue
        if not (math.isfinite(end.started) and math.isfinite(end.finished)):
            continue
        if task not in found or found[task].attempt <= end.attempt:
            found[task] = end
    return found


def _usage(fields: Mapping[str, str]) -> Usage | None:
    """The usage in the parts of a name, by letter.

    Raises:
        ValueError: A part is not a number.
    """
    if not _AMOUNTS.keys() & fields.keys():
        return None
    memory, read, written = (int(fields[letter]) if letter in fields else None for letter in "mrw")
    return Usage(memory, float(fields["u"]) if "u" in fields else None, read, written, "p" in fields)
