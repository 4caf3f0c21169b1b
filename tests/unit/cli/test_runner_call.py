"""Keyword arguments of Python become the words of a command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from k8sflow import FlowSpec, IncludeFile, JSONType, Parameter
from k8sflow.cli.flow import _group
from k8sflow.cli.runner_call import RunnerCall, expanded, received
from k8sflow.errors import ParameterError
from k8sflow.flow.compile import declared


class F(FlowSpec):
    """Has parameters of every kind."""

    count = Parameter("count", default=1)
    rate = Parameter("learning-rate", default=0.5)
    fast = Parameter("fast", default=False)
    quick = Parameter("quick", default=False, is_flag=True)
    table = Parameter("table", type=JSONType)
    words = Parameter("words", separator=",")
    text = Parameter("text")
    notes = IncludeFile("notes")
    other = Parameter("in-a-name", default=1)


GROUP = _group(declared(F))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, []),
        ({"count": 3}, ["--count=3"]),
        ({"count": -3}, ["--count=-3"]),
        ({"count": None}, []),
        ({"learning_rate": 0.1}, ["--learning-rate=0.1"]),
        ({"learning-rate": 0.1}, ["--learning-rate=0.1"]),
        ({"rate": 0.1}, ["--learning-rate=0.1"]),
        ({"other": 2}, ["--in-a-name=2"]),
        ({"fast": True}, ["--fast=true"]),
        ({"fast": False}, ["--fast=false"]),
        ({"quick": True}, ["--quick"]),
        ({"quick": False}, ["--no-quick"]),
        ({"table": {"a": [1, None]}}, ['--table={"a": [1, null]}']),
        ({"table": '{"a": 1}'}, ['--table={"a": 1}']),
        ({"words": ["a", "b c"]}, ["--words=a,b c"]),
        ({"words": "a,b"}, ["--words=a,b"]),
        ({"text": "--help"}, ["--text=--help"]),
        ({"text": "ünïcødé 🦆\n"}, ["--text=ünïcødé 🦆\n"]),
        ({"notes": "notes.txt"}, ["--notes=notes.txt"]),
        ({"tags": ["a", "b"]}, ["--tag=a", "--tag=b"]),
        ({"tag": "a"}, ["--tag=a"]),
        ({"decospecs": ["retry:times=2"]}, ["--with=retry:times=2"]),
        ({"with": "kubernetes"}, ["--with=kubernetes"]),
        ({"max_workers": 2, "detach": True}, ["--max-workers=2", "--detach"]),
        ({"detach": False}, []),
        ({"run_id_file": "/dev/fd/3"}, ["--run-id-file=/dev/fd/3"]),
    ],
    ids=str,
)
def test_arguments_become_words(values: dict[str, Any], words: list[str]) -> None:
    """None is an option that is not given."""
    line = expanded(GROUP, RunnerCall((), "run", values), declared(F).parameters)
    assert line == ["run", *words]


def test_an_argument_without_a_dash_is_a_word() -> None:
    """An example is the step of resume; an option of the group is before the command."""
    group = click.Group(params=[click.Option(["--quiet"], is_flag=True)])
    group.add_command(click.Command("resume", params=[click.Argument(["step"]), click.Option(["--origin-run-id"])]))
    call = RunnerCall(
        ("--config", "a", "b"), "resume", {"step_to_rerun": "train", "origin_run_id": "r1", "quiet": True}
    )
    assert expanded(group, call, {}) == ["--config", "a", "b", "--quiet", "resume", "train", "--origin-run-id=r1"]


def test_a_call_is_received_and_what_was_typed_is_left_alone(tmp_path: Path) -> None:
    """Also where it looks alike."""
    file = tmp_path / "call"
    file.write_text(json.dumps({"words": ["--config", "a", "b"], "values": {"text": "ü"}}))
    assert received(["run", "--k8sflow-call", str(file)]) == RunnerCall(("--config", "a", "b"), "run", {"text": "ü"})
    for line in ([], ["run"], ["run", "--count", "3"], ["--k8sflow-call"], ["run", "--text", "--k8sflow-call", "x"]):
        assert received(line) is None


@pytest.mark.parametrize("words", [["a,b", "c"], [""]])
def test_a_list_that_would_become_another_one_is_refused(words: list[str]) -> None:
    """A part has the separator in it, or the only one is empty."""
    with pytest.raises(ParameterError, match="can't be a part of the list"):
        expanded(GROUP, RunnerCall((), "run", {"words": words}), declared(F).parameters)


@pytest.mark.parametrize(("value", "word"), [("false", "--no-quick"), ("True", "--quick"), (0, "--no-quick")])
def test_a_flag_may_be_a_text(value: object, word: str) -> None:
    """Which means what it says."""
    found = expanded(GROUP, RunnerCall((), "run", {"quick": value}), declared(F).parameters)
    assert found == ["run", word]


def test_an_unknown_argument_is_reported() -> None:
    """The error proposes the closest option."""
    with pytest.raises(ParameterError, match="run has no option 'cuont'") as raised:
        expanded(GROUP, RunnerCall((), "run", {"cuont": 3}), declared(F).parameters)
    assert "Did you mean 'count'?" in raised.value.advice
    assert "max_workers" in raised.value.advice
