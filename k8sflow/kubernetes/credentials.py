"""Credentials for the API server: the sources of an Authorization header that a kubeconfig can name.

The official client's loader is used only for ``auth-provider``, which kubectl no longer supports: importing it takes
longer (0.25 s) than everything else here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from k8sflow.debug_log import DebugLog
from k8sflow.errors import ConfigurationError

_TOKEN_FILE_SECONDS = 60.0
_EXPIRY_MARGIN_SECONDS = 60.0
_PLUGIN_SECONDS = 120.0

_log = DebugLog(__name__)


class Credentials(Protocol):
    """A source of request headers."""

    async def headers(self) -> Mapping[str, str]:
        """The headers that authenticate a request now."""

    def forget(self) -> None:
        """Drops cached credentials after the server refused them."""


@dataclass(frozen=True)
class StaticHeaders:
    """A token, a password, or no headers at all (a client certificate)."""

    fixed: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def headers(self) -> Mapping[str, str]:
        """The same headers every time."""
        return self.fixed

    def forget(self) -> None:
        """Nothing is cached."""


class KubeconfigHeaders:
    """A token or password in a kubeconfig, which is read again after the server refused it.

    Args:
        fixed: The headers.
        read_again: Reads them again, in case the user has logged in since; may raise ConfigurationError.
    """

    def __init__(self, fixed: Mapping[str, str], read_again: Callable[[], Mapping[str, str]]) -> None:
        self._fixed = fixed
        self._read_again = read_again

    async def headers(self) -> Mapping[str, str]:
        """The headers as last read."""
        return self._fixed

    def forget(self) -> None:
        """Reads the kubeconfig again."""
        try:
            self._fixed = self._read_again()
        except ConfigurationError as error:  # the file may be incomplete right now; the refusal itself says what to do
            _log.debug("the kubeconfig can't be read again: %s", error.summary)
        else:
            _log.debug("read the kubeconfig again")


class TokenFile:
    """A token in a file that is renewed from outside, as the kubelet does for service accounts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: dict[str, str] = {}
        self._read_at = 0.0

    async def headers(self) -> Mapping[str, str]:
        """The header with the file's token, read again every minute."""
        now = asyncio.get_running_loop().time()
        if not self._header or now - self._read_at > _TOKEN_FILE_SECONDS:
            try:
                token = self._path.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigurationError(f"the Kubernetes token in {self._path} can't be read: {error}.") from error
            self._header, self._read_at = bearer(token), now
            _log.debug("read the token in %s", self._path)
        return self._header

    def forget(self) -> None:
        """Reads the file again at the next request."""
        self._header = {}


class ExecPlugin:
    """A program that prints an ExecCredential, such as a cloud provider's command line.

    Protocol: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """

    def __init__(
        self, settings: Mapping[str, Any], *, cluster: Mapping[str, Any], folder: Path, context: ssl.SSLContext | None
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._folder = folder
        self._context = context
        self._header: dict[str, str] | None = None
        self._expires_at: datetime | None = None
        self._running = asyncio.Lock()

    async def headers(self) -> Mapping[str, str]:
        """The header of the current credential; runs the program if there is none or it has expired."""
        async with self._running:
            if self._header is None or self._is_expired():
                credential = await asyncio.to_thread(self._run)
                self._take(credential)
            assert self._header is not None
            return self._header

    def forget(self) -> None:
        """Runs the program again at the next request."""
        self._header = None

    def _is_expired(self) -> bool:
        if self._expires_at is None:
            return False
        remaining = self._expires_at - _now()
        return remaining.total_seconds() < _EXPIRY_MARGIN_SECONDS

    def _run(self) -> Mapping[str, Any]:
        command = self._command()
        _log.debug("running the credential program %s", command[0])
        variables = {item["name"]: item["value"] for item in self._settings.get("env") or ()}
        environment = {**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(self._info())}
        try:
            answer = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PLUGIN_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            hint = self._settings.get("installHint") or "Install it, or choose another context."
            raise ConfigurationError(
                f"the credential program {command[0]!r} of the kubeconfig can't be run: {error}.", advice=str(hint)
            ) from error
        if answer.returncode != 0:
            raise ConfigurationError(
                f"the credential program {' '.join(command)!r} of the kubeconfig failed with code {answer.returncode}.",
                cause=answer.stderr.decode(errors="replace").strip()[-1000:],
                advice="Log in with it as you do for kubectl; `kubectl get pods` shows whether it works again.",
            )
        return _exec_status(answer.stdout, command[0])

    def _command(self) -> list[str]:
        command = str(self._settings["command"])
        if os.sep in command:
            command = str(self._folder / command)  # an absolute path is unchanged
        return [command, *map(str, self._settings.get("args") or ())]

    def _info(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"interactive": False}
        if self._settings.get("provideClusterInfo"):
            spec["cluster"] = dict(self._cluster)
        return {"apiVersion": self._settings["apiVersion"], "kind": "ExecCredential", "spec": spec}

    def _take(self, status: Mapping[str, Any]) -> None:
        self._header = bearer(status["token"]) if status.get("token") else {}
        self._expires_at = None
        if expiry := status.get("expirationTimestamp"):
            self._expires_at = datetime.fromisoformat(expiry.replace("Z", "+00:00"))
            if self._is_expired():  # by a clock that is wrong: else the program would run for each request
                self._expires_at = None
        _log.debug("got a credential that expires at %s", expiry or "an unknown time")
        if self._context is not None and status.get("clientCertificateData"):
            certificate, key = status["clientCertificateData"], status["clientKeyData"]
            load_certificate(self._context, certificate.encode(), key.encode())


def _now() -> datetime:
    return datetime.now(timezone.utc)


class OfficialAuthProvider:
    """A token from the official client, for the ``auth-provider`` entries that only it supports."""

    def __init__(self, paths: Sequence[Path], context: str) -> None:
        self._paths = paths
        self._context = context

    async def headers(self) -> Mapping[str, str]:
        """The header that the official client would send."""
        return await asyncio.to_thread(self._load)

    def forget(self) -> None:
        """Nothing is cached."""

    def _load(self) -> dict[str, str]:
        from kubernetes import client, config  # noqa: PLC0415 - slow to import, and rarely needed

        configuration = client.Configuration()
        files = os.pathsep.join(map(str, self._paths))
        try:
            config.load_kube_config(files, self._context, configuration, persist_config=False)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise ConfigurationError(
                f"the auth-provider of context {self._context!r} gives no token: {error}.",
                advice="Log in again as you do for kubectl, or use an exec plugin.",
            ) from error
        header = configuration.get_api_key_with_prefix("authorization")
        return {"Authorization": str(header)} if header else {}


def bearer(token: str) -> dict[str, str]:
    """The header of a bearer token."""
    return {"Authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    """The header of a user and password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Makes new connections of the context present a client certificate.

    Python's ssl module only reads files; these are private, and deleted once it has read them.
    """
    with tempfile.TemporaryDirectory() as folder:
        certificate_file, key_file = Path(folder, "certificate"), Path(folder, "key")
        certificate_file.write_bytes(certificate)
        key_file.touch(mode=0o600)
        key_file.write_bytes(key)
        context.load_cert_chain(certificate_file, key_file)


def _exec_status(output: bytes, command: str) -> Mapping[str, Any]:
    try:
        status = json.loads(output)["status"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the credential program {command!r} of the kubeconfig printed no ExecCredential.",
            cause=output.decode(errors="replace")[:200],
        ) from error
    if not isinstance(status, dict):
        raise ConfigurationError(f"the credential program {command!r} printed an ExecCredential without a status.")
    return status
