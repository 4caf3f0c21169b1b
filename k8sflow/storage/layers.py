"""The layers by which a task's commit refers to inherited artifacts without copying them.

A commit has the references of the artifacts that its task set, with the small values in them. For inherited artifacts,
it names the tasks that set them: its layers, from the oldest to the newest. A newer layer's artifacts hide those of the
same name in older ones. So a value is written once, however many tasks pass it on, and a reader reads one more object
per layer, and none per value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from k8sflow.storage.artifacts import ArtifactRef

# Up to this much of what a task inherits is copied into its commit, so that most runs need no layers.
_COPIED_BYTES = 1024
# With fewer layers than this, none is folded into a commit.
_FEW = 4
# The size of a reference's document without its names and its inline value.
_REFERENCE_BYTES = 150


@dataclass(frozen=True)
class Layer:
    """The artifacts that one task set.

    Args:
        task: The task, as ``step/id``.
        own: The artifacts by name.
    """

    task: str
    own: Mapping[str, ArtifactRef]


@dataclass(frozen=True)
class Composition:
    """The artifacts of a task, as a commit represents them.

    Args:
        own: The artifacts in the commit itself.
        layers: The tasks whose artifacts are included, the oldest first.
        without: Names that a layer has and the task doesn't.
    """

    own: Mapping[str, ArtifactRef]
    layers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def resolve(layers: Iterable[Layer], without: Iterable[str] = ()) -> dict[str, ArtifactRef]:
    """The artifacts of layers, given from the oldest to the newest, without some names."""
    found: dict[str, ArtifactRef] = {}
    for layer in layers:
        found.update(layer.own)
    for name in without:
        found.pop(name, None)
    return found


def compose(artifacts: Mapping[str, ArtifactRef], known: Sequence[Layer]) -> Composition:
    """The shortest representation of a task's artifacts.

    Args:
        artifacts: All artifacts of the task, by name.
        known: The layers that it may name, the oldest first.
    """
    chosen = _chosen(artifacts, known)
    inherited = resolve(chosen)
    own = {name: ref for name, ref in artifacts.items() if inherited.get(name) != ref}
    without = tuple(sorted(inherited.keys() - artifacts.keys()))
    return Composition(own, tuple(layer.task for layer in chosen), without)


def _chosen(artifacts: Mapping[str, ArtifactRef], known: Sequence[Layer]) -> list[Layer]:
    """The layers that are worth naming.

    A layer is folded into the commit if the commit has at least half as many bytes itself. So the number of layers, and
    of copies of a value, is at most a few plus the logarithm of all bytes.
    """
    worth, own = _worth(artifacts, known)
    copied = 0
    rest = sorted((worth[number], number) for number in worth)
    while rest and copied + rest[0][0] <= _COPIED_BYTES:
        copied += rest.pop(0)[0]
    own += copied
    while len(rest) >= _FEW and rest[0][0] <= 2 * own:
        own += rest.pop(0)[0]
    return [known[number] for number in sorted(number for _, number in rest)]


def _worth(artifacts: Mapping[str, ArtifactRef], known: Sequence[Layer]) -> tuple[dict[int, int], int]:
    """The bytes that each layer saves, by its index, and the bytes of artifacts that no layer has."""
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
