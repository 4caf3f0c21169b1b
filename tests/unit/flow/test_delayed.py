"""Options of decorators that wait for the run's configs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from k8sflow import Config, config_expr
from k8sflow.errors import ParameterError
from k8sflow.flow.delayed import settled
from tests.support import run_flow, write_flow


def test_results_of_methods_of_a_config_can_be_passed_on() -> None:
    """The methods of tables and strings are called once the value is known."""
    config: Any = Config("c", default_value={"a": {"x": 1, "y": 2}, "name": "Ada", "items": 5})
    for late, value in (
        (config.a.get("z", 7), 7),
        (config.get("name").lower(), "ada"),
        (config.name.replace("A", "E"), "Eda"),
        (config["items"], 5),
        (config.a.to_dict(), {"x": 1, "y": 2}),
        (config.a[config_expr("'x'")], 1),
    ):
        assert settled(late) == value
    assert list(settled(config.a.keys())) == ["x", "y"]
    assert sorted(settled(config.a.values())) == [1, 2]
    with pytest.raises(ParameterError, match=r"c\.items is a method of every table"):
        settled(config.items)
    assert repr(config.a.x) == "<c.a.x>"
    assert copy.deepcopy(config) is config


UNPACKED = """
    from k8sflow import Config, environment, retry, user_step_decorator
    import os

    @user_step_decorator
    def noted(step_name, flow, inputs=None, attributes=None):
        print("NOTED", attributes)
        yield

    class F(FlowSpec):
        cfg = Config("cfg", default_value={{"retry": {{"times": 2}}, "env": {{"X": "1", "Y": "1"}}, "text": "abc"}})
        rest = Config("rest", default_value={{"a": 1}})

        @noted(b=2, **rest)
        @retry({options})
        @environment(vars={{"X": "0", **cfg.env, "Y": "2"}})
        @step
        def start(self):
            print("ENV", os.environ["X"], os.environ["Y"])
            self.next(self.end)

        @step
        def end(self):
            pass
"""


def test_tables_can_be_unpacked_into_options(tmp_path: Path) -> None:
    """Like in Metaflow, ``**`` works beside options that are written out and inside the user's own tables."""
    done = run_flow(write_flow(tmp_path, UNPACKED.format(options="minutes_between_retries=0, **cfg.retry")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ENV 1 2" in done.stdout
    assert "NOTED {'b': 2, 'a': 1}" in done.stdout
    for options, words in (
        ("times=1, **cfg.retry", "times is given twice: **cfg.retry has it too"),
        ("**cfg.text", "**cfg.text is of type str, which can't be unpacked as a table"),
        ("**cfg.env", "@retry has no option 'X'"),
    ):
        refused = run_flow(write_flow(tmp_path, UNPACKED.format(options=options)))
        assert refused.returncode == 1
        assert words in refused.stderr
