"""Names that Kubernetes accepts, and that stay unique."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from k8sflow.kubernetes.names import LONGEST_JOB_NAME, job_name, label_value, owner_name

DNS = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
names = st.text(max_size=100)


@given(names, names, names, names, st.integers(0, 99))
def test_a_job_name_is_a_dns_label_with_room_for_its_pods(
    flow: str, run: str, step: str, task: str, attempt: int
) -> None:
    name = job_name(flow=flow, run=run, step=step, task=task, attempt=attempt)
    assert DNS.fullmatch(name)
    assert len(name) <= LONGEST_JOB_NAME
    assert name == job_name(flow=flow, run=run, step=step, task=task, attempt=attempt)


@given(names, names)
def test_an_owner_name_is_a_dns_label(flow: str, run: str) -> None:
    name = owner_name(flow=flow, run=run)
    assert DNS.fullmatch(name)
    assert len(name) <= LONGEST_JOB_NAME


@given(names)
def test_a_label_value_is_valid(text: str) -> None:
    value = label_value(text)
    assert LABEL.fullmatch(value)
    assert value == text or not LABEL.fullmatch(text)


@given(st.lists(names, min_size=2, max_size=2, unique=True))
def test_different_names_stay_different(pair: list[str]) -> None:
    assert label_value(pair[0]) != label_value(pair[1])


def test_a_job_name_is_readable_and_unique_to_the_attempt() -> None:
    first = job_name(flow="BigSum", run="12", step="train_model", task="3.1", attempt=0)
    assert first.startswith("bigsum-train-model-")
    assert first != job_name(flow="BigSum", run="12", step="train_model", task="3.1", attempt=1)
    assert first != job_name(flow="BigSum", run="12", step="train_model", task="31", attempt=0)
