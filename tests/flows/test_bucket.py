"""Runs in a bucket, with tasks on this machine: resumed there, attached to there, with only one driver."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from k8sflow.storage.lease import lease_of
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3 import S3Store
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.flows.test_attach import FLOW, _in_the_middle, _marks
from tests.flows.test_interrupts import ARGUMENTS
from tests.inprocess import Failed, run_all, runner_of
from tests.support import flow_command, load_flow, running, wait_for, write_flow

pytestmark = pytest.mark.s3


@pytest.fixture
def bucket(s3_server: S3Server, s3_store: S3Store) -> dict[str, str]:
    """Return the environment in which a flow's command line finds the bucket."""
    return {
        **s3server.KEYS,
        "K8SFLOW_BUCKET": f"{s3server.BUCKET}/{s3_store.prefix.rstrip('/')}",
        "K8SFLOW_ENDPOINT": s3_server.endpoint,
        "K8SFLOW_USER": "tester",
    }


@pytest.fixture
def file(tmp_path: Path, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a flow with a run ``r0`` in the bucket, which has failed in every branch."""
    monkeypatch.setenv("K8SFLOW_USER", "tester")
    monkeypatch.chdir(tmp_path)
    file = write_flow(tmp_path, FLOW)
    for name in ("go", "fail"):
        (tmp_path / name).touch()
    with pytest.raises(Failed):
        run_all(runner_of(load_flow(file), tmp_path, "r0", store=s3_store))
    for name in ("go", "fail", "ran"):
        (tmp_path / name).unlink()
    return file


def test_a_run_in_the_bucket_is_resumed_and_attached_to(file: Path, bucket: dict[str, str], s3_store: S3Store) -> None:
    """The new run is there too; when its driver is killed, another one sees it, and takes over at once."""
    folder = file.parent
    with running(file, "--run-id", "r1", *ARGUMENTS, command="resume", **bucket) as process:
        wait_for(_in_the_middle(folder))
        assert _marks(folder) == ["work/0:0", "work/1:0", "work/2:0"]
        holder = lease_of(RunStore(s3_store, "F", "r1")).holder()
        assert holder is not None
        assert holder.pid == process.pid
        with running(file, "F/r1", *ARGUMENTS, command="attach", **bucket) as follower:
            assert follower.stdout is not None
            assert f"F/r1 is driven by process {process.pid}".encode() in follower.stdout.readline()
            process.kill()
            process.wait()
            wait_for(_in_the_middle(folder))
            (folder / "go").touch()
            output = follower.communicate(timeout=30)[0].decode()
            assert follower.returncode == 0, output
    assert "Its driver died" in output
    assert _marks(folder) == ["end/0:0", "join/0:0", "work/0:1", "work/1:1", "work/2:1"]
    done = flow_command(file, "attach", "r1", **bucket)
    assert done.returncode == 0
    assert "F/r1 succeeded at" in done.stdout
    commit = RunStore(s3_store, "F", "r1").read_commit("start", "0")
    assert commit is not None
    assert commit.origin == "F/r0"
    assert not (folder / ".k8sflow").exists()


def test_the_latest_run_in_a_bucket_is_the_users_own(file: Path, bucket: dict[str, str]) -> None:
    """Others use the bucket too; their runs are resumed by name."""
    others = {**bucket, "K8SFLOW_USER": "somebody-else"}
    done = flow_command(file, "resume", "--dry-run", **others)
    assert done.returncode == 1
    assert "there is no run of F" in done.stderr
    named = flow_command(file, "resume", "--dry-run", "--origin-run-id", "r0", **others)
    assert named.returncode == 0, named.stderr
    assert "Resuming F/r0" in named.stdout


def test_a_step_is_spun_on_inputs_from_the_bucket(file: Path, bucket: dict[str, str]) -> None:
    """It runs on this machine, wherever the step ran."""
    (file.parent / "go").touch()
    done = flow_command(file, "spin", "r0/work/1", **bucket)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _marks(file.parent) == ["work/1:0"]


def test_a_run_waits_for_a_server_that_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait, in the middle of a run, is longer than boto3 tries by itself; no task runs again."""
    for name, value in {**s3server.KEYS, "K8SFLOW_USER": "tester"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    file, data = write_flow(tmp_path, FLOW), tmp_path / "data"
    data.mkdir()
    with contextlib.ExitStack() as runs:
        with s3server.s3_server(data) as server:
            store = S3Store(f"s3://{s3server.BUCKET}", endpoint=server.endpoint, region="us-east-1")
            for name in ("go", "fail"):
                (tmp_path / name).touch()
            with pytest.raises(Failed):
                run_all(runner_of(load_flow(file), tmp_path, "r0", store=store))
            for name in ("go", "fail", "ran"):
                (tmp_path / name).unlink()
            found = {"K8SFLOW_BUCKET": s3server.BUCKET, "K8SFLOW_ENDPOINT": server.endpoint, "K8SFLOW_USER": "tester"}
            resume = running(file, "--run-id", "r1", *ARGUMENTS, command="resume", **s3server.KEYS, **found)
            process = runs.enter_context(resume)
            wait_for(_in_the_middle(tmp_path))
        # The server is killed. Its replacement closes the connections of more tries than boto3 alone makes.
        port = int(server.endpoint.rpartition(":")[2])
        (tmp_path / "go").touch()
        with socket.create_server(("127.0.0.1", port)) as deaf:
            for _ in range(30):
                deaf.accept()[0].close()
        with s3server.s3_server(data, port):
            output = process.communicate(timeout=60)[0].decode()
            assert process.returncode == 0, output
    assert _marks(tmp_path) == ["end/0:0", "join/0:0", "work/0:0", "work/1:0", "work/2:0"]
