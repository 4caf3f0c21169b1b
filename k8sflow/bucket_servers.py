"""The servers of the runs' bucket, as this machine and as pods reach them.

That of S3 is a setting, with another one for pods. That of Google Cloud Storage is Google's own, unless the environment
names an emulator by the variable that Google's tools read too; pods get the same address.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from k8sflow import roots

if TYPE_CHECKING:
    from k8sflow.config import Settings

_ENDPOINT = "K8SFLOW_ENDPOINT"


def outside(settings: Settings, environment: Mapping[str, str] = os.environ) -> str | None:
    """The URL of the server as this machine reaches it; None for AWS.

    Args:
        settings: The settings.
        environment: The environment.
    """
    return roots.endpoint_of_google(environment) if _is_of_google(settings.bucket_url) else settings.endpoint


def inside(settings: Settings, environment: Mapping[str, str] = os.environ) -> str | None:
    """The URL of the server as pods reach it, where it is not the cloud's own.

    Args:
        settings: The settings as this machine has them.
        environment: The environment.
    """
    if not _is_of_google(settings.bucket_url):
        return settings.in_cluster_endpoint or settings.endpoint
    found = roots.endpoint_of_google(environment)
    return None if found == roots.SERVER_OF_GOOGLE else found


def variable(bucket_url: str | None) -> str:
    """The name of the environment variable by which a process finds the server of a bucket."""
    return roots.EMULATOR_OF_GOOGLE if _is_of_google(bucket_url) else _ENDPOINT


def title(settings: Settings) -> str:
    """The name of the cloud's own server."""
    return "Google Cloud Storage" if _is_of_google(settings.bucket_url) else "AWS S3"


def _is_of_google(url: str | None) -> bool:
    return roots.kind_of(url or "") == "gs"
