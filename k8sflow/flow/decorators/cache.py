"""``@cache``: takes a step's result from an earlier run with the same code, inputs and environment."""

from __future__ import annotations

import re
from typing import Annotated

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def _names(value: object) -> tuple[str, ...]:
    found = parsers.listed(value, "names")
    for name in found:
        if not isinstance(name, str) or not name.strip().isidentifier():
            raise ValueError(f"{name!r} can't be the name of an artifact or a parameter")
    return tuple(sorted({name.strip() for name in found}))


def _version(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{value!r} is neither a string nor a number")  # noqa: TRY004  one refusal
    return str(value)


def _age(value: object) -> float:
    """A time in seconds, of a text such as ``7d``."""
    if isinstance(value, str) and (found := _AGE.fullmatch(value.strip())):
        return float(found[1]) * _UNITS[found[2]]
    try:
        seconds = parsers.amount(value)
    except ValueError:
        seconds = 0.0
    if not seconds:
        raise ValueError(f"{value!r} is not a time such as '12h', '7d' or 3600 (seconds)")
    return seconds


@decorator("takes the result from an earlier run with the same code, inputs and environment")
def cache(
    *,
    ignore: Annotated[
        tuple[str, ...] | list[str] | str,
        Option(_names, "names of artifacts and parameters that don't matter for the result"),
    ] = (),
    version: Annotated[
        str | int, Option(_version, "a text that is a part of the key: another one makes earlier results unusable")
    ] = "",
    max_age: Annotated[
        str | float | None, Option(_age, "how old a result may be: '12h', '7d', or seconds; by default any age")
    ] = None,
) -> None: ...
