"""The test cluster itself: reused, shared, and restored after all its processes were killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster import Cluster, harness, leftovers
from tests.cluster.engine import NETWORK
from tests.cluster.kind import NODE
from tests.cluster.places import CHECKOUT
from tests.cluster.s3 import S3Server

pytestmark = pytest.mark.destructive

WARM_SECONDS = 3.0
OBJECT = f"/{harness.BUCKET}/survivor"
CONTENT = b"written before"


def start(command: str) -> subprocess.Popen[str]:
    """The harness as `make cluster` and its sisters run it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )


def run(command: str) -> str:
    """The output of the command, after it has succeeded."""
    process = start(command)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def server(cluster: Cluster) -> S3Server:
    environment = cluster.environment
    keys = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    return S3Server(environment["K8SFLOW_ENDPOINT"], *keys)


def kill_node_and_engine(cluster: Cluster) -> None:
    """Send SIGKILL to the engine and everything in its containers; only to the node if the engine is another one."""
    if not cluster.kind.engine.own:
        subprocess.run(["docker", "kill", NODE], check=True, env=cluster.kind.environment)
        return
    places = cluster.places
    containers = [folder.name for folder in (places.docker / "data" / "containers").iterdir()]
    pids = leftovers.processes_of_engine([places.docker, places.run])
    leftovers.kill(pids | leftovers.processes_of_containers(containers))


def test_healthy_cluster_is_found_at_once(cluster: Cluster) -> None:
    """If everything is up, `make cluster` takes less than 3 s, and prints the result of `ensure`."""
    seconds = []
    while min(seconds, default=WARM_SECONDS) >= WARM_SECONDS and len(seconds) < 5:
        began = time.monotonic()
        printed = run("up")
        seconds.append(time.monotonic() - began)
    assert min(seconds) < WARM_SECONDS
    assert printed == f"{harness.exports(cluster.environment)}\n"
    assert run("env") == printed


def test_status_reports_that_it_is_up(cluster: Cluster) -> None:
    """The status is an exit code for scripts and a line for people."""
    process = start("status")
    out, err = process.communicate()
    assert (process.returncode, out) == (0, "")
    assert "is up" in err


def test_data_survives_the_server_pod(cluster: Cluster) -> None:
    """The S3 server's data is on the node, not in the pod."""
    server(cluster).put(OBJECT, CONTENT)
    kubectl = [str(cluster.kubectl), "--namespace", "k8sflow-s3"]
    environment = cluster.kind.environment
    subprocess.run([*kubectl, "delete", "pod", "--selector", "app=s3", "--wait"], check=True, env=environment)
    subprocess.run([*kubectl, "rollout", "status", "deployment/s3", "--timeout=60s"], check=True, env=environment)
    run("up")
    assert server(cluster).get(OBJECT) == CONTENT


def test_cluster_comes_back_after_everything_was_killed(cluster: Cluster) -> None:
    """Engine and node killed with -9, the next start interrupted, then two starts at once: up, and no data lost."""
    server(cluster).put(OBJECT, CONTENT)
    kill_node_and_engine(cluster)
    interrupted = start("up")
    interrupted.send_signal(signal.SIGINT)
    interrupted.communicate()
    both = [start("up"), start("up")]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert server(cluster).get(OBJECT) == CONTENT
    run("status")


def test_down_leaves_nothing_that_it_started(cluster: Cluster) -> None:
    """No container, no network, and no process, mount, link or socket of an engine that it started."""
    run("down")
    try:
        places = cluster.places
        assert not places.cluster.exists()
        if cluster.kind.engine.own:
            assert leftovers.processes_of_engine([places.docker, places.run]) == set()
            assert leftovers.mounts_below(places.docker / "data" / "overlay2", mountinfo()) == []
            assert leftovers.mounts_below(places.run, mountinfo()) == []
            assert not places.run.exists()
            assert [link.name for link in Path("/sys/class/net").iterdir() if link.name.startswith("br-")] == []
        else:
            listed = subprocess.run(
                ["docker", "network", "ls", "--format", "{{.Name}}"], check=True, capture_output=True, text=True
            )
            assert NETWORK not in listed.stdout.split()
    finally:
        run("up")


def mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text()
