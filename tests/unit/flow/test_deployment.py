"""Flow decorators: what may be written, and what the run's record keeps of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k8sflow import FlowSpec, exit_hook, project, schedule, trigger, trigger_on_finish
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators import base
from k8sflow.flow.decorators.flow_level import documents
from tests.support import flow_command, write_flow


def tell() -> None:
    """A hook."""


def takes_more(run: Any, other: Any) -> None:
    """No hook."""


def said(decorator: Any, **more: Any) -> dict[str, Any]:
    """What a flow under a decorator says."""

    class F(FlowSpec):
        pass

    decorator(F)
    found = documents("F", base.of(F), "ada", more.get("branch"), more.get("production"))
    assert json.loads(json.dumps(found)) == found
    return next(iter(found.values()))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("decorator", "expected"),
    [
        (schedule, {"cron": "0 0 * * *"}),
        (schedule(hourly=True), {"cron": "0 * * * *"}),
        (schedule(weekly=True), {"cron": "0 0 * * 0"}),
        (schedule(cron="0  6 * * 1-5", timezone="UTC"), {"cron": "0 6 * * 1-5", "timezone": "UTC"}),
        (schedule(cron="0 10 ? * MON-FRI *"), {"cron": "0 10 ? * MON-FRI *"}),
        (trigger(event="data"), {"event": {"name": "data", "parameters": {}}}),
        (
            trigger(events=["a", {"name": "b", "parameters": {"alpha": "field"}}]),
            {"events": [{"name": "a", "parameters": {}}, {"name": "b", "parameters": {"alpha": "field"}}]},
        ),
        (
            trigger(event={"name": "b", "parameters": ["x", ("y", "z")]}),
            {"event": {"name": "b", "parameters": {"x": "x", "y": "z"}}},
        ),
        (trigger_on_finish(flow="Other"), {"flow": {"name": "Other"}}),
        (
            trigger_on_finish(flows=["p.test.b.Other", {"name": "O", "project": "p"}]),
            {"flows": [{"name": "Other", "project": "p", "branch": "test.b"}, {"name": "O", "project": "p"}]},
        ),
        (exit_hook(on_error=[tell]), {"on_error": [f"{__name__}:tell"]}),
        (
            exit_hook(on_success=[tell, tell], on_error=[tell], options={"image": "curl:1"}),
            {
                "on_success": [f"{__name__}:tell"] * 2,
                "on_error": [f"{__name__}:tell"],
                "images": {"on_success": ["curl:1"] * 2, "on_error": ["curl:1"]},
            },
        ),
        (trigger(event=tell), {"event": {"function": f"{__name__}:tell"}}),
        (
            trigger(events=[{"name": tell, "parameters": tell}]),
            {"events": [{"name": {"function": f"{__name__}:tell"}, "parameters": {"function": f"{__name__}:tell"}}]},
        ),
        (trigger(events=tell), {"events": {"function": f"{__name__}:tell"}}),
        (trigger_on_finish(flow=tell), {"flow": {"function": f"{__name__}:tell"}}),
        (trigger_on_finish(flows=tell), {"flows": {"function": f"{__name__}:tell"}}),
    ],
    ids=range(17),
)
def test_a_flow_decorator_is_kept_as_json(decorator: Any, expected: dict[str, Any]) -> None:
    """For the controller, which has no code of the flow."""
    assert said(decorator) == expected


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
    """One of each user, named ones, and production."""
    assert said(project(name="fraud", **options), **asked) == {
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
        (lambda: schedule(cron="soon"), "cron expression"),
        (lambda: schedule(cron="* * * * *", hourly=True), "more than one time"),
        (lambda: schedule(timezone="Berlin"), "time zone"),
        (lambda: schedule(houry=True), "Did you mean 'hourly'"),
        (trigger, "needs one of event and events"),
        (lambda: trigger(event={"nme": "x"}), "neither a name nor"),
        (lambda: trigger(event="x", events=["y"]), "needs one of"),
        (lambda: trigger_on_finish(flow={"name": "x", "team": "y"}), "'team' is not a key of a flow"),
        (exit_hook, "on_success or on_error"),
        (lambda: exit_hook(on_error=["tell"]), "list of functions"),
        (lambda: exit_hook(on_error=[tell], options={"imag": "x"}), "it has no key 'imag': image is the only one"),
        (lambda: exit_hook(on_error=[lambda: None]), "by its name"),
        (lambda: exit_hook(on_error=[takes_more]), "takes_more needs other: an exit hook gets only the run"),
        (lambda: project(name="x")(tell), "not a flow's class"),
    ],
    ids=range(17),
)
def test_a_mistake_is_told(make: Any, words: str) -> None:
    """When the flow is checked; at once, where it is not above a flow."""
    with pytest.raises(FlowDefinitionError, match=words):
        compile_flow(make()(type("F", (FlowSpec,), {})))


@pytest.mark.slow
def test_a_run_of_a_project_knows_it(tmp_path: Path) -> None:
    """By options before the command and behind it; the record keeps all that the flow's decorators say."""
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
