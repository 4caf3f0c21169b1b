"""Every error that k8sflow raises on purpose.

    K8sflowError                 base; its text is written for the person who runs the flow
      ConfigurationError         a setting is missing or wrong, or the place it points to can't be used
      FlowDefinitionError        the class body is not a flow: graph, decorators, parameters
      ParameterError             a value given for a Parameter can't be used
      ArtifactError              an artifact can't be stored, found, verified or loaded
        UnhandledInMergeArtifactsException   joined branches disagree on artifacts
        MissingInMergeArtifactsException     no joined branch has an artifact that is to be taken over
      StorageError               the object store refused, can't be reached, or holds something damaged
        OutageError              it can't be reached, or answers that something is wrong with it: time may heal that
          UnreachableError       no connection could be made
      PackageError               the code package can't be made or opened
      KubernetesError            the API server refused or can't be reached
      RunError                   a run can't be started, found or gone on with
      TimeoutException           a step took longer than its @timeout; raised inside of the step

A message has three parts: what happened and where, the likely cause, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class K8sflowError(Exception):
    """Base of all errors of k8sflow, and of those of users who derive theirs from it, as from Metaflow's.

    Args:
        summary: What happened, and where, in one sentence.
        lineno: The line of the flow that the error is about, where the caller gives one.
        cause: The likely cause, or what is known about it.
        advice: What to do about it.
    """

    # A title that a derived class may have; it is shown before the summary.
    headline: ClassVar[str] = ""
    # Of a derived class that doesn't call this one's __init__.
    summary: str = ""
    cause: str = ""
    advice: str = ""

    def __init__(self, summary: str = "", lineno: int | None = None, *, cause: str = "", advice: str = "") -> None:
        super().__init__(summary)
        self.summary = str(summary) if lineno is None else f"line {lineno}: {summary}"
        self.message = self.summary  # its name in Metaflow
        self.line_no = lineno
        self.cause = cause
        self.advice = advice

    @property
    def titled(self) -> str:
        """The summary below the headline of its class, if that has one."""
        return ": ".join(filter(None, [self.headline, self.summary]))

    def __str__(self) -> str:
        return "\n".join(part for part in (self.summary, self.cause, self.advice) if part)

    def __reduce__(self) -> tuple[object, ...]:
        # Not by __init__, which takes other arguments in many a derived class.
        return (_rebuild, (type(self), self.args), vars(self))


def _rebuild(kind: type[K8sflowError], arguments: tuple[object, ...]) -> K8sflowError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class ConfigurationError(K8sflowError):
    """A setting is missing or wrong, or the place it points to can't be used."""


class FlowDefinitionError(K8sflowError):
    """The class body is not a flow: its graph, a decorator or a parameter is wrong."""

    # The single mistakes, each a k8sflow.flow.graph.Mistake, where they are known.
    mistakes: tuple[Any, ...] = ()


class ParameterError(K8sflowError):
    """A value given for a Parameter can't be used."""


class ArtifactError(K8sflowError):
    """An artifact can't be stored, found, verified or loaded."""


class UnhandledInMergeArtifactsException(ArtifactError):  # noqa: N818  Metaflow's name
    """Joined branches disagree on artifacts.

    Args:
        artifact_names: Which.
    """

    def __init__(self, summary: str, artifact_names: Sequence[str] = (), *, cause: str = "", advice: str = "") -> None:
        super().__init__(summary, cause=cause, advice=advice)
        self.artifact_names = list(artifact_names)


class MissingInMergeArtifactsException(ArtifactError):  # noqa: N818  Metaflow's name
    """No joined branch has an artifact that is to be taken over.

    Args:
        artifact_names: Which.
    """

    def __init__(self, summary: str, artifact_names: Sequence[str] = (), *, cause: str = "", advice: str = "") -> None:
        super().__init__(summary, cause=cause, advice=advice)
        self.artifact_names = list(artifact_names)


class StorageError(K8sflowError):
    """The object store refused, can't be reached, or holds something damaged."""


class OutageError(StorageError):
    """The object store can't be reached, or answers that something is wrong with it; the same call may work later."""


class UnreachableError(OutageError):
    """No connection to the object store could be made: it is down, or its address is wrong."""


class PackageError(K8sflowError):
    """The code package can't be made or opened."""


class KubernetesError(K8sflowError):
    """The API server refused a request, or can't be reached."""


class RunError(K8sflowError):
    """A run can't be started, found or gone on with."""


class TimeoutException(K8sflowError):  # noqa: N818  Metaflow's name
    """A step took longer than its ``@timeout``: raised inside of the step, which may catch it.

    Attributes:
        limit_seconds: The timeout that has passed; None where somebody else raised it.
    """

    limit_seconds: float | None = None
