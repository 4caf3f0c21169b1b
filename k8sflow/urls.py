"""URLs in what people read."""

from __future__ import annotations

import re


def shown(url: str) -> str:
    """A URL without a user, a password or a query, which may be credentials; other texts are not changed.

    Args:
        url: The URL, which need not be valid.
    """
    return re.sub(r"\?.*", "?***", re.sub(r"^(.*?://)?.*@", r"\1***@", url, flags=re.DOTALL), flags=re.DOTALL)
