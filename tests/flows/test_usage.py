"""The use of resources by the tasks of a real run: in their commits, in the run's summary, in lists, and in advice."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import flow_command, latest, run_flow, write_flow

SOURCE = """
    import subprocess, sys
    from k8sflow import catch

    class F(FlowSpec):
        @resources(memory=4096, cpu=2)
        @step
        def start(self):
            self.content = b"x" * 150_000_000
            sum(range(3_000_000))
            self.next(self.other)
        @resources(memory=4096)
        @step
        def other(self):
            subprocess.run([sys.executable, "-c", ""], check=True)
            self.next(self.end)
        @catch(var="failed")
        @step
        def end(self):
            del self.content
            raise ValueError("as asked")
"""


def test_a_run_shows_what_its_tasks_used(tmp_path: Path) -> None:
    """Each local task is a process of its own, and measured by itself."""
    file = write_flow(tmp_path, SOURCE)
    done = run_flow(file)
    assert done.returncode == 0, done.stderr
    run = latest(tmp_path)
    start, other = run["start"].task.usage, run["other"].task.usage
    assert 150e6 < start.memory_bytes < 600e6
    assert start.cpu_seconds > 0
    assert start.written_bytes > 150e6
    assert (start.is_partial, other.is_partial) == (False, True)
    assert run["end"].task.usage is None, "the driver made its result"
    assert run.usage.memory_bytes == max(start.memory_bytes, other.memory_bytes)
    assert run["start"].usage == start
    assert "of memory at most" in done.stdout + done.stderr
    assert "at least" in done.stdout + done.stderr
    (listed,) = json.loads(flow_command(file, "runs", "--json").stdout)
    assert listed["usage"] == run.usage.to_document()
    advice = flow_command(file, "advise").stdout
    assert "start: asked for 4,096 MB, used " in advice
    assert "other: asked for 4,096 MB, used " in advice
    assert "several processes" in advice
