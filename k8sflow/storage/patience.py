"""Patience with a server that can't be reached: how long a call waits for it, and how the wait is reported.

The time depends on what is at stake: a command that reads waits half a minute, while a task with a result to save and
the driver of a run wait for minutes (the setting ``storage_patience_seconds``). Before the first answer, nothing is at
stake and the endpoint may be wrong, so by default calls don't wait then.

A server that denies access is asked again a few times, within three seconds: some deny everything while they start.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import math
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, cast

from k8sflow.debug_log import DebugLog
from k8sflow.errors import AccessError, OutageError
from k8sflow.jitter import JITTER
from k8sflow.outages import Notice, Outage, Report
from k8sflow.units import rough_duration

COMMAND_SECONDS = 30.0
# The driver has reached the bucket. A task that can't for this long may have a wrong endpoint.
FIRST_ANSWER_SECONDS = 120.0
# The first task of a run is also the first to use the pods' endpoint, and nothing is lost if it gives up.
FIRST_CONTACT_SECONDS = 15.0
_log = DebugLog(__name__)
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 8.0
_DENIED_PAUSES_SECONDS = (0.3, 0.7, 1.5)
_FIRST_DENIED_PAUSES_SECONDS = (0.3, 0.7)
# A method of a store, whose type the decorator preserves.
_Method = TypeVar("_Method", bound=Callable[..., Any])


class Patience:
    """The patience of one store with its server; shared by all threads that use the store.

    Args:
        seconds: The longest wait after the server has answered once.
        first_seconds: The longest wait for its first answer.
        report: Called when a call has waited for a few seconds, and when the server answers again; in the thread of
            the call.
    """

    def __init__(
        self,
        seconds: float = COMMAND_SECONDS,
        first_seconds: float = 0.0,
        report: Report | None = None,
    ) -> None:
        self.seconds = seconds
        self.first_seconds = first_seconds
        self.outage = Outage("The bucket", report)
        self.has_answered = False
        # Whether the server has denied access since its last answer, and did so again when it was asked again.
        self.is_denied = False
        self._limited = threading.Event()
        self._end = math.inf

    def after_fork(self) -> Patience:
        """The same patience for a forked process, with its own locks; it reports to standard error."""
        patience = Patience(self.seconds, self.first_seconds, say)
        patience.has_answered = self.has_answered
        return patience

    def limit(self, seconds: float) -> None:
        """Limits how long all calls together wait from now on, including those that already wait."""
        _log.debug("From now on, calls wait for at most %.1f s.", seconds)
        self._end = min(self._end, time.monotonic() + seconds)
        self._limited.set()

    def check(self) -> None:
        """Returns if a call is worth a try: a call to an unreachable server may take a minute by itself.

        Raises:
            OutageError: The server can't be reached, and the time is up.
        """
        if self.outage.is_on and time.monotonic() >= self._end:
            raise OutageError("the bucket can't be reached, and this process is ending.")

    def allows(self, waited: float) -> bool:
        """True if a call that will have waited for this long may continue to wait."""
        return waited <= (self.seconds if self.has_answered else self.first_seconds) and time.monotonic() < self._end

    def pause(self, seconds: float) -> None:
        """Waits before the next try, but not past the time at which the outage is to be reported."""
        seconds = min(seconds, self.outage.seconds_to_report or seconds)
        if self._limited.wait(seconds):
            time.sleep(min(seconds, _FIRST_PAUSE_SECONDS))

    def failed(self, error: OutageError, lasted_seconds: float) -> None:
        """Records that the server can't be reached; reports it after a while."""
        most = self.seconds if self.has_answered else self.first_seconds
        advice = "" if self.has_answered else f" {error.advice}"
        self.outage.failed(f"{error.summary} Retrying for up to {rough_duration(most)}.{advice}", lasted_seconds)

    def answered(self) -> None:
        """Records that the server has answered; reports it if the outage was reported."""
        self.has_answered = True
        self.is_denied = False
        if (seconds := self.outage.answered()) is not None:
            _log.debug("The bucket answers again, after %.1f s.", seconds)


class HasPatience(Protocol):
    """A store whose calls wait."""

    patience: Patience


def patient(method: _Method) -> _Method:
    """Makes a store's method retry while its server can't be reached, as long as the store's patience allows."""

    @functools.wraps(method)
    def call(self: HasPatience, *arguments: Any, **options: Any) -> Any:
        self.patience.check()
        started = time.monotonic()
        try:
            result = method(self, *arguments, **options)
        except OutageError as failed:
            error: OutageError | AccessError = failed
            drop_frames(failed)
        except AccessError as denied:
            if self.patience.is_denied:
                raise
            error = denied
        else:
            self.patience.answered()
            return result
        return _again(self.patience, functools.partial(method, self, *arguments, **options), error, started)

    return cast("_Method", call)


def say(notice: Notice) -> None:
    """Reports in a task's own output, which reaches the terminal and the container's log without the bucket."""
    with contextlib.suppress(OSError):
        os.write(2, f"[k8sflow] {notice.text}\n".encode("utf-8", "replace"))


def _again(patience: Patience, method: Callable[[], Any], error: OutageError | AccessError, started: float) -> Any:
    """Retries until the server answers, and returns the method's result.

    Raises:
        AccessError: Access is still denied.
        OutageError: The server has not answered for longer than the patience allows.
    """
    pauses = _pauses()
    denied_pauses = iter(_DENIED_PAUSES_SECONDS if patience.has_answered else _FIRST_DENIED_PAUSES_SECONDS)
    failed_at = 0.0
    while True:
        if isinstance(error, AccessError):
            pause = next(denied_pauses, None)
            if pause is None:
                patience.is_denied = True
                raise error
            _log.debug("%s Retrying in %.1f s.", error.summary, pause)
            time.sleep(pause)
        else:
            now = time.monotonic()
            patience.failed(error, 0.0 if failed_at else now - started)
            failed_at = failed_at or now
            _wait(patience, error, now - failed_at, next(pauses))
        try:
            result = method()
        except (OutageError, AccessError) as next_error:
            error = next_error
            drop_frames(error)
        else:
            patience.answered()
            gc.collect()
            return result


def _wait(patience: Patience, error: OutageError, waited: float, pause: float) -> None:
    """Waits for the next try.

    Raises:
        OutageError: The patience doesn't allow another one.
    """
    if not patience.allows(waited + pause):
        _log.debug("%s Giving up after %.1f s.", error.summary, waited)
        gc.collect()
        raise _given_up(error, waited) if patience.has_answered else error
    _log.debug("%s Retrying in %.1f s.", error.summary, pause)
    patience.pause(pause)


def _pauses() -> Iterator[float]:
    """Pauses that double up to the longest, with jitter, so that the tasks of a run don't all retry at once."""
    for n in itertools.count():
        ceiling = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(n, 16), _LONGEST_PAUSE_SECONDS)
        yield JITTER.uniform(ceiling / 2, ceiling)


def _given_up(error: OutageError, waited: float) -> OutageError:
    return OutageError(
        error.summary,
        cause=f"It answered before, but has not been reachable for {rough_duration(waited)}.",
        advice="When the server is back, `resume` continues the run. The setting storage_patience_seconds is the time "
        "that tasks and drivers wait for it.",
    )


def drop_frames(error: BaseException) -> None:
    """Frees the frames of a failed try and the objects in them.

    botocore's errors are in reference cycles with frames, and through these with all callers' frames. Until a garbage
    collection, a buffer that was passed to the try would stay exported, so its owner could not be resized.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        traceback.clear_frames(found.__traceback__)
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
