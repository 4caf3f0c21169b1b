"""Metaflow's names for errors, so that a flow is ported by its imports: ``from k8sflow.exception import …``."""

from __future__ import annotations

from k8sflow.errors import AccessError as MetaflowS3AccessDenied
from k8sflow.errors import CaughtError as MetaflowExceptionWrapper
from k8sflow.errors import K8sflowError as MetaflowException
from k8sflow.errors import MissingInMergeArtifactsException, TimeoutException, UnhandledInMergeArtifactsException
from k8sflow.errors import NamespaceMismatchError as MetaflowNamespaceMismatch
from k8sflow.errors import NotFoundError as MetaflowNotFound
from k8sflow.errors import ObjectNotFoundError as MetaflowS3NotFound
from k8sflow.errors import S3Error as MetaflowS3Exception
from k8sflow.errors import S3RangeError as MetaflowS3InvalidRange
from k8sflow.errors import S3UrlError as MetaflowS3URLException

__all__ = [
    "MetaflowException",
    "MetaflowExceptionWrapper",
    "MetaflowNamespaceMismatch",
    "MetaflowNotFound",
    "MetaflowS3AccessDenied",
    "MetaflowS3Exception",
    "MetaflowS3InvalidRange",
    "MetaflowS3NotFound",
    "MetaflowS3URLException",
    "MissingInMergeArtifactsException",
    "TimeoutException",
    "UnhandledInMergeArtifactsException",
]
