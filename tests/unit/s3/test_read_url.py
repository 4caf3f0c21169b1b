"""Values of runs from URLs: objects in S3 and documents of web servers, and what refuses them."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8sflow import S3, Config, IncludeFile
from k8sflow.errors import AccessError, ObjectNotFoundError, OutageError, ParameterError, StorageError, UnreachableError
from k8sflow.flow.files import suffix
from k8sflow.s3.read_url import read_url
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.support import latest, run_flow, write_flow


@pytest.fixture
def web() -> Iterator[str]:
    """Serve a document at ``/x.yaml``, moved from ``/old``; other paths are the status of the answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            status = 200 if path in {"/x.yaml", "/short"} else 301 if path == "/old" else int(path[1:])
            body = b"cpu: 3\nname: caf\xc3\xa9\n"
            self.send_response(status)
            self.send_header("Location", "/x.yaml")
            self.send_header("Content-Length", str(len(body) + (path == "/short")))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_document_is_read_also_if_it_has_moved(web: str) -> None:
    assert read_url(f"{web}/x.yaml?v=1").decode() == read_url(f"{web}/old").decode() == "cpu: 3\nname: café\n"


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("404", ObjectNotFoundError, r"there is no http://.*/404 \(404 Not Found"),
        ("403", AccessError, r"doesn't allow http://.*/403 to be read"),
        ("500", OutageError, r"refused http://.*/500 \(500 Internal Server Error"),
        ("418", StorageError, r"refused http://.*/418"),
        ("short", OutageError, "has broken off"),
    ],
)
def test_a_server_that_refuses_is_reported(web: str, path: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        read_url(f"{web}/{path}")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a b", "http://[::1"])
def test_a_text_that_is_not_a_url_is_reported(url: str) -> None:
    """And not as a server that has broken off, for which one could wait."""
    with pytest.raises(StorageError, match="is not a URL") as caught:
        read_url(url)
    assert not isinstance(caught.value, OutageError)


def test_a_server_that_is_not_there_is_reported() -> None:
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:1/x can't be reached: the connection"):
        read_url("http://127.0.0.1:1/x")


def test_an_object_is_read(root: str) -> None:
    with S3() as s3:
        s3.put(f"{root}/x?#", "X")
    assert read_url(f"{root}/x?#") == b"X"
    with pytest.raises(ObjectNotFoundError) as caught:
        read_url(f"{root}/nowhere")
    assert str(caught.value) == f"there is no {root}/nowhere."


def test_parameters_and_configs_name_themselves_and_the_url(web: str) -> None:
    """The error has the cause of the one below, and its advice or the option."""
    with pytest.raises(ParameterError) as caught:
        IncludeFile("notes").convert(f"{web}/404", "--notes")
    assert str(caught.value) == (
        f"IncludeFile 'notes': --notes '{web}/404' can't be read: there is no {web}/404 (404 Not Found).\n"
        "Give --notes FILE."
    )
    with pytest.raises(ParameterError, match=f"Config 'limits': {web}/403 can't be read: the server doesn't allow"):
        Config("limits").k8sflow_read(file=f"{web}/403")
    with pytest.raises(
        ParameterError,
        match=r"URLs with gs:// are not supported\.\nUse a file, or a URL with s3://, https://, http://\.",
    ):
        Config("limits").k8sflow_read(file="gs://bucket/x.yaml")


def test_the_format_of_a_url_is_that_of_its_path(web: str) -> None:
    assert Config("limits").k8sflow_read(file=f"{web}/x.yaml?v=2.json").cpu == 3
    assert [suffix(name) for name in ("http://h/a.toml?x=.y", "s3://b/a?.yml", "f#.json", "http://h")] == [
        ".toml",
        ".yml",
        ".json",
        "",
    ]


FLOW = """
    class F(FlowSpec):
        limits = Config("limits", default="{config}")
        notes = IncludeFile("notes", default="{notes}")
        raw = IncludeFile("raw", is_text=False)
        @retry(times=limits.cpu)
        @step
        def start(self):
            self.seen = [self.limits.cpu, self.limits.name, self.notes, self.raw]
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.s3
def test_a_run_keeps_what_it_has_read(tmp_path: Path, s3_server: S3Server, root: str, web: str) -> None:
    """From defaults and from the command line."""
    with S3(s3root=root) as s3:
        s3.put("notes", "remember")
        s3.put("raw", b"\xff\x00")
        s3.put("limits.json", json.dumps({"cpu": 1, "name": "other"}))
    source = FLOW.format(config=f"{web}/x.yaml", notes=f"{root}/notes")
    file = write_flow(tmp_path, source, head="from k8sflow import Config, FlowSpec, IncludeFile, retry, step\n")
    settings = {**s3server.KEYS, **s3server.NO_FILES, "K8SFLOW_ENDPOINT": s3_server.endpoint}
    done = run_flow(file, "--raw", f"{root}/raw", cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path)["start"].task.data.seen == [3, "café", "remember", b"\xff\x00"]
    done = run_flow(file, "--config", "limits", f"{root}/limits.json", "--raw", str(file), cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path)["start"].task.data.seen[:2] == [1, "other"]
    done = run_flow(file, "--raw", f"{root}/nowhere", cwd=tmp_path, **settings)
    assert f"the value '{root}/nowhere' can't be read: there is no {root}/nowhere. Give --raw FILE." in done.stderr
