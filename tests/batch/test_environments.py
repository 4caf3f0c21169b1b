"""Packages of steps in jobs of AWS Batch, which install them from the bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.batch.conftest import Batch
from tests.support import write_flow
from tests.wheels import shades, uv_settings

TWO = """
    class F(FlowSpec):
        @pypi(packages={"shade": "1.0"})
        @step
        def start(self):
            import shade
            self.first = shade.VERSION
            self.branches = [0, 1]
            self.next(self.work, foreach="branches")
        @pypi(packages={"shade": ">=2"})
        @step
        def work(self):
            import shade, sys
            self.seen = (self.first, shade.VERSION, sys.prefix)
            self.next(self.join)
        @step
        def join(self, inputs):
            self.seen = [branch.seen for branch in inputs]
            self.next(self.end)
        @step
        def end(self):
            import importlib.util
            self.found = importlib.util.find_spec("shade") is not None
"""


def test_two_steps_have_two_versions_of_a_package_in_their_jobs(
    batch: Batch, client: Callable[[str], Any], tmp_path: Path
) -> None:
    """Also where the branches of a foreach are an array job."""
    shades(tmp_path / "wheels")
    flow = write_flow(tmp_path / "flows", TWO, head="from k8sflow import FlowSpec, pypi, step\n")
    done = batch.run(flow, "--with", "batch", **uv_settings(tmp_path / "wheels", tmp_path / "cache"))
    assert done.code == 0, done.text
    data = client(done.run)["end"].task.data
    assert [seen[:2] for seen in data.seen] == [("1.0", "2.0")] * 2
    assert all(seen[2].endswith("/environment") for seen in data.seen)
    assert not data.found
