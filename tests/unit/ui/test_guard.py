"""The people who are answered: those with the address that the server printed, by pages that load nothing."""

from __future__ import annotations

import pytest

from k8sflow.flow.graph import Graph
from k8sflow.storage.objects import ObjectStore
from tests.pages import Made, Reader


def test_the_printed_address_opens_the_page(reader: Reader):
    """It sets a cookie that other sites can't use, and leads on without the token."""
    token = reader.server.token
    found = reader.ask(f"/open/{token}/runs/F/r1", Cookie="")
    assert found.status == 200
    assert 'url=/runs/F/r1"' in found.text
    assert token not in found.text
    cookie = found.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


@pytest.mark.parametrize(
    ("opened", "target"),
    [
        ("/?flow=F", "/?flow=F"),
        ("/?flow=F&status=failed", "/?flow=F&amp;status=failed"),
        ('/?flow="><script>', "/?flow=%22%3E%3Cscript%3E"),
        ("/?flow=%22%3E", "/?flow=%22%3E"),
        ("//evil.example/", "/evil.example/"),
        ("/\\evil.example/", "/evil.example/"),
        ("/;url=javascript:alert(1)", "/%3Burl%3Djavascript%3Aalert%281%29"),
    ],
)
def test_it_leads_to_a_page_of_this_server(reader: Reader, opened: str, target: str):
    """With its filters; never to another server, and never to a script."""
    text = reader.ask(f"/open/{reader.server.token}{opened}", Cookie="").text
    assert f'content="0; url={target}">' in text


@pytest.mark.parametrize("path", ["/open/wrong/", "/open/", "/open/é/"])
def test_a_wrong_token_opens_nothing(reader: Reader, path: str):
    found = reader.ask(path.encode().decode("latin-1").replace("Ã©", "%C3%A9"))
    assert found.status == 403
    assert "set-cookie" not in found.headers


@pytest.mark.parametrize("cookie", ["", "k8sflow-ui-1=x", "a=b; c", "\x7f=1"])
def test_without_the_cookie_nothing_is_answered(reader: Reader, cookie: str):
    assert reader.ask("/", Cookie=cookie).status == 403
    assert reader.ask("/static/ui.css", Cookie=cookie).status == 403


@pytest.mark.parametrize("other", ['prefs={"a": 1}', "a=b; c", "\x7f=1", "k8sflow-ui-1=x", 'x="', "=", ";;"])
def test_the_cookie_counts_beside_those_of_other_servers(reader: Reader, other: str):
    """Cookies don't know ports: a browser sends those of every server of this machine."""
    own = reader.headers["Cookie"]
    assert reader.ask("/", Cookie=f"{other}; {own}").status == 200
    assert reader.ask("/", Cookie=f"{own}; {other}").status == 200
    assert reader.ask("/", Cookie=f"{other}; {own}x").status == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example"])
def test_a_forged_host_is_refused(reader: Reader, host: str):
    """A page of another site may let its own name lead here."""
    assert reader.ask("/", Host=host).status == 403
    assert reader.ask(f"/open/{reader.server.token}/", Host=host).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_of_other_sites_are_refused(reader: Reader, site: str):
    """Even with the cookie, which a browser would not send."""
    assert reader.ask("/", Sec_Fetch_Site=site).status == 403
    assert reader.ask("/", Sec_Fetch_Site="same-origin").status == 200
    assert reader.ask("/", Sec_Fetch_Site="none").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(reader: Reader, method: str):
    assert reader.ask("/", method).status == 405


def test_every_answer_forbids_foreign_scripts(reader: Reader):
    for path in ("/", "/runs/F/nothing", "/static/ui.css", "/open/wrong/"):
        headers = reader.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/runs/../secret",
        "/runs/F/..%2f..%2fsecret",
        "/runs/%2e%2e/%2e%2e",
        "/runs/F/%2e%2e",
        "/runs/F/r1/tasks/%2e%2e/%2e%2e",
        "/runs/F/r1/tasks/start/%2e%2e",
        "/runs/F/r1/tasks/start/0/artifacts/%2e%2e",
        "/runs/F/r1/tasks/start/0/cards/..%2f..%2fsecret",
        "/runs/F/r1/tasks/start/0/log?stream=../../../secret",
        "/runs/F/r1/tasks/start/0/log?attempt=../../secret",
        "/runs/F/r1%00/",
        "/runs/F/r1\\..",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_store(reader: Reader, store: ObjectStore, graph: Graph, path: str):
    """Names become parts of keys."""
    made = Made(store, graph)
    made.task("start")
    made.ends()
    store.put("secret/runs/secret/run.json", [b"the secret"])
    found = reader.ask(path)
    assert found.status == 404, found.text
    assert "secret/run.json" not in found.text
