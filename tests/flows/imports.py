"""Flows whose tasks report what they found after importing their file."""

from __future__ import annotations

from pathlib import Path

from tests.support import latest, run_flow, write_flow

FLOW = """
class F(FlowSpec):
    @step
    def start(self):
        self.items = [0, 1, 2, 3]
        self.next(self.work, foreach="items")
    @step
    def work(self):
        {body}
        self.next(self.join)
    @step
    def join(self, inputs):
        self.all = [i.got for i in inputs]
        self.next(self.end)
    @step
    def end(self):
        {end}
"""


def found(folder: Path, top: str, body: str, *, end: str = "pass", **variables: str) -> list[object]:
    """Return the values that the four tasks of a foreach have set as ``self.got``."""
    done = run_flow(write_flow(folder, f"{top}\n{FLOW.format(body=body, end=end)}"), **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return list(latest(folder).data.all)  # type: ignore[union-attr]
