"""The display of a run: lines in a log, and on a terminal a block below them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from k8sflow import debug_log
from k8sflow.runtime.progress.live_view import LiveView
from k8sflow.runtime.progress.plain_view import PlainView
from k8sflow.runtime.progress.reporter import Reporter, View
from k8sflow.task.spec import TaskName

__all__ = ["Reporter", "reporter"]


def reporter(
    began: float,
    logs: Callable[[TaskName], str],
    title: str = "",
    steps: Sequence[str] = (),
    *,
    stream: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
    is_quiet: bool = False,
) -> Reporter:
    """The reporter of a run that suits the stream.

    A terminal gets the live block; a log, a pipe, ``TERM=dumb``, a continuous integration (``CI``) and debug logging
    get lines.
    ``NO_COLOR`` is heeded (https://no-color.org).

    Args:
        began: When the run was asked for, by time.monotonic().
        logs: How a task's output is seen.
        title: What the block is about.
        steps: The flow's steps, in their order.
        stream: Where to; by default the standard output as it is now.
        environment: The environment's variables.
        is_quiet: Whether only what tasks print, what goes wrong and how the run ends is shown, as lines.
    """
    stream = stream or sys.stdout
    view = _quiet(stream, environment) if is_quiet else _view(stream, began, title, steps, environment)
    return Reporter(began, view, logs, is_quiet=is_quiet)


def _quiet(stream: TextIO | None, environment: Mapping[str, str]) -> View:
    if stream is None or stream.closed:
        return PlainView(_Nobody(), has_colours=False)
    return PlainView(stream, has_colours=_has_colours(stream, environment), tells_tasks=True)


def _has_colours(stream: TextIO, environment: Mapping[str, str]) -> bool:
    return stream.isatty() and not _is_simple(environment) and not environment.get("NO_COLOR")


def _is_simple(environment: Mapping[str, str]) -> bool:
    return environment.get("TERM", "dumb") in {"dumb", "unknown"}


def _view(
    stream: TextIO | None, began: float, title: str, steps: Sequence[str], environment: Mapping[str, str]
) -> View:
    if stream is None or stream.closed:
        return PlainView(_Nobody(), has_colours=False)
    has_colours = _has_colours(stream, environment)
    if stream.isatty() and not _is_simple(environment) and not _is_ci(environment) and not debug_log.writes_to_stderr():
        return LiveView(stream, title, began, steps, has_colours=has_colours)
    return PlainView(stream, has_colours=has_colours)


def _is_ci(environment: Mapping[str, str]) -> bool:
    return environment.get("CI", "").lower() not in {"", "0", "false"}


class _Nobody(io.StringIO):
    """A stream whose other end is closed; nothing is kept."""

    def write(self, text: str) -> int:
        return len(text)
