"""Signatures of requests to S3: AWS Signature Version 4.

https://docs.aws.amazon.com/AmazonS3/latest/developerguide/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from k8sflow.storage.objects import Buffer

# Over TLS, the connection protects the body.
UNSIGNED = "UNSIGNED-PAYLOAD"
_ALGORITHM = "AWS4-HMAC-SHA256"
_UNESCAPED = "-_.~"


@dataclass(frozen=True)
class Keys:
    """The keys of a bucket.

    Args:
        access_key: The id of the key.
        secret_key: The key.
        token: The session's token, of temporary keys; empty for others.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


def path_of(bucket: str, key: str) -> str:
    """The path of an object's URL, as it is sent and signed."""
    return quote(f"/{bucket}/{key}" if key else f"/{bucket}", safe=f"/{_UNESCAPED}")


def query_of(values: Mapping[str, str]) -> str:
    """The query of a URL, as it is sent and signed."""
    return "&".join(f"{quote(name, safe=_UNESCAPED)}={quote(values[name], safe=_UNESCAPED)}" for name in sorted(values))


def digest(body: Iterable[Buffer]) -> str:
    """The SHA-256 of a body, for its signature."""
    found = hashlib.sha256()
    for part in body:
        found.update(part)
    return found.hexdigest()


def signed(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: str,
    keys: Keys,
    region: str,
    now: float,
) -> dict[str, str]:
    """The headers of a request with its signature.

    Args:
        method: The HTTP method.
        path: As of ``path_of``.
        query: As of ``query_of``.
        headers: Headers with lower-case names, ``host`` among them; all of them are signed.
        body: The body's ``digest``, or ``UNSIGNED``.
        keys: The keys.
        region: The bucket's region.
        now: The server's time, in seconds since the epoch.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    sent = {**headers, "x-amz-content-sha256": body, "x-amz-date": moment}
    if keys.token:
        sent["x-amz-security-token"] = keys.token
    names = ";".join(sorted(sent))
    listed = "".join(f"{name}:{' '.join(sent[name].split())}\n" for name in sorted(sent))
    request = f"{method}\n{path}\n{query}\n{listed}\n{names}\n{body}"
    text = f"{_ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{keys.access_key}/{scope}"
    sent["authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return sent
