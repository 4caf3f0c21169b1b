"""A flow with ``@conda`` can be read and checked; a run says what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import conda as module
from k8sflow.flow.decorators.base import Decoration, of
from tests.support import flow_command, write_flow

FLOW = """
    from k8sflow import FlowSpec, conda, conda_base, step
    @conda_base(libraries={"pandas": "1.4"}, python="3.10")
    class F(FlowSpec):
        @conda(disabled=DISABLED)
        @step
        def start(self):
            self.next(self.end)
        @conda(disabled=DISABLED)
        @step
        def end(self):
            pass
"""


def of_step(**options: Any) -> tuple[Decoration, ...]:
    @module.conda(**options)
    def start(self: Any) -> None: ...

    return of(start)


def test_the_error_has_the_names_and_versions_of_pypi() -> None:
    libraries = {"conda-forge::pytorch": "2.1.0=py310_0", "pip": "", "OpenCV": ">=4", "s3fs": None}
    with pytest.raises(FlowDefinitionError) as raised:
        module.refuse("train", (), of_step(libraries=libraries, packages={"x": "=1.2"}, python="3.10.4"))
    wanted = "@pypi(packages={'torch': '2.1.0', 'opencv-python': '>=4', 's3fs': '', 'x': '1.2'}, python='3.10.4')"
    assert wanted in str(raised.value)
    assert "step train has @conda" in str(raised.value)


def test_it_is_fine_where_it_is_disabled() -> None:
    base = (Decoration(module.conda_base, {"libraries": {"a": "1"}}),)
    module.refuse("start", base, of_step(disabled=True))
    module.refuse("start", (Decoration(module.conda_base, {"disabled": True}),), ())
    with pytest.raises(FlowDefinitionError, match=r"@pypi_base\(packages=\{'a': '1'\}\)"):
        module.refuse("start", base, ())


def test_check_accepts_it_and_run_refuses_it(tmp_path: Path) -> None:
    file = write_flow(tmp_path, FLOW.replace("DISABLED", "False"))
    assert flow_command(file, "check").returncode == 0
    refused = flow_command(file, "run")
    assert refused.returncode
    assert "step start has @conda" in refused.stderr
    assert flow_command(file, "--environment=local", "run").returncode == 0


def test_a_flow_without_environments_runs(tmp_path: Path) -> None:
    assert flow_command(write_flow(tmp_path, FLOW.replace("DISABLED", "True")), "run").returncode == 0
