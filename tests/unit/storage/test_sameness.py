"""A value that a step has only read keeps its reference, whatever its class; one that has changed never does."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble, linear_model, neighbors, pipeline, preprocessing

from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture
def saved(folder_store: FolderStore) -> ArtifactStore:
    """Artifacts of a flow F in a folder."""
    return ArtifactStore(folder_store, "F")


class FromJson:
    def __init__(self) -> None:
        self.__dict__ = json.loads('{"rows": [{"name": "a", "size": 1}, {"name": "b", "size": 1}], "name": "x"}')


class Squares:
    """Computes its values on first access."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    @functools.cached_property
    def results(self) -> list[int]:
        return [number**2 for number in self.numbers]


def _frame() -> pd.DataFrame:
    frame = pd.DataFrame({"n": np.arange(50), "x": np.arange(50.0), "day": pd.date_range("2026-01-01", periods=50)})
    frame["late"] = frame["x"] * 2
    frame["word"] = [f"w{i % 5}" for i in range(50)]
    frame["mixed"] = [[1], None] * 25
    return frame


VALUES: dict[str, Callable[[], Any]] = {
    "forest": lambda: ensemble.RandomForestClassifier(3, random_state=0).fit(X, Y),
    "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=3, random_state=0).fit(X, Y),
    "scaler": lambda: preprocessing.StandardScaler().fit(X),
    "neighbours": lambda: neighbors.KNeighborsClassifier().fit(X, Y),
    "linear": lambda: linear_model.LinearRegression().fit(X, Y),
    "pipeline": lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge()).fit(X, Y),
    "frame": _frame,
    "frame by day": lambda: _frame().set_index("day"),
    "frame by word": lambda: _frame().set_index("word"),
    "series": lambda: _frame()["word"],
    "masked": lambda: np.ma.masked_greater(X, 1),
    "intervals": lambda: pd.IntervalIndex.from_breaks([0, 1, 2, 3]),
    "groups": lambda: _frame().groupby("word"),
    "json": FromJson,
    "graph": lambda: nx.path_graph(5),
    "frames in a dict": lambda: {"a": _frame(), "b": [_frame().set_index("day")]},
    "squares": lambda: Squares([1, 2, 3]),
    "objects": lambda: np.array([{"a"}, {"b", "c"}, None], object),
    "sets": lambda: {"a": {"x", "y", "zz"}, "model": preprocessing.StandardScaler()},
}


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_a_loaded_value_keeps_its_reference(saved: ArtifactStore, make: Callable[[], Any]) -> None:
    """Its pickle may have other bytes after loading."""
    ref = saved.save(make(), "value")
    later = ArtifactStore(saved._store, "F")
    assert later.save(later.load(ref, "value"), "value", known=ref) is ref


READS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "row": ("frame", lambda frame: frame.iloc[0]),
    "rows": ("frame", lambda frame: list(frame.iterrows())),
    "values": ("frame", lambda frame: frame.to_numpy()),
    "numbers": ("frame", lambda frame: frame[["x", "late"]].to_numpy()),
    "label": ("frame by day", lambda frame: (frame.loc["2026-01-02"], frame.index.is_unique)),
    "sum": ("frame", lambda frame: frame.sum(numeric_only=True)),
    "nested": ("frames in a dict", lambda frames: (frames["a"].to_numpy(), frames["b"][0].iloc[0])),
    "groups": ("groups", lambda groups: (groups["x"].sum(), groups.groups, groups.ngroups)),
    "grouping": ("frame", lambda frame: frame.groupby("word")["x"].sum()),
    "prediction": ("forest", lambda model: model.predict(X)),
    "steps": ("pipeline", lambda model: (model.predict(X), repr(model))),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_value_keeps_its_reference(saved: ArtifactStore, read: str) -> None:
    """Reading may rearrange the value in memory."""
    name, look = READS[read]
    ref = saved.save(VALUES[name](), "value")
    value = saved.load(ref, "value")
    look(value)
    assert saved.save(value, "value", known=ref) is ref


def _set_cell(frame: pd.DataFrame) -> None:
    frame.iloc[3, 0] = 1000


def _set_object(frame: pd.DataFrame) -> None:
    frame["mixed"][0].append(2)


def _set_type(frame: pd.DataFrame) -> None:
    frame["n"] = frame["n"].astype("int32")


def _set_attribute(model: Any) -> None:
    model.note = "mine"


def _set_number(numbers: Any) -> None:
    numbers.append(4)


CHANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "cell": ("frame", _set_cell),
    "object in a cell": ("frame", _set_object),
    "type of a column": ("frame", _set_type),
    "name of a column": ("frame", lambda frame: setattr(frame, "columns", [*"abcdef"])),
    "name of the index": ("frame by day", lambda frame: setattr(frame.index, "name", "other")),
    "type of the index": ("frame", lambda frame: setattr(frame, "index", frame.index.astype("float"))),
    "attribute": ("forest", _set_attribute),
    "attributes of a frame": ("frame", lambda frame: frame.attrs.update(unit="m")),
    "edge": ("graph", lambda graph: graph.add_edge(0, 4)),
    "member": ("json", lambda found: found.rows.append({})),
    "parameter": ("pipeline", lambda model: model.set_params(ridge__alpha=2)),
    "what a cached property holds": ("squares", lambda squares: _set_number(squares.results)),
    "mask": ("masked", lambda array: array.__setitem__((0, 0), np.ma.masked)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_value_is_saved_again(saved: ArtifactStore, change: str) -> None:
    """Every small change counts, also after a read."""
    name, alter = CHANGES[change]
    ref = saved.save(VALUES[name](), "value")
    value = saved.load(ref, "value")
    alter(value)
    found = saved.save(value, "value", known=ref)
    assert found.blob != ref.blob
    assert not saved.was_only_read(found, ref, "value")


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("squares", lambda squares: squares.results),
        ("graph", lambda graph: (graph.adj, graph.nodes, graph.degree, list(graph.edges))),
        ("frame", lambda frame: frame.to_numpy()),
    ],
)
def test_a_merge_ignores_cached_properties(saved: ArtifactStore, name: str, look: Callable[[Any], Any]) -> None:
    """They are kept with the value, and equal the ones that the earlier value would compute."""
    ref = saved.save(VALUES[name](), "value")
    value = saved.load(ref, "value")
    look(value)
    found = saved.save(value, "value", known=ref)
    assert saved.was_only_read(found, ref, "value")


def test_a_large_array_that_was_changed_is_not_read_again(
    saved: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers differ, so no comparison after loading is needed."""
    ref = saved.save(np.zeros(10_000), "value")
    value = saved.load(ref, "value")
    value += 1
    monkeypatch.setattr(ArtifactStore, "load", None)
    assert saved.save(value, "value", known=ref).blob != ref.blob


class Node:
    """Accepts any attributes."""

    part: Any
    names: Any


def _estimator() -> Node:
    """An object with the names of a part's attributes, like a scikit-learn forest and its trees."""
    names = [f"name {number} that nothing else has" for number in range(3)]
    forest, part = Node(), Node()
    vars(part).update(dict.fromkeys(names, 0))
    vars(forest).update(kind="kind", part=part, names=tuple(names))  # "kind" is one text until it is loaded
    return forest


def test_names_interned_by_the_first_load_of_a_process_do_not_count_as_a_change(saved: ArtifactStore) -> None:
    ref = saved.save(_estimator(), "value")
    value = saved.load(ref, "value")
    assert saved.save(value, "value", ref) == ref
    vars(value.part)[value.names[0]] = 1
    assert saved.save(value, "value", ref) != ref


class Lazy:
    """Has only cached values."""

    @functools.cached_property
    def results(self) -> list[int]:
        return [1, 2, 3]


def test_a_merge_ignores_a_cached_property_of_an_object_without_attributes(saved: ArtifactStore) -> None:
    ref = saved.save(Lazy(), "value")
    value = saved.load(ref, "value")
    value.results  # noqa: B018  reading it is what is tested
    assert saved.was_only_read(saved.save(value, "value", ref), ref, "value")
    value.results.append(4)
    assert not saved.was_only_read(saved.save(value, "value", ref), ref, "value")
