"""Runs whose bucket has a bad day: their results are right, nothing is lost, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import s3server
from tests.cluster.s3 import S3Server
from tests.faulty_s3 import FAULTS, Faults, faulty
from tests.support import flow_command, run_flow, write_flow

pytestmark = [pytest.mark.s3, pytest.mark.slow]

HEAD = "from pathlib import Path\nimport numpy as np\nfrom k8sflow import FlowSpec, current, step\n"
FLOW = """
    class F(FlowSpec):
        @step
        def start(self):
            self.items = list(range(4))
            self.large = np.arange(9_000_000, dtype=np.float64)  # more than 64 MiB: written in parts, read in ranges
            self.small = {"a": 1}
            print("start ran")
            self.next(self.work, foreach="items")

        @step
        def work(self):
            Path(current.checkpoint.directory, "state").write_text(f"half of {self.input}")
            current.checkpoint.save()
            self.mine = float(self.large[self.input]) + self.small["a"]
            print("work ran", self.input)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.mines = [each.mine for each in inputs]
            print("join ran")
            self.next(self.end)

        @step
        def end(self):
            assert self.mines == [1.0, 2.0, 3.0, 4.0]
            print("end ran")
"""
RAN = ["start ran", *(f"work ran {number}" for number in range(4)), "join ran", "end ran"]
DAYS: dict[str, tuple[Sequence[str], int]] = {
    "anything": (FAULTS, 1),
    "anything else": (FAULTS, 3),
    "404 after a write": (["404 after a write"], 0),
    "lost answers": (["lost answer"], 0),
    "403": (["403"], 0),
}


@pytest.mark.parametrize(("day", "client"), [*((day, "plain") for day in DAYS), ("anything", "boto3")])
def test_a_run_gets_through(day: str, client: str, s3_server: S3Server, tmp_path: Path) -> None:
    """A quarter of the requests has a fault."""
    file = write_flow(tmp_path / "flows", FLOW, head=HEAD)
    kinds, seed = DAYS[day]
    faults = Faults(kinds, seed, probability=0.25)
    keys = s3server.KEYS if client == "plain" else s3server.profile(tmp_path)
    root = f"s3://{s3server.BUCKET}/{tmp_path.name}"
    settings = {**s3server.NO_FILES, **keys, "K8SFLOW_ROOT": root, "K8SFLOW_USER": "tester"}
    with faulty(s3_server.endpoint, faults) as url:
        done = run_flow(file, "--run-id", "r", K8SFLOW_ENDPOINT=url, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(faults.made.values()) > 5, faults.made
    settings["K8SFLOW_ENDPOINT"] = s3_server.endpoint
    steps = ("start", "work", "join", "end")
    logs = "".join(flow_command(file, "logs", f"r/{step}", **settings).stdout for step in steps)
    ran = [line.partition("] ")[2] for line in logs.splitlines() if " ran" in line]
    assert sorted(ran) == sorted(RAN), logs
