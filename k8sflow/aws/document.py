"""A JSON document of the API of AWS Batch."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
