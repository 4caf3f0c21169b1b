"""Tags can be added, removed and replaced at any time, by several processes at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from k8sflow import Flow, default_namespace, get_namespace, namespace
from k8sflow.client import NamespaceMismatchError, Run
from k8sflow.errors import StorageError, TagError
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.graph import Graph
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore


def _run(store: ObjectStore, run: str = "r1", **more: object) -> Run:
    record = RunRecord("F", run, "flow.py", {}, Graph("F"), created=1e9, **{"user": "ada", "tags": ("first",), **more})  # type: ignore[arg-type]
    RunStore(store, "F", run).create(record)
    return Run(RunStore(store, "F", run))


def test_tags_are_added_removed_and_replaced(store: ObjectStore) -> None:
    """There are no duplicates, and removing a missing tag is not an error."""
    run = _run(store)
    assert run.user_tags == {"first"}
    run.add_tag("second")
    run.add_tags(["second", "日本 \"quoted\" 'x' $HOME", "a/b"])
    assert run.user_tags == {"first", "second", "日本 \"quoted\" 'x' $HOME", "a/b"}
    run.remove_tags(["first", "a/b", "never there"])
    run.replace_tag("second", "third")
    assert run.user_tags == {"third", "日本 \"quoted\" 'x' $HOME"}
    assert Run(run.run_store).user_tags == run.user_tags


def test_the_system_tags_have_user_date_and_runtime(store: ObjectStore) -> None:
    """They can't be removed; ``tags`` has both kinds."""
    project = {"project": {"project_name": "p", "branch_name": "user.ada"}}
    run = _run(store, flow_decorators=project, pods={"start": PodOptions()})
    assert run.system_tags == {
        "user:ada",
        "date:2001-09-09",
        "runtime:kubernetes",
        "project:p",
        "project_branch:user.ada",
    }
    assert run.tags == run.system_tags | {"first"}
    with pytest.raises(TagError, match="is a system tag"):
        run.remove_tag("user:ada")
    assert _run(store, "r2").system_tags == {"user:ada", "date:2001-09-09", "runtime:dev"}


@pytest.mark.parametrize("tag", ["", "  ", "a\nb", "a\rb", "\x1b[31m", "\udcff", "x" * 501, 5])
def test_an_invalid_tag_is_refused(store: ObjectStore, tag: str) -> None:
    """Nothing is written."""
    run = _run(store)
    with pytest.raises(TagError, match="can't be a tag"):
        run.add_tags(["fine", tag])
    assert run.user_tags == {"first"}


def test_thousands_of_tags_are_kept(store: ObjectStore) -> None:
    """A single change adds them."""
    run = _run(store)
    run.add_tags(f"tag {i}" for i in range(5000))
    assert len(run.user_tags) == 5001


def test_no_simultaneous_change_is_lost(store: ObjectStore) -> None:
    """The loser of the race reads again."""
    run = _run(store)
    threads = [threading.Thread(target=run.add_tag, args=(f"t{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.user_tags == {"first", *(f"t{i}" for i in range(8))}


def test_tags_of_a_newer_format_are_refused(store: ObjectStore) -> None:
    """They are not read as an empty list."""
    run = _run(store)
    store.put("F/runs/r1/tags/00000001.json", [b'{"format":99,"tags":[]}'])
    with pytest.raises(StorageError, match="format 99"):
        _ = run.user_tags


@pytest.fixture
def two_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with a run of Ada's, and a later one of Bob's."""
    from k8sflow.storage.folder import FolderStore

    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path))
    monkeypatch.setenv("K8SFLOW_USER", "ada")
    store = FolderStore(str(tmp_path))
    _run(store, "20260101-000000-000000")
    _run(store, "20260102-000000-000000", user="bob", tags=("shared",))
    monkeypatch.setattr("k8sflow.client.namespaces._State.is_chosen", False)


def test_a_reader_finds_the_runs_of_the_user(two_users: None) -> None:
    """Any other tag may be the namespace; None finds all runs."""
    assert get_namespace() == "user:ada"
    assert [run.user_name for run in Flow("F")] == ["ada"]
    with pytest.raises(NamespaceMismatchError, match="20260102-000000-000000 is not in the namespace user:ada"):
        Run("F/20260102-000000-000000")
    assert namespace("user:bob") == "user:bob"
    assert Flow("F").latest_run.user_name == "bob"
    namespace("shared")
    assert Flow("F").latest_run.user_name == "bob"
    namespace(None)
    assert get_namespace() is None
    assert [run.user_name for run in Flow("F")] == ["bob", "ada"]
    assert [run.user_name for run in Flow("F").runs("user:ada")] == ["ada"]
    namespace("nobody")
    with pytest.raises(NamespaceMismatchError, match="no run of F is in the namespace nobody; 2 are outside"):
        Flow("F")
    assert default_namespace() == "user:ada"
    assert Flow("F").latest_run.user_name == "ada"


def test_a_setting_names_another_default(two_users: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It suits machines on which programs read runs."""
    monkeypatch.setenv("K8SFLOW_NAMESPACE", "user:bob")
    assert Flow("F").latest_run.user_name == "bob"
