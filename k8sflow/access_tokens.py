"""Access tokens of clouds, which end after an hour or so and are replaced in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from k8sflow.errors import OutageError

# A token is replaced this long before its end, so that no request is sent with one that ends on the way.
_EARLY_SECONDS = 120


@dataclass(frozen=True)
class Token:
    """An access token.

    Args:
        value: The token.
        end: When it ends, in seconds since the epoch.
        quota_project: The project whose quota is used, which some services ask for with a person's token.
    """

    value: str
    end: float
    quota_project: str = ""

    @property
    def has_ended(self) -> bool:
        """True if it can't be used any more."""
        return time.time() >= self.end

    @property
    def is_fresh(self) -> bool:
        """True if it can be used for another request."""
        return time.time() < self.end - _EARLY_SECONDS


class KeptToken:
    """A token that is shared by threads and replaced before it ends.

    Args:
        make: Returns a new token.
    """

    def __init__(self, make: Callable[[], Token]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self.token: Token | None = None

    def value(self) -> str:
        """The token for a request.

        Raises:
            AccessError: There are no credentials, or they are refused.
            OutageError: The server of tokens can't be reached, and the last token has ended.
        """
        with self._lock:
            token = self.token
            if token is None or not token.is_fresh:
                try:
                    token = self.token = self._make()
                except OutageError:
                    if token is None or token.has_ended:  # else there is time for other tries
                        raise
            return token.value

    def forget(self) -> None:
        """Drops the token, which a server has refused, so that the next request has a new one."""
        with self._lock:
            self.token = None
