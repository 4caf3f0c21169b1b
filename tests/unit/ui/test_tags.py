"""Tags that are changed on a run's page, where the server was started for that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

import pytest

from k8sflow.errors import AccessError
from k8sflow.flow.graph import Graph
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.objects import Buffer, ObjectStore
from tests.pages import Answer, Made, Reader, serving

RUN = "/runs/F/r1"


@pytest.fixture
def editor(store: FolderStore) -> Iterator[Reader]:
    """The pages of a server that may change tags."""
    with serving(store, may_edit_tags=True) as found:
        yield found


@pytest.fixture
def made(store: FolderStore, graph: Graph) -> Made:
    return Made(store, graph, more={"tags": ("nightly",)})


def secret_of(reader: Reader) -> str:
    found = re.search(r'name="form" value="([^"]+)"', reader.text(RUN))
    assert found is not None
    return found[1]


def send(reader: Reader, fields: dict[str, str], path: str = f"{RUN}/tags", **headers: str) -> Answer:
    own = {
        "Origin": f"http://127.0.0.1:{reader.server.port}",
        "Content_Type": "application/x-www-form-urlencoded",
        "Sec_Fetch_Site": "same-origin",
    }
    written = {name: value for name, value in {**own, **headers}.items() if value}
    return reader.ask(path, "POST", urlencode(fields), **written)


def test_a_tag_is_added_and_removed(editor: Reader, made: Made):
    """And the run's page shows it again, by an address that can be loaded again."""
    found = send(editor, {"form": secret_of(editor), "add": " grün & <b>gut</b> "})
    assert (found.status, found.headers["location"]) == (303, "/runs/F/r1#tags")
    assert made.records.read_tags() == ("nightly", "grün & <b>gut</b>")
    assert ">grün &amp; &lt;b&gt;gut&lt;/b&gt;</a>" in editor.text(RUN)
    assert send(editor, {"form": secret_of(editor), "remove": "nightly"}).status == 303
    assert made.records.read_tags() == ("grün & <b>gut</b>",)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Cookie": "a=b"},
        {"Cookie": "k8sflow-ui-1=x"},
    ],
)
def test_other_sites_change_nothing(editor: Reader, made: Made, headers: dict[str, str]):
    """Not even with the secret of a form."""
    secret = secret_of(editor)
    assert send(editor, {"form": secret, "add": "x"}, **headers).status == 403
    assert made.records.read_tags() == ("nightly",)


@pytest.mark.parametrize("secret", ["", "x", "é"])
def test_a_form_without_the_secret_changes_nothing(editor: Reader, made: Made, secret: str):
    found = send(editor, {"form": secret, "add": "x"})
    assert found.status == 400
    assert "Load the run&#39;s page again" in found.text
    assert made.records.read_tags() == ("nightly",)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"add": "x" * 501}, "501 characters"),
        ({"add": "two\nlines"}, "line break"),
        ({"remove": "user:ada"}, "system tag"),
        ({"add": "x" * 20_000}, "too large"),
        ({str(number): "x" for number in range(20)}, "can&#39;t be read"),
    ],
)
def test_an_impossible_tag_is_explained(editor: Reader, made: Made, fields: dict[str, str], said: str):
    found = send(editor, {"form": secret_of(editor), **fields})
    assert found.status == 400
    assert said in found.text
    assert made.records.read_tags() == ("nightly",)


def test_only_forms_of_text_are_read(editor: Reader, made: Made):
    fields = {"form": secret_of(editor), "add": "x"}
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
        assert send(editor, fields, Content_Type=kind).status == 400
    assert made.records.read_tags() == ("nightly",)


@pytest.mark.parametrize("path", ["/runs/F/r2/tags", "/runs/..%2f..%2fx/r1/tags", "/runs/F/%2e%2e/tags", "/tags"])
def test_a_missing_run_gets_no_tags(editor: Reader, made: Made, path: str):
    assert send(editor, {"form": secret_of(editor), "add": "x"}, path).status == 404
    assert editor.ask(f"{RUN}/tags").status in {404, 405}


def test_nothing_else_can_be_changed(editor: Reader, made: Made):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert editor.ask(f"{RUN}/tags", method).status == 405
    for path in ("/", RUN, f"{RUN}/state", "/static/ui.css"):
        assert editor.ask(path, "POST").status == 405


def test_a_server_that_only_reads_has_no_forms(reader: Reader, made: Made):
    """As it is by default."""
    text = reader.text(RUN)
    assert "nightly" in text
    assert "<form" not in text
    assert send(reader, {"form": "x", "add": "x"}).status == 405


class ReadOnlyStore(MemoryStore):
    """A bucket whose keys only read, once the runs are there."""

    is_closed = False

    def put_new(self, key: str, data: bytes) -> bool:
        if self.is_closed:
            raise AccessError("the bucket refused to write.")
        return super().put_new(key, data)

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        if self.is_closed:
            raise AccessError("the bucket refused to write.")
        super().put(key, parts)


def test_a_store_that_refused_a_change_has_no_forms(graph: Graph):
    """A bucket shows only by an attempt that it may not be written."""
    bucket = ReadOnlyStore()
    made = Made(bucket, graph)
    bucket.is_closed = True
    with serving(bucket, may_edit_tags=True) as editor:
        secret = secret_of(editor)
        for _ in range(2):
            found = send(editor, {"form": secret, "add": "x"})
            assert found.status == 400
            assert "may not be written" in found.text
        assert "<form" not in editor.text(RUN)
    assert made.records.read_tags() == ()


def test_a_folder_that_may_not_be_written_has_no_forms(
    editor: Reader, made: Made, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    """The user who runs the tests may be root, who may write anywhere: so the system's answer is replaced."""
    secret = secret_of(editor)
    monkeypatch.setattr("k8sflow.ui.tags.os.access", lambda path, _: Path(path) != store.folder)
    assert "<form" not in editor.text(RUN)
    assert "may not be written" in send(editor, {"form": secret, "add": "x"}).text
