"""``@schedule``: starts a deployed flow at fixed times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator

_CRON_FIELD = re.compile(r"[A-Za-z0-9*/,?#-]+")
_CRON_FIELDS = (5, 6, 7)  # 5 of cron; 6 and 7 with a year or seconds, as other schedulers have them
_NICKNAMES = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0"}


def _cron(value: object) -> str:
    fields = parsers.text(value).split()
    if len(fields) not in _CRON_FIELDS or not all(map(_CRON_FIELD.fullmatch, fields)):
        raise ValueError(f"{value!r} is not a cron expression such as '0 6 * * 1-5'")
    return " ".join(fields)


def _time_zone(value: object) -> str:
    import zoneinfo  # noqa: PLC0415  few flows name one

    try:
        return zoneinfo.ZoneInfo(parsers.text(value)).key
    except (zoneinfo.ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"{value!r} is not a time zone such as 'Europe/Berlin'") from error


def _check(options: Mapping[str, Any]) -> None:
    if sum(bool(options[name]) for name in ("hourly", "weekly", "cron")) > 1:
        raise ValueError("it names more than one time: write one of hourly, daily, weekly and cron")


@decorator("starts the flow at fixed times, once it is deployed", on="flow", check=_check)
def schedule(
    *,
    hourly: Annotated[bool | str, Option(parsers.flag, "every hour")] = False,
    daily: Annotated[bool | str, Option(parsers.flag, "every day at midnight")] = True,
    weekly: Annotated[bool | str, Option(parsers.flag, "every week, in the night to Sunday")] = False,
    cron: Annotated[str | None, Option(_cron, "a cron expression")] = None,
    timezone: Annotated[
        str | None, Option(_time_zone, "the time zone in which the times are meant; UTC by default")
    ] = None,
) -> None: ...


def description(options: Mapping[str, Any]) -> dict[str, Any]:
    nickname = next((name for name in ("hourly", "weekly") if options[name]), "daily" if options["daily"] else None)
    cron = options.get("cron") or (_NICKNAMES[nickname] if nickname else None)
    return {key: value for key, value in (("cron", cron), ("timezone", options.get("timezone"))) if value}
