"""Asks the API server whether it would admit the pods of a run's steps.

A dry run of a pod passes through everything that a pod meets later, when the Job controller creates it and only an
event tells: limit ranges, quotas, Pod Security, priority and runtime classes, admission policies. Nothing is stored.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from http import HTTPStatus

from k8sflow.errors import ApiStatusError
from k8sflow.flow.decorators import quantity
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.findings import Finding, correct, of_steps, shortened
from k8sflow.kubernetes.manifest import Manifest

_QUOTA = re.compile(r"exceeded quota: (?P<name>\S+), requested: (?P<asked>\S+), used: \S+, limited: (?P<hard>\S+)")
_ABOUT_THE_POD = {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY}
_CHANGE_REQUEST = (
    "Change the request with @resources, or have the namespace's LimitRange changed (`kubectl describe limitrange`)."
)
_ADVICE = {
    "violates PodSecurity": "Remove the options that it names (run_as_user=0, for example), or use a namespace that "
    'allows them: by default pods comply with "restricted".',
    "per Container is": _CHANGE_REQUEST,
    "per Pod is": _CHANGE_REQUEST,
    "must specify": "Have a LimitRange with defaults added to the namespace, or set what it names.",
    "service account": "Create it, or name another one: service_account=… or kubernetes_service_account.",
    "PriorityClass": "Name one that exists (`kubectl get priorityclasses`).",
    "RuntimeClass": "Name one that exists (`kubectl get runtimeclasses`).",
    "denied the request": "An admission policy of the cluster refuses it; its message says why.",
}


async def check_admission(api: KubernetesApi, namespace: str, pods: Mapping[str, Manifest]) -> list[Finding]:
    """The findings about pods that would be refused; none where pods may not be created directly.

    Args:
        api: The API server.
        namespace: The namespace of the pods.
        pods: The pod template of each step's Job; equal ones are asked about once.
    """
    alike: dict[str, list[str]] = {}
    for step, template in pods.items():
        alike.setdefault(_what_counts(template), []).append(step)
    asked = [_check(api, namespace, steps, pods[steps[0]]) for steps in alike.values()]
    return [finding for finding in await asyncio.gather(*asked) if finding is not None]


def _what_counts(template: Manifest) -> str:
    """A text that is the same for pods that differ in what only identifies them."""
    containers = [{**each, "env": None, "command": None} for each in template["spec"]["containers"]]
    return repr({**template["spec"], "containers": containers})


async def _check(api: KubernetesApi, namespace: str, steps: list[str], template: Manifest) -> Finding | None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "generateName": "k8sflow-preflight-"},
        "spec": template["spec"],
    }
    try:
        await api.dry_run(f"/api/v1/namespaces/{namespace}/pods", pod)
    except ApiStatusError as error:
        return _judged(error, steps)
    return None


def _judged(error: ApiStatusError, steps: list[str]) -> Finding | None:
    message = error.message
    if error.status not in _ABOUT_THE_POD or "cannot create resource" in message or "not support dry run" in message:
        return None
    if quota := _QUOTA.search(message):
        return _over_quota(quota, steps)
    advice = next((advice for part, advice in _ADVICE.items() if part in message), correct(message))
    return Finding(f"the cluster would refuse the pod of {of_steps(steps)}.", _shortened(message), advice)


def _over_quota(quota: re.Match[str], steps: list[str]) -> Finding | None:
    """The finding for requests that never fit; a quota that is only full now is a reason to wait."""
    asked, hard = (dict(part.split("=", 1) for part in quota[group].split(",")) for group in ("asked", "hard"))
    never = [name for name in asked if name in hard and quantity.parse(asked[name]) > quantity.parse(hard[name])]
    if not never:
        return None
    listed = ", ".join(f"{name}={asked[name]} of at most {hard[name]}" for name in never)
    return Finding(
        f"the pod of {of_steps(steps)} can never fit the namespace's quota.",
        f"The quota {quota['name']} would have to allow {listed}.",
        "Request less with @resources, or have the quota raised (`kubectl describe quota`).",
    )


def _shortened(message: str) -> str:
    """The server's message without the name that the pod has in the dry run."""
    return shortened(re.sub(r'^pods "[^"]*" is forbidden: |^Pod "[^"]*" is invalid: ', "", message))
