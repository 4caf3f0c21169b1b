"""The clouds other than S3 whose buckets are stores: where their servers are, and the clients for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from k8sflow import azure_account, roots
from k8sflow.errors import ConfigurationError
from k8sflow.storage.s3_translation import OF_AZURE, OF_GOOGLE, OF_S3, Hints

if TYPE_CHECKING:
    from k8sflow.s3_options import S3Options
    from k8sflow.storage.s3_client import StoreClient

HINTS: dict[str, Hints] = {"s3": OF_S3, "gs": OF_GOOGLE, "az": OF_AZURE}


def endpoint_of(scheme: str, of_s3: str | None) -> str | None:
    """The URL of the server of a kind of bucket; None for AWS.

    Args:
        scheme: ``s3``, ``gs`` or ``az``.
        of_s3: The URL of the server of S3.

    Raises:
        ConfigurationError: The environment names no account of Azure.
    """
    if scheme == "gs":
        return roots.endpoint_of_google(os.environ)
    return azure_account.account_of(os.environ).endpoint if scheme == "az" else of_s3


def client(scheme: str, bucket: str, endpoint: str, connections: int, options: S3Options) -> StoreClient:
    """The client for a bucket.

    Args:
        scheme: ``gs`` or ``az``.
        bucket: The bucket, or the container.
        endpoint: The URL of the server.
        connections: How many are kept open.
        options: The options, of which only the certificates apply.

    Raises:
        K8sflowError: An option applies to S3 only, or the environment's credentials or addresses can't be used.
    """
    for name in options.of_s3_alone:
        raise ConfigurationError(
            f"the setting {name} only applies to buckets of S3, and this one is {scheme}://{bucket}.",
            advice=f"Unset K8SFLOW_{name.upper()}, or remove {name} from k8sflow.toml.",
        )
    if scheme == "gs":
        from k8sflow.storage.gcs import GcsClient  # noqa: PLC0415  only where it is used

        return GcsClient(bucket, endpoint, connections, os.environ, options.ca_bundle)
    from k8sflow.storage.azure import AzureClient  # noqa: PLC0415  only where it is used

    return AzureClient(bucket, azure_account.account_of(os.environ), connections, os.environ, options.ca_bundle)
