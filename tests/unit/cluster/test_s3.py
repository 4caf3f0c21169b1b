"""The harness's own S3 requests, signed like those of AWS's library."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from unittest import mock

from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.cluster.s3 import S3Server

NOW = datetime(2024, 5, 17, 12, 30, 45, tzinfo=timezone.utc)


def test_the_signature_is_that_of_botocore() -> None:
    """The authorization is the same as botocore's for the same request at the same time."""
    body, server = b"content", S3Server("http://127.0.0.1:30900", "key", "secret")
    request = AWSRequest("PUT", f"{server.endpoint}/bucket/an-object", data=body)
    request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    # botocore's signers have no other clock
    with mock.patch.object(auth, "get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        auth.S3SigV4Auth(Credentials("key", "secret"), "s3", "us-east-1").add_auth(request)
    headers = server.signed_headers("PUT", "/bucket/an-object", body, NOW.strftime("%Y%m%dT%H%M%SZ"))
    assert headers["authorization"] == request.headers["Authorization"]
