"""AWS on this machine: moto's server, whose jobs of AWS Batch are containers of the Docker engine.

``python -m tests.batch.aws_server PORT`` serves until it is killed. What AWS does, and moto leaves out, is added here:

- a container has the memory that its job requests, and the variables that AWS Batch sets in children of array jobs and
  nodes of multi-node jobs;
- a job with a role has that role's credentials (here: keys of the S3 server);
- DescribeJobs has exit codes and reasons, and says which jobs were terminated;
- each node of a multi-node job has a description of its own;
- terminating an array job terminates its children;
- CloudWatch keeps the bytes at the ends of a line that Python takes for white space;
- a compute environment is full with the jobs that fit into its vCPUs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container, ContainerCollection
from moto.batch.models import BatchBackend, Job
from moto.logs.models import LogsBackend
from moto.server import ThreadedMotoServer

# As many containers as two cores start in a second or two.
JOBS_AT_A_TIME = int(os.environ.get("TEST_JOBS_AT_A_TIME", "6"))
# The keys that the role of a job gives, as ECS does: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/
# task-iam-roles.html. The S3 server knows no others.
ROLES_KEYS = {f"AWS_{name}": os.environ.get(f"TEST_ROLE_{name}", "") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}

_slots = threading.Semaphore(JOBS_AT_A_TIME)
_run_container: Callable[..., Container] = ContainerCollection.run
_wait_for_container: Callable[..., Any] = Container.wait
_read_logs: Callable[..., bytes] = Container.logs
_put_log_events: Callable[..., Any] = LogsBackend.put_log_events
# A character around each line, which moto would strip.
_FENCE = "\u2060"
_run_job: Callable[[Job], None] = Job.run
_describe: Callable[[Job], dict[str, Any]] = Job.describe
_describe_jobs: Callable[..., list[dict[str, Any]]] = BatchBackend.describe_jobs
_terminate: Callable[[Job, str], None] = Job.terminate


def main() -> None:
    ContainerCollection.run = run_container
    Container.wait = wait_for_container
    Container.logs, LogsBackend.put_log_events = read_logs, put_log_events
    Job.run, Job.describe, Job.terminate = run_job, describe, terminate
    BatchBackend.describe_jobs = describe_jobs
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False)
    server.start()
    print("ready", flush=True)
    threading.Event().wait()


def run_job(job: Job) -> None:
    """A job waits for room in its compute environment."""
    with _slots:
        if job.stop:
            job._mark_stopped(success=False)
        else:
            _run_job(job)


def run_container(containers: ContainerCollection, image: str, command: Any, **options: Any) -> Container:
    """A container has the memory, the variables and the credentials that AWS gives it."""
    job = threading.current_thread()
    assert isinstance(job, Job)
    container = _container_of(job)
    needs = {each["type"]: each["value"] for each in container.get("resourceRequirements", ())}
    needs |= {each["type"]: each["value"] for each in job.container_overrides.get("resourceRequirements", ())}
    variables = {each["name"]: each["value"] for each in container.get("environment", ())}
    variables |= {each["name"]: each["value"] for each in job.container_overrides.get("environment", ())}
    options["environment"] = {**variables, **_variables(job, options)}
    if container.get("jobRoleArn"):
        options["environment"] |= ROLES_KEYS
    linux = container.get("linuxParameters") or {}
    folders = {each["containerPath"]: f"size={each['size']}m,mode=1777" for each in linux.get("tmpfs", ())}
    shared = {"shm_size": f"{linux['sharedMemorySize']}m"} if "sharedMemorySize" in linux else {}
    memory = f"{needs['MEMORY']}m"
    options["labels"] = {"k8sflow.test.batch": os.environ.get("TEST_SERVER", "")}
    try:
        docker.from_env().images.get(image)  # before moto pulls it
        found = _run_container(
            containers, image, command, mem_limit=memory, memswap_limit=memory, tmpfs=folders, **shared, **options
        )
    except ImageNotFound as error:
        job.aws_reason = f"CannotPullContainerError: pull image manifest: {image}: not found ({error.explanation})"
        raise
    except APIError as error:
        job.aws_reason = f"CannotStartContainerError: Error response from daemon: {error.explanation}"
        raise
    job.node_containers = [*getattr(job, "node_containers", ()), found]
    return found


def wait_for_container(container: Container, **options: Any) -> Any:
    """The exit code; the reason why the container ended, where it ran out of memory, is kept."""
    found = _wait_for_container(container, **options)
    container.reload()
    job = threading.current_thread()
    if isinstance(job, Job) and container.attrs["State"].get("OOMKilled"):
        job.aws_reason = "OutOfMemoryError: Container killed due to memory usage"
    return found


def read_logs(container: Container, **options: Any) -> bytes:
    """The lines of a container's log, each in fences after its time."""
    lines = _read_logs(container, **options).decode(errors="replace").split("\n")
    found = [line.partition(" ") for line in lines if line]
    return "".join(f"{time} {_FENCE}{text}{_FENCE}\n" for time, _, text in found).encode()


def put_log_events(logs: LogsBackend, group: str, stream: str, events: list[dict[str, Any]]) -> Any:
    """Stores lines without their fences."""
    return _put_log_events(logs, group, stream, [{**each, "message": each["message"].strip(_FENCE)} for each in events])


def describe(job: Job) -> dict[str, Any]:
    """The description of a job, with what AWS Batch knows of its end."""
    found = _describe(job)
    if job.status not in {"SUCCEEDED", "FAILED"}:
        return found
    reason = getattr(job, "aws_reason", "")
    ended = {"exitCode": job.exit_code, **({"reason": reason} if reason else {})}
    container = {name: value for name, value in ended.items() if value is not None}
    found["container"] = {**found.get("container", {}), **container}
    for attempt in found["attempts"]:
        attempt["container"] = {**attempt["container"], **container}
    found.setdefault("statusReason", _status_reason(job, reason))
    found["isTerminated"] = job.stop
    return found


def describe_jobs(backend: BatchBackend, jobs: list[str] | None) -> list[dict[str, Any]]:
    """The descriptions of jobs, and of nodes by ``id#index``."""
    nodes = [each.partition("#") for each in jobs or () if "#" in each]
    whole = [each for each in jobs or () if "#" not in each]
    found = _describe_jobs(backend, whole) if whole or not nodes else []
    for job_id, _, index in nodes:
        job = backend._jobs.get(job_id)
        containers = getattr(job, "node_containers", ())
        if job is not None and int(index) < len(containers):
            found.append({**_describe(job), "jobId": f"{job_id}#{index}", **_node_state(job, containers[int(index)])})
    return found


def _node_state(job: Job, container: Container) -> dict[str, Any]:
    try:
        container.reload()
    except NotFound:  # the job is over
        return {"status": job.status}
    state = container.attrs["State"]
    if state["Status"] != "exited":
        return {"status": "RUNNING"}
    ended = {"exitCode": state["ExitCode"], **({"reason": "OutOfMemoryError"} if state.get("OOMKilled") else {})}
    reason = "Essential container in task exited"
    return {"status": "FAILED" if state["ExitCode"] else "SUCCEEDED", "container": ended, "statusReason": reason}


def terminate(job: Job, reason: str) -> None:
    """The end of an array job is that of its children."""
    for each in (job, *(job._child_jobs or ())):
        if each.status not in {"SUCCEEDED", "FAILED"}:
            _terminate(each, reason)


def _status_reason(job: Job, reason: str) -> str:
    if reason.startswith("Cannot"):
        return "Task failed to start"
    limit = job._get_attempt_duration()
    ran = job.job_stopped_at.timestamp() - job.job_started_at.timestamp()
    if job.exit_code is None and limit and ran >= limit:
        return "Job attempt duration exceeded timeout"
    return "Essential container in task exited"


def _container_of(job: Job) -> dict[str, Any]:
    if job.job_definition.node_properties is not None:
        container: dict[str, Any] = job.job_definition.node_properties["nodeRangeProperties"][0]["container"]
        return container
    return job.job_definition.container_properties or {}


def _variables(job: Job, options: dict[str, Any]) -> dict[str, str]:
    found = {"AWS_BATCH_JOB_ID": job.job_id, "AWS_BATCH_JOB_ATTEMPT": "1"}
    if "index" in job.array_properties:
        found["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.array_properties["index"])
    if (nodes := job.job_definition.node_properties) is not None:
        main = options["environment"].get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS")
        found |= {"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": main} if main else {}
        found["AWS_BATCH_JOB_NODE_INDEX"] = str(options["name"]).rpartition("-")[2]
        found["AWS_BATCH_JOB_NUM_NODES"] = str(nodes["numNodes"])
    return found


if __name__ == "__main__":
    main()
