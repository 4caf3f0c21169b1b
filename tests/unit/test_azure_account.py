"""The storage account of Azure that the environment names."""

from __future__ import annotations

import pytest

from k8sflow.azure_account import ACCOUNT, CONNECTION_STRING, ENDPOINT, KEY, SAS, AzureAccount, account_of
from k8sflow.errors import ConfigurationError

URL = "https://acc.blob.core.windows.net"


@pytest.mark.parametrize(
    ("environment", "account"),
    [
        ({ACCOUNT: "acc"}, AzureAccount("acc", URL)),
        ({ACCOUNT: "acc", KEY: "AAAA"}, AzureAccount("acc", URL, "AAAA")),
        ({ACCOUNT: "acc", SAS: "?sv=1&sig=x%3D"}, AzureAccount("acc", URL, sas="sv=1&sig=x%3D")),
        ({ENDPOINT: f"{URL}/"}, AzureAccount("acc", URL)),
        ({ENDPOINT: "http://azurite:10000/acc"}, AzureAccount("acc", "http://azurite:10000/acc")),
        (
            {CONNECTION_STRING: "DefaultEndpointsProtocol=http;AccountName=acc;AccountKey=AA==;EndpointSuffix=a.cn"},
            AzureAccount("acc", "http://acc.blob.a.cn", "AA=="),
        ),
        (
            {CONNECTION_STRING: f"BlobEndpoint={URL};SharedAccessSignature=sv=1&sig=x", KEY: "AAAA"},
            AzureAccount("acc", URL, sas="sv=1&sig=x"),
        ),
    ],
)
def test_the_variables_are_those_of_azures_tools(environment: dict[str, str], account: AzureAccount) -> None:
    """A connection string wins as a whole: its credentials are never mixed with those of other variables."""
    assert account_of(environment) == account


def test_the_emulator_has_an_account_of_its_own() -> None:
    found = account_of({CONNECTION_STRING: "UseDevelopmentStorage=true;"})
    assert (found.name, found.endpoint) == ("devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1")
    assert found.key


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no storage account of Azure is set"),
        ({CONNECTION_STRING: "acc"}, "has a part without '='"),
        ({ACCOUNT: "acc", KEY: "not a key"}, f"the account's key in {KEY} is not written in base64"),
        ({CONNECTION_STRING: "AccountName=acc;AccountKey=%"}, f"the account's key in {CONNECTION_STRING} is not"),
    ],
)
def test_a_useless_value_is_named_and_keys_are_not_shown(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        account_of(environment)
    assert "not a key" not in str(caught.value)
