"""The explanations of pods that failed or can't start, for documents that a real cluster has written.

``record.py`` records the documents. After a change of a text, ``python -m tests.unit.kubernetes.test_recorded`` writes
``said.txt`` again, for the diff to be read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import waiting
from k8sflow.kubernetes.outcome import PodEnd, pod_state
from k8sflow.runtime.core.retries import INFRASTRUCTURE
from k8sflow.task.result import TaskResult

FOLDER = Path(__file__).parent / "recorded"
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))
OPTIONS = PodOptions(cpu="2", memory="1000M", deadline_seconds=60)
LARGE = PodOptions(cpu="500", memory="1000M", deadline_seconds=60)
NODE = ("4", "8Gi")
DISRUPTED = {"evicted-by-api": Outcome.EVICTED, "preempted": Outcome.PREEMPTED}
OUTCOMES = {
    "out-of-memory": Outcome.OUT_OF_MEMORY,
    "exit-code": Outcome.USER_ERROR,
    "signal": Outcome.USER_ERROR,
    "deadline": Outcome.TIMED_OUT,
    "image-missing": Outcome.BAD_IMAGE,
    "image-name": Outcome.BAD_IMAGE,
    "bad-command": Outcome.BAD_IMAGE,
    "evicted-disk": Outcome.EVICTED,
    "init-failed": Outcome.NEVER_STARTED,
    **DISRUPTED,
}
HOPELESS = {
    "image-name",
    "evicted-disk",
    "quota-too-small",
    "quota-needs-a-limit",
    "limit-range",
    "pod-security",
    "priority-class-missing",
    "policy",
}


def document(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{case}.json").read_text())
    return found


def found(case: str) -> TaskResult:
    """The end of a case's pod, or the reason why it waits, as the executor finds it."""
    recorded = document(case)
    if "pod" not in recorded:
        return waiting.without_pod(recorded["events"])["demo"]
    options = LARGE if case == "unschedulable-cpu" else OPTIONS
    state = pod_state(recorded["pod"], options)
    if isinstance(state, PodEnd):
        return state.result
    reason = waiting.why(recorded["pod"], options, NODE) or waiting.from_events(recorded["events"])
    assert reason is not None, "nothing is said about it"
    return reason


def said() -> str:
    """All cases as text."""
    parts = []
    for case in CASES:
        result = found(case)
        failure = result.explained
        detail = "".join(f"    {line}\n" for line in failure.detail.splitlines())
        mark = ", final" if failure.is_final else ""
        advice = f"  What to do: {failure.resolution}\n"
        parts.append(f"{case}: {result.outcome}{mark}\n  {failure.summary}\n{detail}{advice}")
    return "\n".join(parts)


def test_each_case_is_explained_in_the_same_words_as_before() -> None:
    """A changed text shows up in the diff of said.txt."""
    assert said() == (FOLDER / "said.txt").read_text()


@pytest.mark.parametrize("case", CASES)
def test_a_cases_explanation_has_three_parts(case: str) -> None:
    """It says what happened, has the evidence, and says what to do; nothing promises what the retries decide."""
    result = found(case)
    outcome = OUTCOMES.get(case, Outcome.UNSCHEDULABLE if case.startswith("unschedulable") else Outcome.NEVER_STARTED)
    assert result.outcome is outcome
    assert result.explained.summary.endswith(".")
    assert result.explained.resolution
    assert result.explained.detail or outcome is Outcome.OUT_OF_MEMORY
    assert "again" not in result.explained.resolution


@pytest.mark.parametrize("case", CASES)
def test_what_can_not_heal_is_final(case: str) -> None:
    """Waiting ends at once then, and no other execution follows."""
    assert found(case).explained.is_final == (case in HOPELESS)


@pytest.mark.parametrize("case", sorted(DISRUPTED))
def test_a_disruption_is_known_from_the_pods_condition(case: str) -> None:
    """Its Job starts another pod, so that it costs no retry."""
    state = pod_state(document(case)["pod"], OPTIONS)
    assert isinstance(state, PodEnd)
    assert state.is_disruption
    assert state.result.outcome in INFRASTRUCTURE


if __name__ == "__main__":
    (FOLDER / "said.txt").write_text(said())
