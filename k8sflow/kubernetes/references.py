"""The objects that pods refer to by name: Secrets, config maps, claims and service accounts.

Pods whose Secret or claim is missing wait for it silently, so their names are looked up before a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from k8sflow.errors import ApiStatusError
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.findings import Finding, named_by
from k8sflow.kubernetes.manifest import Manifest

_TITLES = {
    "secrets": "Secret",
    "configmaps": "ConfigMap",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "serviceaccounts": "service account",
}


@dataclass(frozen=True, order=True)
class Reference:
    """An object that a pod names.

    Args:
        resource: Its resource: ``secrets``.
        name: Its name.
        key: A key that it must have, or an empty text.
        is_needed: False if the pod starts without it.
    """

    resource: str
    name: str
    key: str = ""
    is_needed: bool = True

    @property
    def title(self) -> str:
        """Kind and name: ``Secret 'keys'``."""
        return f"{_TITLES[self.resource]} {self.name!r}"


def references(spec: Mapping[str, Any]) -> set[Reference]:
    """The objects that a pod's spec names, without those that it marks as optional."""
    found = {*_of_containers(spec), *_of_volumes(spec)}
    if name := spec.get("serviceAccountName"):
        found.add(Reference("serviceaccounts", name))
    found |= {Reference("secrets", each["name"], is_needed=False) for each in spec.get("imagePullSecrets") or ()}
    return found


def _of_containers(spec: Mapping[str, Any]) -> Iterator[Reference]:
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            for field, resource in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
                if (named := source.get(field)) and not named.get("optional"):
                    yield Reference(resource, named["name"], named["key"])
        for source in container.get("envFrom") or ():
            for field, resource in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
                if (named := source.get(field)) and not named.get("optional"):
                    yield Reference(resource, named["name"])


def _of_volumes(spec: Mapping[str, Any]) -> Iterator[Reference]:
    fields = {
        "secret": ("secrets", "secretName"),
        "configMap": ("configmaps", "name"),
        "persistentVolumeClaim": ("persistentvolumeclaims", "claimName"),
    }
    for volume in spec.get("volumes") or ():
        for field, (resource, key) in fields.items():
            if (named := volume.get(field)) and not named.get("optional"):
                yield Reference(resource, named[key])
                for item in named.get("items") or ():
                    yield Reference(resource, named[key], item["key"])


async def check_references(api: KubernetesApi, namespace: str, users: Mapping[str, set[Reference]]) -> list[Finding]:
    """The findings about objects that don't exist, or lack a key; what may not be read is not checked.

    Args:
        api: The API server.
        namespace: The namespace of the pods.
        users: What each step's pod refers to, or a setting.
    """
    wanted = sorted({(each.resource, each.name) for found in users.values() for each in found})
    objects = await asyncio.gather(*(_find(api, namespace, resource, name) for resource, name in wanted))
    findings = []
    for (resource, name), found in zip(wanted, objects, strict=True):
        named = {step: [r for r in of if (r.resource, r.name) == (resource, name)] for step, of in users.items()}
        if found is not None:
            findings += list(_judged(namespace, found, {step: refs for step, refs in named.items() if refs}))
    return findings


async def _find(api: KubernetesApi, namespace: str, resource: str, name: str) -> Manifest | None:
    """The object; an empty one if it doesn't exist; None if it may not be read."""
    try:
        return await api.get(f"/api/v1/namespaces/{namespace}/{resource}/{name}")
    except ApiStatusError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return {}
        if error.status == HTTPStatus.FORBIDDEN:
            return None
        raise


def _judged(namespace: str, found: Manifest, steps: Mapping[str, Iterable[Reference]]) -> Iterator[Finding]:
    all_of = {each for refs in steps.values() for each in refs}
    one = max(all_of, key=lambda each: each.is_needed)
    who = named_by(steps)
    if not found:
        yield Finding(
            f"there is no {one.title} in namespace {namespace!r}, which {who}.",
            "" if one.is_needed else "Pods start without it, but can't pull an image from a registry that needs it.",
            _create(namespace, one, sorted({each.key for each in all_of if each.key})),
            is_error=one.is_needed,
        )
        return
    # Only the names of the keys are looked at, never what they hold.
    keys = {*(found.get("data") or ()), *(found.get("binaryData") or ())}
    if missing := sorted({each.key for each in all_of if each.key} - keys):
        yield Finding(
            f"{one.title} in namespace {namespace!r} has no {' and no '.join(missing)}, which {who}.",
            f"It has {', '.join(sorted(keys)) or 'no keys at all'}.",
            f"Add what is missing, or name another {_TITLES[one.resource]}.",
        )
    if one.resource == "persistentvolumeclaims" and (found.get("status") or {}).get("phase") == "Lost":
        yield Finding(
            f"the volume of {one.title} in namespace {namespace!r} no longer exists; {who} it.",
            "The claim is Lost.",
            "Delete the claim and create it again, or name another one.",
        )


def _create(namespace: str, one: Reference, keys: list[str]) -> str:
    match one.resource:
        case "secrets" if one.is_needed:
            literals = "".join(f" --from-literal={key}=…" for key in keys) or " --from-literal=KEY=…"
            named = "" if "AWS_SECRET_ACCESS_KEY" not in keys else ", or set credentials to another one"
            return f"Create it{named}: kubectl create secret generic {one.name} -n {namespace}{literals}"
        case "secrets":
            return f"Create it: kubectl create secret docker-registry {one.name} -n {namespace} --docker-server=…"
        case "configmaps":
            return f"Create it: kubectl create configmap {one.name} -n {namespace} --from-literal=KEY=…"
        case "serviceaccounts":
            return (
                f"Create it (kubectl create serviceaccount {one.name} -n {namespace}), or name another one: "
                "service_account=… or kubernetes_service_account."
            )
        case _:
            return "Create it, or name another one: persistent_volume_claims=…"
