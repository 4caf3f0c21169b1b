"""Refusals and failures of the API server as errors that a person can act on."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass

import aiohttp

from k8sflow.errors import ApiStatusError, ApiUnreachableError

_LONGEST_MESSAGE = 1000
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "DELETE": "delete"}


@dataclass(frozen=True)
class Target:
    """The verb and resource of a request, in the terms of RBAC."""

    verb: str
    group: str
    resource: str
    namespace: str | None
    name: str | None

    @staticmethod
    def of(method: str, path: str, *, watch: bool = False) -> Target:
        """The target of a request, from its path (https://kubernetes.io/docs/reference/using-api/api-concepts/)."""
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
        namespace = None
        if rest[:1] == ["namespaces"] and len(rest) > 2:  # noqa: PLR2004 - namespaces/NAME/RESOURCE
            namespace, rest = rest[1], rest[2:]
        resource = rest[0] if rest else parts[-1]
        name = rest[1] if len(rest) > 1 else None
        subresource = "/".join(rest[2:])
        verb = _VERBS[method]
        if name is None and verb in {"get", "delete"}:
            verb = {"get": "watch" if watch else "list", "delete": "deletecollection"}[verb]
        return Target(verb, group, f"{resource}/{subresource}" if subresource else resource, namespace, name)

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        namespace = f" in namespace {self.namespace!r}" if self.namespace else ""
        return f"{self.verb} {self.resource}{name}{namespace}"

    def can_i(self) -> str:
        """The kubectl command that checks whether it is allowed."""
        resource, _, subresource = self.resource.partition("/")
        qualified = f"{resource}.{self.group}" if self.group else resource
        command = f"kubectl auth can-i {self.verb} {qualified}"
        command += f" --subresource={subresource}" if subresource else ""
        return command + (f" -n {self.namespace}" if self.namespace else "")

    def rule(self) -> str:
        """The rule that a Role needs to allow it."""
        return json.dumps({"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb]})


def status_error(target: Target, status: int, body: bytes, *, origin: str, retry_after: str | None) -> ApiStatusError:
    """The error for an answer with a status of 400 or more."""
    reason, message = _status_of(body)
    cause, advice = _explain(target, status, message, origin)
    return ApiStatusError(
        f"the Kubernetes API server refused to {target}: {status} {reason}".rstrip() + ".",
        cause=cause,
        advice=advice,
        status=status,
        reason=reason,
        message=message,
        retry_after_seconds=float(retry_after) if retry_after and retry_after.isdecimal() else None,
    )


def unreachable_error(error: Exception, *, server: str, origin: str) -> ApiUnreachableError:
    """The error for a request that got no answer."""
    summary = f"the Kubernetes API server {server} ({origin}) can't be reached"
    cause = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return ApiUnreachableError(
            f"{summary}: TLS failed.",
            cause=cause,
            advice="If the cluster was recreated, get its new kubeconfig from the cluster's provider.",
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ApiUnreachableError(
            f"{summary}: its host name is unknown.", cause=cause, advice="Check the VPN and the host name."
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return ApiUnreachableError(
            f"{summary}: no connection.",
            cause=cause,
            advice="Check that the cluster and the VPN are up: `kubectl get nodes` should answer; "
            "kubernetes_context chooses another cluster.",
        )
    return ApiUnreachableError(f"{summary}.", cause=cause, advice="`kubectl get nodes` shows when it answers again.")


def _status_of(body: bytes) -> tuple[str, str]:
    """Reason and message of a Status object, or the body as the message if it is something else (a proxy's page)."""
    try:
        document = json.loads(body)
        return str(document.get("reason") or ""), str(document.get("message") or "")[:_LONGEST_MESSAGE]
    except (ValueError, AttributeError):
        return "", body.decode(errors="replace").strip()[:_LONGEST_MESSAGE]


def _explain(target: Target, status: int, message: str, origin: str) -> tuple[str, str]:
    match status:
        case 401:
            return (
                f"The server doesn't accept the credentials of {origin}: {message}",
                "Log in again as you do for kubectl (`kubectl get pods` must work).",
            )
        case 403:
            return _explain_refusal(target, message)
        case 404 if target.namespace and "namespaces" in message:
            return message, f"Create it (`kubectl create namespace {target.namespace}`) or set kubernetes_namespace."
        case _:
            return message, ""


def _explain_refusal(target: Target, message: str) -> tuple[str, str]:
    """Cause of a 403, and advice."""
    if "because it is being terminated" in message:
        return (
            f"The namespace {target.namespace!r} is being deleted: {message}",
            "Create it again, or set kubernetes_namespace to another one, and `resume` the run.",
        )
    if "is forbidden: User" in message or "cannot" in message:
        return message, f"Add the rule {target.rule()} to your Role; then `{target.can_i()}` prints yes."
    if "exceeded quota" in message:
        return message, "Wait until other objects are deleted, or have the quota raised (`kubectl describe quota`)."
    return message, f"`{target.can_i()}` shows whether a Role allows it; an admission policy may also have refused it."
