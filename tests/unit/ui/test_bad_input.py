"""Damaged stores, huge files and hostile values: none does harm, and none hides what is well."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from pathlib import Path

import pytest

from k8sflow.errors import ArtifactError
from k8sflow.flow.graph import Graph
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.cards import CardName, TaskCards
from k8sflow.storage.encoding import encode
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit
from k8sflow.ui.plain import Array, read_plain
from tests.pages import Made, Reader

RUN_RECORDS = {
    "empty": b"",
    "half": b'{"format": 1, "flow": "F", "run"',
    "newer": b'{"format": 99}',
    "no-object": b"[1, 2]",
    "binary": b"\x00\xff\xfe" * 100,
    "deep": b"[" * 100_000,
    "wrong-types": b'{"format":1,"flow":7,"run":[],"file":{},"parameters":{},"graph":[],"created":"now","user":{}}',
    "unknown-field": b'{"format":1,"flow":"F","run":"x","file":"","parameters":{},"graph":[],"more":1}',
}


@pytest.mark.parametrize("kind", RUN_RECORDS)
def test_a_run_that_cannot_be_read_does_not_hide_the_others(
    reader: Reader, store: FolderStore, graph: Graph, kind: str
):
    Made(store, graph, "good").ends()
    path = store.root / "F/runs/bad/run.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(RUN_RECORDS[kind])
    (path.parent / "outcome.json").write_bytes(b'{"format": 1, "outcome": "succeeded"')
    text = reader.text("/")
    assert 'data-run="F/good"' in text
    assert 'data-run="F/bad"' in text
    assert "unreadable" in text
    for part in ("", "/state", "/overview", "/tasks/start/0"):
        assert reader.ask(f"/runs/F/bad{part}").status in {404, 502}


@pytest.mark.parametrize("data", [b"", b"{", b'{"format":99}', b'{"format":1,"attempt":"x"}', b"[]"])
def test_damaged_records_of_a_task_are_reported(reader: Reader, store: FolderStore, graph: Graph, data: bytes):
    """The rest of the run is shown."""
    made = Made(store, graph)
    made.task("start", width=2)
    made.task("work", "0")
    made.starts("work", "1")
    folder = store.root / "F/runs/r1/tasks/work/1"
    (folder / "0/outcome.json").write_bytes(data)
    (folder / "commit.json").write_bytes(data)
    text = reader.text("/runs/F/r1")
    assert "work" in text
    state = json.loads(reader.text("/runs/F/r1/state"))
    rows = {(row[0], row[1]): row[2] for row in state["tasks"]}
    assert rows.keys() == {(0, "0"), (1, "0"), (1, "1")}
    assert rows[0, "0"] == rows[1, "0"] == "succeeded"
    assert ("tasks/work/1/commit.json" in state["error"]) == bool(data)  # without content, it is not an object
    assert reader.ask("/runs/F/r1/tasks/work/1").status in {200, 404, 502}
    assert reader.ask("/runs/F/r1/tasks/start/0").status == 200


def test_a_damaged_commit_of_a_foreach_is_reported(reader: Reader, store: FolderStore, graph: Graph):
    """Its end is in the name of another object; the number of its branches is not known."""
    made = Made(store, graph)
    made.task("start", width=2)
    made.task("work", "0")
    (store.root / "F/runs/r1/tasks/start/0/commit.json").write_bytes(b"{")
    state = json.loads(reader.text("/runs/F/r1/state"))
    assert [row[:3] for row in state["tasks"]] == [[0, "0", "succeeded"], [1, "0", "succeeded"]]
    assert "tasks/start/0/commit.json" in state["error"]
    assert state["steps"][1][:2] == ["work", None]


def test_a_damaged_outcome_of_the_run_is_reported(reader: Reader, store: FolderStore, graph: Graph):
    made = Made(store, graph)
    made.task("start")
    (store.root / "F/runs/r1/outcome.json").write_bytes(b'{"format":1')
    assert "is damaged" in json.loads(reader.text("/runs/F/r1/state"))["error"]
    assert "is damaged" in reader.text("/runs/F/r1")


def test_names_other_than_ends_are_ignored(reader: Reader, store: FolderStore, graph: Graph):
    made = Made(store, graph)
    made.task("start")
    folder = store.root / "F/runs/r1/ends"
    (folder / "nostep").mkdir()
    (folder / "nostep/0_a0_s1.0_f2.0").write_bytes(b"{}")
    (folder / "start/0_aX_s_f").write_bytes(b"{}")
    (folder / "start/1_a0_snan_f1e999").write_bytes(b"{}")
    found = json.loads(reader.text("/runs/F/r1/state"), parse_constant=pytest.fail)
    assert [row[:3] for row in found["tasks"]] == [[0, "0", "succeeded"]]


def test_a_log_of_a_gigabyte_is_read_in_pieces(reader: Reader, store: FolderStore, graph: Graph):
    """Neither the page nor a piece takes more memory than a piece."""
    made = Made(store, graph)
    made.task("start", output=b"first\n")
    path = store.root / "F/runs/r1/tasks/start/0/0/stdout"
    os.truncate(path, 1 << 30)
    with path.open("ab") as file:
        file.write(b"\nlast\n")
    before = _memory()
    text = reader.text("/runs/F/r1/tasks/start/0")
    assert "last" in text
    assert len(text) < 1_000_000
    size = (1 << 30) + 6
    assert f'data-size="{size}"' in text
    assert len(reader.text("/runs/F/r1/tasks/start/0/log?from=0")) == 256 << 10
    assert reader.text(f"/runs/F/r1/tasks/start/0/log?from={size - 5}") == "last\n"
    assert reader.text(f"/runs/F/r1/tasks/start/0/log?from={10**12}") == ""
    assert _memory() - before < 100 << 20


def _memory() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_card_of_50_megabytes_waits_until_it_is_asked_for(reader: Reader, store: FolderStore, graph: Graph):
    made = Made(store, graph)
    made.task("start")
    TaskCards(made.records, "start", "0", 0).write(CardName(0), "<p>" + "x" * (50 << 20))
    text = reader.text("/runs/F/r1/tasks/start/0")
    assert "<iframe" not in text
    assert "52.4 MB" in text
    assert len(reader.ask("/runs/F/r1/tasks/start/0/cards/0.default").data) > 50 << 20


def test_an_artifact_of_a_missing_class_is_shown_by_its_parts(
    reader: Reader, store: FolderStore, graph: Graph, monkeypatch: pytest.MonkeyPatch
):
    module = types.ModuleType("vanished")
    exec("class Model:\n    def __init__(self):\n        self.layers = [64, 32]\n", module.__dict__)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vanished", module)
        module.Model.__module__ = "vanished"
        made = Made(store, graph)
        made.task("start", model=module.Model())
    text = reader.text("/runs/F/r1/tasks/start/0/artifacts/model")
    assert "vanished.Model" in text
    assert "64" in text


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/k8sflow-ui-was-here",))


def test_a_pickle_that_calls_something_calls_nothing():
    """The function is a name, and what it would be called with is data."""
    found = read_plain(pickle.dumps(Evil()), "pickle")
    assert found == {"posix.system": ["touch /tmp/k8sflow-ui-was-here"]}
    assert not Path("/tmp/k8sflow-ui-was-here").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2, 3])[:-3],
        b"\x80\x05r\xff\xff\xff\x7f.",  # a memo of two billion entries
        b"\x80\x05\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a text of nine exabytes
        b"Pid\n.",
        b"(" * 10_000 + b".",
    ],
)
def test_a_damaged_pickle_is_an_error(data: bytes):
    with pytest.raises(ArtifactError):
        read_plain(data, "pickle")


def test_a_damaged_artifact_is_reported(reader: Reader, store: FolderStore, graph: Graph):
    """One with another hash, one without content, and one whose encoding this version doesn't know."""
    made = Made(store, graph)
    refs = {
        "changed": ArtifactRef("0" * 64, 20, "pickle", "builtins.int", "AAAA"),
        "missing": ArtifactRef("1" * 64, 9000, "pickle", "builtins.int"),
        "huge": ArtifactRef("2" * 64, 10**12, "pickle", "builtins.int"),
        "garbled": ArtifactRef("3" * 64, 20, "pickle", "builtins.int", "%%%"),
    }
    made.starts("start")
    made.records.commit("start", "0", Commit(0, (), refs, started=1.0, finished=2.0))
    assert reader.ask("/runs/F/r1/tasks/start/0").status == 200
    for name, words in {"changed": "damaged", "missing": "missing", "huge": "too large", "garbled": "damaged"}.items():
        assert words in reader.text(f"/runs/F/r1/tasks/start/0/artifacts/{name}"), name


def test_arrays_are_read_as_numbers():
    """Buffers may be beside the pickle or in it."""
    numpy = pytest.importorskip("numpy")
    for array in (numpy.arange(6.0).reshape(2, 3), numpy.arange(5, dtype="i2"), numpy.array([True, False])):
        stored = encode(array, "array")
        found = read_plain(b"".join(bytes(part) for part in stored.parts), stored.name)
        assert isinstance(found, Array)
        assert found.shape == array.shape
        assert list(found.numbers) == array.ravel().tolist()
        assert read_plain(pickle.dumps(array), "pickle") == found
