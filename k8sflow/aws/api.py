"""The requests to AWS Batch: each is repeated after what passes, with pauses that grow and vary.

https://docs.aws.amazon.com/batch/latest/APIReference/
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from k8sflow.aws import api_errors
from k8sflow.aws.document import Document
from k8sflow.aws.outcome import is_given_up
from k8sflow.debug_log import DebugLog
from k8sflow.errors import BatchError
from k8sflow.jitter import JITTER
from k8sflow.outages import Outage, Report
from k8sflow.version import VERSION

# https://docs.aws.amazon.com/batch/latest/APIReference/API_DescribeJobs.html
MOST_DESCRIBED = 100
UNREACHABLE_SECONDS = 600.0
# AWS allows 50 submits per second and account.
_SUBMIT_SECONDS = 1 / 40
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 20.0
# A new job may appear late in the list: the pauses between the looks for one whose submit had no answer.
_LOOK_PAUSES_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0)
_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_log = DebugLog(__name__)


class LostAnswerError(Exception):
    """A request was sent, and it is unknown if AWS has acted on it."""


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted.

    Args:
        job: AWS Batch's id of it.
        is_alone: False if an earlier submit had no answer, so that another job of the same name may appear.
    """

    job: str
    is_alone: bool = True


class BatchApi(Protocol):
    """AWS Batch, as far as a run uses it."""

    def describe_jobs(self, ids: Sequence[str]) -> list[Document]:
        """The descriptions of at most 100 jobs; those that AWS Batch no longer knows are missing."""

    def submit(self, request: Document) -> Submitted:
        """Submits a job; where an answer is lost, the job is looked for by its name before it is submitted again.

        Raises:
            BatchError: AWS refuses it, or can't be reached: there is no job.
            LostAnswerError: It is unknown if there is a job.
        """

    def terminate(self, job: str, reason: str) -> None:
        """Ends a job, whatever its state; for an array job, all of its children."""

    def jobs_named(self, queue: str, prefix: str) -> Iterator[Document]:
        """The summaries of the jobs in a queue whose names begin so, also of those that ended not long ago."""

    def definition(self, name: str, document: Document) -> str:
        """The ARN of the job definition with a name, which is registered if there is none."""

    def queue(self, name: str) -> Document | None:
        """The description of a job queue; None if there is none."""

    def environments(self, names: Sequence[str]) -> list[Document]:
        """The descriptions of compute environments."""

    def log_lines(self, group: str, stream: str) -> list[bytes]:
        """The last lines of a stream of CloudWatch, up to 1 MB; none where they can't be read."""

    def limit_patience(self, seconds: float) -> None:
        """Repeats requests for so long at most from now on."""


class Boto3Api:
    """AWS Batch by boto3; its methods may be called in any thread.

    Args:
        region: The region.
        report: Takes reports about outages.
        patience_seconds: How long a request is repeated while AWS doesn't answer.

    Raises:
        BatchError: The profile or another setting of AWS on this machine can't be used.
    """

    def __init__(
        self, region: str, report: Report | None = None, patience_seconds: float = UNREACHABLE_SECONDS
    ) -> None:
        from botocore.config import Config  # noqa: PLC0415  boto3 takes a third of a second, for such runs alone
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415  as above

        self.calls: Counter[str] = Counter()
        self._region = region
        self._patience_seconds = patience_seconds
        self._hurry = threading.Event()
        self._outage = Outage("AWS Batch", report)
        self._submit_lock = threading.Lock()
        self._next_submit = 0.0
        self._has_answered = False
        self._has_accepted = False
        self._config = Config(
            region_name=region,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": 1},  # they are repeated here, where a lost answer is known as such
            user_agent_extra=f"k8sflow/{VERSION}",
        )
        # A wide foreach that fails reads many streams, and AWS allows 25 requests per second.
        self._logs_config = self._config.merge(Config(retries={"total_max_attempts": 5, "mode": "standard"}))
        try:
            self._log_in()
        except BotoCoreError as error:
            raise api_errors.no_client(str(error)) from error

    def _log_in(self) -> None:
        """Makes clients with the credentials that this machine has now."""
        import boto3  # noqa: PLC0415  as above

        self._session: Any = boto3.session.Session()
        self._client: Any = self._session.client("batch", config=self._config)
        self._logs: Any = self._session.client("logs", config=self._logs_config)

    @property
    def endpoint(self) -> str:
        """The URL of AWS Batch."""
        return str(self._client.meta.endpoint_url)

    def describe_jobs(self, ids: Sequence[str]) -> list[Document]:
        """The descriptions of at most 100 jobs; those that AWS Batch no longer knows are missing."""
        found: list[Document] = self._call("describe_jobs", jobs=list(ids))["jobs"]
        return found

    def submit(self, request: Document) -> Submitted:
        """Submits a job; where an answer is lost, the job is looked for by its name before it is submitted again.

        Raises:
            BatchError: AWS refuses it, or can't be reached: there is no job.
            LostAnswerError: It is unknown if there is a job.
        """
        since, pause, submits = time.monotonic(), _FIRST_PAUSE_SECONDS, 0
        lost: LostAnswerError | None = None
        while True:
            submits += 1
            self._wait_to_submit()
            try:
                answer = self._call("submit_job", is_repeatable=False, since=since, **request)
                return Submitted(str(answer["jobId"]), is_alone=submits == 1)
            except LostAnswerError as error:
                _log.debug("The answer to the submit of %s was lost: %r", request["jobName"], error)
                lost = error
            except BatchError as error:
                if lost is None:
                    raise
                raise LostAnswerError(str(lost)) from error
            if (found := self._submitted(request, since)) is not None:
                return Submitted(found, is_alone=submits == 1)
            if self._hurry.is_set() or time.monotonic() - since > self._patience_seconds:
                raise lost
            self._wait(JITTER.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _submitted(self, request: Document, since: float) -> str | None:
        """The id of a job whose submit had no answer; None if there is none, as far as AWS lists it.

        Raises:
            LostAnswerError: The jobs can't be listed.
        """
        for pause in _LOOK_PAUSES_SECONDS:
            if pause and self._hurry.wait(pause):
                return None
            try:
                for job in self._summaries(request["jobQueue"], request["jobName"], since):
                    if job["jobName"] == request["jobName"] and not is_given_up(job):
                        return str(job["jobId"])
            except BatchError as error:
                raise LostAnswerError(f"{error.summary} {error.cause}".strip()) from error
        return None

    def terminate(self, job: str, reason: str) -> None:
        """Ends a job, whatever its state; for an array job, all of its children."""
        self._call("terminate_job", jobId=job, reason=reason)

    def jobs_named(self, queue: str, prefix: str) -> Iterator[Document]:
        """The summaries of the jobs in a queue whose names begin so, also of those that ended not long ago."""
        return self._summaries(queue, prefix)

    def _summaries(self, queue: str, prefix: str, since: float | None = None) -> Iterator[Document]:
        token: Document = {}
        while True:
            filters = [{"name": "JOB_NAME", "values": [f"{prefix}*"]}]
            page = self._call("list_jobs", since=since, jobQueue=queue, filters=filters, maxResults=100, **token)
            yield from page["jobSummaryList"]
            if not page.get("nextToken"):
                return
            token = {"nextToken": page["nextToken"]}

    def definition(self, name: str, document: Document) -> str:
        """The ARN of the job definition with a name, which is registered if there is none."""
        found = self._call("describe_job_definitions", jobDefinitionName=name, status="ACTIVE")["jobDefinitions"]
        if found:
            return str(max(found, key=lambda each: each["revision"])["jobDefinitionArn"])
        return str(self._call("register_job_definition", jobDefinitionName=name, **document)["jobDefinitionArn"])

    def queue(self, name: str) -> Document | None:
        """The description of a job queue; None if there is none."""
        found = self._call("describe_job_queues", jobQueues=[name])["jobQueues"]
        return found[0] if found else None

    def environments(self, names: Sequence[str]) -> list[Document]:
        """The descriptions of compute environments."""
        found: list[Document] = self._call("describe_compute_environments", computeEnvironments=list(names))[
            "computeEnvironments"
        ]
        return found

    def log_lines(self, group: str, stream: str) -> list[bytes]:
        """The last lines of a stream of CloudWatch, up to 1 MB; none where they can't be read."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  as above

        try:
            found = self._logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=False)
        except (BotoCoreError, ClientError) as error:  # a courtesy, which few policies allow
            _log.debug("The log stream %s can't be read: %r", stream, error)
            return []
        return [str(event["message"]).encode() for event in found["events"]]

    def limit_patience(self, seconds: float) -> None:
        """Repeats requests for so long at most from now on."""
        self._patience_seconds = seconds
        self._hurry.set()

    def _wait_to_submit(self) -> None:
        with self._submit_lock:
            now = time.monotonic()
            due = self._next_submit = max(now, self._next_submit + _SUBMIT_SECONDS)
        time.sleep(max(0.0, due - now))

    def _call(
        self, operation: str, *, is_repeatable: bool = True, since: float | None = None, **parameters: Any
    ) -> Document:
        """The answer of AWS.

        Args:
            operation: The operation, as boto3 names it.
            is_repeatable: Whether it may be done twice.
            since: When the patience began, where several requests share it.
            parameters: Those of the operation.

        Raises:
            BatchError: AWS refuses, or has given no answer for too long.
            LostAnswerError: It is unknown if AWS has acted on a request that must not be repeated.
        """
        from botocore import exceptions  # noqa: PLC0415  as above

        started, pause = time.monotonic() if since is None else since, _FIRST_PAUSE_SECONDS
        while True:
            self.calls[operation] += 1
            try:
                answer: Document = getattr(self._client, operation)(**parameters)
            except exceptions.ClientError as error:
                self._has_answered = True
                problem = self._refused(operation, error)
                acted = not (api_errors.is_throttled(problem.code) or api_errors.is_login(problem))
                if not is_repeatable and acted:
                    raise LostAnswerError(str(error)) from error
            except _of_credentials() as error:
                problem = self._logged_out(api_errors.no_credentials(str(error)))
            except exceptions.ParamValidationError as error:
                summary = f"{_title(operation)} has a parameter that AWS Batch doesn't know."
                raise BatchError(summary, cause=str(error)) from error
            except exceptions.BotoCoreError as error:
                never_sent = isinstance(error, (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError))
                problem = self._unreachable(operation, error)
                if not (is_repeatable or never_sent):
                    raise LostAnswerError(str(error)) from error
            else:
                self._outage.answered()
                self._has_answered = self._has_accepted = True
                return answer
            if time.monotonic() - started > self._patience_seconds:
                raise problem
            self._wait(JITTER.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _wait(self, seconds: float) -> None:
        """Waits before a request is repeated; less when the process is about to leave."""
        if self._hurry.wait(seconds):
            time.sleep(min(seconds, _FIRST_PAUSE_SECONDS))

    def _refused(self, operation: str, error: Any) -> BatchError:
        """The error for an answer that says no; raised at once unless it passes."""
        code = str(error.response["Error"].get("Code", ""))
        message = str(error.response["Error"].get("Message", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        found = api_errors.refused(_title(operation), code, message, self._region)
        if api_errors.is_login(found):
            return self._logged_out(found)
        if not api_errors.is_passing(code, status):
            raise found from error
        if api_errors.is_final(found):  # a failure of the server under another name
            found.code = str(status)
        _log.debug("%s is repeated: %s", operation, code)
        return found

    def _logged_out(self, error: BatchError) -> BatchError:
        """The error for a login that has ended, raised at once unless the requests before were accepted."""
        if not self._has_accepted:
            raise error
        self._outage.failed("The login to AWS has ended. Jobs keep running; log in again, such as by `aws sso login`.")
        with contextlib.suppress(Exception):  # the files of AWS may be half written; the next try reads them again
            self._log_in()
        return api_errors.login_ended(error)

    def _unreachable(self, operation: str, error: Exception) -> BatchError:
        regions = [] if self._has_answered or "AWS_ENDPOINT_URL_BATCH" in os.environ else self._regions()
        found = api_errors.unreachable(_title(operation), self.endpoint, str(error), self._region, regions)
        if regions and self._region not in regions:
            raise found from error
        self._outage.failed(f"AWS Batch doesn't answer ({self.endpoint}). Jobs keep running; retrying.")
        return found

    def _regions(self) -> list[str]:
        """The regions that have AWS Batch, of all partitions."""
        return [
            region
            for partition in self._session.get_available_partitions()
            for region in self._session.get_available_regions("batch", partition_name=partition)
        ]


def _of_credentials() -> tuple[type[Exception], ...]:
    """The errors of boto3 about credentials that it can't get: a person has to log in."""
    from botocore import exceptions  # noqa: PLC0415  as above

    names = (
        "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "UnknownCredentialError",
        "SSOError", "LoginError", "TokenRetrievalError", "NoAuthTokenError", "UnknownTokenProviderError",
    )  # fmt: skip
    return tuple(getattr(exceptions, name) for name in names if hasattr(exceptions, name))  # older ones have fewer


def _title(operation: str) -> str:
    """The operation as AWS names it: ``describe_jobs`` is ``DescribeJobs``."""
    return "".join(word.capitalize() for word in operation.split("_"))
