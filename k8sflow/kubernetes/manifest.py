"""Objects of the Kubernetes API as dictionaries, as JSON has them."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]


def condition(found: Manifest, kind: str, *, status: str = "True") -> Manifest | None:
    """The condition of an object's status that has this type and is true (or has another status), or None."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind and c.get("status") == status), None)
