"""The exception that ``@catch`` keeps as an artifact."""

from __future__ import annotations


class CaughtError(Exception):
    """A failure that ``@catch`` caught; raise it to fail after all.

    Args:
        type: The exception's class: ``builtins.ValueError``; ``builtins.MemoryError`` where the task ran out of memory,
            ``k8sflow.errors.TimeoutException`` where its time was over, ``builtins.RuntimeError`` where its process
            died.
        exception: Its message.
        stacktrace: The traceback, or other details.
        outcome: How the task ended: user_error, timed_out, out_of_memory.
    """

    def __init__(self, type: str, exception: str, stacktrace: str = "", outcome: str = "user_error") -> None:  # noqa: A002
        super().__init__(type, exception, stacktrace, outcome)
        self.type = type
        self.exception = exception
        self.stacktrace = stacktrace
        self.outcome = outcome

    def __str__(self) -> str:
        return self.stacktrace or f"[no stacktrace]\n{self._brief}"

    @property
    def _brief(self) -> str:
        return f"{self.type}: {self.exception}" if self.exception else self.type

    def __repr__(self) -> str:
        return f"<caught {self._brief}>"
