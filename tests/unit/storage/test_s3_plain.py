"""The client without boto3: its signatures, when it is used, and its connections."""

from __future__ import annotations

import gc
import http.client
import http.server
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from k8sflow import parallel_map
from k8sflow.storage import s3_http
from k8sflow.storage.s3 import S3Store
from k8sflow.storage.s3_boto import BotoClient
from k8sflow.storage.s3_client import NoAnswerError, RefusedError
from k8sflow.storage.s3_connections import ConnectionPool
from k8sflow.storage.s3_http import HttpClient, plain_client
from k8sflow.storage.s3_signing import UNSIGNED, Keys, digest, path_of, query_of, signed
from tests.cluster.s3 import S3Server
from tests.s3server import BUCKET, KEYS

ENDPOINT = "http://127.0.0.1:7070"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_CONFIG_FILE": "/nowhere"}
# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, "Example: GET Object"
AWS_KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AWS_TIME = 1369353600.0
AWS_SIGNATURE = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


def test_the_signature_is_that_of_amazons_example() -> None:
    headers = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9"}
    found = signed("GET", "/test.txt", "", headers, digest([]), AWS_KEYS, "us-east-1", AWS_TIME)
    assert found["authorization"].endswith(f"Signature={AWS_SIGNATURE}")


@pytest.mark.parametrize(
    ("key", "query"),
    [
        ("a b+c/ü~'()*!/%41/..;=@:", {}),
        ("", {"prefix": "a/b c+", "list-type": "2", "continuation-token": "1/x=="}),
        ("x", {"uploads": ""}),
    ],
)
def test_signatures_are_those_of_botocore(key: str, query: Mapping[str, str]) -> None:
    """Whatever is in the key and in the query, with the token of temporary keys."""
    keys = Keys("id", "secret/+", "token")
    headers = {"host": "h:1", "if-none-match": "*"}
    ours = signed("PUT", path_of("b", key), query_of(query), headers, UNSIGNED, keys, "r", AWS_TIME)
    url = f"http://h:1{path_of('b', key)}" + (f"?{query_of(query)}" if query else "")
    request = AWSRequest("PUT", url, {"host": "h:1", "if-none-match": "*", "X-Amz-Content-SHA256": UNSIGNED})
    request.context.update(timestamp=ours["x-amz-date"], payload_signing_enabled=False)
    request.context["client_config"] = None
    signer = S3SigV4Auth(Credentials(keys.access_key, keys.secret_key, keys.token), "s3", "r")
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    request.headers["X-Amz-Security-Token"] = keys.token
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    assert ours["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    ("endpoint", "changes"),
    [
        (None, {}),
        ("https://s3.eu-west-1.amazonaws.com", {}),
        ("127.0.0.1:7070", {}),
        ("ftp://x", {}),
        ("http://x:port", {}),
        ("http://host/path", {}),
        (ENDPOINT, {"AWS_SECRET_ACCESS_KEY": ""}),
        (ENDPOINT, {"AWS_PROFILE": "p"}),
        ("https://host", {"AWS_CA_BUNDLE": "/ca"}),
        (ENDPOINT, {"AWS_CONFIG_FILE": __file__}),
        (ENDPOINT, {"HTTP_PROXY": "http://proxy"}),
        (ENDPOINT, {"http_proxy": "http://proxy"}),
    ],
)
def test_what_needs_boto3_is_left_to_it(endpoint: str | None, changes: Mapping[str, str]) -> None:
    """AWS's regions and partitions, keys to be looked for, profiles, proxies, and an endpoint that it can explain."""
    assert plain_client("bucket", ENDPOINT, "r", 1, ENVIRONMENT) is not None
    assert plain_client("bucket", endpoint, "r", 1, {**ENVIRONMENT, **changes}) is None


def test_a_bucket_with_an_odd_name_is_left_to_boto3() -> None:
    assert plain_client("arn:aws:s3:::x", ENDPOINT, "r", 1, ENVIRONMENT) is None
    assert plain_client("bucket", ENDPOINT, None, 1, ENVIRONMENT) is None


class _Closing(http.server.BaseHTTPRequestHandler):
    """Says that it keeps the connection, and closes it; or ends in the middle of an answer."""

    protocol_version = "HTTP/1.1"
    announced: int | None
    connections: int

    def setup(self) -> None:
        super().setup()
        type(self).connections += 1

    def do_GET(self) -> None:
        assert "Transfer-Encoding" not in self.headers, "a request without a body has none, not even an empty one"
        self.send_response(200)
        if self.announced is not None:
            self.send_header("Content-Length", str(self.announced))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(b"four")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def _serving(announced: int | None) -> Iterator[tuple[HttpClient, type[_Closing]]]:
    handler = type("Handler", (_Closing,), {"announced": announced, "connections": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = plain_client("bucket", f"http://127.0.0.1:{server.server_address[1]}", "r", 1, ENVIRONMENT)
    assert client is not None
    try:
        yield client, handler
    finally:
        client.close()
        server.shutdown()
        server.server_close()


def test_a_connection_that_the_server_has_closed_is_replaced() -> None:
    """Servers close idle connections, which is seen with the next request: no try is lost, and no time."""
    with _serving(4) as (client, handler):
        for expected in (1, 2, 3):
            content = bytearray(4)
            client.read("a").read_into(memoryview(content))
            assert content == b"four"
            assert handler.connections == expected


@pytest.mark.s3
def test_the_region_is_found_by_any_request(s3_server: S3Server) -> None:
    """The answer to HEAD has no body that would say so."""
    environment = {**ENVIRONMENT, **KEYS}
    client = plain_client(BUCKET, s3_server.endpoint, "eu-west-7", 1, environment)
    assert client is not None
    with pytest.raises(RefusedError, match="404"):
        client.size("nothing")
    client.close()


class _Undecided(http.server.BaseHTTPRequestHandler):
    """Expects one of two regions: never the one that a request is signed for."""

    requests: int

    def do_GET(self) -> None:
        type(self).requests += 1
        region = "b" if "/a/s3/" in self.headers["Authorization"] else "a"
        text = f"<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message><Region>{region}</Region></Error>"
        self.send_response(400)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def test_a_server_that_names_another_region_each_time_is_an_error() -> None:
    """Several servers behind one address: the request isn't repeated for ever."""
    handler = type("Handler", (_Undecided,), {"requests": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = plain_client("bucket", f"http://127.0.0.1:{server.server_address[1]}", "a", 1, ENVIRONMENT)
    assert client is not None
    try:
        with pytest.raises(RefusedError, match="the regions b, a, b, a in turn"):
            client.read("x")
        assert handler.requests == 4
    finally:
        client.close()
        server.shutdown()
        server.server_close()


@pytest.mark.s3
@pytest.mark.parametrize("client", ["s3_store", "boto3_store"])
def test_forks_do_not_share_connections(client: str, request: pytest.FixtureRequest) -> None:
    """Workers of parallel_map load artifacts through the store of the step; each would read the others' answers."""
    store: S3Store = request.getfixturevalue(client)
    for name in "abcd":
        store.put(name, [name.encode() * 200_000])
    with ThreadPoolExecutor(4) as pool:  # four connections wait in the parent
        list(pool.map(store.get, "abcd"))

    def load(name: str) -> bool:
        return all(bytes(store.get(name)) == name.encode() * 200_000 for _ in range(20))

    assert parallel_map(load, "abcd", max_parallel=4) == [True] * 4


def test_an_answer_without_a_length_is_not_an_empty_object() -> None:
    """Something between the server and us has changed it."""
    with _serving(None) as (client, _), pytest.raises(RefusedError, match="how long the object is"):
        client.read("a")


def test_a_short_answer_is_an_error() -> None:
    """It is not taken for the object."""
    with _serving(5) as (client, _), pytest.raises(NoAnswerError, match="1 bytes of the answer are missing"):
        client.read("a").read_into(memoryview(bytearray(5)))


@pytest.mark.s3
def test_each_test_has_the_client_that_it_is_about(s3_store: S3Store, boto3_store: S3Store) -> None:
    """Nothing in this machine's environment makes boto3 the client of all of them."""
    assert isinstance(s3_store._client, HttpClient)
    assert isinstance(boto3_store._client, BotoClient)


@pytest.mark.s3
def test_a_forgotten_server_closes_its_connections(s3_server: S3Server) -> None:
    """A user who reads a run has nothing to close; Python would warn of an open socket, which fails this test."""
    server = ConnectionPool(s3_server.endpoint, 1)
    server.keep(server.connection()[0])
    del server
    gc.collect()


def test_a_connection_that_leads_nowhere_is_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one to a restarting server's address that something else accepts: the first two never get an answer."""
    monkeypatch.setattr(s3_http, "ANSWER_SECONDS", (0.2, 0.2, 60))
    with _serving(4) as (client, handler), socket.create_server(("127.0.0.1", 0)) as nowhere:
        found = [nowhere.getsockname()[1], nowhere.getsockname()[1], client._server._port]
        connecting = client._server.connection

        def connection() -> tuple[http.client.HTTPConnection, bool]:
            client._server._port = found.pop(0)
            return connecting()

        monkeypatch.setattr(client._server, "connection", connection)
        assert b"".join(client.read("x").pieces()) == b"four"
        assert (found, handler.connections) == ([], 1)
