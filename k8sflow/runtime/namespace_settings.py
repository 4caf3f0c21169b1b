"""Settings that all users of a namespace share: its ConfigMap ``k8sflow-settings``.

A run on Kubernetes reads it once, at its start. Settings in the environment or in a file override it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from k8sflow import config
from k8sflow.config import Settings
from k8sflow.debug_log import DebugLog
from k8sflow.errors import ApiStatusError, ConfigurationError, K8sflowError
from k8sflow.executors.bucket import check_is_set
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.problems import did_you_mean
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.pod_sizes import from_settings
from k8sflow.runtime.request import RunRequest, code_folder, with_default_decorators
from k8sflow.runtime.session import Session

if TYPE_CHECKING:
    from k8sflow.kubernetes.api import KubernetesApi

NAME = "k8sflow-settings"
# The settings that it may have. Others say where the cluster, the namespace and the bucket are, and with which keys
# they are used: a person decides about these, and commands that ask no cluster read them too.
ACCEPTED = tuple(
    key
    for key in config.KEYS
    if key
    in {
        "compression",
        "default_decospecs",
        "default_environment",
        "default_secrets_backend_type",
        "infrastructure_pauses_seconds",
        "infrastructure_retries",
        "log_limit_mb",
    }
    or key.startswith("package_")
    or (key.startswith("kubernetes_") and key not in {"kubernetes_context", "kubernetes_namespace"})
)

_log = DebugLog(__name__)


def placed(request: RunRequest, definition: FlowDefinition, *, is_started: bool = True) -> tuple[RunRequest, Placement]:
    """The request with the settings of the namespace that its pods will be in, if it has any, and their placement.

    Args:
        request: The request of the user.
        definition: The flow, compiled.
        is_started: Whether the run is started; else no cluster is asked.

    Raises:
        ConfigurationError: No bucket is set, which needs no cluster to find out.
        K8sflowError: The API server can't be asked, or the settings can't be used.
    """
    placement = Placement.of(definition, request.decorators, request.settings)
    if not (is_started and placement.uses_kubernetes):
        return request, placement
    check_is_set(request.settings)
    found = read(placement.inside(request.settings))
    if not found:
        return request, placement
    settings = added(request.settings, found, config.origins(code_folder(request.flow)))
    request = with_default_decorators(replace(request, settings=settings))
    return request, Placement.of(definition, request.decorators, settings)


def with_settings(session: Session) -> Session:
    """An open run with the settings of the namespace of its pods, for what its record doesn't say.

    Raises:
        K8sflowError: As ``placed``.
    """
    if not session.placement.uses_kubernetes or session.record.is_detached or session.definition is None:
        return session
    found = read(session.placement.inside(session.settings))
    settings = added(session.settings, found, config.origins(code_folder(session.definition.flow)))
    return replace(session, settings=settings, placement=Placement.of_record(session.record, settings))


def added(settings: Settings, found: Mapping[str, str], given: Mapping[str, str]) -> Settings:
    """The settings with those of the ConfigMap that nobody has set otherwise.

    Args:
        settings: The settings.
        found: Those of the ConfigMap.
        given: The settings that the environment or a file has, by name.
    """
    default = Settings()
    free = {key: text for key, text in found.items() if key not in given}
    return replace(settings, **{k: text for k, text in free.items() if getattr(settings, k) == getattr(default, k)})


def read(settings: Settings) -> dict[str, str]:
    """The settings in the ConfigMap of a namespace; none if there is no ConfigMap, or if it may not be read.

    Args:
        settings: Context and namespace.

    Raises:
        ConfigurationError: There is no kubeconfig, or the ConfigMap has something that can't be a setting.
        KubernetesError: The API server doesn't answer.
    """
    import asyncio  # noqa: PLC0415  a local run needs no API

    from k8sflow.kubernetes.api import KubernetesApi  # noqa: PLC0415  as above
    from k8sflow.kubernetes.kubeconfig import load_access  # noqa: PLC0415  as above
    from k8sflow.kubernetes.preflight import PATIENCE_SECONDS  # noqa: PLC0415  as above

    access = load_access(settings.kubernetes_context, os.environ)

    async def ask() -> dict[str, str]:
        async with KubernetesApi(access, patience_seconds=PATIENCE_SECONDS) as api:
            return await ask_for(api, settings.kubernetes_namespace)

    return asyncio.run(ask())


async def ask_for(api: KubernetesApi, namespace: str) -> dict[str, str]:
    """As ``read``, through an open client."""
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}/configmaps/{NAME}")
    except ApiStatusError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return {}
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        _log.debug("the ConfigMap %s of namespace %s may not be read; its settings don't apply here", NAME, namespace)
        return {}
    return parsed(found, namespace)


def parsed(manifest: Mapping[str, Any], namespace: str) -> dict[str, str]:
    """The settings in a ConfigMap; an empty value is none.

    Raises:
        ConfigurationError: It has something that can't be a setting.
    """
    where = f"the ConfigMap {NAME} in namespace {namespace!r}"
    for key in manifest.get("binaryData") or {}:
        raise ConfigurationError(f"{where} has binary data under {key!r}.", advice="Settings are texts, in its data.")
    found = {}
    for key, text in (manifest.get("data") or {}).items():
        if key not in ACCEPTED:
            raise _unknown(where, key)
        if value := text.strip():
            found[key] = value
            _check(where, key, value)
    return found


def _unknown(where: str, key: str) -> ConfigurationError:
    if key in config.KEYS:
        return ConfigurationError(
            f"{where} has {key}, which can't be set there.",
            cause="Where the cluster and the bucket are, and with which keys, is set by each user: commands that ask "
            "no cluster need it too.",
            advice=f"Remove it from the ConfigMap; set {config.variable(key)}, or {key} in k8sflow.toml.",
        )
    hint = did_you_mean(key, list(ACCEPTED))
    return ConfigurationError(
        f"{where} has an unknown setting {key!r}.",
        advice=f"{hint} Remove or correct it (`kubectl edit configmap {NAME}`), or use a newer k8sflow.".strip(),
    )


def _check(where: str, key: str, value: str) -> None:
    try:
        from_settings(Settings(**{key: value}))
    except K8sflowError as error:
        raise ConfigurationError(
            f"{where}: {error.summary}",
            cause=error.cause,
            advice=f"{error.advice} It is corrected by `kubectl edit configmap {NAME}`.",
        ) from error
