"""Attributes that a flow's ``__init__`` sets before it calls FlowSpec's: steps have them, as artifacts."""

from __future__ import annotations

from pathlib import Path

from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskName, TaskSpec
from tests.support import flow_command, run_flow, write_flow

SOURCE = """
    import functools
    class F(FlowSpec):
        _kept = None

        def __init__(self, use_cli=True):
            self.table, self._kept, self.items, self.changed = "spectra", "set", [1, 2], 1
            self.prefix = f"{self.made}-"
            super().__init__(use_cli)

        @functools.cached_property
        def made(self):
            return type(self).__name__

        @step
        def start(self):
            print("start", self.table, self._kept, self.items, self.changed, self.prefix)
            self.next(self.work, foreach="items")

        @step
        def work(self):
            self.changed = 2
            self.next(self.join)

        @step
        def join(self, inputs):
            print("join", self.table, self._kept, self.changed, inputs[0].table)
            self.merge_artifacts(inputs)
            print("merged", self.table, self._kept, self.changed)
            self.next(self.end)

        @step
        def end(self):
            print("end", self.table, self._kept, self.changed)
"""


def test_steps_have_the_attributes_of_init(tmp_path: Path) -> None:
    """A step's own value replaces one for the steps after it, also through a join; it hides a class's default."""
    file = write_flow(tmp_path, SOURCE)
    done = run_flow(file, "--run-id-file", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    for printed in (
        "start spectra set [1, 2] 1 F-",
        "join spectra set 1 spectra",
        "merged spectra set 2",
        "end spectra set 2",
    ):
        assert printed in done.stdout

    run = (tmp_path / "run").read_text().strip()
    store = FolderStore(tmp_path / ".k8sflow")
    commit = RunStore(store, "F", run).read_commit("start", TaskName("start").id)
    assert commit is not None
    assert {"table", "_kept", "items", "changed", "prefix"} <= commit.artifacts.keys()
    # a pod runs the flow's file with the command step
    spec = TaskSpec("F", run, TaskName("start"), 0, ())
    again = flow_command(file, "step", spec.to_json(), "--store", str(tmp_path / ".k8sflow"))
    assert "start spectra set [1, 2] 1 F-" in again.stdout, again.stdout + again.stderr
