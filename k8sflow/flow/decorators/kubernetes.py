"""``@kubernetes`` and ``@resources``: where a step runs, and its requests there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from k8sflow.flow.decorators.base import Option, decorator
from k8sflow.flow.decorators.pod_options import RESOURCES, PodOptions, is_more


def _check(options: Mapping[str, Any]) -> None:
    """Checks what no other decorator of the step can correct."""
    memory, most = options["memory"], options["max_memory"]
    if memory is not None and most is not None and not is_more(most, memory):
        raise ValueError(f"max_memory={most!r} is not more than memory={memory!r}")


def _pod_options(names: Sequence[str]) -> tuple[Option, ...]:
    known = {option.name: option.metadata for option in fields(PodOptions)}
    return tuple(Option(known[name]["parse"], known[name]["help"], name) for name in names)


@decorator(
    "what the step needs on Kubernetes; a local run ignores it",
    options=_pod_options(RESOURCES),
    check=_check,
)
def resources(
    *,
    cpu: float | str | None = None,
    memory: float | str | None = None,
    disk: float | str | None = None,
    gpu: int | str | None = None,
    shared_memory: float | str | None = None,
    on_oom: str | None = None,
    max_memory: float | str | None = None,
) -> None: ...


@decorator(
    "runs the step as a Kubernetes Job, whatever the rest of the flow does",
    options=_pod_options([option.name for option in fields(PodOptions)]),
    check=_check,
    page="docs/pods.md",
)
def kubernetes(
    *,
    image: str | None = None,
    image_pull_policy: str | None = None,
    image_pull_secrets: str | Sequence[str] | None = None,
    runtime_in_image: bool | str | None = None,
    executable: str | None = None,
    namespace: str | None = None,
    service_account: str | None = None,
    cpu: float | str | None = None,
    cpu_limit: float | str | None = None,
    memory: float | str | None = None,
    memory_limit: float | str | None = None,
    qos: str | None = None,
    disk: float | str | None = None,
    gpu: int | str | None = None,
    gpu_vendor: str | None = None,
    gpu_model: str | None = None,
    extended_resources: str | Mapping[str, int | str] | None = None,
    resource_claims: str | Mapping[str, str] | None = None,
    shared_memory: float | str | None = None,
    on_oom: str | None = None,
    max_memory: float | str | None = None,
    use_tmpfs: bool | str | None = None,
    tmpfs_size: float | str | None = None,
    tmpfs_path: str | None = None,
    tmpfs_tempdir: bool | str | None = None,
    persistent_volume_claims: str | Mapping[str, str] | None = None,
    ephemeral_volumes: str | Mapping[str, float | str | Mapping[str, float | str]] | None = None,
    empty_dirs: str | Mapping[str, float | str | Mapping[str, float | str]] | None = None,
    image_volumes: str | Mapping[str, str] | None = None,
    secrets: str | Sequence[str] | None = None,
    secret_files: str | Mapping[str, str] | None = None,
    config_maps: str | Sequence[str] | None = None,
    config_map_files: str | Mapping[str, str] | None = None,
    env: str | Mapping[str, str] | None = None,
    node_selector: str | Mapping[str, str] | None = None,
    compute_pool: str | None = None,
    tolerations: str | Sequence[Mapping[str, Any]] | None = None,
    affinity: str | Mapping[str, Any] | None = None,
    topology_spread: str | Sequence[Mapping[str, Any]] | None = None,
    priority_class: str | None = None,
    runtime_class: str | None = None,
    queue: str | None = None,
    labels: str | Mapping[str, str] | None = None,
    annotations: str | Mapping[str, str] | None = None,
    run_as_user: int | str | None = None,
    security_context: str | Mapping[str, Any] | None = None,
    port: int | str | None = None,
    host_aliases: str | Mapping[str, str | Sequence[str]] | None = None,
    dns_policy: str | None = None,
    dns_config: str | Mapping[str, Any] | None = None,
    hostname_resolution_timeout: int | str | None = None,
    deadline_seconds: int | str | None = None,
    grace_seconds: int | str | None = None,
    spot: str | None = None,
    pending_timeout_seconds: int | str | None = None,
    branches_per_pod: int | str | None = None,
    branches_at_a_time: int | str | None = None,
    pod_template: str | None = None,
) -> None: ...
