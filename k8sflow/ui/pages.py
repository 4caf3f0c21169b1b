"""The templates, and how values are written in them. Everything that a template writes is escaped."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from k8sflow import units
from k8sflow.ui.names import address, address_of_run

_FOLDER = Path(__file__).parent
STATIC = _FOLDER / "static"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=_duration, moment=_moment, iso=_iso, size=_size, stateword=_word)
    environment.globals.update(address=address, address_of_run=address_of_run, now=time.time)
    return environment


def page(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: The name of its template, without ``.html``.
        values: What the template shows.
    """
    return _environment().get_template(f"{template}.html").render(**values)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else units.duration(max(seconds, 0.0))


def _moment(seconds: float | None) -> str:
    """A time in the server's zone, which the page's script replaces by the reader's."""
    if not seconds:
        return ""
    return f"{datetime.fromtimestamp(seconds, timezone.utc).astimezone():%Y-%m-%d %H:%M:%S}"


def _iso(seconds: float | None) -> str:
    return "" if not seconds else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def _size(count: int | None) -> str:
    return "" if count is None else units.size(int(count))


_WORDS = {
    "caught": "failed, caught",
    "lost": "unfinished",
    "retrying": "waits for a retry",
    "none": "not started",
    "cloned": "from another run",
    "user_error": "failed in your code",
}


def _word(state: str) -> str:
    return _WORDS.get(state, state.replace("_", " "))
