"""``@timeout`` inside of the task's process: the exception that ends a step whose time is over.

The local executor, or the agent in a pod, sends the task a signal when its time is over, and kills it when the grace
period is over too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from k8sflow.errors import TimeoutException
from k8sflow.flow.decorators.policy import TimeLimit
from k8sflow.task.conventions import TIME_IS_OVER
from k8sflow.task.failure import timed_out


@contextmanager
def limited(limit: TimeLimit | None) -> Iterator[None]:
    """Lets the signal raise TimeoutException in the block, once; after the block the signal is ignored.

    Args:
        limit: How long the task may take; None where nothing will be sent.

    Raises:
        TimeoutException: The time was over while the block ran.
    """
    if limit is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, _pass)
        raise _exception(limit.seconds)

    signal.signal(TIME_IS_OVER, interrupt)
    try:
        yield
    finally:
        signal.signal(TIME_IS_OVER, _pass)


def _pass(_number: int, _frame: FrameType | None) -> None:
    """Does nothing; unlike SIG_IGN, that is not passed on to programs that the task starts."""


def _exception(seconds: float) -> TimeoutException:
    error = TimeoutException(timed_out(seconds).explained.summary)
    error.limit_seconds = seconds
    return error
