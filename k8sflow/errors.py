"""Every error that k8sflow raises on purpose, so that one ``except K8sflowError`` catches them all.

    K8sflowError                     base; its message is shown to the user as it is
      ConfigurationError             a setting is missing, invalid, or names something unusable
        AccessError                  the object store refuses the keys, or denies them what they are used for
        BucketNotFoundError          there is no bucket of this name
      FlowDefinitionError            the class is not a valid flow: its graph, a decorator or a parameter
      ParameterError                 the value given for a Parameter is invalid
      ArtifactError                  an artifact can't be stored, found, verified or loaded
        MissingArtifactError         a step read an artifact that was never set; also an AttributeError
        UnhandledInMergeArtifactsException   joined branches disagree about artifacts
        MissingInMergeArtifactsException     no joined branch has an artifact that ``include`` names
      StorageError                   the object store refused a request, is unreachable, or holds damaged data
        ObjectNotFoundError          there is no object under the key
        OutageError                  it is unreachable or unavailable; the same call may work later
          UnreachableError           no connection could be made
      S3Error                        a call of ``S3`` can't do what it asks for
        S3UrlError                   a URL or a key is not one, or doesn't fit the ``S3``
        S3ClosedError                the ``with`` block has ended
        S3RangeError                 the object has none of the bytes of a range
      PackageError                   the code package can't be built or unpacked
      DependencyError                the packages of a step can't be resolved or installed
      KubernetesError                the API server refused a request, or is unreachable
        ApiStatusError               it answered with a status of 400 or more
        ApiUnreachableError          it gave no answer: refused, timed out, cut off, or TLS failed
      BatchError                     AWS Batch refused a request, or is unreachable
        LoginEndedError              the login with which a run was started has ended; its jobs keep running
      RunError                       a run can't be started, found or resumed
        RunCancelledError            another person or process has cancelled the run
        SupersededError              another process drives the run now
        TagError                     a tag is invalid
      NotFoundError                  no such flow, run, step, task or artifact; also a KeyError
      NamespaceMismatchError         the run exists, but not in the namespace that is searched
      CaughtError                    what ``@catch`` stores about the exception that ended a step
      TimeoutException               a step exceeded its ``@timeout``; raised inside the step

``parallel_map`` works without the rest of k8sflow, so its errors are built on Python's alone (``k8sflow.parallel``):

    RuntimeError
      WorkerDied                     a worker process was killed, crashed or exited
        WorkerOutOfMemory            the kernel killed it for lack of memory; also a MemoryError
      RemoteError                    replaces an exception that can't be pickled

All of them can be imported from ``k8sflow``. A message has three parts: what happened and where, the likely cause, what
to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from k8sflow.flow.problems import Problem

_FINAL_STATUSES = {400, 401, 403, 404, 405, 422}


class K8sflowError(Exception):
    """Base of k8sflow's errors, and of users' own, who may derive from it as from Metaflow's.

    Args:
        summary: What happened, and where, in one sentence.
        lineno: Line of the flow that the error is about, if known.
        source_file: The file of that line, if known.
        cause: Likely cause, or what is known about it.
        advice: What to do.
    """

    # A title that a derived class may set; shown before the summary.
    headline: ClassVar[str] = ""
    # For derived classes that don't call this class's __init__.
    summary: str = ""
    cause: str = ""
    advice: str = ""

    def __init__(
        self,
        summary: str = "",
        lineno: int | None = None,
        source_file: str | None = None,
        *,
        cause: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(summary)
        where = [f"{source_file}:"] if source_file else []
        where += [f"line {lineno}:"] if lineno is not None else []
        self.summary = " ".join([*where, str(summary)])
        self.message = self.summary  # its name in Metaflow
        self.line_no = lineno
        self.source_file = source_file
        self.cause = cause
        self.advice = advice

    @property
    def titled(self) -> str:
        """The summary, after the headline of the class if there is one."""
        return ": ".join(filter(None, [self.headline, self.summary]))

    def __str__(self) -> str:
        return "\n".join(part for part in (self.summary, self.cause, self.advice) if part)

    def __reduce__(self) -> tuple[object, ...]:
        # Bypasses __init__, whose arguments differ in derived classes.
        return (_rebuild, (type(self), self.args), vars(self))


def _rebuild(kind: type[K8sflowError], arguments: tuple[object, ...]) -> K8sflowError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class ConfigurationError(K8sflowError):
    """A setting is missing, invalid, or names something unusable."""


class AccessError(ConfigurationError):
    """The object store refuses the keys, or denies them what they are used for."""


class BucketNotFoundError(ConfigurationError):
    """There is no bucket of this name."""


class FlowDefinitionError(K8sflowError):
    """The class is not a valid flow: its graph, a decorator or a parameter is wrong."""

    # The individual mistakes, if they are known.
    mistakes: tuple[Problem, ...] = ()


class ParameterError(K8sflowError):
    """The value given for a Parameter is invalid."""


class ArtifactError(K8sflowError):
    """An artifact can't be stored, found, verified or loaded."""

    # The class of the value that can't be loaded, with its module; empty where it isn't known.
    of_type: str = ""


class MissingArtifactError(ArtifactError, AttributeError):
    """A step read an artifact that was never set.

    An AttributeError as well, so that ``hasattr`` and ``getattr`` with a default work on artifacts.

    Args:
        explain: Returns the likely cause. Called only when the text is needed, since ``hasattr`` raises this often.
    """

    def __init__(
        self,
        summary: str = "",
        lineno: int | None = None,
        *,
        cause: str = "",
        advice: str = "",
        explain: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(summary, lineno, cause=cause, advice=advice)
        self._explain = explain

    @property
    def titled(self) -> str:
        """The summary, and why the artifact is missing."""
        return str(self)

    def __str__(self) -> str:
        if self._explain is None:
            return super().__str__()
        return f"{self.summary} {self._explain()}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        kind, arguments, state = super().__reduce__()
        assert isinstance(state, dict)
        return kind, arguments, {**state, "summary": str(self), "_explain": None} if self._explain else state


class UnhandledInMergeArtifactsException(ArtifactError):  # noqa: N818  Metaflow's name
    """Joined branches disagree about artifacts.

    Args:
        artifact_names: The artifacts.
    """

    def __init__(self, summary: str, artifact_names: Sequence[str] = (), *, cause: str = "", advice: str = "") -> None:
        super().__init__(summary, cause=cause, advice=advice)
        self.artifact_names = list(artifact_names)


class MissingInMergeArtifactsException(ArtifactError):  # noqa: N818  Metaflow's name
    """No joined branch has an artifact that ``include`` names.

    Args:
        artifact_names: The artifacts.
    """

    def __init__(self, summary: str, artifact_names: Sequence[str] = (), *, cause: str = "", advice: str = "") -> None:
        super().__init__(summary, cause=cause, advice=advice)
        self.artifact_names = list(artifact_names)


class StorageError(K8sflowError):
    """The object store refused a request, is unreachable, or holds damaged data."""


class ObjectNotFoundError(StorageError):
    """There is no object under the key."""


class OutageError(StorageError):
    """The object store is unreachable or unavailable; the same call may work later."""


class UnreachableError(OutageError):
    """No connection to the object store could be made: it is down, or its address is wrong."""


class S3Error(K8sflowError):
    """A call of ``S3`` can't do what it asks for: a wrong argument, or a file that can't be read or written."""


class S3UrlError(S3Error):
    """A URL or a key is not one, or doesn't fit the ``S3``."""


class S3ClosedError(S3Error):
    """The ``with`` block of an ``S3`` has ended, and its files were deleted."""


class S3RangeError(S3Error):
    """The object has none of the bytes of a range."""


class PackageError(K8sflowError):
    """The code package can't be built or unpacked."""


class DependencyError(K8sflowError):
    """The packages of a step can't be resolved or installed."""


class KubernetesError(K8sflowError):
    """The API server refused a request, or is unreachable."""


class ApiStatusError(KubernetesError):
    """The API server answered with a status of 400 or more.

    Args:
        status: HTTP status.
        reason: Machine-readable reason of the answer ("AlreadyExists"), or "".
        message: The server's message.
        retry_after_seconds: How long the server asked to wait, or None.
    """

    def __init__(
        self,
        summary: str,
        *,
        cause: str = "",
        advice: str = "",
        status: int = 0,
        reason: str = "",
        message: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(summary, cause=cause, advice=advice)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_final(self) -> bool:
        """True if the same request would be refused again unless a person acts.

        An exhausted quota is reported as 403, but frees up as other objects are deleted.
        """
        return self.status in _FINAL_STATUSES and "exceeded quota" not in self.message


class ApiUnreachableError(KubernetesError):
    """The API server gave no answer: the connection was refused, timed out, was cut off, or TLS failed."""


class BatchError(K8sflowError):
    """AWS Batch refused a request, or is unreachable.

    Args:
        code: AWS's code of the error ("AccessDeniedException"); empty where there was no answer.
    """

    def __init__(self, summary: str, *, cause: str = "", advice: str = "", code: str = "") -> None:
        super().__init__(summary, cause=cause, advice=advice)
        self.code = code


class LoginEndedError(BatchError):
    """The login with which a run was started has ended; its jobs keep running, and can be attached to."""


class RunError(K8sflowError):
    """A run can't be started, found or resumed."""


class RunCancelledError(RunError):
    """Another person or process has cancelled the run."""


class SupersededError(RunError):
    """Another process drives the run now; this driver stops without changing it."""


class TagError(RunError):
    """A tag is invalid."""


class NotFoundError(K8sflowError, KeyError):
    """There is no such flow, run, step, task or artifact in the stores that were searched."""

    def __str__(self) -> str:
        return K8sflowError.__str__(self)


class NamespaceMismatchError(K8sflowError):
    """The run exists, but not in the namespace that is searched; or a flow has runs in other namespaces only."""


class CaughtError(K8sflowError):
    """The exception of a step that ``@catch`` let the run survive; raise it to fail after all.

    Args:
        type: The exception's class: ``builtins.ValueError``; ``builtins.MemoryError`` if the task ran out of memory,
            ``k8sflow.errors.TimeoutException`` if it exceeded its time, ``builtins.RuntimeError`` if its process died.
        exception: The exception's text.
        stacktrace: The traceback, or what else is known.
        outcome: How the task ended: user_error, timed_out, out_of_memory.
    """

    def __init__(self, type: str, exception: str, stacktrace: str = "", outcome: str = "user_error") -> None:  # noqa: A002
        super().__init__(f"{type}: {exception}" if exception else type, cause=stacktrace)
        self.type = type
        self.exception = exception
        self.stacktrace = stacktrace
        self.outcome = outcome

    def __str__(self) -> str:
        return self.stacktrace or f"[no stacktrace]\n{self.summary}"

    def __repr__(self) -> str:
        return f"<caught {self.summary}>"


class TimeoutException(K8sflowError):  # noqa: N818  Metaflow's name
    """A step exceeded its ``@timeout``; raised inside the step, which may catch it.

    Attributes:
        limit_seconds: The timeout; None if something else raised this.
    """

    limit_seconds: float | None = None
