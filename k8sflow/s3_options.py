"""Options of requests to S3, beside the server and the keys: certificates, a proxy, headers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from k8sflow import urls
from k8sflow.errors import ConfigurationError

if TYPE_CHECKING:
    from k8sflow.config import Settings

# The settings that the options come from; the agents in pods get them too.
SETTINGS = ("s3_ca_bundle", "s3_proxy", "s3_anonymous", "s3_requester_pays", "s3_write_headers")
REQUESTER_PAYS = {"x-amz-request-payer": "requester"}
_FLAGS = {"true": True, "false": False}
_HEADER = re.compile(r"x-amz-[a-z0-9-]+")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html
_CUSTOMER_KEYS = "x-amz-server-side-encryption-customer-"


@dataclass(frozen=True)
class S3Options:
    """The options.

    Args:
        ca_bundle: Path of a PEM file with the certificates that the server's may be signed by; None for the system's.
        proxy: URL of an HTTP proxy for these requests; None for that of the environment.
        anonymous: Whether requests are not signed, for public buckets.
        requester_pays: Whether the owner of the keys pays for the requests.
        write_headers: Headers of the requests that create objects, by their lower-case names.
    """

    ca_bundle: str | None = None
    proxy: str | None = None
    anonymous: bool = False
    requester_pays: bool = False
    write_headers: dict[str, str] = field(default_factory=dict)

    @property
    def of_s3_alone(self) -> list[str]:
        """The settings among them that the stores of other clouds don't have."""
        values = {
            "s3_proxy": self.proxy,
            "s3_anonymous": self.anonymous,
            "s3_requester_pays": self.requester_pays,
            "s3_write_headers": self.write_headers,
        }
        return [name for name, value in values.items() if value]

    @staticmethod
    def of(settings: Settings) -> S3Options:
        """The options of the settings.

        Raises:
            ConfigurationError: A setting has an invalid value, or the file of certificates doesn't exist.
        """
        bundle = settings.s3_ca_bundle
        if bundle is not None and not Path(bundle).is_file():
            raise ConfigurationError(
                f"the setting s3_ca_bundle is {bundle!r}, and there is no such file.",
                advice="Name a PEM file. The setting in_cluster_s3_ca_bundle names that of pods.",
            )
        return S3Options(
            ca_bundle=bundle,
            proxy=settings.s3_proxy,
            anonymous=_flag("s3_anonymous", settings.s3_anonymous),
            requester_pays=_flag("s3_requester_pays", settings.s3_requester_pays),
            write_headers=headers_of(settings.s3_write_headers),
        )


def check(settings: Settings) -> None:
    """Checks the form of the settings, whose files may be in pods.

    Raises:
        ConfigurationError: One is invalid.
    """
    _flag("s3_anonymous", settings.s3_anonymous)
    _flag("s3_requester_pays", settings.s3_requester_pays)
    headers_of(settings.s3_write_headers)
    for key in ("s3_proxy", "in_cluster_s3_proxy"):
        proxy = getattr(settings, key)
        if proxy is not None and not _is_proxy(proxy):
            raise ConfigurationError(
                f"the setting {key} is {urls.shown(proxy)!r}, which is not the URL of an HTTP proxy.",
                advice="Use a URL such as http://proxy.example.com:3128.",
            )


def headers_of(text: str | None) -> dict[str, str]:
    """The headers of the setting ``s3_write_headers``: ``name=value``, separated by commas.

    Raises:
        ConfigurationError: It is not written so, or has a header that can't be set.
    """
    found: dict[str, str] = {}
    for part in (text or "").split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        name = name.lower()
        if not part.strip():
            continue
        if name.startswith(_CUSTOMER_KEYS):
            raise ConfigurationError(
                f"the setting s3_write_headers has {name}, which k8sflow can't use.",
                cause="An object that is encrypted with your own key (SSE-C) can't be read without that key.",
                advice="Use a key of KMS: x-amz-server-side-encryption=aws:kms.",
            )
        if not equals or not value or not value.isprintable() or not _HEADER.fullmatch(name):
            raise ConfigurationError(
                f"the setting s3_write_headers has {part.strip()!r}.",
                advice='Write "name=value", separated by commas, with names that begin with x-amz-: '
                '"x-amz-server-side-encryption=aws:kms,x-amz-server-side-encryption-aws-kms-key-id=KEY".',
            )
        found[name] = value
    return found


def _flag(key: str, text: str | None) -> bool:
    if text is None:
        return False
    if text.lower() not in _FLAGS:
        raise ConfigurationError(f"the setting {key} is {text!r}.", advice='Use "true" or "false".')
    return _FLAGS[text.lower()]


def _is_proxy(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False
