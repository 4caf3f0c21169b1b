"""Asks the API server whether it accepts the pods of a run's steps, before the run starts.

A dry run passes through the server's validation and admission, and stores nothing. What the server drops without a
word, because its version doesn't have a field, is found by comparing its answer with the request.
https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from k8sflow.errors import ApiStatusError
from k8sflow.kubernetes import pod_template
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.findings import Finding, correct, of_steps, shortened
from k8sflow.kubernetes.job import TaskJob, job_manifest
from k8sflow.kubernetes.manifest import Manifest

# Options whose fields only newer clusters have: since when, at least behind a feature gate; and what they need.
_FEATURES = {
    "image_volumes": ((1, 31), "Kubernetes 1.35 or newer, or from 1.31 on the feature gate ImageVolume"),
    "resource_claims": (
        (1, 32),
        "Kubernetes 1.34 or newer, or from 1.32 on the feature gate DynamicResourceAllocation",
    ),
}
_FIELDS = {"image_volumes": "volumes", "resource_claims": "laims"}  # in resourceClaims and resources.claims


def version_of(document: Mapping[str, Any]) -> tuple[int, int] | None:
    """The version of a cluster by what it serves under /version, such as (1, 34); None if it doesn't say."""
    digits = ["".join(filter(str.isdecimal, str(document.get(part)))) for part in ("major", "minor")]
    return (int(digits[0]), int(digits[1])) if all(digits) else None


async def check_pods(api: KubernetesApi, jobs: Mapping[str, TaskJob]) -> dict[str, Finding]:
    """The findings about Jobs that the API server doesn't accept, or is too old for, by their steps.

    Args:
        api: The API server.
        jobs: A Job for each step; they are not created.

    Raises:
        KubernetesError: The API server doesn't answer.
    """
    if not jobs:
        return {}
    try:
        version = await api.get("/version")
    except ApiStatusError:
        version = {}  # some proxies hide it
    found = await asyncio.gather(*(_check(api, step, job, version) for step, job in jobs.items()))
    return _merged({step: finding for step, finding in zip(jobs, found, strict=True) if finding is not None})


def _merged(findings: Mapping[str, Finding]) -> dict[str, Finding]:
    """Findings by step; those that differ in nothing else are one, about all of these steps."""
    alike: dict[Finding, list[str]] = {}
    for step, finding in findings.items():
        alike.setdefault(replace(finding, summary=finding.summary.replace(f"step {step}", "{}")), []).append(step)
    return {
        step: replace(finding, summary=finding.summary.replace("{}", of_steps(steps)))
        for finding, steps in alike.items()
        for step in steps
    }


async def _check(api: KubernetesApi, step: str, job: TaskJob, version: Mapping[str, Any]) -> Finding | None:
    known = version_of(version)
    for option, (first, _) in _FEATURES.items():
        if getattr(job.options, option) is not None and known is not None and known < first:
            return _too_old(step, option, version)
    manifest = job_manifest(job)
    try:
        answer = await api.dry_run(f"/apis/batch/v1/namespaces/{job.namespace}/jobs", manifest)
    except ApiStatusError as error:
        if not _is_about_the_pod(error):
            return None  # the Job itself is created with retries, and refused with an explanation
        named = (o for o, field in _FIELDS.items() if getattr(job.options, o) and field in error.message)
        needs = [f" {o} needs {_FEATURES[o][1]}; this is {version.get('gitVersion')}." for o in named]
        return _refused(step, job, manifest, error.message + "".join(needs))
    dropped = list(_dropped(manifest["spec"], answer.get("spec") or {}, "spec"))
    for option, field in _FIELDS.items():
        if getattr(job.options, option) is not None and any(field in path for path in dropped):
            return _too_old(step, option, version)
    if dropped:
        return _refused(
            step,
            job,
            manifest,
            f"it has no {', '.join(dropped)}, and would run the pod without (its version is "
            f"{version.get('gitVersion')})",
        )
    return None


def _is_about_the_pod(error: ApiStatusError) -> bool:
    """True if the server has looked at the Job and refused it, for a reason that doesn't pass."""
    if error.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return "does not support dry run" not in error.message  # an admission webhook with side effects
    return error.status == HTTPStatus.FORBIDDEN and "denied the request" in error.message


def _refused(step: str, job: TaskJob, manifest: Manifest, message: str) -> Finding:
    template, where = job.options.pod_template, ""
    if template is not None:
        line = pod_template.line_of(message, manifest["spec"]["template"], template)
        where = f"{template['file']}:{line}: " if line is not None else ""
    advice = "Correct the template." if where else correct(message)
    message = shortened(re.sub(r'^Job\.batch "[^"]*" is invalid: ', "", message))
    return Finding(f"{where}the cluster refuses the pod of step {step}.", message, advice)


def _too_old(step: str, option: str, version: Mapping[str, Any]) -> Finding:
    return Finding(
        f"step {step} can't run on this cluster, which is Kubernetes {version.get('gitVersion')}.",
        f"Its option {option} needs {_FEATURES[option][1]}.",
        f"Remove {option}, or use a newer cluster.",
    )


def _dropped(sent: Any, got: Any, path: str) -> Iterator[str]:
    """The fields that were sent and that an answer doesn't have; empty values may be left out of an answer."""
    if isinstance(sent, Mapping):
        for key, value in sent.items():
            below = f"{path}.{key}"
            if not isinstance(got, Mapping) or key not in got:
                if value:
                    yield below
            else:
                yield from _dropped(value, got[key], below)
    elif isinstance(sent, list) and isinstance(got, list):
        for index, value in enumerate(sent):
            below = f"{path}[{index}]"
            if (same := _counterpart(value, index, got)) is None:
                yield below
            else:
                yield from _dropped(value, same, below)


def _counterpart(item: Any, index: int, items: list[Any]) -> Any:
    """The same item in an answer, to which an admission webhook may have added others."""
    if isinstance(item, Mapping) and "name" in item:
        return next((found for found in items if found.get("name") == item["name"]), None)
    return items[index] if index < len(items) else None
