"""Outages: a server that doesn't answer, noticed by everything that retries, and reported to one observer.

Each outage is reported twice: when it has lasted for some seconds, and when it is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from k8sflow.units import rough_duration

# With the time in which a dead connection is noticed, this is less than ten seconds.
REPORT_AFTER_SECONDS = 4.0


@dataclass(frozen=True)
class Notice:
    """A report about an outage.

    Args:
        subject: The server that doesn't answer; a notice replaces an earlier one with the same subject.
        text: What happens, for people.
        is_over: Whether the server answers again.
    """

    subject: str
    text: str
    is_over: bool = False


Report = Callable[[Notice], None]


class Outage:
    """The current outage of one server, if there is one; shared by all threads that use the server.

    Args:
        subject: The server, as the first words of a sentence: "The bucket".
        report: Called from the thread that notices; None to report nothing.
        recovery: The last part of the message when the outage is over.
        clock: The time in seconds.
    """

    def __init__(
        self,
        subject: str,
        report: Report | None = None,
        *,
        recovery: str = "answers again",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.report = report
        self._subject = subject
        self._recovery = recovery
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._text = ""
        self._is_reported = False

    @property
    def is_on(self) -> bool:
        """True while the server doesn't answer."""
        return self._since is not None

    @property
    def seconds_to_report(self) -> float:
        """The time until the outage is to be reported; 0 if it is overdue, or was reported."""
        since = self._since
        if since is None or self._is_reported:
            return 0.0
        return max(0.0, since + REPORT_AFTER_SECONDS - self._clock())

    def failed(self, text: str, lasted_seconds: float = 0.0) -> bool:
        """Records that the server doesn't answer; reports it when that has lasted long enough.

        Args:
            text: What to report.
            lasted_seconds: How long it hasn't answered already.

        Returns:
            Whether this is the start of an outage.
        """
        with self._lock:
            is_new = self._since is None
            if self._since is None:
                self._since = self._clock() - lasted_seconds
            self._text = text
        self.report_if_due()
        return is_new

    def report_if_due(self) -> None:
        """Reports the outage if it has lasted long enough, and was not reported."""
        with self._lock:
            is_due = self._since is not None and not self._is_reported and self.seconds_to_report <= 0
            self._is_reported = self._is_reported or is_due
            text = self._text
        if is_due and self.report is not None:
            self.report(Notice(self._subject, text))

    def report_again(self) -> None:
        """Reports a reported outage once more at the next failure, because something else is at stake now."""
        with self._lock:
            self._is_reported = False

    def answered(self) -> float | None:
        """Records that the server has answered; reports it if the outage was reported.

        Returns:
            How long the outage lasted; None if there was none.
        """
        if not self.is_on:
            return None
        with self._lock:
            since, self._since = self._since, None
            was_reported, self._is_reported = self._is_reported, False
        if since is None:  # another thread was faster
            return None
        seconds = self._clock() - since
        if was_reported and self.report is not None:
            text = f"{self._subject} {self._recovery}, after {rough_duration(seconds)}."
            self.report(Notice(self._subject, text, is_over=True))
        return seconds
