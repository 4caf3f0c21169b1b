"""The number of workers, and the cores and libraries that they may use."""

from __future__ import annotations

import io
import os
import random
import resource
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from k8sflow.parallel import Backend, available_cores, parallel_imap, parallel_map, progress
from k8sflow.parallel.call import checked
from k8sflow.parallel.limits import _cpu_quotas


def test_k8sflow_cpus_comes_first() -> None:
    """In a pod it is the CPU request."""
    assert available_cores({"K8SFLOW_CPUS": "7"}) == 7
    assert available_cores({"K8SFLOW_CPUS": " 12 "}) == 12


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", "500m", "²"])
def test_a_bad_k8sflow_cpus_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8SFLOW_CPUS", text)
    with pytest.raises(ValueError, match="K8SFLOW_CPUS"):
        parallel_map(abs, [1])


def test_an_empty_k8sflow_cpus_counts_as_unset() -> None:
    assert available_cores({"K8SFLOW_CPUS": ""}) == available_cores({})


def test_affinity_counts() -> None:
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert available_cores({}) == 1
    finally:
        os.sched_setaffinity(0, cores)


CORES = "from k8sflow.parallel import available_cores; print(available_cores({}))"


def set_quota(group: Any, cores: float) -> None:
    if group.version == 2:
        group.write("cpu.max", f"{int(cores * 100_000)} 100000")
    else:
        group.write("cpu.cfs_period_us", 100_000)
        group.write("cpu.cfs_quota_us", int(cores * 100_000))


def test_a_cgroups_quota_counts(cpu_group: Any) -> None:
    """A real cgroup; a part of a core counts as one."""
    for quota, cores in [(1.0, 1), (0.3, 1), (1.5, 2)]:
        set_quota(cpu_group, quota)
        assert int(cpu_group.run(CORES)) == min(cores, len(os.sched_getaffinity(0)))


def test_the_quota_of_a_cgroup_above_counts(cpu_group: Any) -> None:
    set_quota(cpu_group, 1.0)
    (cpu_group.folder / "inner").mkdir()
    assert int(cpu_group.run(CORES, inner="inner")) == 1


def test_a_quota_limits_the_number_of_workers(cpu_group: Any) -> None:
    set_quota(cpu_group, 1.0)
    out = cpu_group.run(
        "import os; from k8sflow.parallel import parallel_map\n"
        "print(len(set(parallel_map(lambda i: os.getpid(), range(100), chunk_size=1))))"
    )
    assert out.strip() == "1"


def fake_proc(tmp_path: Path, cgroup: str, mountinfo: str) -> str:
    (tmp_path / "cgroup").write_text(cgroup)
    (tmp_path / "mountinfo").write_text(mountinfo.format(mount=tmp_path / "fs"))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("cgroup", "root", "path"),
    [
        ("0::/kubepods/pod1/c1\n", "/", "kubepods/pod1/c1"),  # seen from the host
        ("0::/\n", "/", "."),  # in a container with a cgroup namespace
        ("0::/kubepods/pod1/c1\n", "/kubepods/pod1/c1", "."),  # in a container without one
        ("0::/../other\n", "/", "other"),
    ],
)
def test_cgroup_v2_files(tmp_path: Path, cgroup: str, root: str, path: str) -> None:
    """The formats of cgroups(7), wherever the hierarchy is mounted."""
    mountinfo = f"30 24 0:26 {root} {{mount}} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    folder = tmp_path / "fs" / path
    folder.mkdir(parents=True)
    proc = fake_proc(tmp_path, cgroup, mountinfo)
    quotas = list(_cpu_quotas(proc))
    assert quotas == []
    (folder / "cpu.max").write_text("max 100000\n")
    assert list(_cpu_quotas(proc)) == []
    (folder / "cpu.max").write_text("150000 100000\n")
    assert list(_cpu_quotas(proc)) == [1.5]
    (tmp_path / "fs" / "cpu.max").write_text("50000 100000\n")
    assert min(_cpu_quotas(proc)) == 0.5
    assert available_cores({}, proc) == 1


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert available_cores({}, str(tmp_path)) == len(os.sched_getaffinity(0))


def test_the_argument_beats_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8SFLOW_CPUS", "1")
    pids = parallel_map(lambda _: os.getpid(), range(3), 3, chunk_size=1)
    assert len(set(pids)) >= 1
    assert checked(abs, range(9), 3, None, False, None).workers == 3
    assert checked(abs, range(9), None, None, False, None).workers == 1


def test_no_more_workers_than_items() -> None:
    """Nor than chunks."""
    assert checked(abs, range(3), 8, None, False, None).workers == 3
    assert checked(abs, range(30), 8, 10, False, None).workers == 3


def test_few_descriptors_are_enough_for_a_few_workers() -> None:
    """macOS allows 256 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert checked(abs, range(100), 20, None, False, None).workers == 20
        assert parallel_map(abs, range(100), 20) == list(range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(set(parallel_map(lambda _: os.getpid(), iter([1]), 8))) == 1


def test_one_worker_is_a_process_too() -> None:
    """Changes that the function makes to its globals never reach the caller, with any number of cores."""
    assert parallel_map(lambda _: os.getpid(), range(3), 1) != [os.getpid()] * 3


def test_nesting_does_not_multiply_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two workers on two cores, nested calls run inside the workers, even with max_parallel."""
    monkeypatch.setenv("K8SFLOW_CPUS", "2")

    def inner(i: int) -> tuple[set[int], int, list[int]]:
        pids = parallel_map(lambda _: os.getpid(), range(4), 2, chunk_size=1)
        return set(pids), os.getpid(), list(parallel_imap(lambda j: i * j, (j for j in range(3))))

    for i, (pids, own, products) in enumerate(parallel_map(inner, range(4), 2)):
        assert pids == {own}
        assert products == [0, i, 2 * i]


def test_nested_calls_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """With eight cores and two workers, each may start four of its own, and those have one core."""
    monkeypatch.setenv("K8SFLOW_CPUS", "8")

    def inner(_: int) -> tuple[int, int]:
        call = checked(abs, range(100), None, None, False, None)
        deeper = parallel_map(lambda _: checked(abs, range(9), None, None, False, None).workers, [1, 2, 3, 4])
        return call.workers, max(deeper)

    assert parallel_map(inner, range(2), 2) == [(4, 1), (4, 1)]
    assert parallel_map(inner, range(2), 2, backend="threads") == [(4, 1), (4, 1)]


def test_a_failure_in_a_nested_call_comes_through() -> None:
    def outer(i: int) -> list[float]:
        return parallel_map(lambda j: 1 / (i - j), range(3))

    with pytest.raises(ZeroDivisionError):
        parallel_map(outer, range(2), 2)


def test_threads_on_a_free_threaded_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the default there; the argument takes precedence."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert set(parallel_map(lambda _: os.getpid(), range(3), 2)) == {os.getpid()}
    assert set(parallel_map(lambda _: os.getpid(), range(3), 2, backend="processes")) != {os.getpid()}


def test_math_libraries_have_one_thread_in_workers(way: Backend) -> None:
    """Both BLAS and OpenMP; the caller's own limits are unchanged afterwards."""
    before = [library["num_threads"] for library in threadpoolctl.threadpool_info()]
    assert before
    for threads in parallel_map(
        lambda _: [np.ones((9, 9)) @ np.ones((9, 9)) is None, threadpoolctl.threadpool_info()][1],
        range(2),
        2,
        backend=way,
    ):
        assert {library["num_threads"] for library in threads} == {1}
    assert [library["num_threads"] for library in threadpoolctl.threadpool_info()] == before


OPENMP = """
import sys, warnings
{prelude}
from sklearn.cluster import KMeans
import numpy as np
from k8sflow.parallel import parallel_map
points = np.random.default_rng(0).random((20_000, 8))
def fit(k):
    return KMeans(k, n_init=1, max_iter=3, random_state=0).fit(points).inertia_
expected = [fit(k) for k in (2, 3)]
assert np.allclose(parallel_map({func}, [2, 3], 2), {expected})
print("done")
"""


def run_openmp(**parts: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", OPENMP.format(**parts)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_openmp_in_the_parent_does_not_hang_workers() -> None:
    """GNU OpenMP hangs in a fork if it ran before; limited to one thread it doesn't."""
    assert run_openmp(prelude="", func="fit", expected="expected").endswith("done\n")


WITHOUT_THREADPOOLCTL = "import k8sflow.parallel.math_threads as m; m.optional_module = lambda name: None"
WITHOUT_PAUSE = "; import k8sflow.parallel.native as n; n.pause_openmp = lambda library: False"


@pytest.mark.slow
def test_openmp_in_the_parent_does_not_hang_workers_without_threadpoolctl() -> None:
    """Its idle threads are ended before the fork."""
    assert run_openmp(prelude=WITHOUT_THREADPOOLCTL, func="fit", expected="expected").endswith("done\n")


@pytest.mark.slow
def test_openmp_that_can_neither_be_held_nor_paused_is_not_forked() -> None:
    """The warning, an error here, names it; with warnings ignored, new interpreters give the results."""
    assert "OpenMP (libgomp)" in run_openmp(prelude=WITHOUT_THREADPOOLCTL + WITHOUT_PAUSE, func="fit", expected="0")
    quiet = WITHOUT_THREADPOOLCTL + WITHOUT_PAUSE + "; warnings.simplefilter('ignore')"
    assert run_openmp(prelude=quiet, func="fit", expected="expected").endswith("done\n")


@pytest.mark.parametrize("generator", ["random", "numpy"])
def test_random_numbers_differ_between_workers_and_calls(generator: str, start_method: str) -> None:
    def draw(_: int) -> float:
        return random.random() if generator == "random" else float(np.random.rand())

    seen = [*parallel_map(draw, range(40), 2, chunk_size=4), *parallel_map(draw, range(40), 2)]
    assert len(set(seen)) == len(seen)


def test_random_numbers_are_the_same_again_after_a_seed(start_method: str) -> None:
    """With a fixed chunk size, for any number of workers."""

    def draw(_: int) -> tuple[float, float]:
        return random.random(), float(np.random.rand())

    def run(max_parallel: int) -> list[tuple[float, float]]:
        random.seed(5)
        np.random.seed(6)
        return parallel_map(draw, range(30), max_parallel, chunk_size=3)

    assert run(1) == run(2) == run(3)


def test_torch_is_reseeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through its public functions; the library itself is too large a dependency for a test."""

    class Drawn:
        def item(self) -> int:
            return 1000

    def seed(number: int) -> None:
        torch.seeded = number  # type: ignore[attr-defined]

    torch = types.ModuleType("torch")
    torch.randint = lambda high, size: Drawn()  # type: ignore[attr-defined]
    torch.manual_seed = seed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert parallel_map(lambda _: torch.seeded, range(4), 2, chunk_size=2) == [1000, 1000, 1002, 1002]


def test_progress_in_a_log_is_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    parallel_map(lambda i: i, range(2000), 2, progress=True, chunk_size=500)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("parallel_map: 500 of 2,000 items (25%)")
    assert lines[-1].startswith("parallel_map: 2,000 of 2,000 items (100%)")
    assert "\r" not in "".join(lines)
    parallel_map(lambda i: i, iter(range(20)), 2, progress=True)
    assert "parallel_map: 20 items, " in capsys.readouterr().err


def test_progress_on_a_terminal_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0.0)
    parallel_map(lambda i: i, range(100), 2, progress=True, chunk_size=50)
    err = capsys.readouterr().err
    assert "\r[###############...............] parallel_map: 50 of 100 items (50%)" in err
    assert err.endswith("\n")


@pytest.mark.parametrize("stream", [None, "closed"])
def test_progress_without_a_standard_error_does_not_fail(stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    error = io.StringIO() if stream else None
    if error:
        error.close()
    monkeypatch.setattr(sys, "stderr", error)
    assert parallel_map(lambda i: i, range(3), 2, progress=True) == [0, 1, 2]


def test_no_progress_is_shown_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    parallel_map(lambda i: i, range(100), 2)
    assert capsys.readouterr() == ("", "")
