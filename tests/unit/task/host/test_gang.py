"""The start of processes that run together: each waits for the names of all of them."""

from __future__ import annotations

import pytest

from k8sflow.flow.outcome import Outcome
from k8sflow.task.host import gang
from k8sflow.task.host.gang import MissingPeersError, wait_for_peers
from k8sflow.task.spec import TaskName, TaskSpec

SPEC = TaskSpec("F", "r1", TaskName("train", (4, 1)), nodes=3)


class Names:
    """A name service in which names appear after so many questions."""

    def __init__(self, questions: dict[str, int]) -> None:
        self.questions = questions

    def address_of(self, host: str) -> str:
        if host not in self.questions or self.questions[host] > 0:
            if host in self.questions:
                self.questions[host] -= 1
            raise OSError("no such name")
        return f"address of {host}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang, "_FIRST_PAUSE_SECONDS", 0.001)


def test_all_of_them_are_waited_for() -> None:
    """The address is that of the first."""
    names = Names({"job-0.s": 2, "job-1.s": 0, "job-2.s": 3})
    said: list[str] = []
    assert wait_for_peers("job-%d.s", SPEC, 60, said.append, names.address_of) == "address of job-0.s"
    assert said == []


def test_those_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """First while they are waited for, then in the failure, which is that of the infrastructure."""
    monkeypatch.setattr(gang, "_REPORT_AFTER_SECONDS", 0.0)
    said: list[str] = []
    with pytest.raises(MissingPeersError) as caught:
        wait_for_peers("job-%d.s", SPEC, 0.01, said.append, Names({"job-1.s": 0}).address_of)
    result = caught.value.result
    assert said == ["waits until all 3 processes have a pod; missing: train/4.0, train/4.2."]
    assert result.outcome is Outcome.NEVER_STARTED
    assert "2 of the 3 processes that have to run together had no pod within 0.01 s" in result.explained.summary
    assert "train/4.0, train/4.2" in result.explained.summary
    assert "hostname_resolution_timeout" in result.explained.resolution
