"""A commit refers to inherited artifacts without copying them, whatever tasks came before."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.layers import Layer, compose, resolve
from k8sflow.storage.records import Commit
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.tables import Tables

NAMES = st.sampled_from("abcdefgh")
REFS = st.builds(
    lambda number, size: ArtifactRef(f"{number}-{size}", size, "pickle", "builtins.str", "x" * size),
    st.integers(0, 3),
    st.sampled_from([10, 700, 3000]),
)
OWN = st.dictionaries(NAMES, REFS)


@given(OWN, st.lists(OWN, max_size=12))
def test_nothing_is_lost_or_added(artifacts: dict[str, ArtifactRef], layers: list[dict[str, ArtifactRef]]) -> None:
    """Any choice of named layers has the same artifacts."""
    known = [Layer(f"s{number}/0", own) for number, own in enumerate(layers)]
    found = compose(artifacts, known)
    named = [layer for layer in known if layer.task in found.layers]
    assert [layer.task for layer in named] == list(found.layers)
    assert {**resolve(named, found.without), **found.own} == artifacts


@given(st.lists(st.tuples(OWN, st.lists(NAMES, max_size=3)), min_size=1, max_size=25))
def test_a_chain_of_tasks_passes_on_its_artifacts(changes: list[tuple[dict[str, ArtifactRef], list[str]]]) -> None:
    """Each task sets some artifacts and drops others; the store has few layers for each."""
    run_store = RunStore(MemoryStore(), "F", "r")
    expected: dict[str, ArtifactRef] = {}
    before: tuple[Layer, ...] = ()
    for number, (sets, drops) in enumerate(changes):
        expected = {name: ref for name, ref in {**expected, **sets}.items() if name not in drops}
        left = compose(expected, before)
        commit = Commit(0, (), left.own, layers=left.layers, without=left.without)
        assert run_store.commit("s", str(number), commit)
        read = run_store.read_commit("s", str(number))
        assert read == commit
        table = Tables(run_store).table(f"s/{number}", commit)
        assert table.refs() == expected
        assert {name: table.get(name) for name in "abcdefgh"} == {name: expected.get(name) for name in "abcdefgh"}
        before = table.layers
        assert len(left.layers) < 12


def _ref(name: str, size: int = 2200) -> ArtifactRef:
    return ArtifactRef(f"{name:0>64}", size, "pickle", "builtins.str", "x" * size)


def test_a_chain_of_steps_copies_each_value_a_few_times_at_most() -> None:
    """Reading it never takes more than a few commits."""
    layers: tuple[Layer, ...] = ()
    artifacts: dict[str, ArtifactRef] = {}
    written = 0
    for number in range(100):
        artifacts[f"x{number}"] = _ref(str(number))
        left = compose(artifacts, layers)
        written += sum(len(ref.inline or "") for ref in left.own.values())
        named = [layer for layer in layers if layer.task in left.layers]
        layers = (*named, Layer(f"s{number}/0", left.own))
        assert len(layers) <= 12
    assert written < 6 * 100 * 2200


def test_a_few_small_values_are_copied() -> None:
    """A reader needs only their task's commit."""
    artifacts = {name: _ref(name, 100) for name in "abc"}
    left = compose(artifacts, [Layer("start/0", artifacts)])
    assert (left.own, left.layers) == (artifacts, ())


def test_many_values_are_named_by_the_task_that_set_them() -> None:
    """Deleted ones are listed too."""
    artifacts = {f"x{number}": _ref(str(number)) for number in range(300)}
    left = compose({**artifacts, "x0": _ref("other")}, [Layer("start/0", {**artifacts, "deleted": _ref("deleted")})])
    assert (dict(left.own), left.layers, left.without) == ({"x0": _ref("other")}, ("start/0",), ("deleted",))


def _document(commit: Commit) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(commit.to_document()))
    return found


def test_a_commit_with_layers_has_another_format() -> None:
    """A k8sflow without layers would miss inherited artifacts; the format of other commits is unchanged."""
    plain = Commit(0, ("end",), {"a": _ref("a")})
    assert _document(plain)["format"] == 1
    assert {"layers", "without", "origin"}.isdisjoint(_document(plain))
    assert _document(Commit(0, ("end",), {}, layers=("start/0",)))["format"] == 2
