"""Access to the API server: from a kubeconfig, read as kubectl does, or from inside a pod.

Format and merge rules: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from k8sflow.errors import ConfigurationError
from k8sflow.kubernetes.credentials import (
    Credentials,
    ExecPlugin,
    KubeconfigHeaders,
    OfficialAuthProvider,
    StaticHeaders,
    TokenFile,
    basic,
    bearer,
    load_certificate,
)

SERVICE_ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ENTRIES = {"clusters": "cluster", "users": "user", "contexts": "context"}


@dataclass(frozen=True)
class ClusterAccess:
    """The address of an API server, and the credentials for it.

    Args:
        server: Its URL, without a slash at the end.
        origin: The source of this data, for messages: ``context "kind" of /home/me/.kube/config``.
        ssl_context: How TLS is verified, or None for plain HTTP.
        credentials: Source of the headers that authenticate.
        server_name: Name to expect in the certificate, if it isn't the URL's.
        proxy: URL of an HTTP proxy.
        headers: Headers in addition to those of the credentials (impersonation).
    """

    server: str
    origin: str
    ssl_context: ssl.SSLContext | None = None
    credentials: Credentials = field(default_factory=StaticHeaders, repr=False)
    server_name: str | None = None
    proxy: str | None = None
    headers: Sequence[tuple[str, str]] = ()


def load_access(context: str | None, environment: Mapping[str, str]) -> ClusterAccess:
    """The cluster of ``context``, else of the kubeconfig's current context, else the one that this pod runs in.

    Raises:
        ConfigurationError: There is no kubeconfig, it is invalid, or it doesn't have the context.
    """
    paths = _paths(environment)
    found = [path for path in paths if path.is_file()]
    if found:
        return _from_kubeconfig(found, context)
    if "KUBERNETES_SERVICE_HOST" in environment and context is None and (SERVICE_ACCOUNT_FOLDER / "token").exists():
        return _in_cluster(environment)
    raise ConfigurationError(
        f"no kubeconfig: there is no file {' or '.join(map(str, paths))}.",
        cause="k8sflow finds the cluster in it.",
        advice="Set KUBECONFIG to its path, or create one with the tool that created the cluster "
        "(`kind export kubeconfig`, `aws eks update-kubeconfig`, `gcloud container clusters get-credentials`).",
    )


def _paths(environment: Mapping[str, str], separator: str = os.pathsep) -> list[Path]:
    """The kubeconfigs, found as kubectl finds them; Windows separates them by semicolons."""
    listed = [Path(part).expanduser() for part in environment.get("KUBECONFIG", "").split(separator) if part]
    return listed or [Path(environment.get("HOME") or Path.home()) / ".kube" / "config"]


def _in_cluster(environment: Mapping[str, str]) -> ClusterAccess:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    return ClusterAccess(
        server=f"https://{host}:{port}",
        origin="the service account of this pod",
        ssl_context=_context((SERVICE_ACCOUNT_FOLDER / "ca.crt").read_text(encoding="ascii"), verify=True),
        credentials=TokenFile(SERVICE_ACCOUNT_FOLDER / "token"),
    )


def _from_kubeconfig(paths: list[Path], wanted: str | None) -> ClusterAccess:
    merged = _merged(paths)
    files = ":".join(map(str, paths))
    name = wanted or merged["current-context"]
    if not name:
        raise ConfigurationError(
            f"the kubeconfig {files} has no current context.",
            advice=f"Choose one with `kubectl config use-context` or kubernetes_context: {_names(merged['contexts'])}.",
        )
    context = _entry(merged, "contexts", name, files)
    origin = f"context {name!r} of {files}"
    cluster = _entry(merged, "clusters", context.get("cluster", ""), origin)
    user = _entry(merged, "users", context["user"], origin) if context.get("user") else {"folder": paths[0].parent}
    server = str(cluster.get("server") or "").rstrip("/")
    if urlsplit(server).scheme not in {"http", "https"}:
        raise ConfigurationError(f"the {origin} has the server {server!r}, which is not an http(s) URL.")
    ssl_context = _tls(cluster, user, origin) if server.startswith("https") else None
    return ClusterAccess(
        server=server,
        origin=origin,
        ssl_context=ssl_context,
        credentials=_credentials(user, cluster, ssl_context, paths, name),
        server_name=cluster.get("tls-server-name"),
        proxy=_proxy(cluster, server, origin),
        headers=_impersonation(user),
    )


def _merged(paths: list[Path]) -> dict[str, Any]:
    """Merges all files; for each entry the first file that has it wins."""
    merged: dict[str, Any] = {kind: {} for kind in _ENTRIES}
    merged["current-context"] = None
    for path in paths:
        document = _document(path)
        merged["current-context"] = merged["current-context"] or document.get("current-context")
        for kind, key in _ENTRIES.items():
            for item in document.get(kind) or ():
                merged[kind].setdefault(item.get("name"), {**(item.get(key) or {}), "folder": path.parent})
    return merged


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both safe
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"the kubeconfig {path} can't be read: {error}.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is not a kubeconfig: it is not a mapping.")
    return document


def _entry(merged: Mapping[str, Any], kind: str, name: str, origin: str) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = merged[kind]
    if name not in entries:
        raise ConfigurationError(
            f"there is no {_ENTRIES[kind]} {name!r} in {origin}.",
            advice=f"Its {kind}: {_names(entries)}. The setting is kubernetes_context (K8SFLOW_KUBERNETES_CONTEXT).",
        )
    return entries[name]


def _names(entries: Mapping[str, object]) -> str:
    return ", ".join(sorted(map(str, entries))) or "none"


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], origin: str) -> ssl.SSLContext:
    authority = _blob(cluster, "certificate-authority", origin)
    verify = not cluster.get("insecure-skip-tls-verify", False)
    try:
        context = _context(authority.decode("ascii") if authority else None, verify=verify)
        certificate, key = _blob(user, "client-certificate", origin), _blob(user, "client-key", origin)
        if certificate and key:
            load_certificate(context, certificate, key)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"a certificate or key in {origin} can't be used: {error}.") from error
    return context


def _context(authority: str | None, *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    # Python 3.13 requires extensions that the CAs of many clusters lack (cpython#107361).
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _blob(entry: Mapping[str, Any], key: str, origin: str) -> bytes | None:
    """The bytes in ``KEY-data``, or in the file that ``KEY`` names."""
    try:
        if data := entry.get(f"{key}-data"):
            return base64.b64decode(data, validate=True)
        if name := entry.get(key):
            return (Path(entry["folder"]) / str(name)).read_bytes()
    except (OSError, binascii.Error) as error:
        raise ConfigurationError(f"{key} in {origin} can't be read: {error}.") from error
    return None


def _credentials(
    user: Mapping[str, Any],
    cluster: Mapping[str, Any],
    context: ssl.SSLContext | None,
    paths: list[Path],
    name: str,
) -> Credentials:
    if not user.get("token"):
        if token_file := user.get("tokenFile"):
            return TokenFile(Path(user["folder"]) / str(token_file))
        if plugin := user.get("exec"):
            return ExecPlugin(plugin, cluster=_cluster_info(cluster), folder=Path(user["folder"]), context=context)
        if user.get("auth-provider"):
            return OfficialAuthProvider(paths, name)
    return KubeconfigHeaders(_written_headers(user), lambda: _read_again(paths, name, context))


def _written_headers(user: Mapping[str, Any]) -> Mapping[str, str]:
    """The headers for a token or password in the kubeconfig itself."""
    if token := user.get("token"):
        return bearer(str(token))
    if user.get("username"):
        return basic(str(user["username"]), str(user.get("password") or ""))
    return {}


def _read_again(paths: list[Path], name: str, ssl_context: ssl.SSLContext | None) -> Mapping[str, str]:
    """Reads the headers and the client certificate of a context's user again, from the current files."""
    merged = _merged([path for path in paths if path.is_file()])
    files = ":".join(map(str, paths))
    origin = f"context {name!r} of {files}"
    user = _entry(merged, "users", _entry(merged, "contexts", name, files).get("user", ""), origin)
    certificate, key = _blob(user, "client-certificate", origin), _blob(user, "client-key", origin)
    if ssl_context is not None and certificate and key:
        try:
            load_certificate(ssl_context, certificate, key)
        except ssl.SSLError as error:
            raise ConfigurationError(f"the certificate or key in {origin} can't be used: {error}.") from error
    return _written_headers(user)


def _cluster_info(cluster: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cluster.items() if key != "folder"}


def _proxy(cluster: Mapping[str, Any], server: str, origin: str) -> str | None:
    """The proxy of the kubeconfig, else of the environment, as in kubectl."""
    parts = urlsplit(server)
    proxy = cluster.get("proxy-url")
    if proxy is None and not urllib.request.proxy_bypass(parts.hostname or ""):
        proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is not None and urlsplit(proxy).scheme not in {"http", "https"}:
        raise ConfigurationError(
            f"the proxy {proxy!r} of {origin} is not an HTTP proxy.",
            advice="Only http:// and https:// proxies are supported.",
        )
    return proxy


def _impersonation(user: Mapping[str, Any]) -> list[tuple[str, str]]:
    headers = [("Impersonate-User", str(user["as"]))] if user.get("as") else []
    return headers + [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
