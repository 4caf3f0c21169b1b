"""The meaning of a failed request to S3: k8sflow's error for each error of a client, with the cause and the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from k8sflow.errors import (
    AccessError,
    BucketNotFoundError,
    ConfigurationError,
    K8sflowError,
    ObjectNotFoundError,
    OutageError,
    S3RangeError,
    StorageError,
    UnreachableError,
)
from k8sflow.storage import s3_errors
from k8sflow.storage.s3_client import NoAnswerError, NoKeysError, RefusedError, StoreClient

NOT_FOUND = {"404", "NoSuchKey", "NotFound"}
NO_SUCH_RANGE = {"416", "InvalidRange"}
TAKEN = {"412", "PreconditionFailed"}
# Simultaneous writes: S3 has refused this one, and perhaps the others too, and expects another try.
UNDECIDED = {"409", "ConditionalRequestConflict"}
# The server was restarted and lost an upload.
_BROKEN_OFF = {"NoSuchUpload", "RequestTimeout", "IncompleteBody"}
_OTHER_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "301"}
_ADVICE = {"MetadataTooLarge": "S3 keeps 2 kB of metadata for an object: store more than that in an object of its own."}


@dataclass(frozen=True)
class Hints:
    """The advice that depends on what the requests are for.

    Args:
        endpoint: What to do if the server can't be reached.
        bucket: What to do if there is no such bucket.
        region: What to do if the bucket is in another region.
        missing: What to do if there is no such object.
    """

    endpoint: str
    bucket: str
    region: str
    missing: str = ""


# The hints for the stores of runs.
OF_S3 = Hints(
    endpoint="Check the setting endpoint (K8SFLOW_ENDPOINT), or in_cluster_endpoint for pods and jobs.",
    bucket="Create it, or correct the setting bucket (K8SFLOW_BUCKET) or endpoint (K8SFLOW_ENDPOINT).",
    region="Set the region that the server expects (K8SFLOW_REGION).",
)
OF_GOOGLE = Hints(
    endpoint="Check the network, and STORAGE_EMULATOR_HOST if it is set.",
    bucket="Create it, or correct its name in --datastore or the setting root (K8SFLOW_ROOT).",
    region="",
)


OF_AZURE = Hints(
    endpoint="Check the network, and the name of the account in AZURE_STORAGE_ACCOUNT or "
    "AZURE_STORAGE_CONNECTION_STRING.",
    bucket="Create the container, or correct its name in --datastore or the setting root (K8SFLOW_ROOT).",
    region="",
)


class Translation:
    """Translates the errors of the requests to one bucket.

    Args:
        bucket: The bucket.
        endpoint: URL of the server; None for AWS.
        hints: The advice.
    """

    def __init__(self, bucket: str, endpoint: str | None, hints: Hints) -> None:
        self._bucket = bucket
        self._server = endpoint or "AWS S3"
        self._hints = hints

    @contextlib.contextmanager
    def of(self, client: StoreClient, url: str) -> Iterator[None]:
        """Translates what a block raises.

        Args:
            client: The client of the block, which may have got new keys.
            url: The object, or the prefix, that the block is about.

        Raises:
            K8sflowError: A request failed.
        """
        try:
            yield
        except NoKeysError as error:
            raise AccessError(
                f"there are no keys for {url} at {self._server}: {error}.",
                advice="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            ) from error
        except RefusedError as error:
            if error.code in s3_errors.EXPIRED and client.renew():
                raise OutageError(
                    f"{self._server} didn't accept the keys for {url}, which had expired ({error.code})."
                ) from error
            raise self._missing(error, url) or self._refusal(error, url) from error
        except NoAnswerError as error:
            kind = UnreachableError if error.is_unreachable else OutageError
            raise kind(
                f"{self._server} can't be reached for {url}: {error}.",
                cause="The server is down, or the endpoint is wrong.",
                advice=self._hints.endpoint,
            ) from error
        except (ValueError, OSError) as error:  # as for a key that can't be sent
            raise StorageError(f"{url} at {self._server}: {error}") from error

    def _missing(self, error: RefusedError, url: str) -> K8sflowError | None:
        """The error of a refusal if something doesn't exist."""
        if error.code == "NoSuchBucket":
            what = f"there is no bucket {self._bucket!r} at {self._server}, for {url}."
            return BucketNotFoundError(what, advice=self._hints.bucket)
        if error.code in NOT_FOUND:
            return ObjectNotFoundError(f"there is no {url}.", advice=self._hints.missing)
        if error.code in NO_SUCH_RANGE:
            return S3RangeError(f"{url} has none of the bytes of the range.", advice="S3.info(key).size is its size.")
        return None

    def _refusal(self, error: RefusedError, url: str) -> K8sflowError:
        code = error.code
        if error.status == HTTPStatus.NOT_IMPLEMENTED:
            return ConfigurationError(
                f"{self._server} can't do what k8sflow needs: it answers the request for {url} with {code} (501).",
                cause="Results of tasks, and S3.put(overwrite=False), need conditional writes (If-None-Match: *), "
                "which not all servers have.",
                advice="Use an S3 server with conditional writes, or a newer version. `k8sflow doctor` tries them.",
            )
        for found in (
            s3_errors.refused_keys(code, self._server, url),
            s3_errors.wrong_clock(code, error.date, f"{self._server} refuses {url}"),
            s3_errors.denied(code, self._server, url),
        ):
            if found is not None:
                return found
        is_outage = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _BROKEN_OFF | UNDECIDED
        advice = self._hints.region if code in _OTHER_REGION else _ADVICE.get(code, "")
        return (OutageError if is_outage else StorageError)(f"{self._server} refused {url}: {error}", advice=advice)
