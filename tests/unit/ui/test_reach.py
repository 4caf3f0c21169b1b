"""Servers that other machines reach: under the names that they were given, with a token or behind a login."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8sflow.errors import ConfigurationError
from k8sflow.flow.graph import Graph
from k8sflow.storage.folder import FolderStore
from k8sflow.ui.server import Reach
from tests.pages import Made, Reader, serving

TOKEN = "a-token-of-a-secret"
VISIT = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


@pytest.fixture
def shared(store: FolderStore, graph: Graph) -> Iterator[Reader]:
    """The pages of a server in a cluster, behind a login."""
    made = Made(store, graph)
    made.task("start", value=1)
    reach = Reach("0.0.0.0", ("runs.example.com", "localhost"), is_behind_login=True)
    with serving(store, reach=reach, may_unpickle=True, may_edit_tags=True) as found:
        yield found


@pytest.mark.parametrize("host", ["runs.example.com", "RUNS.example.com", "runs.example.com:8443", "localhost:1"])
def test_it_answers_under_its_names(shared: Reader, host: str):
    """Behind a login without a token; a proxy may use another port than the server."""
    assert "F/</span>r1" in shared.ask("/", Host=host, Cookie="").text


@pytest.mark.parametrize("host", ["", "evil.example", "10.0.0.1:8080", "runs.example.com.evil.example", "example.com"])
def test_it_answers_under_no_other_name(shared: Reader, host: str):
    assert shared.ask("/", Host=host).status == 403


def test_a_person_may_come_from_a_login_or_a_link(shared: Reader):
    """A login leads back from another site. Its pages can't fetch, frame or send anything nevertheless."""
    assert shared.ask("/runs/F/r1", Host="runs.example.com", **VISIT).status == 200
    for other in (
        {**VISIT, "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
        {**VISIT, "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
        {**VISIT, "Sec_Fetch_Dest": "iframe"},
    ):
        assert shared.ask("/runs/F/r1", Host="runs.example.com", **other).status == 403
    form = {**VISIT, "Content_Type": "application/x-www-form-urlencoded", "Origin": "https://evil.example"}
    assert shared.ask("/runs/F/r1/tags", "POST", "add=x", Host="runs.example.com", **form).status == 403


def test_no_link_from_elsewhere_runs_code(shared: Reader):
    """Loading an artifact runs the code of its classes. Without HTTPS, browsers don't say that another site asks."""
    path = "/runs/F/r1/tasks/start/0/artifacts/value/loaded"
    assert shared.ask(path, Host="runs.example.com", **VISIT).status == 403
    assert shared.ask(path, Host="runs.example.com").status == 403
    assert shared.ask(path, Host="runs.example.com", Sec_Fetch_Site="none").status == 403
    assert shared.ask(path, Host="runs.example.com", Sec_Fetch_Site="same-origin").status == 200


def test_probes_need_no_name(shared: Reader):
    """The kubelet asks by the address of the pod; nothing of the runs is in the answer."""
    found = shared.ask("/healthz", Host="10.0.0.1:8080", Cookie="")
    assert (found.status, found.text) == (200, "ok\n")


def test_a_given_token_opens_the_pages(store: FolderStore):
    """It is not printed, because the output of a pod is kept by others; over https, so is the cookie."""
    reach = Reach("0.0.0.0", ("runs.example.com",), TOKEN)
    with serving(store, reach=reach) as found:
        assert TOKEN not in found.server.url()
        assert found.ask("/", Host="runs.example.com", Cookie="").status == 403
        opened = found.ask(f"/open/{TOKEN}/", Host="runs.example.com", X_Forwarded_Proto="https")
        assert opened.status == 200
        assert "; Secure" in opened.headers["set-cookie"]
        assert found.ask("/", Host="runs.example.com").status == 200
        assert found.ask("/", Host="runs.example.com", **VISIT).status == 403
    assert TOKEN in Reach(token=TOKEN).token


@pytest.mark.parametrize(
    ("reach", "said"),
    [
        ({"address": "0.0.0.0"}, "--allowed-host"),
        ({"address": "::"}, "--allowed-host"),
        ({"address": "runs.example.com"}, "not an address"),
        ({"hosts": ("https://runs.example.com",)}, "can't be a name"),
        ({"hosts": ("*.example.com",)}, "can't be a name"),
        ({"token": "short"}, "at least 16"),
        ({"token": "a token with spaces in it"}, "at least 16"),
        ({"token": TOKEN, "is_behind_login": True}, "exclude each other"),
    ],
)
def test_what_does_not_fit_together_is_refused(reach: dict[str, object], said: str):
    with pytest.raises(ConfigurationError, match=said):
        Reach(**reach)  # type: ignore[arg-type]
