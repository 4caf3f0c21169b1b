"""Faults on AWS Batch end as on Kubernetes: with an outcome, a diagnosis, and no retry where none is due."""

from __future__ import annotations

import http.client
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.batch.conftest import Batch

BATCH = ("--with", "batch")


def test_a_killed_container_is_run_again_without_a_retry(batch: Batch, client: Callable[[str], Any]) -> None:
    """An infrastructure failure: the step has no @retry."""
    name = f"to-be-killed-{secrets.token_hex(4)}"
    run = batch.start("killed.py", *BATCH, "--run-id", name, K8SFLOW_INFRASTRUCTURE_PAUSES_SECONDS="0")
    run.seen("waits")
    (container,) = batch.containers("BatchKilled", name)
    batch.docker("kill", container)
    run.wait(90)
    assert run.code == 0, run.text
    assert "its container was killed externally (exit code 137)" in run.text
    assert client(run.run)["start"].task.current_attempt == 1


def test_a_missing_image_is_named(batch: Batch) -> None:
    run = batch.run("trouble.py", *BATCH, K8SFLOW_BATCH_IMAGE="team/missing:1", K8SFLOW_INFRASTRUCTURE_RETRIES="0")
    assert run.code == 1
    assert "the image team/missing:1 can't be pulled: it does not exist" in run.text


def test_an_image_without_the_runtime_is_named(batch: Batch) -> None:
    """From the output in CloudWatch: nothing could be stored."""
    plain = batch.environment["K8SFLOW_TEST_PLAIN_IMAGE"]
    run = batch.run("trouble.py", *BATCH, K8SFLOW_BATCH_IMAGE=plain)
    assert run.code == 1
    assert "doesn't contain the k8sflow runtime" in run.text


def test_a_bucket_that_jobs_cant_reach_is_reported(batch: Batch) -> None:
    """The result comes from CloudWatch, where the agent has written it."""
    run = batch.run(
        "trouble.py", *BATCH, K8SFLOW_IN_CLUSTER_ENDPOINT="http://127.0.0.1:9", K8SFLOW_STORAGE_PATIENCE_SECONDS="1"
    )
    assert run.code == 1
    assert "the bucket can't be reached from the job" in run.text


def test_a_throttled_api_is_asked_again(batch: Batch) -> None:
    """With pauses; each job is submitted once."""
    with throttled(batch.environment["AWS_ENDPOINT_URL_BATCH"]) as (url, calls):
        run = batch.run("trouble.py", *BATCH, AWS_ENDPOINT_URL_BATCH=url)
    assert run.code == 1
    assert "ValueError: no rows in week 3" in run.text
    assert calls["refused"] > 10
    assert calls["POST /v1/submitjob"] == 1


def test_a_lost_answer_to_a_submit_makes_no_second_job(batch: Batch) -> None:
    """The job is found by its name."""
    before = len(batch.jobs("BatchTrouble"))
    with throttled(batch.environment["AWS_ENDPOINT_URL_BATCH"], loses_submit=True) as (url, _):
        run = batch.run("trouble.py", *BATCH, AWS_ENDPOINT_URL_BATCH=url)
    assert "ValueError: no rows in week 3" in run.text
    assert len(batch.jobs("BatchTrouble")) == before + 1


def test_a_failure_is_explained(batch: Batch, client: Callable[[str], Any]) -> None:
    """With the user's traceback, and what the step had printed."""
    done = batch.run("trouble.py", *BATCH)
    assert done.code == 1
    assert "about to fail by error" in done.text
    assert "ValueError: no rows in week 3" in done.text
    assert client(done.run)["start"].task.exception.type == "builtins.ValueError"


def test_retry_catch_timeout_and_environment_hold(batch: Batch) -> None:
    """As on Kubernetes."""
    done = batch.run("trouble.py", "--how", "none", *BATCH)
    assert done.code == 0, done.text
    assert "hello $HOME and $(HOME) timed_out" in done.text


def test_out_of_memory_is_reported_as_such(batch: Batch) -> None:
    """By the agent, from the counters of its cgroup, or by AWS where the agent was killed too."""
    done = batch.run("trouble.py", "--how", "memory", *BATCH)
    assert done.code == 1
    assert "memory" in done.text.partition("failed")[2]
    assert "@resources(memory=" in done.text


@contextmanager
def throttled(upstream: str, *, loses_submit: bool = False) -> Iterator[tuple[str, Counter[str]]]:
    """A proxy that refuses two of three requests, or drops the first answer to a submit; with its counts."""
    calls: Counter[str] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                calls["all"] += 1
                is_refused = not loses_submit and calls["all"] % 3 != 0
            if is_refused:
                calls["refused"] += 1
                self._answer(429, b'{"message": "Too Many Requests"}', "TooManyRequestsException")
                return
            calls[f"POST {self.path}"] += 1
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=30)
            connection.request("POST", self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if loses_submit and self.path.endswith("submitjob") and calls["lost"] == 0:
                calls["lost"] += 1
                self.close_connection = True
                return
            self._answer(answer.status, content, answer.getheader("x-amzn-errortype") or "")

        def _answer(self, status: int, content: bytes, error: str) -> None:
            self.send_response(status)
            if error:
                self.send_header("x-amzn-errortype", error)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", calls
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
