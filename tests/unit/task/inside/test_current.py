"""``current``: in a task, and outside of any."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow import current
from k8sflow.user import current_user
from tests.inprocess import run_source

USER = current_user()


def test_a_task_knows_itself_and_its_run(tmp_path: Path) -> None:
    """Every plain field, in a foreach branch."""
    run = run_source(
        tmp_path,
        """
        from k8sflow import current
        class F(FlowSpec):
            "What it does."
            alpha = Parameter("alpha", default=1)
            @step
            def start(self):
                self.items = [5, 6]
                self.next(self.work, foreach="items")
            @step
            def work(self):
                self.seen = {name: getattr(current, name) for name in (
                    "is_running_flow", "flow_name", "run_id", "step_name", "task_id", "retry_count", "origin_run_id",
                    "pathspec", "username", "namespace", "tags", "parameter_names", "is_parallel", "trigger")}
                self.graph = current.graph
                self.run = (current.run.pathspec, current.run["start"].task.data.items)
                self.task = (current.task.pathspec, current.task.finished)
                self.asked = ("run_id" in current, "origin_run_id" in current, "nothing" in current,
                              current.get("step_name"), current.get("project_name"), current.get("nothing", 5))
                self.has_tempdir = bool(current.tempdir)
                self.next(self.join)
            @step
            def join(self, inputs): self.next(self.end)
            @step
            def end(self): pass
        """,
    )
    data = run["work"]["1"].data
    assert data.seen == {
        "is_running_flow": True, "flow_name": "F", "run_id": "r1", "step_name": "work", "task_id": "1",
        "retry_count": 0, "origin_run_id": None, "pathspec": "F/r1/work/1", "username": USER,
        "namespace": f"user:{USER}",
        "tags": frozenset(), "parameter_names": ["alpha"], "is_parallel": False, "trigger": None,
    }  # fmt: skip
    assert data.graph["doc"] == "What it does."
    assert list(data.graph["steps"]) == ["start", "work", "join", "end"]
    assert data.graph["steps"]["start"]["next"] == ["work"]
    kinds = {name: (found["type"], found["foreach_artifact"]) for name, found in data.graph["steps"].items()}
    assert kinds == {
        "start": ("split-foreach", "items"),
        "work": ("linear", None),
        "join": ("join", None),
        "end": ("end", None),
    }
    assert (data.graph["start_step"], data.graph["end_step"]) == ("start", "end")
    assert data.run == ("F/r1", [5, 6])
    assert data.task == ("F/r1/work/1", False)
    assert data.asked == (True, False, False, "work", None, 5)
    assert data.has_tempdir


def test_a_task_on_this_machine_is_never_preempted(tmp_path: Path) -> None:
    """Code that looks for the notice's file, as Metaflow's users write it, runs here too."""
    source = """
        import os
        from k8sflow import current
        class F(FlowSpec):
            @step
            def start(self):
                self.seen = current.preempted, os.path.exists(current.spot_termination_notice)
                self.next(self.end)
            @step
            def end(self): pass
    """
    assert run_source(tmp_path, source)["start"].task.data.seen == (False, False)


def test_a_flow_without_a_docstring_has_none(tmp_path: Path) -> None:
    """The docstring of FlowSpec is not that of the flow."""
    source = """
        from k8sflow import current
        class F(FlowSpec):
            @step
            def start(self):
                self.doc = current.graph["doc"]
                self.next(self.end)
            @step
            def end(self): pass
    """
    assert run_source(tmp_path, source)["start"].task.data.doc == ""


def test_outside_of_a_task_it_says_so() -> None:
    """Plain fields are None, so that a library may look; a field of a decorator is an error that names it."""
    assert not current.is_running_flow
    assert current.run_id is None
    assert current.pathspec is None
    assert current.task is None
    assert current.run is None
    assert current.graph is None
    assert current.tags == frozenset()
    assert current.parameter_names == []
    assert "run_id" not in current
    assert current.get("run_id", "none") == "none"
    assert not current.is_parallel
    assert not current.preempted
    assert current.spot_termination_notice is None
    with pytest.raises(AttributeError, match="num_parallel"):
        _ = current.parallel
    with pytest.raises(AttributeError, match="project_name exists only in a running task"):
        _ = current.project_name
    with pytest.raises(AttributeError, match="Did you mean 'step_name'"):
        _ = current.stepname
    assert repr(current) == "<current outside of a task>"
