"""The number of requests to a bucket that a listing takes: it must not grow with each run, or with each task."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k8sflow.cli import runs
from k8sflow.cli.scope import Scope
from k8sflow.client import Flow, Run
from k8sflow.errors import StorageError
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.clones import mark_complete, put_commits, read_commits
from k8sflow.storage.records import Commit, OutcomeRecord, RunRecord, new_run_id
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.usage import Usage
from tests.counting import Counted
from tests.sources import foreach
from tests.support import load_flow, write_flow

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store

pytestmark = pytest.mark.s3
MANY = 60


@pytest.fixture
def counted(s3_store: S3Store) -> Counted:
    """Count the requests of the store."""
    found = s3_store._opened = Counted(s3_store._opened)  # type: ignore[assignment]
    return found


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """A flow with a foreach."""
    return compile_flow(load_flow(write_flow(tmp_path, foreach()))).graph


def _create(store: S3Store, graph: Graph, run: str, created: float, *, has_ended: bool = True) -> RunStore:
    found = RunStore(store, "F", run)
    found.create(RunRecord("F", run, "flow.py", {}, graph, created=created, user="ada", tags=("first",)))
    if has_ended:
        found.commit("end", "0", Commit(0, (), {}, started=created, finished=created + 2))
        found.write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, created + 3), "end")
    return found


def _create_many(store: S3Store, graph: Graph) -> list[RunStore]:
    """Half of them have ids that a user chose."""
    names = [new_run_id(1e9 + number) if number % 2 else f"nightly-{number}" for number in range(MANY)]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda n: _create(store, graph, names[n], 1e9 + n), range(MANY)))


def _described(run: Run) -> tuple[object, ...]:
    return (
        run.id, run.status, run.successful, run.finished, run.has_ended, run.created_at, run.finished_at, run.user_name,
        run.tags, run.user_tags, run.origin_pathspec,
    )  # fmt: skip


def test_listing_runs_takes_a_few_requests(s3_store: S3Store, counted: Counted, graph: Graph) -> None:
    """A listing of the runs, one of the index, and a few reads of the latest run; the result is that of the records."""
    created = _create_many(s3_store, graph)
    created[7].change_tags(lambda _: ("x" * 300, "日本"))
    created[8].change_tags(lambda _: tuple("x" * 499 + letter for letter in "ab"))  # zlib makes a short name of them
    counted.requests.clear()
    listed = [_described(run) for run in Flow("F", stores=[s3_store], everyone=True).runs("user:ada")]
    assert sum(counted.requests.values()) <= 40
    assert [run[0] for run in listed] == [run.run for run in reversed(created)]
    assert listed == [_described(Run(run)) for run in reversed(created)]


def test_the_command_runs_takes_a_few_requests(s3_store: S3Store, counted: Counted, graph: Graph) -> None:
    _create_many(s3_store, graph)
    counted.requests.clear()
    scope = Scope("F", lambda: [s3_store])
    found = list(runs._found(scope, "F", {"first"}, "succeeded"))
    assert sum(counted.requests.values()) <= 40
    assert len(found) == MANY
    assert {(run["status"], run["user"], run["duration_seconds"], *run["tags"]) for run in found} == {
        ("succeeded", "ada", 3.0, "first")
    }


def test_runs_without_an_entry_in_the_index_are_read(s3_store: S3Store, counted: Counted, graph: Graph) -> None:
    """As when a process died between the record and the entry, or an older version wrote the record."""
    created = _create_many(s3_store, graph)
    expected = [_described(Run(run)) for run in reversed(created)]
    for broken in (created[5], created[6], created[9]):
        s3_store.delete([key for key in s3_store.list_keys(f"F/index/{broken.run}/") if "/=" in key][:1])
    s3_store.delete(list(s3_store.list_keys(f"F/index/{created[10].run}/")))
    s3_store.put(f"F/index/{created[11].run}/started/=damaged!", [b"x"])
    s3_store.put(f"F/index/{created[12].run}/ended/other/-", [b"x"])  # another process is about to write an outcome
    assert [_described(run) for run in Flow("F", stores=[s3_store], everyone=True)] == expected


def test_a_run_that_continues_after_it_was_listed_is_read_again(s3_store: S3Store, graph: Graph) -> None:
    """Only the tags of a listed run are those of the listing, and its own changes."""
    _create_many(s3_store, graph)
    running = _create(s3_store, graph, new_run_id(0.9e9), 0.9e9, has_ended=False)
    run = [*Flow("F", stores=[s3_store], everyone=True)][-1]
    assert (run.status, run.has_ended, run.finished_at) == ("running", False, None)
    running.write_run_outcome(OutcomeRecord(Outcome.USER_ERROR, 1e9))
    assert (run.status, run.successful, run.has_ended) == ("failed", False, True)
    run.add_tag("late")
    assert run.user_tags == Run(running).user_tags == {"first", "late"}
    with_tag = [found.id for found in Flow("F", stores=[s3_store], everyone=True).runs("late")]
    assert with_tag == [run.id]


def test_a_damaged_or_newer_record_hides_no_other_run(s3_store: S3Store, graph: Graph) -> None:
    """The error is that of this run, when it is read."""
    created = _create_many(s3_store, graph)
    s3_store.put(f"{created[3].prefix}/run.json", [b'{"format":99}'])
    s3_store.put(f"{created[4].prefix}/outcome.json", [b"{"])
    found = {run.id: run for run in Flow("F", stores=[s3_store], everyone=True)}
    assert len(found) == MANY
    with pytest.raises(StorageError, match="has the format 99"):
        _ = found[created[3].run].graph
    with pytest.raises(StorageError, match="is damaged"):
        _ = found[created[4].run].outcome
    assert "has the format 99" in found[created[3].run]._repr_html_()


def test_listing_the_tasks_of_a_step_takes_a_few_requests(s3_store: S3Store, counted: Counted, graph: Graph) -> None:
    """Their ends are in the names of objects; a task without one is read by its commit."""
    run_store = _create(s3_store, graph, "r1", 1e9, has_ended=False)
    value = ArtifactStore(s3_store, "F").save(1, "square")

    def commit(number: int) -> None:
        done = Commit(number % 2, ("join",), {"square": value}, started=1e9 + number / 7, finished=1.1e9 + number / 3)
        run_store.commit("work", str(number), done)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(commit, range(MANY)))
    run_store.open_log("work", str(MANY), 0, "stdout").write(b"started\n")

    def described() -> list[tuple[object, ...]]:
        return [
            (task.id, task.finished, task.successful, task.created_at is not None and task.created_at, task.finished_at)
            for task in Run(run_store)["work"]
            if task.id != str(MANY)
        ]

    counted.requests.clear()
    found = described()
    assert sum(counted.requests.values()) <= 8
    assert [task[0] for task in found] == [str(number) for number in reversed(range(MANY))]
    step = Run(run_store)["work"]
    counted.requests.clear()
    assert step.finished_at is None
    assert sum(counted.requests.values()) <= 12
    assert [step[3].current_attempt, step["4"].current_attempt] == [1, 0]
    s3_store.delete(list(s3_store.list_keys("F/runs/r1/ends/")))  # as of clones
    assert described() == found


def test_a_damaged_commit_hides_no_other_task(s3_store: S3Store, graph: Graph) -> None:
    run_store = _create(s3_store, graph, "r1", 1e9, has_ended=False)
    for number in range(6):
        run_store.commit("work", str(number), Commit(0, ("join",), {}, started=1e9, finished=1e9))
    s3_store.put("F/runs/r1/tasks/work/2/commit.json", [b"nonsense"])
    tasks = {task.id: task for task in Run(run_store)["work"]}
    assert all(task.finished for task in tasks.values())
    assert [list(tasks[str(number)].artifacts) for number in (0, 1, 3, 4, 5)] == [[]] * 5
    with pytest.raises(StorageError, match=r"work/2/commit\.json .* is damaged"):
        _ = tasks["2"].artifacts


def test_listing_clones_takes_a_few_requests(s3_store: S3Store, counted: Counted, graph: Graph) -> None:
    """Their ends are in one object; they don't count as used by the run that has cloned them."""
    before, after = (_create(s3_store, graph, run, 1e9, has_ended=False) for run in ("r1", "r2"))
    names = [("work", str(number)) for number in range(MANY)]
    for number, (step, task) in enumerate(names):
        usage = Usage(1000 + number, 1.5, 7, 8)
        before.commit(step, task, Commit(0, ("join",), {}, started=1e9, finished=1e9 + number, usage=usage))
    kept = [
        (step, task, found) for (step, task), found in zip(names, read_commits(before, names), strict=True) if found
    ]
    put_commits(after, [(step, task, found.clone(before.pathspec, ("join",))) for step, task, found in kept])
    mark_complete(after, [(step, task, found.end) for step, task, found in kept])
    after.commit("work", str(MANY), Commit(0, ("join",), {}, started=1.0, finished=2.0, usage=Usage(5, 0.5, 1, 2)))
    counted.requests.clear()
    step = Run(after)["work"]
    listed = [(task.id, task.finished_at, task.usage) for task in step]
    assert sum(counted.requests.values()) <= 9
    assert listed == [(task.id, task.finished_at, task.usage) for task in (step[task.id] for task in step)]
    assert listed[1][2].memory_bytes == 1000 + MANY - 1
    assert step.usage == Run(after).usage == Usage(5, 0.5, 1, 2)
    s3_store.put("F/runs/r2/cloned.json", [b"{}"])  # as an older version wrote it
    assert listed == [(task.id, task.finished_at, task.usage) for task in Run(after)["work"]]
