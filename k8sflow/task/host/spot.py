"""Notices of the clouds that a spot node is about to be taken away, from their metadata services.

AWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html, two minutes ahead
Google Cloud: https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption, 30 seconds ahead
Azure: https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events, at least 30 seconds ahead
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

_PAUSE_SECONDS = 5.0
_ANSWER_SECONDS = 2.0
_TOKEN_SECONDS = "21600"  # noqa: S105  how long a token of IMDSv2 is valid
_LINK_LOCAL = "http://169.254.169.254"


class MetadataService(Protocol):
    """The metadata service of a cloud."""

    name: str

    def notice(self) -> str:
        """The notice, for people; empty as long as there is none.

        Raises:
            OSError: The service can't be reached, or refuses to answer.
            ValueError: Its answer can't be read.
        """


class Aws:
    """The instance metadata service of EC2, version 2.

    Args:
        url: Its address; by default that of ``AWS_EC2_METADATA_SERVICE_ENDPOINT``.
    """

    name = "aws"

    def __init__(self, url: str = "") -> None:
        self._url = (url or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _LINK_LOCAL).rstrip("/")
        self._token = ""

    def notice(self) -> str:
        """The action and its time, as ``terminate at 2026-03-01T12:00:00Z``."""
        for _ in range(2):  # a token that has expired is replaced
            if not self._token:
                headers = {"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_SECONDS}
                self._token = _ask(f"{self._url}/latest/api/token", headers, method="PUT")
            try:
                path = f"{self._url}/latest/meta-data/spot/instance-action"
                found = json.loads(_ask(path, {"X-aws-ec2-metadata-token": self._token}))
                return f"{found['action']} at {found['time']}"
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == HTTPStatus.NOT_FOUND:
                    return ""
                if error.code != HTTPStatus.UNAUTHORIZED:
                    raise
                self._token = ""
            except (KeyError, TypeError) as error:
                raise ValueError(f"an instance-action without {error}") from error
        raise OSError("it refuses the token that it has just issued")


class Gcp:
    """The metadata server of Compute Engine.

    Args:
        url: Its address; by default that of ``GCE_METADATA_HOST``.
    """

    name = "gcp"

    def __init__(self, url: str = "") -> None:
        self._url = url or f"http://{os.environ.get('GCE_METADATA_HOST') or 'metadata.google.internal'}"

    def notice(self) -> str:
        """``preempted`` when the instance is."""
        path = f"{self._url}/computeMetadata/v1/instance/preempted"
        return "preempted" if _ask(path, {"Metadata-Flavor": "Google"}).strip() == "TRUE" else ""


class Azure:
    """The instance metadata service of Azure.

    Args:
        url: Its address.
    """

    name = "azure"

    def __init__(self, url: str = _LINK_LOCAL) -> None:
        self._url = url
        self._machine = ""

    def notice(self) -> str:
        """The time from which on the machine may be taken away: the events are those of all machines of its set."""
        headers = {"Metadata": "true"}
        if not self._machine:
            path = f"{self._url}/metadata/instance/compute/name?api-version=2021-02-01&format=text"
            self._machine = _ask(path, headers).strip()
        events = json.loads(_ask(f"{self._url}/metadata/scheduledevents?api-version=2020-07-01", headers))
        try:
            for event in events["Events"]:
                if event["EventType"] == "Preempt" and self._machine in event["Resources"]:
                    return f"preempted, not before {event.get('NotBefore') or 'now'}"
        except (KeyError, TypeError) as error:
            raise ValueError(f"scheduled events without {error}") from error
        return ""


_SERVICES: Mapping[str, Callable[[], MetadataService]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}


def service(cloud: str) -> MetadataService:
    """The metadata service of a cloud, as the pod reaches it."""
    return _SERVICES[cloud]()


def wait_for_notice(
    service: MetadataService, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> str:
    """Waits for the notice; a service that can't be asked is reported once, and asked again.

    Args:
        service: The metadata service.
        say: Takes a message for people.
        sleep: Waits so many seconds.
    """
    is_reported = False
    while True:
        try:
            if notice := service.notice():
                return notice
            is_reported = False
        except (OSError, ValueError) as error:
            if not is_reported:
                say(
                    f"the metadata service of {service.name} can't be asked for spot notices: {error}. "
                    "Pods may need to be allowed to reach it (on AWS: a hop limit of 2). Trying again every 5 s."
                )
                is_reported = True
        sleep(_PAUSE_SECONDS)


def _ask(url: str, headers: Mapping[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310  of the cloud, see above
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on the node itself
    with opener.open(request, timeout=_ANSWER_SECONDS) as answer:
        text: str = answer.read().decode()
        return text
