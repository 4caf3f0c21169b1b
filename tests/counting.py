"""Counts the requests to a bucket."""

from __future__ import annotations

import collections
from typing import Any


class Counted:
    """A client of a bucket that counts the requests by kind."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.requests: collections.Counter[str] = collections.Counter()

    def __getattr__(self, name: str) -> Any:
        self.requests[name] += 1
        return getattr(self._client, name)
