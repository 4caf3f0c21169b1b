"""Which run a name means: the same answer for the command line, the client, Runner, resume, attach and spin."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow.errors import K8sflowError, NotFoundError, RunError
from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.problems import Location
from k8sflow.runtime.lookup import RunReference, Runs, flow_names, run_of_any_flow, split, started
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import SPINS, RunStore
from k8sflow.user import current_user

OLD, NEW = "20260101-000000-000000", "20260102-000000-000000"
STEPS = ("start", "work", "end")


class Bucket(FolderStore):
    """A store that others use too."""

    is_shared = True


def _create(store: FolderStore, run: str, folder: str = "runs", **more: object) -> RunStore:
    found = RunStore(store, "F", run, folder)
    graph = Graph("F", {step: Node(step, Location(), Location()) for step in STEPS})
    found.create(RunRecord("F", run, "flow.py", {}, graph, **{"user": current_user(), **more}))  # type: ignore[arg-type]
    return found


@pytest.fixture
def runs(folder_store: FolderStore) -> Runs:
    """Two runs, and one with a name that was chosen, which started last."""
    for run in (OLD, NEW):
        _create(folder_store, run)
    _create(folder_store, "mine", created=4e9)
    return Runs("F", [folder_store])


@pytest.mark.parametrize(
    ("text", "run", "parts"),
    [
        ("", "mine", ()),
        ("F", "mine", ()),
        ("work", "mine", ("work",)),
        ("work/1", "mine", ("work", "1")),
        (OLD, OLD, ()),
        (f"F/{OLD}", OLD, ()),
        (f"/F/{NEW}/work/3.1/x/", NEW, ("work", "3.1", "x")),
        ("F/work/1/x", "mine", ("work", "1", "x")),
    ],
)
def test_a_name_may_be_short_or_long(runs: Runs, text: str, run: str, parts: tuple[str, ...]) -> None:
    """Without a run the latest one is meant; the flow's name may be left out."""
    assert runs.resolve(text, runs.latest_own) == RunReference(runs[run], *parts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrk", "neither a run of F nor a step of its latest run, mine.\nDid you mean 'work'"),
        ("r9/work", "there is no run F/r9.\nThe runs are mine"),
        (f"{NEW}/work/1/x/y", "has too many parts"),
    ],
)
def test_a_name_of_nothing_is_refused_with_what_there_is(runs: Runs, text: str, words: str) -> None:
    """By an error that is, for readers, also a KeyError."""
    with pytest.raises(NotFoundError, match=words) as error:
        runs.resolve(text, runs.latest_own)
    assert isinstance(error.value, K8sflowError)
    assert isinstance(error.value, KeyError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nope", "there is no run F/nope.\nThe runs are mine"),
        (f"{NEW}/work", "is not a run, but a part of F/"),
        ("G/r1", "names no run of this file's flow, F"),
        ("", "names no run"),
    ],
)
def test_a_part_of_a_run_is_not_a_run(runs: Runs, text: str, words: str) -> None:
    """For resume, attach, and the commands that are about a whole run."""
    assert runs.named(f"F/{OLD}") == runs.named(OLD) == runs[OLD]
    with pytest.raises(NotFoundError, match=words):
        runs.named(text)


@pytest.mark.parametrize("text", ["run-1x", "run-1x/work"])
def test_of_many_runs_the_closest_and_the_latest_are_listed(folder_store: FolderStore, text: str) -> None:
    for number in range(40):
        _create(folder_store, f"run-{number:02}", created=float(number))
    runs = Runs("F", [folder_store])
    finds = [lambda: runs.resolve(text, runs.latest_own)] + ([] if "/" in text else [lambda: runs.named(text)])
    for find in finds:
        with pytest.raises(NotFoundError, match="Did you mean 'run-") as error:
            find()
        assert "The latest of its 40 runs are run-39, run-38, run-37, run-36, run-35." in error.value.advice
        assert error.value.advice.count("run-") == 3 + 5


def test_the_latest_run_in_a_bucket_is_ones_own(tmp_path: Path) -> None:
    """In a folder on this machine it is anybody's."""
    for kind, latest in ((FolderStore, NEW), (Bucket, OLD)):
        store = kind(str(tmp_path / kind.__name__))
        _create(store, OLD)
        _create(store, NEW, user="somebody-else")
        assert Runs("F", [store]).latest_own().run == latest
    with pytest.raises(NotFoundError, match="there is no run of F yet"):
        Runs("F", []).latest_own()


def test_of_two_stores_the_first_one_counts(folder_store: FolderStore, tmp_path: Path) -> None:
    """If both have a run of one id."""
    other = FolderStore(str(tmp_path / "other"))
    for store in (folder_store, other):
        _create(store, OLD)
    _create(other, NEW)
    runs = Runs("F", [folder_store, other])
    assert [(run.run, run.store) for run in runs] == [(NEW, other), (OLD, folder_store)]
    assert len(runs) == 2


def test_trial_tasks_of_spin_are_apart(folder_store: FolderStore) -> None:
    """They are not runs, and are found by their own folder."""
    trial = _create(folder_store, "t1", SPINS)
    assert Runs("F", [folder_store], SPINS)["t1"] == trial
    assert "t1" not in Runs("F", [folder_store])
    with pytest.raises(NotFoundError, match="there is no run F/spins/t2"):
        Runs("F", [folder_store], SPINS)["t2"]
    assert flow_names([folder_store]) == []
    assert split("F/spins/t1/work", "flow/run/step") == ("F/spins/t1", "work")


def test_a_run_is_found_without_its_flow(runs: Runs) -> None:
    """For Runner, which knows a flow's file, and not the class in it."""
    assert run_of_any_flow(runs.stores, OLD) == runs[OLD]
    assert run_of_any_flow(runs.stores, "nope") is None


def test_a_run_without_a_record_sorts_last(runs: Runs, folder_store: FolderStore) -> None:
    """As after a power cut; the error that reads it says why."""
    folder_store.put("F/runs/torn/tasks/start/0/0/stdout", [b"x"])
    torn = RunStore(folder_store, "F", "torn")
    assert started(torn) == 0.0
    found = Runs("F", [folder_store])
    assert [run.run for run in found][-1] == "torn"
    with pytest.raises(RunError, match=r"no run\.json"):
        found["torn"].read()
