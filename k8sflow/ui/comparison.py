"""Two runs side by side: their parameters, their times by step, and the artifacts that differ."""

from __future__ import annotations

from typing import Any

from k8sflow.errors import K8sflowError
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.layout import task_order
from k8sflow.ui.progress import RunReader
from k8sflow.ui.run_view import base_facts, steps
from k8sflow.ui.values import short_value

# The artifacts of so many tasks of a step are compared: each takes a read of its commit.
_MOST_TASKS = 20
_Shown = tuple[str, str]


def compared(left: RunReader, right: RunReader) -> dict[str, Any]:
    """The differences between two runs.

    Args:
        left: One run.
        right: The other one.
    """
    readers = (left, right)
    rows = [{step["name"]: step for step in steps(reader, reader.rows())} for reader in readers]
    names = list(dict.fromkeys([*rows[0], *rows[1]]))
    return {
        "facts": [base_facts(reader) for reader in readers],
        "parameters": _pairs(readers, *(dict(reader.record.parameters) for reader in readers)),
        "steps": [(name, rows[0].get(name), rows[1].get(name)) for name in names],
        "artifacts": _artifacts(left, right, names),
        "most_tasks": _MOST_TASKS,
    }


def _pairs(
    readers: tuple[RunReader, RunReader], left: dict[str, ArtifactRef], right: dict[str, ArtifactRef]
) -> list[tuple[str, str, str, bool]]:
    """The values of both runs by name, and whether they are the same."""
    found = []
    for name in sorted(left.keys() | right.keys()):
        one, other = left.get(name), right.get(name)
        is_same = one is not None and other is not None and one.value_hash == other.value_hash
        found.append((name, _short(readers[0], one, name), _short(readers[1], other, name), is_same))
    return found


def _short(reader: RunReader, ref: ArtifactRef | None, name: str) -> str:
    if ref is None:
        return "—"
    short = short_value(reader.run_store.store, reader.run_store.flow, ref, name)
    return short or f"{ref.type.removeprefix('builtins.')}, {ref.blob[:10]}"


def _artifacts(left: RunReader, right: RunReader, names: list[str]) -> list[tuple[str, str, str, str]]:
    """The artifacts that differ: task, name, and both values; those that a task only inherited count once."""
    seen: set[tuple[str, str, str]] = set()
    tasks = [{(row.step, row.task) for row in reader.rows() if row.finished is not None} for reader in (left, right)]
    found = []
    for step in names:
        common = sorted((task for name, task in tasks[0] & tasks[1] if name == step), key=task_order)
        for task in common[:_MOST_TASKS]:
            one, other = _refs(left, step, task), _refs(right, step, task)
            for name, first, second, is_same in _pairs((left, right), one, other):
                blobs = tuple("" if refs.get(name) is None else refs[name].value_hash for refs in (one, other))
                if not is_same and (name, *blobs) not in seen and name not in left.record.parameters:
                    seen.add((name, blobs[0], blobs[1]))
                    found.append((f"{step}/{task}", name, first, second))
    return found


def _refs(reader: RunReader, step: str, task: str) -> dict[str, ArtifactRef]:
    try:
        commit = reader.run_store.read_commit(step, task)
        return {} if commit is None else reader.run.tables.table(f"{step}/{task}", commit).refs()
    except K8sflowError:
        return {}
