"""``merge_artifacts``: a join takes over the artifacts on which its branches agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from k8sflow.errors import ArtifactError, MissingInMergeArtifactsException, UnhandledInMergeArtifactsException
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.layers import Layer
from k8sflow.storage.tables import Table
from k8sflow.task.inside.inputs import Branch, Inputs, table_of

_SHOWN = 4


@dataclass(frozen=True)
class Merged:
    """The artifacts that a join takes over.

    Args:
        refs: The artifacts, by name.
        layers: The tasks that made them, the oldest of a branch first.
    """

    refs: dict[str, ArtifactRef]
    layers: list[Layer]


def merge(
    artifacts: ArtifactStore,
    join: str,
    inputs: Any,
    *,
    exclude: Collection[str],
    include: Collection[str],
    own: Collection[str],
    before: Table,
) -> Merged:
    """Finds what a join takes over. Only values on which the branches seem to disagree are loaded.

    Args:
        artifacts: Where the values are.
        join: The join's step.
        inputs: The branches: the join's inputs, or some of them.
        exclude: Names that are not taken over.
        include: The only names that are taken over, if there are any.
        own: Names that the join has set itself.
        before: What the split left.

    Raises:
        UnhandledInMergeArtifactsException: Branches disagree on an artifact.
        MissingInMergeArtifactsException: An included one is in no branch.
        ArtifactError: The inputs are none, or there is both exclude and include.
    """
    if exclude and include:
        raise ArtifactError(f"merge_artifacts() in step {join} takes exclude or include, not both.")
    found: dict[str, dict[str, ArtifactRef]] = {}
    layers: list[Layer] = []
    for branch in _branches(inputs, join):
        table = table_of(branch)
        refs = table.refs()
        if refs.keys() - found.keys():
            layers += table.layers
        for name, ref in refs.items():
            found.setdefault(name, {}).setdefault(ref.value_hash, ref)
    if missing := sorted(set(include) - found.keys()):
        raise MissingInMergeArtifactsException(
            f"merge_artifacts() in step {join}: no branch has {', '.join(map(repr, missing))}.",
            missing,
            advice=f"The branches have {', '.join(sorted(found)) or 'no artifacts'}.",
        )
    wanted = (set(include) if include else found.keys() - set(exclude)) - set(own)
    agreed = {name: _agreed(artifacts, name, list(found[name].values()), before) for name in wanted}
    if conflicts := sorted(name for name, ref in agreed.items() if ref is None):
        raise _conflict(join, {name: list(found[name].values()) for name in conflicts})
    return Merged({name: ref for name, ref in agreed.items() if ref is not None}, layers)


def _branches(inputs: Any, join: str) -> Iterable[Branch]:
    """The branches one after the other; of a join's inputs no more at a time than it holds itself.

    Raises:
        ArtifactError: It is something else.
    """
    advice = "Call self.merge_artifacts(inputs) in a join, with the inputs that the step was given, or some of them."
    what = f"merge_artifacts() in step {join} was given {type(inputs).__name__}"
    if isinstance(inputs, Branch) or (not isinstance(inputs, Inputs) and not hasattr(type(inputs), "__iter__")):
        raise ArtifactError(f"{what}, which is not the inputs of a join.", advice=advice)
    for branch in inputs:
        if not isinstance(branch, Branch):
            raise ArtifactError(f"{what} with {type(branch).__name__} in it, which is not an input.", advice=advice)
        yield branch


def _agreed(artifacts: ArtifactStore, name: str, refs: list[ArtifactRef], before: Table) -> ArtifactRef | None:
    """The reference on which the branches agree, or None.

    A value that some branches only read, and saved with caches that the reading filled, counts as the split's value.
    """
    if len(refs) == 1:
        return refs[0]
    origin = before.get(name) or min(refs, key=lambda ref: ref.size)
    same = all(ref.value_hash == origin.value_hash or artifacts.was_only_read(ref, origin, name) for ref in refs)
    return origin if same else None


def _conflict(join: str, conflicts: dict[str, list[ArtifactRef]]) -> UnhandledInMergeArtifactsException:
    listed = "\n".join(f"    {name}: {_described(refs)}" for name, refs in conflicts.items())
    alike = [name for name, refs in conflicts.items() if _may_be_one(refs)]
    hint = (
        f" Where the branches only read self.{alike[0]}, and that alone has changed it, exclude it and write "
        f"self.{alike[0]} = inputs[0].{alike[0]}."
        if alike
        else ""
    )
    return UnhandledInMergeArtifactsException(
        f"merge_artifacts() in step {join}: the branches disagree on\n{listed}",
        list(conflicts),
        advice=f"Set each of them on self before the call, or exclude it: exclude=[...].{hint}",
    )


def _may_be_one(refs: list[ArtifactRef]) -> bool:
    """True if it may be one object that was read in several ways: of one class that is not Python's own."""
    kinds = {ref.type for ref in refs}
    return len(kinds) == 1 and not kinds.pop().startswith("builtins.")


def _described(refs: list[ArtifactRef]) -> str:
    return ", ".join(
        f"{ref.type.removeprefix('builtins.')} of {ref.value_size} bytes ({ref.blob[:8]})" for ref in refs[:_SHOWN]
    )
