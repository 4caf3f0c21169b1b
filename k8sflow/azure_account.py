"""The storage account of Azure that ``az://container/prefix`` is in, from the variables that Azure's own tools read.

https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string has connection strings.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from k8sflow.errors import ConfigurationError

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
ACCOUNT = "AZURE_STORAGE_ACCOUNT"
KEY = "AZURE_STORAGE_KEY"
SAS = "AZURE_STORAGE_SAS_TOKEN"
ENDPOINT = "AZURE_STORAGE_SERVICE_ENDPOINT"
_SUFFIX = "core.windows.net"
# The account of every emulator, whose key is public:
# https://learn.microsoft.com/azure/storage/common/storage-connect-azurite#well-known-storage-account-and-key
_EMULATED = "devstoreaccount1"
_EMULATED_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_EMULATED_SERVER = f"http://127.0.0.1:10000/{_EMULATED}"
_ADVICE = (
    f"Set {CONNECTION_STRING}, or {ACCOUNT} to the name of the account; with {KEY} or {SAS}, or without them to log in "
    "by a managed identity or workload identity."
)


@dataclass(frozen=True)
class AzureAccount:
    """An account.

    Args:
        name: Its name.
        endpoint: The URL of its blob service, without a slash at the end.
        key: Its shared key; empty for none.
        sas: A shared access signature; empty for none.
    """

    name: str
    endpoint: str
    key: str = ""
    sas: str = ""


def account_of(environment: Mapping[str, str]) -> AzureAccount:
    """The account that the environment names.

    Args:
        environment: The environment.

    Raises:
        ConfigurationError: It names none, or a value can't be used.
    """
    fields = _fields(environment.get(CONNECTION_STRING, ""))
    if fields.get("UseDevelopmentStorage", "").lower() == "true":
        return AzureAccount(_EMULATED, _EMULATED_SERVER, _EMULATED_KEY)
    name = fields.get("AccountName") or environment.get(ACCOUNT, "")
    endpoint = fields.get("BlobEndpoint") or environment.get(ENDPOINT, "")
    if not endpoint and name:
        scheme, suffix = fields.get("DefaultEndpointsProtocol") or "https", fields.get("EndpointSuffix") or _SUFFIX
        endpoint = f"{scheme}://{name}.blob.{suffix}"
    if not endpoint:
        raise ConfigurationError("no storage account of Azure is set for az:// URLs.", advice=_ADVICE)
    name = name or _name_in(endpoint)
    if fields:  # it has the credentials, or says by its lack of them that there are others
        key, sas = fields.get("AccountKey", ""), fields.get("SharedAccessSignature", "")
    else:
        key, sas = environment.get(KEY, ""), environment.get(SAS, "")
    _check_key(key, CONNECTION_STRING if fields else KEY)
    return AzureAccount(name, endpoint.rstrip("/"), key, sas.lstrip("?"))


def _fields(text: str) -> dict[str, str]:
    """The fields of a connection string."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigurationError(
                f"{CONNECTION_STRING} can't be read: it has a part without '='.",
                advice="Copy it as a whole from the account's access keys: AccountName=…;AccountKey=….",
            )
        found[name.strip()] = value.strip()
    return found


def _check_key(key: str, variable: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except ValueError as error:
        raise ConfigurationError(
            f"the account's key in {variable} is not written in base64.", advice="Copy it as a whole."
        ) from error


def _name_in(endpoint: str) -> str:
    """The name of the account in the URL of its blob service: the first part of the host, or an emulator's path."""
    try:
        parts = urlsplit(endpoint)
        return parts.path.strip("/") or (parts.hostname or "").partition(".")[0]
    except ValueError:
        return ""  # the client names the URL
