"""The address at which pods reach the bucket, as far as it can be judged from outside the cluster."""

from __future__ import annotations

import ipaddress
import re
from http import HTTPStatus
from urllib.parse import urlsplit

from k8sflow import bucket_servers, config, urls
from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.findings import Finding

_SERVICE = re.compile(r"(?P<name>[^.]+)\.(?P<namespace>[^.]+)\.svc(\..+)?")
_PORTS = {"http": 80, "https": 443}


async def check_address(api: KubernetesApi, settings: Settings) -> list[Finding]:
    """The findings about the endpoint of pods: this machine itself, or a Service that doesn't exist."""
    endpoint = bucket_servers.inside(settings)
    if endpoint is None:
        return []  # the cloud's own
    key = "in_cluster_endpoint" if settings.in_cluster_endpoint else "endpoint"
    if (variable := bucket_servers.variable(settings.bucket_url)) != config.variable("endpoint"):
        key = variable
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        host, port = "", None
    if not host or port is None:
        return [_finding(key, endpoint, "It is not a URL with http or https, and a host name.")]
    if _is_loopback(host):
        return [_finding(key, endpoint, "In a pod, this address is the pod itself.")]
    if service := _SERVICE.fullmatch(host):
        return await _check_service(api, key, endpoint, service, port)
    return []


async def _check_service(
    api: KubernetesApi, key: str, endpoint: str, service: re.Match[str], port: int
) -> list[Finding]:
    name, namespace = service["name"], service["namespace"]
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}/services/{name}")
    except ApiStatusError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            return []  # it may not be read from outside
        return [_finding(key, endpoint, f"The namespace {namespace!r} has no Service {name!r}.")]
    ports = [each["port"] for each in found["spec"].get("ports") or ()]
    is_headless = found["spec"].get("clusterIP") == "None"  # its pods answer at any port of theirs
    if port in ports or is_headless or found["spec"].get("type") == "ExternalName":
        return []
    listed = ", ".join(map(str, ports)) or "none"
    return [_finding(key, endpoint, f"The Service {name!r} doesn't have port {port}; its ports: {listed}.")]


def _finding(key: str, endpoint: str, cause: str) -> Finding:
    endpoint = urls.shown(endpoint)
    if key.isupper():
        advice = f"Set {key} to an address that pods can reach too."
        return Finding(f"pods can't reach the bucket at {endpoint} (variable {key}).", cause, advice)
    return Finding(
        f"pods can't reach the bucket at {endpoint} (setting {key}).",
        cause,
        "Set in_cluster_endpoint (K8SFLOW_IN_CLUSTER_ENDPOINT) to the URL of the S3 server as pods reach it.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
