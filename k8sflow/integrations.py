"""Events for other systems, under Metaflow's names: ``from k8sflow.integrations import ArgoEvent``."""

from __future__ import annotations

import functools
import json
import os
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from k8sflow.errors import ConfigurationError, K8sflowError
from k8sflow.flow.current import current

__all__ = ["ArgoEvent", "namespaced_event_name"]

# The webhook of Argo Events, as Metaflow's variable of the same meaning names it.
URL_VARIABLE = "K8SFLOW_ARGO_EVENTS_WEBHOOK_URL"
_PATIENCE_SECONDS = 60.0


class ArgoEvent:
    """An event that is posted to the webhook of Argo Events, in the form in which Metaflow posts it.

    Args:
        name: The event's name, or a function that returns it, such as ``namespaced_event_name("ready")``.
        url: The webhook; by default that of the environment variable ``K8SFLOW_ARGO_EVENTS_WEBHOOK_URL``.
        payload: Values that come with the event.
        access_token: Sent as a bearer token.
    """

    def __init__(
        self,
        name: str | Callable[[], str],
        url: str | None = None,
        payload: Mapping[str, Any] | None = None,
        access_token: str | None = None,
    ) -> None:
        self._name = name() if callable(name) else name
        self._url = url or os.environ.get(URL_VARIABLE)
        self._payload = dict(payload or {})
        self._access_token = access_token

    def add_to_payload(self, key: str, value: object) -> ArgoEvent:
        """Adds a value to the event, as a string; returns the event."""
        self._payload[key] = str(value)
        return self

    def safe_publish(self, payload: Mapping[str, Any] | None = None, ignore_errors: bool = True) -> str | None:  # noqa: FBT001, FBT002  as in Metaflow
        """Posts the event where a task of k8sflow runs in the cluster, and does nothing elsewhere.

        Args:
            payload: More values.
            ignore_errors: True to print an error rather than raise it.

        Returns:
            The id of the event; None if it was not posted.

        Raises:
            K8sflowError: It can't be posted.
        """
        return self.publish(payload, ignore_errors=ignore_errors) if "K8SFLOW_POD" in os.environ else None

    def publish(
        self,
        payload: Mapping[str, Any] | None = None,
        force: bool = True,  # noqa: FBT001, FBT002  as in Metaflow
        ignore_errors: bool = True,  # noqa: FBT001, FBT002
    ) -> str | None:
        """Posts the event.

        Args:
            payload: More values.
            force: False to do as ``safe_publish``.
            ignore_errors: True to print an error rather than raise it.

        Returns:
            The id of the event; None if it was not posted.

        Raises:
            K8sflowError: It can't be posted.
        """
        if not force:
            return self.safe_publish(payload, ignore_errors)
        try:
            return self._post({**self._payload, **(payload or {})})
        except K8sflowError as error:
            if not ignore_errors:
                raise
            print(f"[k8sflow] {error}", flush=True)  # noqa: T201  into the task's output
            return None

    def _post(self, payload: Mapping[str, Any]) -> str:
        if not self._url:
            raise ConfigurationError(
                f"the event {self._name} has nowhere to go: no webhook is set.",
                advice=f"Set {URL_VARIABLE} to the webhook of Argo Events, or pass url=.",
            )
        event = str(uuid.uuid4())
        now = time.time()
        facts = {
            "name": self._name,
            "id": event,
            "timestamp": int(now),
            "utc_date": datetime.fromtimestamp(now, timezone.utc).strftime("%Y%m%d"),
        }
        document = json.dumps({"name": self._name, "payload": {**facts, **payload}}, default=str)
        headers = {"Content-Type": "application/json"}
        if self._access_token:
            headers["Authorization"] = f"Bearer {self._access_token}"
        request = urllib.request.Request(self._url, document.encode(), headers, method="POST")  # noqa: S310  the user's URL
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS):  # noqa: S310  as above
                return event
        except (OSError, ValueError) as error:
            raise K8sflowError(f"the event {self._name} could not be posted to {self._url}: {error}") from error


def namespaced_event_name(event_name: str) -> Callable[[], str]:
    """A function that returns an event's name within the project and branch of the running flow.

    Args:
        event_name: The name without them.

    Returns:
        For ``ArgoEvent`` and ``@trigger``: ``mfns.PROJECT.BRANCH.NAME``; ``mfns.NAME`` outside of a project.

    Raises:
        ValueError: The name is not a string.
    """
    if not isinstance(event_name, str):
        raise ValueError(f"event_name should be a string, not {event_name!r}")  # noqa: TRY004  as in Metaflow
    return functools.partial(_namespaced, event_name)


def _namespaced(event_name: str, _context: object = None) -> str:
    around = [current.get("project_name"), current.get("branch_name")]
    return ".".join(["mfns", *filter(None, around), event_name])
