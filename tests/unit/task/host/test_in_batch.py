"""A job of AWS Batch gives the agent what a pod gives it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8sflow.errors import UnreachableError
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit, OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.batch import TaskBatch
from k8sflow.task.conventions import MAIN_ADDRESS_VARIABLE
from k8sflow.task.host import agent, batch_nodes, in_batch
from k8sflow.task.spec import TaskName, TaskSpec


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the variables, and begin without those of a pod or a job."""
    for name in (agent.INDEX_VARIABLE, "K8SFLOW_POD", MAIN_ADDRESS_VARIABLE, *in_batch._INDICES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_NODE_INDEX"])
def test_the_index_is_that_of_the_array_or_of_the_node(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "7")
    monkeypatch.setenv("AWS_BATCH_JOB_ID", "j1:7")
    in_batch.surround()
    assert (os.environ[agent.INDEX_VARIABLE], os.environ["K8SFLOW_POD"]) == ("7", "j1:7")


def test_a_single_job_has_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BATCH_JOB_ID", "j1")
    in_batch.surround()
    assert agent.INDEX_VARIABLE not in os.environ
    assert MAIN_ADDRESS_VARIABLE not in os.environ


def test_nodes_know_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which isn't given its own address."""
    monkeypatch.setenv("AWS_BATCH_JOB_NUM_NODES", "2")
    monkeypatch.setenv("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", "10.0.0.5")
    in_batch.surround()
    assert os.environ[MAIN_ADDRESS_VARIABLE] == "10.0.0.5"
    monkeypatch.delenv("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS")
    in_batch.surround()
    assert os.environ[MAIN_ADDRESS_VARIABLE] == in_batch._own_address()


GANG = TaskBatch.of([TaskSpec("F", "r", TaskName("work", (index,)), 1, nodes=3) for index in range(3)])


@pytest.fixture
def run_store(tmp_path: Path) -> RunStore:
    """The records of a run whose main node has committed."""
    found = RunStore(FolderStore(str(tmp_path)), "F", "r")
    found.commit("work", "0", Commit(1, ("join",), {}))
    return found


@pytest.fixture
def main_node(run_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The main node of a job of three, whose agent ends at once with exit code 0; its log."""
    said: list[str] = []
    monkeypatch.setenv("AWS_BATCH_JOB_NUM_NODES", "3")
    monkeypatch.setenv("AWS_BATCH_JOB_NODE_INDEX", "0")
    words = [GANG.to_json(), f"--store={run_store.store.url}", "--flow=F", "--package=p", "--file=f.py"]
    monkeypatch.setattr(sys, "argv", ["in_batch", *words])
    monkeypatch.setattr(agent, "main", lambda: 0)
    monkeypatch.setattr(agent, "write_line", said.append)
    handler, folder = signal.getsignal(signal.SIGTERM), Path.cwd()
    yield said
    signal.signal(signal.SIGTERM, handler)
    os.chdir(folder)


def test_the_main_node_waits_until_all_have_a_result(
    run_store: RunStore, main_node: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS stops the others with it; a result of an earlier attempt doesn't count."""
    run_store.write_outcome("work", "2", 0, OutcomeRecord(Outcome.USER_ERROR, 1.0))
    steps = [
        lambda: run_store.commit("work", "1", Commit(1, ("join",), {})),
        lambda: run_store.write_outcome("work", "2", 1, OutcomeRecord(Outcome.USER_ERROR, 1.0)),
        lambda: None,
    ]
    left = list(steps)
    monkeypatch.setattr(batch_nodes.wait_for_nodes, "__defaults__", (60.0, lambda _: left.pop(0)()))
    assert in_batch.main() == 0
    assert left == []


def test_other_nodes_and_failures_wait_for_nobody(main_node: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(in_batch, "wait_for_nodes", wait)
    monkeypatch.setenv("AWS_BATCH_JOB_NODE_INDEX", "1")
    assert in_batch.main() == 0
    monkeypatch.setenv("AWS_BATCH_JOB_NODE_INDEX", "0")
    monkeypatch.setattr(agent, "main", lambda: 1)
    assert in_batch.main() == 1
    monkeypatch.delenv("AWS_BATCH_JOB_NUM_NODES")
    monkeypatch.setattr(agent, "main", lambda: 0)
    assert in_batch.main() == 0


def test_a_node_that_never_ends_is_not_waited_for_without_end(
    run_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named; an outage of the store isn't a result."""
    said: list[str] = []
    run_store.commit("work", "1", Commit(1, ("join",), {}))
    batch_nodes.wait_for_nodes(run_store, GANG, said.append, 60, lambda _: None)
    assert said == [
        "has ended, and waits for work/2: AWS Batch stops all nodes with the main one.",
        "doesn't wait any longer for work/2.",
    ]

    def outage(*_: object) -> None:
        raise UnreachableError("no answer")

    monkeypatch.setattr(RunStore, "read_commit", outage)
    batch_nodes.wait_for_nodes(run_store, GANG, said.append, 1, lambda _: None)
    assert said[-1] == "doesn't wait any longer for work/1, work/2."
