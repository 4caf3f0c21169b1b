"""Out-of-memory kills as a pod's cgroup reports them: recorded files of cgroup v2 and v1."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow.flow.outcome import Outcome
from k8sflow.parallel import limits
from k8sflow.task.host.oom import kills_since, out_of_memory
from k8sflow.task.result import Failure

# Those of a container in a pod with a limit of 200 MB: cgroup v2, kernel 6.8 (memory.oom.group is 1 there, so that the
# kernel kills all processes of the container together), and cgroup v1, kernel 5.15.
EVENTS = "low 0\nhigh 0\nmax 4211\noom {kills}\noom_kill {kills}\noom_group_kill {kills}\n"
V2 = {
    "memory.max": "200003584\n",
    "memory.current": "199954432\n",
    "memory.peak": "200003584\n",
    "memory.oom.group": "1\n",
}
V1 = {
    "memory.limit_in_bytes": "200003584\n",
    "memory.usage_in_bytes": "199954432\n",
    "memory.max_usage_in_bytes": "200003584\n",
}
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
VERSIONS = [
    pytest.param(V2, "memory.events", EVENTS, id="v2"),
    pytest.param(V1, "memory.oom_control", CONTROL, id="v1"),
]


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cgroup of a container, below that of its pod, as they are seen from inside."""
    inner = tmp_path / "kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope"
    inner.mkdir(parents=True)
    folders = [str(inner), str(inner.parent), str(inner.parent.parent)]
    monkeypatch.setattr(limits, "cgroup_folders", lambda *_: folders)
    return inner


@pytest.mark.parametrize(("files", "name", "text"), VERSIONS)
def test_a_kill_is_counted_and_explained(container: Path, files: dict[str, str], name: str, text: str) -> None:
    """By the container's own counter and limit, and not by those of the pod above it."""
    for file, content in files.items():
        (container / file).write_text(content)
    (container / name).write_text(text.format(kills=2))
    (container.parent / name).write_text(text.format(kills=7))
    before = limits.out_of_memory_kills()
    assert before == 2
    assert kills_since(before).figures == {}
    (container / name).write_text(text.format(kills=3))
    kills = kills_since(before)
    assert kills.explain(was_killed=True)
    assert (kills.figures["limit"], kills.figures["peak"]) == (200003584, 200003584)
    result = out_of_memory(Failure("it was killed"), kills)
    assert result.outcome is Outcome.OUT_OF_MEMORY
    assert "its limit of 200 MB" in result.explained.summary
    assert "memory=400" in result.explained.resolution


def test_a_container_without_a_limit_has_that_of_its_pod(container: Path) -> None:
    """As where only the pod has limits (pod-level resources, since Kubernetes 1.32)."""
    for file, content in V2.items():
        (container.parent / file).write_text(content)
        (container / file).write_text("max\n" if file == "memory.max" else content)
    assert limits.memory_figures()["limit"] == 200003584


def test_an_older_kernel_has_no_peak_in_cgroup_v2(container: Path) -> None:
    """memory.peak came with Linux 5.19."""
    (container / "memory.max").write_text("200003584\n")
    (container / "memory.current").write_text("199954432\n")
    assert "highest" not in limits.memory_figures()
    assert limits.memory_figures()["limit"] == 200003584
