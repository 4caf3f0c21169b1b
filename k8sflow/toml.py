"""TOML, which Python's standard library reads from 3.11 on."""

from __future__ import annotations

import sys
from typing import Any


def loads(text: str) -> dict[str, Any]:
    """The table that a text holds.

    Raises:
        ValueError: It is not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415  only for those who have such a file
    else:
        import tomli as tomllib  # noqa: PLC0415  as above

    document: dict[str, Any] = tomllib.loads(text)
    return document
