"""The servers of the runs' bucket, as this machine and as pods reach them.

That of S3 is a setting, with another one for pods. Those of Google and Azure are the clouds' own, unless the
environment names others by the variables that the clouds' tools read too; pods get the same address.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from k8sflow import azure_account, roots

if TYPE_CHECKING:
    from k8sflow.config import Settings

_VARIABLES = {"gs": roots.EMULATOR_OF_GOOGLE, "azure": azure_account.ENDPOINT}
_TITLES = {"gs": "Google Cloud Storage", "azure": "Azure"}


def outside(settings: Settings, environment: Mapping[str, str] = os.environ) -> str | None:
    """The URL of the server as this machine reaches it; None for AWS.

    Args:
        settings: The settings.
        environment: The environment.

    Raises:
        ConfigurationError: The bucket is one of Azure, and the environment names no account.
    """
    match roots.kind_of(settings.bucket_url or ""):
        case "gs":
            return roots.endpoint_of_google(environment)
        case "azure":
            return azure_account.account_of(environment).endpoint
        case _:
            return settings.endpoint


def inside(settings: Settings, environment: Mapping[str, str] = os.environ) -> str | None:
    """The URL of the server as pods reach it; None where they know it.

    Args:
        settings: The settings as this machine has them.
        environment: The environment.

    Raises:
        ConfigurationError: As ``outside``.
    """
    if roots.kind_of(settings.bucket_url or "") not in _VARIABLES:
        return settings.in_cluster_endpoint or settings.endpoint
    found = outside(settings, environment)
    return None if found == roots.SERVER_OF_GOOGLE else found


def variable(bucket_url: str | None) -> str:
    """The name of the environment variable by which a process finds the server of a bucket."""
    return _VARIABLES.get(roots.kind_of(bucket_url or ""), "K8SFLOW_ENDPOINT")


def title(settings: Settings) -> str:
    """The name of the cloud's own server."""
    return _TITLES.get(roots.kind_of(settings.bucket_url or ""), "AWS S3")
