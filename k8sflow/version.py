"""The version of k8sflow: the one source of it. `make release` sets it; the packages read it from here."""

from __future__ import annotations

VERSION = "0.1.0"


def get_version(public: bool = False) -> str:  # noqa: ARG001, FBT001, FBT002  as metaflow.metaflow_version has it
    """The version, as ``metaflow.metaflow_version`` gives Metaflow's."""
    return VERSION
