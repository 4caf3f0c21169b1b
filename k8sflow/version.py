"""The version of k8sflow: the one source of it. `make release` sets it; the packages read it from here."""

from __future__ import annotations

VERSION = "0.1.0"
