"""AWS Batch for every test here: moto's server, the engine of the test cluster, its S3 server and its image."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from k8sflow.aws.names import job_prefix
from tests.cluster import Cluster, ensure
from tests.cluster.kind import NODE, NODE_PORT
from tests.cluster.process import attempt
from tests.kind.terminal import User, inherited
from tests.support import wait_for

CHECKOUT = Path(__file__).parents[2]
FLOWS = Path(__file__).parent / "flows"
NETWORK = "k8sflow-test"
REGION = "eu-west-1"
# The label of every container of a job; its value is the URL of the server, as in ``aws_server.py``.
CONTAINER_LABEL = "k8sflow.test.batch"
ROLE = "arn:aws:iam::123456789012:role/jobs"


@dataclass(frozen=True)
class Batch(User):
    """AWS Batch with a job queue, and the environment of a user of it."""

    cluster: Cluster
    client: Any

    def jobs(self, flow: str, run: str | None = None) -> list[dict[str, Any]]:
        """The descriptions of all jobs of a flow's runs, or of one of them."""
        prefix = f"{flow}-" if run is None else job_prefix(flow=flow, run=run)
        pages = self.client.get_paginator("list_jobs").paginate(
            jobQueue="main", filters=[{"name": "JOB_NAME", "values": [f"{prefix}*"]}]
        )
        ids = [job["jobId"] for page in pages for job in page["jobSummaryList"]]
        return self.client.describe_jobs(jobs=ids)["jobs"] if ids else []

    def containers(self, flow: str, run: str) -> list[str]:
        """The names of the running containers of a run's jobs."""
        names = self.docker("ps", "--format", "{{.Names}}").split()
        return [name for name in names if name.startswith(job_prefix(flow=flow, run=run))]

    def docker(self, *words: str) -> str:
        """The output of a command of the engine that has the containers."""
        return attempt(["docker", *words], environment=self.cluster.kind.engine.environment).stdout


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, created if there is none."""
    return ensure()


@pytest.fixture(scope="session")
def server(cluster: Cluster) -> Iterator[str]:
    """The URL of moto's server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        **cluster.kind.engine.environment,
        "MOTO_DOCKER_NETWORK_NAME": NETWORK,
        "TEST_SERVER": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto",
        "TEST_ROLE_ACCESS_KEY_ID": cluster.environment["AWS_ACCESS_KEY_ID"],
        "TEST_ROLE_SECRET_ACCESS_KEY": cluster.environment["AWS_SECRET_ACCESS_KEY"],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.batch.aws_server", str(port)],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)  # type: ignore[union-attr]
    reader.start()
    try:
        wait_for(lambda: "ready\n" in lines or process.poll() is not None, 60)
        assert process.poll() is None, "".join(lines)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


@pytest.fixture(scope="session")
def batch(cluster: Cluster, server: str) -> Iterator[Batch]:
    """AWS Batch with the queues ``main`` (EC2), ``fargate`` and ``closed``."""
    address = attempt(
        ["docker", "inspect", "--format", f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}', NODE],
        environment=cluster.kind.engine.environment,
    ).stdout.strip()
    environment = {
        **inherited(),
        **cluster.environment,
        "K8SFLOW_IN_CLUSTER_ENDPOINT": f"http://{address}:{NODE_PORT}",
        "K8SFLOW_BATCH_QUEUE": "main",
        "K8SFLOW_BATCH_IMAGE": cluster.image,
        "K8SFLOW_BATCH_JOB_ROLE": ROLE,
        "K8SFLOW_BATCH_REGION": REGION,
        "AWS_ENDPOINT_URL_BATCH": server,
        "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": server,
    }
    clients = {name: _client(name, server) for name in ("batch", "iam", "ec2")}
    _create_queues(clients)
    found = Batch(environment, FLOWS, cluster, clients["batch"])
    yield found
    found.leave()
    # Tests that failed leave containers behind, and nobody else terminates them.
    if left := found.docker("ps", "--all", "--quiet", "--filter", f"label={CONTAINER_LABEL}={server}").split():
        found.docker("rm", "--force", *left)


@pytest.fixture
def client(batch: Batch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Any]:
    """Return a reader of runs like a user's on this machine: ``client("BigSum/…")``."""
    return batch.reader(monkeypatch, tmp_path)


def _client(name: str, server: str) -> Any:
    return boto3.client(
        name,
        endpoint_url=server,
        region_name=REGION,
        aws_access_key_id="moto",
        aws_secret_access_key="moto",
        config=Config(retries={"total_max_attempts": 1}),
    )


def _create_queues(clients: dict[str, Any]) -> None:
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    clients["iam"].create_role(RoleName="jobs", AssumeRolePolicyDocument=trust)
    profile = clients["iam"].create_instance_profile(InstanceProfileName="instances")["InstanceProfile"]["Arn"]
    subnet = clients["ec2"].describe_subnets()["Subnets"][0]
    group = clients["ec2"].describe_security_groups()["SecurityGroups"][0]["GroupId"]
    network = {"subnets": [subnet["SubnetId"]], "securityGroupIds": [group]}
    instances = {"instanceTypes": ["optimal"], "minvCpus": 0, "desiredvCpus": 0, "instanceRole": profile}
    kinds = {
        "main": {"type": "EC2", "maxvCpus": 16, **instances, **network},
        "fargate": {"type": "FARGATE", "maxvCpus": 64, **network},
    }
    batch = clients["batch"]
    for name, resources in kinds.items():
        made = batch.create_compute_environment(
            computeEnvironmentName=f"env-{name}",
            type="MANAGED",
            state="ENABLED",
            serviceRole=ROLE,
            computeResources=resources,
        )
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        batch.create_job_queue(jobQueueName=name, state="ENABLED", priority=1, computeEnvironmentOrder=order)
        if name == "main":
            batch.create_job_queue(jobQueueName="closed", state="DISABLED", priority=1, computeEnvironmentOrder=order)
