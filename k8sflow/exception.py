"""Metaflow's names for errors, so that a flow is ported by its imports: ``from k8sflow.exception import …``."""

from __future__ import annotations

from k8sflow.errors import AccessError as MetaflowS3AccessDenied
from k8sflow.errors import CaughtError as MetaflowExceptionWrapper
from k8sflow.errors import FlowDefinitionError as InvalidDecoratorAttribute
from k8sflow.errors import K8sflowError as MetaflowException
from k8sflow.errors import MissingInMergeArtifactsException, TimeoutException, UnhandledInMergeArtifactsException
from k8sflow.errors import NamespaceMismatchError as MetaflowNamespaceMismatch
from k8sflow.errors import NotFoundError as MetaflowInvalidPathspec
from k8sflow.errors import NotFoundError as MetaflowNotFound
from k8sflow.errors import ObjectNotFoundError as MetaflowS3NotFound
from k8sflow.errors import ParameterError as ParameterFieldFailed
from k8sflow.errors import S3Error as MetaflowS3Exception
from k8sflow.errors import S3RangeError as MetaflowS3InvalidRange
from k8sflow.errors import S3UrlError as MetaflowS3URLException
from k8sflow.errors import TagError as MetaflowTaggingError

ParameterFieldTypeMismatch = ParameterFieldFailed


class MetaflowInternalError(MetaflowException):
    """An error of a user's own library; k8sflow raises none."""

    headline = "Internal error"


class CommandException(MetaflowException):
    """An error of a user's own command; k8sflow raises none."""

    headline = "Invalid command"


class ExternalCommandFailed(MetaflowException):
    """An error of a program that a user's own code has called; k8sflow raises none."""

    headline = "External command failed"


class MetaflowDataMissing(MetaflowException):
    """An error of a user's own library; k8sflow raises ``ArtifactError`` for an artifact that was deleted."""

    headline = "Data missing"


class MetaflowUnknownUser(MetaflowException):
    """An error of a user's own library; to k8sflow, a user id without a name is the user ``unknown``."""

    headline = "Unknown user"


__all__ = [
    "CommandException",
    "ExternalCommandFailed",
    "InvalidDecoratorAttribute",
    "MetaflowDataMissing",
    "MetaflowException",
    "MetaflowExceptionWrapper",
    "MetaflowInternalError",
    "MetaflowInvalidPathspec",
    "MetaflowNamespaceMismatch",
    "MetaflowNotFound",
    "MetaflowS3AccessDenied",
    "MetaflowS3Exception",
    "MetaflowS3InvalidRange",
    "MetaflowS3NotFound",
    "MetaflowS3URLException",
    "MetaflowTaggingError",
    "MetaflowUnknownUser",
    "MissingInMergeArtifactsException",
    "ParameterFieldFailed",
    "ParameterFieldTypeMismatch",
    "TimeoutException",
    "UnhandledInMergeArtifactsException",
]
