"""A job of AWS Batch gives the agent what a pod gives it."""

from __future__ import annotations

import os

import pytest

from k8sflow.task.conventions import MAIN_ADDRESS_VARIABLE
from k8sflow.task.host import agent, in_batch


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
