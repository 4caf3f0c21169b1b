"""Spot notices, against servers that speak the protocols of the clouds' metadata services."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from k8sflow.task.host.spot import Aws, Azure, Gcp, MetadataService, wait_for_notice

TIME = "2026-03-01T12:00:00Z"


@dataclass
class Metadata:
    """A metadata service: what it answers with, and the tokens that are valid."""

    url: str = ""
    is_noticed: bool = False
    tokens: list[str] = field(default_factory=list)
    issued: int = 0

    def answer(self, method: str, path: str, header: Callable[[str], str | None]) -> tuple[int, str]:
        """The status and the text of an answer."""
        if path.startswith("/latest/"):
            return self._aws(method, path, header)
        if path == "/computeMetadata/v1/instance/preempted" and header("Metadata-Flavor") == "Google":
            return 200, str(self.is_noticed).upper()
        if path.startswith("/metadata/") and header("Metadata") == "true":
            return self._azure(path)
        return 403, ""

    def _aws(self, method: str, path: str, header: Callable[[str], str | None]) -> tuple[int, str]:
        if path == "/latest/api/token" and method == "PUT" and header("X-aws-ec2-metadata-token-ttl-seconds"):
            self.issued += 1
            self.tokens = [f"token-{self.issued}"]
            return 200, self.tokens[0]
        if header("X-aws-ec2-metadata-token") not in self.tokens:
            return 401, ""
        if path == "/latest/meta-data/spot/instance-action" and self.is_noticed:
            return 200, json.dumps({"action": "terminate", "time": TIME})
        return 404, ""

    def _azure(self, path: str) -> tuple[int, str]:
        if path == "/metadata/instance/compute/name?api-version=2021-02-01&format=text":
            return 200, "node_1"
        if path != "/metadata/scheduledevents?api-version=2020-07-01":
            return 404, ""
        other = {"EventType": "Preempt", "Resources": ["node_0"], "NotBefore": ""}
        reboot = {"EventType": "Reboot", "Resources": ["node_1"], "NotBefore": TIME}
        own = {"EventType": "Preempt", "Resources": ["node_1"], "NotBefore": TIME}
        return 200, json.dumps({"DocumentIncarnation": 2, "Events": [other, reboot, *([own] * self.is_noticed)]})


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    """A metadata service that can be asked."""
    service = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = service.answer(self.command, self.path, self.headers.get)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_GET  # noqa: N815  as the library calls it

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield service
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("service", "notice"),
    [(Aws, f"terminate at {TIME}"), (Gcp, "preempted"), (Azure, f"preempted, not before {TIME}")],
)
def test_the_notice_of_each_cloud_is_seen(
    metadata: Metadata, service: Callable[[str], MetadataService], notice: str
) -> None:
    """Only once there is one for this machine."""
    found = service(metadata.url)
    assert found.notice() == ""
    metadata.is_noticed = True
    assert found.notice() == notice


def test_a_token_of_aws_is_used_until_it_expires(metadata: Metadata) -> None:
    """The service refuses requests without one (IMDSv2)."""
    service = Aws(metadata.url)
    service.notice()
    service.notice()
    assert metadata.issued == 1
    metadata.tokens = []
    assert service.notice() == ""
    assert metadata.issued == 2


def test_the_addresses_are_those_of_the_clouds_own_variables(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their own libraries read them too."""
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{metadata.url}/")
    monkeypatch.setenv("GCE_METADATA_HOST", metadata.url.removeprefix("http://"))
    metadata.is_noticed = True
    assert (Aws().notice(), Gcp().notice()) == (f"terminate at {TIME}", "preempted")


def test_a_service_that_does_not_answer_is_reported_once() -> None:
    """And asked again: the notice may still come."""

    class Moody:
        name = "aws"
        answers = iter([OSError("no route"), OSError("no route"), "", ValueError("odd"), "terminate"])

        def notice(self) -> str:
            found = next(self.answers)
            if isinstance(found, Exception):
                raise found
            return str(found)

    said: list[str] = []
    pauses: list[float] = []
    assert wait_for_notice(Moody(), said.append, pauses.append) == "terminate"
    assert ["no route" in said[0], "odd" in said[1]] == [True, True]
    assert len(said) == 2
    assert len(pauses) == 4
