"""How a task's commit says what it has inherited, without a copy of it.

A commit holds the references of the artifacts that its task made, with the small values in them. What the task
inherited, it names by the tasks that made it: its layers, from the oldest to the youngest, of which a younger one's
artifacts hide an older one's. So a value is written once however many tasks hand it on, and a reader needs one more
object for each layer, and none for each value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from k8sflow.storage.artifacts import ArtifactRef

# So much of what a task inherits is copied into its commit, for readers to need no layers: those of most runs don't.
_COPIED_BYTES = 1024
# Below so many layers none is folded into a commit.
_FEW = 4
# What the document of a reference takes beside its names and its inline value.
_REFERENCE_BYTES = 150


@dataclass(frozen=True)
class Layer:
    """What one task made.

    Args:
        task: The task, as ``step/id``.
        own: The artifacts that it made, by name.
    """

    task: str
    own: Mapping[str, ArtifactRef]


@dataclass(frozen=True)
class Composition:
    """How a commit says which artifacts there are.

    Args:
        own: Those that it holds itself.
        layers: The tasks whose artifacts there are too, the oldest first.
        without: The names that are not there, although a layer has them.
    """

    own: Mapping[str, ArtifactRef]
    layers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def resolve(layers: Iterable[Layer], without: Iterable[str] = ()) -> dict[str, ArtifactRef]:
    """The artifacts of layers from the oldest to the youngest, but for some names."""
    found: dict[str, ArtifactRef] = {}
    for layer in layers:
        found.update(layer.own)
    for name in without:
        found.pop(name, None)
    return found


def compose(artifacts: Mapping[str, ArtifactRef], known: Sequence[Layer]) -> Composition:
    """The shortest way to say which artifacts there are.

    Args:
        artifacts: All that a task leaves, by name.
        known: The layers that it may name, the oldest first.
    """
    chosen = _chosen(artifacts, known)
    inherited = resolve(chosen)
    own = {name: ref for name, ref in artifacts.items() if inherited.get(name) != ref}
    without = tuple(sorted(inherited.keys() - artifacts.keys()))
    return Composition(own, tuple(layer.task for layer in chosen), without)


def _chosen(artifacts: Mapping[str, ArtifactRef], known: Sequence[Layer]) -> list[Layer]:
    """The layers that are worth to be named.

    A layer is folded into the commit where that holds half as much itself or more, so that there are no more than a few
    and the logarithm of all bytes, and each value is copied no more often than that.
    """
    worth, own = _worth(artifacts, known)
    copied = 0
    left = sorted((worth[number], number) for number in worth)
    while left and copied + left[0][0] <= _COPIED_BYTES:
        copied += left.pop(0)[0]
    own += copied
    while len(left) >= _FEW and left[0][0] <= 2 * own:
        own += left.pop(0)[0]
    return [known[number] for number in sorted(number for _, number in left)]


def _worth(artifacts: Mapping[str, ArtifactRef], known: Sequence[Layer]) -> tuple[dict[int, int], int]:
    """How many bytes each layer saves, by its place, and the bytes of what none has."""
    worth: dict[int, int] = {}
    own = 0
    for name, ref in artifacts.items():
        holder = next((i for i in range(len(known) - 1, -1, -1) if known[i].own.get(name) == ref), None)
        if holder is None:
            own += _bytes(name, ref)
        else:
            worth[holder] = worth.get(holder, 0) + _bytes(name, ref)
    for number in worth:
        worth[number] -= sum(len(name) + 3 for name in known[number].own if name not in artifacts)
    return worth, own


def _bytes(name: str, ref: ArtifactRef) -> int:
    return _REFERENCE_BYTES + len(name) + len(ref.type) + len(ref.inline or "")
