"""``@timeout`` inside of the task's process: the exception that ends a step whose time is over.

Whatever watches the task (the local executor, or the agent in a pod) sends it a signal when its time is over, and kills
it when the grace period is over too. The signal is not SIGALRM, and no timer of the process is used: both are free for
the step and its libraries. SIGVTALRM is of no use to them but with ``ITIMER_VIRTUAL``, which hardly anything sets.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from k8sflow.errors import TimeoutException
from k8sflow.flow.decorators.retry import TimeLimit
from k8sflow.task.death import timed_out

# Its default action ends the process: a task whose step has not begun has nothing to clean up.
TIME_IS_OVER = signal.SIGVTALRM


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


def exceeded(error: BaseException) -> float | None:
    """The timeout in seconds that an exception is due to, itself or what it was raised from; else None."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, TimeoutException) and found.limit_seconds is not None:
            return found.limit_seconds
        found = found.__cause__ or found.__context__
    return None


def _exception(seconds: float) -> TimeoutException:
    error = TimeoutException(timed_out(seconds).summary)
    error.limit_seconds = seconds
    return error
