"""``@project``: branches, and their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k8sflow import FlowSpec, project
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from tests.support import flow_command, write_flow
from tests.unit.flow.decorators.recorded import notify, recorded


@pytest.mark.parametrize(
    ("options", "asked", "branch", "is_user", "is_production"),
    [
        ({}, {}, "user.ada", True, False),
        ({"branch": "b"}, {}, "test.b", False, False),
        ({"branch": "b"}, {"branch": "c"}, "test.c", False, False),
        ({"production": True}, {}, "prod", False, True),
        ({}, {"production": True, "branch": "b"}, "prod.b", False, True),
        ({"production": True}, {"production": False}, "user.ada", True, False),
    ],
)
def test_a_project_has_branches(
    options: dict[str, Any], asked: dict[str, Any], branch: str, is_user: bool, is_production: bool
) -> None:
    """Each user has a branch; others are named, or production."""
    assert recorded(project(name="fraud", **options), **asked) == {
        "project_name": "fraud",
        "branch_name": branch,
        "project_flow_name": f"fraud.{branch}.F",
        "is_user_branch": is_user,
        "is_production": is_production,
    }


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: project(name="Fraud"), "lower-case"),
        (project, "needs a name"),
        (lambda: project(name="x", branch="a/b"), "branch='a/b'"),
        (lambda: project(name="x")(notify), "not a flow's class"),
    ],
    ids=range(4),
)
def test_a_mistake_is_reported(make: Any, words: str) -> None:
    """The error is raised when the flow is checked, or at once if the decorator isn't above a flow."""
    with pytest.raises(FlowDefinitionError, match=words):
        compile_flow(make()(type("F", (FlowSpec,), {})))


@pytest.mark.slow
def test_a_run_has_the_names_of_its_project(tmp_path: Path) -> None:
    """Options may be before or after the command; the record keeps the options of the flow's decorators."""
    source = """
        from k8sflow import current, project, schedule
        @schedule(daily=True)
        @project(name="fraud")
        class F(FlowSpec):
            @step
            def start(self):
                print(current.project_name, current.branch_name, current.project_flow_name, current.is_production)
                self.next(self.end)
            @step
            def end(self): pass
    """
    file = write_flow(tmp_path, source)
    for before, behind, expected in (
        ([], [], "fraud user.ada fraud.user.ada.F False"),
        (["--branch", "x"], [], "fraud test.x fraud.test.x.F False"),
        ([], ["--production"], "fraud prod fraud.prod.F True"),
    ):
        done = flow_command(file, *before, "run", *behind, K8SFLOW_USER="ada")
        assert done.returncode == 0, done.stdout + done.stderr
        assert expected in done.stdout
    kept = [json.loads(path.read_text())["flow_decorators"] for path in (tmp_path / ".k8sflow").rglob("run.json")]
    assert all(said["schedule"] == {"cron": "0 0 * * *"} for said in kept)
    assert sorted(said["project"]["branch_name"] for said in kept) == ["prod", "test.x", "user.ada"]
    wrong = flow_command(file, "--branch", "a/b", "run")
    assert wrong.returncode == 2
    assert "a/b" in wrong.stderr
