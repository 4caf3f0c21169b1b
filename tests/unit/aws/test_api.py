"""The client of AWS Batch against a server that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import CredentialRetrievalError, TokenRetrievalError, UnauthorizedSSOTokenError

from k8sflow.aws import api_errors
from k8sflow.aws.api import Boto3Api, LostAnswerError, Submitted
from k8sflow.aws.outcome import REPLACED
from k8sflow.errors import BatchError, LoginEndedError
from k8sflow.outages import Notice


class Server:
    """An AWS that gives the answers in a list, the last one for ever; None closes the connection."""

    def __init__(self, *answers: tuple[int, str, dict[str, Any]] | None) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.paths.append(self.path.rpartition("/")[2])
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                if answer is None:
                    self.close_connection = True
                    return
                status, error, document = answer
                content = json.dumps(document).encode()
                self.send_response(status)
                if error:
                    self.send_header("x-amzn-errortype", error)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """The servers of a test, with keys for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    started: list[Server] = []
    yield started
    for server in started:
        server.close()


@pytest.fixture
def serve(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a server with some answers, and makes it AWS."""

    def start(*answers: tuple[int, str, dict[str, Any]] | None) -> Server:
        servers.append(Server(*answers))
        monkeypatch.setenv("AWS_ENDPOINT_URL_BATCH", servers[-1].url)
        return servers[-1]

    return start


class Clock:
    """A time that passes only in pauses."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


THROTTLED = (429, "TooManyRequestsException", {"message": "Too Many Requests"})
SUBMITTED = (200, "", {"jobId": "j1", "jobName": "n", "jobArn": "arn:aws:batch:eu-west-1:123456789012:job/j1"})
REQUEST = {"jobName": "n", "jobQueue": "q", "jobDefinition": "d"}


def test_what_is_throttled_is_asked_again(serve: Any) -> None:
    server = serve(THROTTLED, (500, "ServerException", {}), (200, "", {"jobs": [{"jobId": "j1"}]}))
    assert Boto3Api("eu-west-1").describe_jobs(["j1"]) == [{"jobId": "j1"}]
    assert server.paths == ["describejobs"] * 3


@pytest.mark.parametrize(
    ("status", "code", "message", "words"),
    [
        (
            403,
            "AccessDeniedException",
            "User x is not authorized",
            "may not call DescribeJobs of AWS Batch in",
        ),
        (403, "AccessDeniedException", "not authorized to perform: iam:PassRole", "may not pass the job's role"),
        (403, "UnrecognizedClientException", "token is invalid", "AWS doesn't accept the credentials"),
        (403, "ExpiredTokenException", "expired", "the credentials of AWS have expired"),
        (400, "ClientException", "no such thing", "refused DescribeJobs (ClientException)"),
    ],
)
def test_what_stays_refused_is_an_error_at_once(serve: Any, status: int, code: str, message: str, words: str) -> None:
    """The error has AWS's message, and says what to do where that is known."""
    server = serve((status, code, {"message": message}))
    with pytest.raises(BatchError) as caught:
        Boto3Api("eu-west-1").describe_jobs(["j1"])
    assert words in caught.value.summary
    assert (caught.value.cause, caught.value.code) == (message, code)
    assert len(server.paths) == 1
    assert caught.value.advice or code == "ClientException"


def test_a_submit_whose_answer_is_lost_is_looked_for_by_its_name(serve: Any) -> None:
    """If AWS has the job, it isn't submitted again."""
    server = serve(None, (200, "", {"jobSummaryList": [{"jobId": "j7", "jobName": "n"}]}))
    assert Boto3Api("eu-west-1").submit(REQUEST) == Submitted("j7")
    assert server.paths == ["submitjob", "listjobs"]


def test_a_submit_that_never_arrived_is_repeated(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a look for its job: others may begin with its name."""
    monkeypatch.setattr("k8sflow.aws.api._LOOK_PAUSES_SECONDS", (0.0,))
    empty = (200, "", {"jobSummaryList": [{"jobId": "j8", "jobName": "n-more"}]})
    server = serve((500, "ServerException", {}), empty, SUBMITTED)
    assert Boto3Api("eu-west-1").submit(REQUEST) == Submitted("j1", is_alone=False)
    assert server.paths == ["submitjob", "listjobs", "submitjob"]


def test_a_submit_without_answers_ends_with_the_patience(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its submits have pauses between them, and nobody learns if there is a job."""
    monkeypatch.setattr("k8sflow.aws.api._LOOK_PAUSES_SECONDS", (0.0,))
    server = serve(
        (500, "ServerException", {}), *[(200, "", {"jobSummaryList": []}), (500, "ServerException", {})] * 99
    )
    with pytest.raises(LostAnswerError, match="ServerException"):
        Boto3Api("eu-west-1", patience_seconds=1.0).submit(REQUEST)
    assert 1 < server.paths.count("submitjob") < 30


def test_a_hurried_submit_is_not_repeated(serve: Any) -> None:
    """The run is about to end: one look for its job is all there is time for."""
    server = serve((500, "ServerException", {}), (200, "", {"jobSummaryList": []}))
    api = Boto3Api("eu-west-1")
    api.limit_patience(30)
    with pytest.raises(LostAnswerError):
        api.submit(REQUEST)
    assert server.paths == ["submitjob", "listjobs"]


def test_a_submit_that_is_refused_after_one_without_an_answer_is_unknown(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may have made a job."""
    monkeypatch.setattr("k8sflow.aws.api._LOOK_PAUSES_SECONDS", (0.0,))
    refused = (403, "AccessDeniedException", {"message": "no"})
    serve((500, "ServerException", {}), (200, "", {"jobSummaryList": []}), refused)
    with pytest.raises(LostAnswerError):
        Boto3Api("eu-west-1").submit(REQUEST)


def test_a_job_that_appears_late_is_found(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't submitted again; one that k8sflow itself has terminated doesn't count."""
    monkeypatch.setattr("k8sflow.aws.api._LOOK_PAUSES_SECONDS", (0.0, 0.01, 0.01))
    old = {"jobId": "j1", "jobName": "n", "statusReason": REPLACED}
    found = (200, "", {"jobSummaryList": [old, {"jobId": "j7", "jobName": "n"}]})
    server = serve(None, (200, "", {"jobSummaryList": []}), (200, "", {"jobSummaryList": [old]}), found)
    assert Boto3Api("eu-west-1").submit(REQUEST) == Submitted("j7")
    assert server.paths == ["submitjob", *["listjobs"] * 3]


def test_submits_stay_below_the_rate_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS allows 50 per second; the time is the test's own."""
    clock = Clock()
    times: list[float] = []

    def submitted(**_: Any) -> dict[str, Any]:
        times.append(clock.now)
        return {"jobId": "j1"}

    monkeypatch.setattr("k8sflow.aws.api.time", clock)
    api = Boto3Api("eu-west-1")
    monkeypatch.setattr(api._client, "submit_job", submitted)
    for _ in range(120):
        api.submit(REQUEST)
    assert len(times) == 120
    assert all(later - earlier >= 1 for earlier, later in zip(times, times[50:], strict=False))


def test_pages_of_jobs_are_followed(serve: Any) -> None:
    one = (200, "", {"jobSummaryList": [{"jobId": "j1", "jobName": "a"}], "nextToken": "t"})
    two = (200, "", {"jobSummaryList": [{"jobId": "j2", "jobName": "b"}]})
    serve(one, two)
    assert [job["jobId"] for job in Boto3Api("eu-west-1").jobs_named("q", "a")] == ["j1", "j2"]


def test_a_definition_that_exists_is_not_registered(serve: Any) -> None:
    found = [{"jobDefinitionArn": f"arn:{n}", "revision": n, "jobDefinitionName": "x"} for n in (1, 3, 2)]
    server = serve((200, "", {"jobDefinitions": found}))
    assert Boto3Api("eu-west-1").definition("x", {"type": "container"}) == "arn:3"
    assert server.paths == ["describejobdefinitions"]


def test_missing_credentials_are_an_error_at_once(serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(SUBMITTED)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BatchError, match="there are no credentials for AWS"):
        Boto3Api("eu-west-1").describe_jobs(["j1"])


def test_an_outage_is_reported_and_ends_as_an_error(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """After the patience is over."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_BATCH", "http://127.0.0.1:9")
    monkeypatch.setattr("k8sflow.outages.REPORT_AFTER_SECONDS", 0.0)
    notices: list[Notice] = []
    with pytest.raises(BatchError, match=r"AWS Batch can't be reached at http://127\.0\.0\.1:9"):
        Boto3Api("eu-west-1", notices.append, patience_seconds=0.5).describe_jobs(["j1"])
    assert "Jobs keep running; retrying." in notices[0].text


def test_a_region_that_doesnt_exist_is_corrected(servers: list[Server]) -> None:
    """Without waiting: no server will ever answer."""
    with pytest.raises(BatchError, match="AWS Batch has no region 'eu-wset-1'") as caught:
        Boto3Api("eu-wset-1").describe_jobs(["j1"])
    assert "Did you mean 'eu-west-1'?" in caught.value.advice


def test_a_region_of_another_partition_is_known(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of China and of GovCloud are suggested too."""
    with pytest.raises(BatchError) as caught:
        Boto3Api("cn-nroth-1").describe_jobs(["j1"])
    assert "Did you mean 'cn-north-1'?" in caught.value.advice
    assert {"cn-north-1", "us-gov-west-1", "eu-west-1"} <= {*Boto3Api("eu-west-1")._regions()}


def test_a_profile_that_doesnt_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(BatchError, match="the settings of AWS on this machine can't be used") as caught:
        Boto3Api("eu-west-1")
    assert "missing" in caught.value.cause


EXPIRED = (403, "ExpiredTokenException", {"message": "The security token included in the request is expired"})


def test_a_login_that_ends_in_the_middle_is_waited_for(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one is read from the files of AWS; it is known that a submit that was refused for it made no job."""
    notices: list[Notice] = []
    monkeypatch.setattr("k8sflow.outages.REPORT_AFTER_SECONDS", 0.0)
    server = serve((200, "", {"jobs": []}), EXPIRED, EXPIRED, SUBMITTED)
    api = Boto3Api("eu-west-1", notices.append)
    api.describe_jobs(["j1"])
    before = api._client
    assert api.submit(REQUEST) == Submitted("j1")
    assert server.paths == ["describejobs", *3 * ["submitjob"]]
    assert api._client is not before
    assert "Jobs keep running; log in again" in notices[0].text


def test_a_login_that_is_not_renewed_ends_the_driver(serve: Any) -> None:
    serve((200, "", {"jobs": []}), EXPIRED)
    api = Boto3Api("eu-west-1", patience_seconds=0.2)
    api.describe_jobs(["j1"])
    for call in (lambda: api.describe_jobs(["j1"]), lambda: api.submit(REQUEST)):
        with pytest.raises(LoginEndedError, match="Jobs that run keep running") as caught:
            call()
        assert not api_errors.is_final(caught.value)


def test_a_login_that_has_ended_is_an_error_at_once(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way in which boto3 says so."""
    server = serve(SUBMITTED)
    api = Boto3Api("eu-west-1")
    for error in (
        UnauthorizedSSOTokenError(),
        CredentialRetrievalError(provider="custom-process", error_msg="exit 1"),
        TokenRetrievalError(provider="sso", error_msg="expired"),
    ):
        monkeypatch.setattr(api._client, "submit_job", _raising(error))
        with pytest.raises(BatchError, match="there are no credentials for AWS") as caught:
            api.submit(REQUEST)
        assert not api_errors.is_final(caught.value)
    assert server.paths == []


def _raising(error: Exception) -> Any:
    def call(**_: Any) -> None:
        raise error

    return call


def test_a_failure_of_the_server_is_not_final_whatever_its_name(serve: Any) -> None:
    serve((500, "SomethingNewException", {}))
    with pytest.raises(BatchError) as caught:
        Boto3Api("eu-west-1", patience_seconds=0.1).describe_jobs(["j1"])
    assert not api_errors.is_final(caught.value)


@pytest.mark.parametrize(
    ("code", "is_final"),
    [
        ("AccessDeniedException", True),
        ("ClientException", True),
        ("TooManyRequestsException", False),
        ("ServerException", False),
        ("503", False),
        ("ExpiredTokenException", False),
        ("", False),
    ],
)
def test_what_passes_is_not_final(code: str, is_final: bool) -> None:
    """A task that it kept from starting runs again."""
    assert api_errors.is_final(BatchError("no", code=code)) == is_final
