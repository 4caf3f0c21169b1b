"""Runs on this machine whose root is a bucket: all commands, readers and programs find them there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3 import S3Store
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.recording import recording
from tests.support import environment, flow_command, run_flow, write_flow

pytestmark = pytest.mark.s3

FLOW = """
    class Point:
        def __init__(self, x):
            self.x = x

    class F(FlowSpec):
        @step
        def start(self):
            self.items = list(range(3))
            self.table = [b"%d" % n * 100_000 for n in range(40)]
            self.point = Point(7)
            self.next(self.work, foreach="items")

        @step
        def work(self):
            self.is_again = current.checkpoint.is_loaded
            Path(current.checkpoint.directory, "state").write_text("half")
            current.checkpoint.save()
            if os.environ.get("FAILS") and self.index == 1:
                raise ValueError("as asked")
            self.seen = [run.id for run in Flow("F")]
            Flow("F")  # the parent's connection is open, and self.table is read by the workers first
            self.heads = parallel_map(lambda n: bytes(self.table[n][:2]), range(40))
            print("worked on", self.input)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.heads = [each.heads for each in inputs]
            self.next(self.end)

        @step
        def end(self):
            assert all(heads == [b"%d" % n * 2 if n < 10 else b"%d" % n for n in range(40)] for heads in self.heads)
"""
HEAD = "import os\nfrom pathlib import Path\nfrom k8sflow import Flow, FlowSpec, current, parallel_map, step\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Create the flow."""
    return write_flow(tmp_path / "flows", FLOW, head=HEAD)


@pytest.fixture
def server(s3_server: S3Server) -> dict[str, str]:
    """Return the environment with the server, which names no bucket."""
    return {
        **s3server.KEYS, **s3server.NO_FILES, "K8SFLOW_ENDPOINT": s3_server.endpoint, "K8SFLOW_USER": "tester",
    }  # fmt: skip


@pytest.fixture(params=["plain", "boto3"])
def client(request: pytest.FixtureRequest, server: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Return the environment with which processes use each of the clients."""
    if request.param == "plain":
        return server
    rest = {name: value for name, value in server.items() if not name.startswith("AWS_")}
    return {**rest, **s3server.profile(tmp_path)}


def try_commands(
    file: Path, store: ObjectStore, root: Mapping[str, str], more: Mapping[tuple[str, ...], str], *options: str
) -> None:
    """Run the flow so that it fails, resume it, and check the output of commands."""
    done = run_flow(file, "--run-id", "r0", "--max-workers", "3", "--tag", "mine", FAILS="yes", **root)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "as asked" in done.stdout + done.stderr
    done = flow_command(file, "resume", "--run-id", "r1", *options, **root)
    assert done.returncode == 0, done.stdout + done.stderr
    commit = RunStore(store, "F", "r1").read_commit("start", "0")
    assert commit is not None
    assert commit.origin == "F/r0"
    for command, words in {
        ("runs",): "r0",
        ("logs", "r1/work/1"): "worked on 1",
        ("dump", "r1/work/1"): "['r1', 'r0']",
        ("attach", "r1"): "F/r1 succeeded",
        ("tag", "add", "--run-id", "r1", "x"): "x",
        ("spin", "r1/work/2"): "worked on 2",
        ("package", "list", "--run-id", "r1"): "flow.py",
        **more,
    }.items():
        done = flow_command(file, *command, **root)
        assert done.returncode == 0, done.stdout + done.stderr
        assert words in done.stdout


def test_a_local_run_with_a_bucket_as_root(file: Path, client: dict[str, str], s3_store: S3Store) -> None:
    """Forks of the fork server and workers of parallel_map share no connection; nothing is written to a folder."""
    root = {**client, "K8SFLOW_ROOT": f"{s3_store.url}/"}
    try_commands(file, s3_store, root, {("timeline", "r1"): "work"}, "--trace")
    assert "True" in flow_command(file, "dump", "r1/work/1/is_again", **root).stdout
    assert {path.name for path in file.parent.parent.iterdir()} <= {"flows", "aws-config"}
    assert not [path for path in file.parent.iterdir() if path.name.startswith((".k8sflow", "s3"))]


def test_colleagues_read_runs_without_the_flows_file(
    file: Path, server: dict[str, str], s3_store: S3Store, tmp_path: Path
) -> None:
    """The code goes to the bucket with the run, so that the classes of artifacts are there too."""
    root = {**server, "K8SFLOW_ROOT": s3_store.url}
    assert run_flow(file, "--run-id", "r1", **root).returncode == 0
    shutil.rmtree(file.parent)
    (tmp_path / "elsewhere").mkdir()
    code = "from k8sflow import Flow; r = Flow('F')['r1']; print(r['start'].task.data.point.x, r.successful)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "elsewhere", env=environment(**root), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "7 True\n", done.stderr
    assert os.listdir(tmp_path / "elsewhere") == []


def test_the_option_names_the_store_before_and_after_the_command(
    file: Path, server: dict[str, str], s3_store: S3Store, tmp_path: Path
) -> None:
    """It wins over the settings, also for runs that tasks look for; a folder works as a bucket does."""
    settings = {**server, "K8SFLOW_ROOT": str(tmp_path / "other"), "K8SFLOW_BUCKET": "missing-bucket"}
    for number, store in enumerate((s3_store.url, "state")):
        first = flow_command(file, "--datastore", store, "run", "--run-id", f"a{number}", cwd=tmp_path, **settings)
        assert first.returncode == 0, first.stdout + first.stderr
        second = run_flow(file, "--run-id", f"b{number}", "--datastore", store, cwd=tmp_path, **settings)
        assert second.returncode == 0, second.stdout + second.stderr
        seen = flow_command(file, "dump", f"b{number}/work/0", "--datastore", store, cwd=tmp_path, **settings)
        assert f"['b{number}', 'a{number}']" in seen.stdout
    assert (tmp_path / "state/F/runs/b1").is_dir()
    failed = run_flow(file, "--datastore", "state", cwd=tmp_path, FAILS="yes", **settings)
    assert f"--datastore {tmp_path / 'state'}" in failed.stdout
    assert not (tmp_path / "other").exists()


def test_runner_finds_the_runs_of_its_datastore(
    file: Path, server: dict[str, str], s3_store: S3Store, tmp_path: Path
) -> None:
    """For run and spin, given to Runner or to the call."""
    code = f"""
from k8sflow import Runner
with Runner({str(file)!r}, show_output=False, datastore={s3_store.url!r}) as runner:
    print(runner.run(run_id="r1").run.run_store.store.url)
    print(runner.spin("r1/work/1").task.pathspec)
print(Runner({str(file)!r}, show_output=False).run(datastore={s3_store.url!r}, run_id="r2").run.data.heads[0][3])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment(**server), capture_output=True, text=True, check=False,
    )  # fmt: skip
    first, second, third = done.stdout.splitlines() or [done.stderr] * 3
    assert first == s3_store.url
    assert second.startswith("F/spins/")
    assert third == "b'33'"
    assert not list(tmp_path.rglob(".k8sflow"))


def test_a_missing_bucket_is_reported_before_the_run(file: Path, server: dict[str, str]) -> None:
    """The message names the bucket and the setting."""
    done = run_flow(file, K8SFLOW_ROOT="s3://no-such-bucket/x", **server)
    assert done.returncode == 1
    assert "there is no bucket 'no-such-bucket'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_ignores_conditions_gets_no_run(
    file: Path, server: dict[str, str], s3_store: S3Store, s3_server: S3Server
) -> None:
    """Two processes could both store a task's result there; no record of the run remains."""
    keys = {name: value for name, value in server.items() if name != "K8SFLOW_ENDPOINT"}
    with recording(s3_server.endpoint, ignored=frozenset({"if-none-match"})) as (endpoint, _):
        done = run_flow(file, "--run-id", "r1", K8SFLOW_ROOT=s3_store.url, K8SFLOW_ENDPOINT=endpoint, **keys)
    assert done.returncode == 1
    assert "the server ignores the condition If-None-Match" in done.stderr
    assert not s3_store.exists("F/runs/r1/run.json")


def test_a_run_starts_though_its_code_is_too_big_for_the_bucket(
    file: Path, server: dict[str, str], s3_store: S3Store
) -> None:
    """Only readers on other machines need it, and the run says what they will miss."""
    with (file.parent / "data.bin").open("wb") as data:
        data.truncate(3 << 30)
    (file.parent / ".k8sflowignore").write_text("!data.bin\n")  # large data is left out otherwise
    done = run_flow(file, "--run-id", "r1", K8SFLOW_ROOT=s3_store.url, **server)
    assert done.returncode == 0, done.stderr
    assert "the code is not stored with the run" in done.stdout + done.stderr
    assert "data.bin" in done.stdout + done.stderr or "code package" in done.stdout + done.stderr
    assert RunStore(s3_store, "F", "r1").read().package is None
