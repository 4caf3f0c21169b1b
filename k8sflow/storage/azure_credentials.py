"""Tokens for Azure's storage: of a workload identity, of a person who has logged in, or of a managed identity.

Azure's webhook gives pods with a workload identity a file with a token of Kubernetes, and the variables that say where
it is exchanged (https://azure.github.io/azure-workload-identity/docs/topics/language-specific-examples/azure-identity-sdk.html).
A person has ``az login``; its program makes the tokens, since its files are encrypted on some systems. Machines have a
metadata server (https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

from k8sflow.access_tokens import Token
from k8sflow.errors import AccessError, OutageError

_RESOURCE = "https://storage.azure.com/"
_FILE = "AZURE_FEDERATED_TOKEN_FILE"
_AUTHORITY = "https://login.microsoftonline.com/"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_METADATA = "http://169.254.169.254"
# The metadata server is on this machine, or nowhere.
_METADATA_SECONDS = 5
_SECONDS = 30
_LOGIN = "azureProfile.json"
_ADVICE = (
    "Run `az login`, or set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING; in pods, "
    "name a Secret with the last one in the setting credentials, or bind the service account to an identity of Azure "
    "(workload identity)."
)


def find(environment: Mapping[str, str]) -> Callable[[], Token]:
    """Finds the function that makes tokens for this process.

    Args:
        environment: The environment.
    """
    if environment.get(_FILE):
        return _Identity(environment).token
    folder = environment.get("AZURE_CONFIG_DIR") or Path(environment.get("HOME") or "/", ".azure")
    if Path(folder, _LOGIN).is_file() and (program := shutil.which("az", path=environment.get("PATH"))):
        return lambda: _of_person(program, environment)
    return _Machine(environment).token


class _Identity:
    """A workload identity, which exchanges the token of a service account of Kubernetes, or of another issuer."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._file = Path(environment[_FILE])
        authority = environment.get("AZURE_AUTHORITY_HOST") or _AUTHORITY
        self._url = f"{authority.rstrip('/')}/{environment.get('AZURE_TENANT_ID', '')}/oauth2/v2.0/token"
        self._client = environment.get("AZURE_CLIENT_ID", "")

    def token(self) -> Token:
        """A new token; the file is read each time, since Kubernetes replaces it.

        Raises:
            AccessError: The file can't be read, or Azure refuses it.
            OutageError: Azure's server of tokens can't be reached.
        """
        try:
            assertion = self._file.read_text(encoding="utf-8")
        except OSError as error:
            raise AccessError(
                f"{_FILE} is {str(self._file)!r}, which can't be read: {error}.", advice=_ADVICE
            ) from error
        fields = {"client_id": self._client, "grant_type": "client_credentials", "scope": f"{_RESOURCE}.default"}
        fields |= {"client_assertion_type": _ASSERTION, "client_assertion": assertion}
        request = urllib.request.Request(self._url, data=urlencode(fields).encode())  # noqa: S310  the environment's
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310  as above
                return _token(answer.read())
        except (OSError, ValueError, KeyError) as error:
            raise _failed(error, f"the workload identity {self._client}") from error


class _Machine:
    """The managed identity of the machine."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        host = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or _METADATA
        query = {"api-version": "2018-02-01", "resource": _RESOURCE}
        if client := environment.get("AZURE_CLIENT_ID"):
            query["client_id"] = client
        self._url = f"{host.rstrip('/')}/metadata/identity/oauth2/token?{urlencode(query)}"
        self._has_answered = False

    def token(self) -> Token:
        """A new token.

        Raises:
            AccessError: There is no metadata server, or it has no identity.
            OutageError: It has answered before, and can't be reached now.
        """
        request = urllib.request.Request(self._url, headers={"Metadata": "true"})  # noqa: S310  the environment's
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=_METADATA_SECONDS) as answer:
                found = _token(answer.read())
        except (OSError, ValueError, KeyError) as error:
            if self._has_answered:
                raise _failed(error, "the managed identity") from error
            raise AccessError(
                "there are no credentials for Azure's storage: the environment has none, and there is no managed "
                f"identity ({error}).",
                advice=_ADVICE,
            ) from error
        self._has_answered = True
        return found


def _of_person(program: str, environment: Mapping[str, str]) -> Token:
    """A token for the user who has logged in with Azure's command line.

    Raises:
        AccessError: The login has ended.
    """
    command = [program, "account", "get-access-token", "--resource", _RESOURCE, "--output", "json"]
    try:
        done = subprocess.run(
            command, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise OutageError(f"`az account get-access-token` gives no token: {error}.") from error
    if done.returncode == 0:
        try:
            document = json.loads(done.stdout)
            return Token(document["accessToken"], float(document["expires_on"]))
        except (ValueError, KeyError, TypeError) as error:
            raise AccessError(
                f"`az account get-access-token` gives no token that can be read: {error!r}.",
                advice="Install a newer version of Azure's command line.",
            ) from error
    said = done.stderr.decode("utf-8", "replace").strip()[-300:]
    raise AccessError(f"`az account get-access-token` gives no token: {said}", advice="Run `az login` again.")


def _failed(error: Exception, who: str) -> AccessError | OutageError:
    if isinstance(error, urllib.error.HTTPError):
        said = error.read().decode("utf-8", "replace")[:300]
        if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.TOO_MANY_REQUESTS:
            return AccessError(f"Azure gives {who} no token: {said}", advice=_ADVICE)
    if isinstance(error, OSError):
        return OutageError(f"Azure's server of tokens can't be reached for {who}: {error}.")
    return AccessError(f"Azure's server of tokens gives {who} no token: {error}.", advice=_ADVICE)


def _token(answer: bytes) -> Token:
    document = json.loads(answer)
    return Token(document["access_token"], time.time() + float(document["expires_in"]))
