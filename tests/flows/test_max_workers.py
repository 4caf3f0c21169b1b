"""The number of local tasks that run at a time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import run_flow, write_flow

SOURCE = """
class F(FlowSpec):
    @step
    def start(self):
        self.items = range(4)
        self.next(self.work, foreach="items")
    @step
    def work(self):
        import time
        began = time.time()
        time.sleep(0.3)
        self.interval = (began, time.time())
        self.next(self.join)
    @step
    def join(self, inputs):
        intervals = sorted(branch.interval for branch in inputs)
        print("apart", all(a[1] <= b[0] for a, b in zip(intervals, intervals[1:])))
        self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.mark.slow
def test_as_many_tasks_run_at_a_time_as_there_are_cores(tmp_path: Path) -> None:
    """The cores are those that the process may use; ``--max-workers`` wins."""
    flow = write_flow(tmp_path, SOURCE)
    assert "apart True" in run_flow(flow, K8SFLOW_CPUS="1").stdout
    assert "apart False" in run_flow(flow, "--max-workers", "4", K8SFLOW_CPUS="1").stdout


def test_a_number_of_cores_that_is_none_is_an_error(tmp_path: Path) -> None:
    """The error names the variable."""
    done = run_flow(write_flow(tmp_path, SOURCE), K8SFLOW_CPUS="many")
    assert done.returncode == 1
    assert re.search(r"Error: K8SFLOW_CPUS is 'many'; it must be a whole number", done.stderr + done.stdout)
    assert "Traceback" not in done.stderr
