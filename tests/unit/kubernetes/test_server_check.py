"""Asking the API server about the pods of a run, against a scripted one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from k8sflow.errors import KubernetesError
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.findings import as_error
from k8sflow.kubernetes.job import TaskJob
from k8sflow.kubernetes.server_check import check_pods
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName, TaskSpec
from tests.support import pod_options
from tests.unit.kubernetes.fake_api import FakeApi, fake_api

DEFAULTS = merge(PodOptions(image="k8sflow:1"), DEFAULT_OPTIONS)


@pytest.fixture
def server() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


def check(server: FakeApi, options: PodOptions) -> None:
    async def ask() -> None:
        async with KubernetesApi(server.access, patience_seconds=0.0) as api:
            tasks = TaskBatch(TaskSpec("F", "1", TaskName("train")))
            job = TaskJob("job", "lab", tasks, options.over(DEFAULTS), "k8sflow:1", ("x",))
            if found := await check_pods(api, {"train": job}):
                raise as_error(list(found.values()))

    asyncio.run(ask())


def answer(server: FakeApi, change: Any) -> None:
    """Lets the server answer a create with a changed object."""

    async def respond(request: web.Request) -> web.Response:
        item = await request.json()
        change(item["spec"]["template"]["spec"])
        return web.json_response(item, status=201)

    server.answer("POST", "/jobs", respond)


def refuse(server: FakeApi, status: int, message: str) -> None:
    server.fail("POST", "/jobs", status, body={"kind": "Status", "code": status, "message": message, "reason": "x"})


def test_the_server_is_asked_without_creating_anything(server: FakeApi) -> None:
    check(server, pod_options(affinity={}))
    assert server.asked("POST", "/jobs", dryRun="All", fieldValidation="Strict")


@pytest.mark.parametrize("minor", ["30", "31", "32", "33", "34", "35", "36+"])
@pytest.mark.parametrize(
    ("options", "since"),
    [({"image_volumes": {"data:1": "/data"}}, 31), ({"resource_claims": {"gpu": "template/a100"}}, 32)],
)
def test_a_cluster_without_a_field_is_too_old_for_its_option(
    server: FakeApi, minor: str, options: dict[str, Any], since: int
) -> None:
    server.version = {"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0"}
    if int(minor.rstrip("+")) >= since:
        check(server, pod_options(**options))
        return
    with pytest.raises(KubernetesError, match=f"step train can't run on this cluster, which is Kubernetes v1.{minor}"):
        check(server, pod_options(**options))


def test_a_field_that_the_server_drops_is_named(server: FakeApi) -> None:
    answer(server, lambda spec: spec.pop("resourceClaims"))
    with pytest.raises(KubernetesError, match="Its option resource_claims needs"):
        check(server, pod_options(resource_claims="gpu=template/a100"))
    answer(server, lambda spec: spec["volumes"].pop())  # as Kubernetes 1.34 does with an image
    with pytest.raises(KubernetesError, match="Its option image_volumes needs"):
        check(server, pod_options(image_volumes={"data:1": "/data"}))
    answer(server, lambda spec: spec.pop("hostAliases"))
    with pytest.raises(KubernetesError, match=r"it has no spec.template.spec.hostAliases"):
        check(server, pod_options(host_aliases="10.0.0.5=db"))


def test_an_admission_webhook_may_add_to_a_pod(server: FakeApi) -> None:
    answer(server, lambda spec: spec["containers"].insert(0, {"name": "proxy"}))
    check(server, pod_options(affinity={}))


def test_a_refusal_has_the_servers_words_and_the_templates_line(server: FakeApi) -> None:
    template = {
        "file": "pod.yaml",
        "spec": {"containers": [{"name": "proxy", "imag": "x"}]},
        "lines": {"spec/containers/proxy/imag": 12},
    }
    message = 'strict decoding error: unknown field "spec.template.spec.containers[1].imag"'
    refuse(server, 400, message)
    with pytest.raises(KubernetesError, match=r"pod.yaml:12: the cluster refuses the pod of step train") as caught:
        check(server, replace(PodOptions(), pod_template=template))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [(400, "admission webhook x does not support dry run"), (403, "exceeded quota: jobs"), (503, "busy")],
)
def test_what_says_nothing_about_the_pod_stops_no_run(server: FakeApi, status: int, message: str) -> None:
    refuse(server, status, message)
    check(server, pod_options(affinity={}))


def test_a_policys_refusal_stops_the_run(server: FakeApi) -> None:
    message = 'admission webhook "policy" denied the request: no host network'
    refuse(server, 403, message)
    with pytest.raises(KubernetesError, match="no host network"):
        check(server, pod_options(affinity={}))
