"""Requests: which are retried, which aren't, and the errors that users get."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError, ApiUnreachableError, KubernetesError
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.api_errors import Target
from k8sflow.kubernetes.kubeconfig import ClusterAccess
from k8sflow.kubernetes.preflight import PERMISSIONS, check_access
from k8sflow.kubernetes.rate import RateLimiter
from tests.unit.kubernetes.fake_api import FakeApi, fake_api

JOBS = "/apis/batch/v1/namespaces/lab/jobs"
JOB = {"kind": "Job", "metadata": {"name": "j", "labels": {"run": "r1"}}}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8sflow.kubernetes.api._FIRST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr("k8sflow.kubernetes.preflight.PATIENCE_SECONDS", 0.2)


@pytest.fixture
def server() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


def use(server: FakeApi, work: Callable[[KubernetesApi], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        async with KubernetesApi(options.pop("access", server.access), **options) as api:
            return await work(api)

    return asyncio.run(main())


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_temporary_failures_are_retried(server: FakeApi, status: int) -> None:
    server.fail("POST", "/jobs", status)
    assert use(server, lambda api: api.create(JOBS, JOB))[1] is True


@pytest.mark.slow
def test_retry_after_is_respected(server: FakeApi) -> None:
    server.fail("GET", "/jobs", 429, headers={"Retry-After": "1"})

    async def work(api: KubernetesApi) -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        await api.get(JOBS)
        return clock() - began

    assert use(server, work) >= 1.0


@pytest.mark.slow
def test_a_refusal_with_a_time_holds_back_all_requests(server: FakeApi) -> None:
    """The server has refused one because there are too many."""
    server.fail("GET", "/jobs", 429, headers={"Retry-After": "1"})

    class Observed(RateLimiter):
        held = asyncio.Event()

        def hold(self, seconds: float) -> None:
            super().hold(seconds)
            self.held.set()

    limiter = Observed()

    async def work(api: KubernetesApi) -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        refused = asyncio.ensure_future(api.get(JOBS))
        await limiter.held.wait()
        await api.get("/api/v1/namespaces/lab/pods")
        await refused
        return clock() - began

    assert use(server, work, limiter=limiter) >= 1.0


def test_requests_in_line_wait_for_the_end_of_a_hold() -> None:
    async def work() -> tuple[float, int]:
        limiter, clock = RateLimiter(qps=20, burst=1), asyncio.get_running_loop().time
        began, done = clock(), 0

        async def send() -> None:
            nonlocal done
            await limiter.acquire()
            done += 1

        line = [asyncio.ensure_future(send()) for _ in range(4)]
        await asyncio.sleep(0)
        limiter.hold(0.5)
        await asyncio.sleep(0.3)
        early = done
        await asyncio.gather(*line)
        return clock() - began, early

    seconds, early = asyncio.run(work())
    assert seconds >= 0.5
    assert early == 1, "the first had been sent before"


def test_a_cut_connection_is_retried(server: FakeApi) -> None:
    server.drop("GET", "/jobs", times=2)
    assert use(server, lambda api: api.get(JOBS))["items"] == []


def test_retries_and_refreshed_credentials_are_logged(server: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    server.fail("GET", "/jobs", 503)
    server.fail("GET", "/jobs", 401)
    with caplog.at_level("DEBUG", logger="k8sflow"):
        use(server, lambda api: api.get(JOBS))
    messages = [record.getMessage() for record in caplog.records if record.name == "k8sflow.kubernetes.api"]
    assert len(messages) == 2
    assert re.fullmatch(r"the Kubernetes API server refused to list jobs .*503.* Retrying in 0\.\d s\.", messages[0])
    assert messages[1] == "list jobs in namespace 'lab': the credentials were refused; refreshing them"


def test_patience_ends(server: FakeApi) -> None:
    server.fail("GET", "/jobs", 503, times=1000)
    with pytest.raises(ApiStatusError, match="503"):
        use(server, lambda api: api.get(JOBS), patience_seconds=0.5)


def test_permanent_refusals_are_not_retried(server: FakeApi) -> None:
    server.fail("POST", "/jobs", 422)
    with pytest.raises(ApiStatusError):
        use(server, lambda api: api.create(JOBS, JOB))
    assert len(server.asked("POST", "/jobs")) == 1


def test_a_conflict_about_the_quota_is_retried(server: FakeApi) -> None:
    server.fail("POST", "/jobs", 409, body={"reason": "Conflict", "message": "resourcequotas: the object has changed"})
    assert use(server, lambda api: api.create(JOBS, JOB))[1] is True


def test_a_create_whose_answer_got_lost_creates_one_object(server: FakeApi) -> None:
    server.drop("POST", "/jobs", after=True)
    created, is_new = use(server, lambda api: api.create(JOBS, JOB))
    assert created["metadata"]["name"] == "j"
    assert is_new is False


def test_a_name_taken_by_another_object_is_an_error(server: FakeApi) -> None:
    server.put("jobs", {"metadata": {"name": "j", "labels": {"run": "other"}}})
    with pytest.raises(KubernetesError, match="exists already, and does not belong to this run"):
        use(server, lambda api: api.create(JOBS, JOB))


def test_deleting_a_missing_object_is_not_an_error(server: FakeApi) -> None:
    use(server, lambda api: api.delete(f"{JOBS}/nothing"))


def test_an_expired_page_restarts_the_list(server: FakeApi) -> None:
    for index in range(600):
        server.put("jobs", {"metadata": {"name": f"j{index}"}})
    seen: list[bool] = []

    async def work(api: KubernetesApi) -> int:
        original = api.get

        async def get(path: str, params: Any = None) -> Any:
            seen.append("continue" in params)
            if len(seen) == 2:
                raise ApiStatusError("expired", status=410)
            return await original(path, params)

        api.get = get  # type: ignore[method-assign]
        return len((await api.list(JOBS))[0])

    assert use(server, work) == 600
    assert seen == [False, True, False, True]


class Expiring:
    """Credentials whose first token has expired."""

    def __init__(self) -> None:
        self.token = "old"

    async def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def forget(self) -> None:
        self.token = "new"


def test_expired_credentials_are_renewed_once(server: FakeApi) -> None:
    server.fail("GET", "/jobs", 401)
    credentials = Expiring()
    access = replace(server.access, credentials=credentials)
    use(server, lambda api: api.get(JOBS), access=access)
    assert credentials.token == "new"
    server.fail("GET", "/jobs", 401, times=2)
    with pytest.raises(ApiStatusError, match="401") as caught:
        use(server, lambda api: api.get(JOBS), access=access)
    assert "Log in again" in caught.value.advice


def test_a_stream_renews_expired_credentials_too(server: FakeApi) -> None:
    """Once; a watch that starts again after the token has expired must not end the run."""
    credentials = Expiring()
    access = replace(server.access, credentials=credentials)

    async def read(api: KubernetesApi) -> None:
        async with api.stream(JOBS, {}, read_timeout_seconds=5) as lines:
            async for _ in lines:
                pass

    server.fail("GET", "/jobs", 401)
    use(server, read, access=access)
    assert credentials.token == "new"
    server.fail("GET", "/jobs", 401, times=2)
    with pytest.raises(ApiStatusError, match="401"):
        use(server, read, access=access)


def test_403_names_the_missing_rule(server: FakeApi) -> None:
    body = {"reason": "Forbidden", "message": 'jobs.batch is forbidden: User "me" cannot create resource "jobs"'}
    server.fail("POST", "/jobs", 403, body=body)
    with pytest.raises(ApiStatusError, match="refused to create jobs in namespace 'lab': 403 Forbidden") as caught:
        use(server, lambda api: api.create(JOBS, JOB))
    assert '{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}' in caught.value.advice
    assert "kubectl auth can-i create jobs.batch -n lab" in caught.value.advice


def test_a_closed_port_is_reported() -> None:
    access = ClusterAccess(server="http://127.0.0.1:1", origin='context "x" of /kube')
    with pytest.raises(ApiUnreachableError, match="no connection") as caught:
        check_access(Settings(), access=access)
    assert 'context "x" of /kube' in caught.value.summary
    assert "kubectl get nodes" in caught.value.advice


def test_a_failure_of_tls_is_reported(server: FakeApi) -> None:
    import ssl

    access = replace(
        server.access,
        server=server.access.server.replace("http:", "https:"),
        ssl_context=ssl.create_default_context(),
    )
    with pytest.raises(ApiUnreachableError, match=r"TLS failed|can't be reached"):
        use(server, lambda api: api.get(JOBS), access=access, patience_seconds=0.1)


@pytest.mark.parametrize(
    ("method", "path", "watch", "expected", "can_i"),
    [
        ("GET", "/api/v1/namespaces/n/pods", True, "watch pods in namespace 'n'", "watch pods -n n"),
        (
            "GET",
            "/api/v1/namespaces/n/pods/p/log",
            False,
            "get pods/log 'p' in namespace 'n'",
            "get pods --subresource=log -n n",
        ),
        ("DELETE", JOBS, False, "deletecollection jobs in namespace 'lab'", "deletecollection jobs.batch -n lab"),
        ("GET", "/api/v1/nodes", False, "list nodes", "list nodes"),
        ("GET", "/api/v1/namespaces/n", False, "get namespaces 'n'", "get namespaces"),
    ],
)
def test_a_request_is_described_in_the_terms_of_rbac(
    method: str, path: str, *, watch: bool, expected: str, can_i: str
) -> None:
    target = Target.of(method, path, watch=watch)
    assert str(target) == expected
    assert target.can_i() == f"kubectl auth can-i {can_i}"


def test_the_preflight_passes_if_everything_is_allowed(server: FakeApi) -> None:
    server.put("namespaces", {"metadata": {"name": "lab"}})
    check_access(Settings(kubernetes_namespace="lab"), access=server.access)
    assert len(server.asked("POST", "selfsubjectaccessreviews")) == 15


def test_the_preflight_names_all_missing_permissions_at_once(server: FakeApi) -> None:
    server.put("namespaces", {"metadata": {"name": "lab"}})
    server.denied = {("create", "jobs"), ("get", "pods/log"), ("delete", "configmaps")}
    with pytest.raises(KubernetesError, match="create jobs; get pods/log; delete configmaps") as caught:
        check_access(Settings(kubernetes_namespace="lab"), access=server.access)
    assert '- apiGroups: [""]\n  resources: ["pods/log"]\n  verbs: [get]' in caught.value.advice


def test_the_preflight_requires_no_config_maps_if_there_is_an_owner(server: FakeApi) -> None:
    server.put("namespaces", {"metadata": {"name": "lab"}})
    server.denied = {("delete", "configmaps")}
    check_access(Settings(kubernetes_namespace="lab"), access=server.access, permissions=PERMISSIONS)


def test_a_missing_namespace_is_reported(server: FakeApi) -> None:
    with pytest.raises(KubernetesError, match="no namespace 'lab'"):
        check_access(Settings(kubernetes_namespace="lab"), access=server.access)


def test_a_user_who_may_not_read_namespaces_can_still_run(server: FakeApi) -> None:
    server.fail("GET", "/namespaces/lab", 403, body={"reason": "Forbidden", "message": "cannot get"})
    check_access(Settings(kubernetes_namespace="lab"), access=server.access)


def test_a_missing_secret_is_reported_before_a_pod_waits_for_it(server: FakeApi) -> None:
    server.put("namespaces", {"metadata": {"name": "lab"}})
    settings = Settings(kubernetes_namespace="lab", credentials="secret:keys")
    with pytest.raises(KubernetesError, match="no Secret 'keys' in namespace 'lab'"):
        check_access(settings, access=server.access)
    server.fail("GET", "/secrets/keys", 403, body={"reason": "Forbidden", "message": "cannot get"})
    check_access(settings, access=server.access)
    keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    server.put("secrets", {"metadata": {"name": "keys"}, "data": keys})
    check_access(settings, access=server.access)


def test_a_cluster_that_is_too_old_is_reported(server: FakeApi) -> None:
    server.version = {"major": "1", "minor": "27", "gitVersion": "v1.27.3"}
    with pytest.raises(KubernetesError, match=r"Kubernetes v1\.27\.3, which is too old"):
        check_access(Settings(kubernetes_namespace="lab"), access=server.access)
