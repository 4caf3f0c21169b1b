"""Names that AWS Batch accepts, derived from names that people chose; a hash keeps different ones different."""

from __future__ import annotations

import hashlib

from k8sflow.naming import digest, slug

_KEPT = "A-Za-z0-9_"


def flow_prefix(flow: str) -> str:
    """The beginning of the names of all jobs of a flow; other flows' may begin in the same way."""
    return f"{slug(flow, 30, _KEPT)}-"


def job_prefix(*, flow: str, run: str) -> str:
    """The beginning of the names of all jobs of a run."""
    return f"{flow_prefix(flow)}{digest(flow, run)}-"


def job_name(*, flow: str, run: str, step: str, tasks: str, attempt: int) -> str:
    """The name of a job, derived from the attempt and the ids of its tasks alone: a repeated submit can be found."""
    return f"{job_prefix(flow=flow, run=run)}{slug(step, 30, _KEPT)}-{digest(step, tasks)}-{attempt}"


def definition_name(document: str) -> str:
    """The name of the job definition with a content."""
    return f"k8sflow-{hashlib.sha256(document.encode()).hexdigest()[:24]}"
