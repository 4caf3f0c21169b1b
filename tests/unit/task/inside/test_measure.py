"""The usage of a process: the kernel's counts, of the task's own cgroup where it has one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from k8sflow.storage.usage import Usage
from k8sflow.task.inside.measure import usage_so_far
from tests.support import in_python

SCRIPT = """
import json, pathlib, sys
from k8sflow.task.inside.measure import usage_so_far
content = b"x" * 100_000_000
pathlib.Path(sys.argv[1]).write_bytes(content)
pathlib.Path(sys.argv[1]).read_bytes()
sum(range(3_000_000))
print(json.dumps(usage_so_far().to_document()))
"""


def test_a_process_is_measured_from_its_start(tmp_path: Path) -> None:
    """Memory of a hundred megabytes, some CPU time, and the bytes of a file."""
    import json

    done = in_python(SCRIPT, str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    found = Usage.from_document(json.loads(done.stdout))
    assert found is not None
    assert 100e6 < found.memory_bytes < 400e6
    assert 0 < found.cpu_seconds < 100
    assert 100e6 <= found.read_bytes < 200e6
    assert 100e6 <= found.written_bytes < 101e6
    assert not found.is_partial


def test_with_child_processes_the_memory_is_known_in_part() -> None:
    subprocess.run([sys.executable, "-c", "bytearray(50_000_000)"], check=True)
    found = usage_so_far()
    assert found.is_partial
    assert found.memory_bytes > 50e6


def test_the_peak_of_a_cgroup_counts_all_its_processes(tmp_path: Path) -> None:
    """In both versions of cgroups; that of the innermost one."""
    subprocess.run([sys.executable, "-c", ""], check=True)
    inner, outer = tmp_path / "outer" / "inner", tmp_path / "outer"
    inner.mkdir(parents=True)
    (outer / "memory.peak").write_text("9\n")
    assert usage_so_far([str(inner), str(outer)]).is_partial
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        (inner / name).write_text("123456789\n")
        found = usage_so_far([str(inner), str(outer)])
        assert (found.memory_bytes, found.is_partial) == (123456789, False)
        (inner / name).unlink()
