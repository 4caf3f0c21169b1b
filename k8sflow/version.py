"""The version of k8sflow."""

from __future__ import annotations

VERSION = "0.1.0"
