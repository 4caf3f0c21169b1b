"""Metaflow's names for errors, so that a flow is ported by its imports: ``from k8sflow.exception import …``."""

from __future__ import annotations

from k8sflow.errors import CaughtError as MetaflowExceptionWrapper
from k8sflow.errors import K8sflowError as MetaflowException
from k8sflow.errors import MissingInMergeArtifactsException, TimeoutException, UnhandledInMergeArtifactsException
from k8sflow.errors import NamespaceMismatchError as MetaflowNamespaceMismatch
from k8sflow.errors import NotFoundError as MetaflowNotFound

__all__ = [
    "MetaflowException",
    "MetaflowExceptionWrapper",
    "MetaflowNamespaceMismatch",
    "MetaflowNotFound",
    "MissingInMergeArtifactsException",
    "TimeoutException",
    "UnhandledInMergeArtifactsException",
]
