"""The usage of a task in a pod of its own is that of its cgroup, and of a task elsewhere that of its process."""

from __future__ import annotations

from pathlib import Path

from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.usage import Usage
from tests.cgroups import limited_memory
from tests.unit.task.host.agent_runs import ended, prepare, start_agent

# Two processes that have 80 MB each at the same time.
BODY = (
    "code = \"x = b'x' * 80_000_000; print(1, flush=True); input()\"\n"
    "pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
    "both = [subprocess.Popen([sys.executable, '-c', code], **pipes) for _ in range(2)]\n"
    "[each.stdout.readline() for each in both]\n"
    "[each.communicate(b'go') for each in both]\n"
    "self.names = [name for name in os.environ if 'CGROUP' in name]"
)
IN_CGROUP = 'echo 0 > "$1"; shift; exec unshare --pid --fork --mount-proc "$@"'


def _usage(folder: Path, words: list[str]) -> Usage:
    folder.mkdir()
    runner, command = prepare(folder, BODY)
    code, result, output = ended(folder, start_agent(folder, [*words, *command]))
    assert (code, result.outcome) == (0, Outcome.SUCCEEDED), (result, output)
    commit = runner.run_store.read_commit("start", "0")
    assert commit is not None
    assert commit.usage is not None
    assert ArtifactStore(runner.store, "F").load(commit.artifacts["names"], "names") == []  # for its own processes
    return commit.usage


def test_a_pod_of_its_own_counts_all_processes(tmp_path: Path) -> None:
    """The agent is the first process of the container, so nothing else has used the cgroup."""
    elsewhere = _usage(tmp_path / "elsewhere", [])
    assert elsewhere.is_partial
    assert 80e6 < elsewhere.memory_bytes < 150e6
    with limited_memory(2000) as group:
        joined = ["sh", "-c", IN_CGROUP, "sh", str(group.folder / "cgroup.procs")]
        in_pod = _usage(tmp_path / "pod", joined)
    assert not in_pod.is_partial
    assert in_pod.memory_bytes > 160e6
