"""Debug logging, which the setting ``log`` (``K8SFLOW_LOG=debug``) turns on.

A module with something to report makes one log, named after itself:

    _log = DebugLog(__name__)
    _log.debug("%s Retrying in %.1f s.", error.summary, pause)

Log every retry, reconnect and refresh, and every decision; never a header, a token, or a user's value.
Arguments are formatted only if the message is logged.

``logging`` itself is imported by ``configure``, or by the application: until then a call costs a lookup in
``sys.modules``. So logging doesn't slow down an import.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

    from k8sflow.config import Settings

ROOT = "k8sflow"
VARIABLE = "K8SFLOW_LOG"
_FORMAT = "%(asctime)s.%(msecs)03dZ %(process)d %(levelname)s %(name)s: %(message)s"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"
_RECORD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d+ [A-Z]+ k8sflow[\w.]*: ")


class DebugLog:
    """The log of one module.

    Args:
        name: The module's ``__name__``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Logger | None = None

    def debug(self, message: str, *arguments: object) -> None:
        """Logs a message at level DEBUG; ``arguments`` fill its ``%`` placeholders."""
        if self._logger is None:
            if "logging" not in sys.modules:
                return
            import logging  # noqa: PLC0415  already imported elsewhere

            self._logger = logging.getLogger(self._name)
        self._logger.debug(message, *arguments, stacklevel=2)


def configure(settings: Settings) -> Settings:
    """Turns on the logging that the settings ask for, and returns them; for the entry point of a process."""
    if settings.log is not None:
        turn_on(settings.log)
    return settings


def turn_on(level: str) -> None:
    """Logs records from a level upwards, here and in the processes that this one starts.

    They go to stderr, or to the handlers that the application has set up itself.

    Args:
        level: One of ``config.LOG_LEVELS``.
    """
    import logging  # noqa: PLC0415  only if debug logging is on
    import time  # noqa: PLC0415  as above

    os.environ[VARIABLE] = level
    logger = logging.getLogger(ROOT)
    logger.setLevel(level.upper())
    if not logger.hasHandlers():
        formatter = logging.Formatter(_FORMAT, _TIME_FORMAT)
        formatter.converter = time.gmtime
        handler = logging.StreamHandler()
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.propagate = False  # the application may set up handlers of its own later


def is_record(line: str) -> bool:
    """True for a line that ``turn_on`` has written to stderr."""
    return _RECORD.match(line) is not None


def writes_to_stderr() -> bool:
    """True if ``turn_on`` has directed records to stderr."""
    if "logging" not in sys.modules:
        return False
    import logging  # noqa: PLC0415  already imported elsewhere

    return bool(logging.getLogger(ROOT).handlers)
