"""Kubernetes quantities ("500m", "4Gi") and the plain numbers that users write instead.

Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}
_QUANTITY = re.compile(
    r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?:(?P<exponent>[eE][+-]?\d+)|(?P<suffix>[numkMGTPE]|[KMGTPE]i)?)"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MEGABYTE = 10**6
SMALLEST_MEMORY_MB = 16


def parse(quantity: str) -> Decimal:
    """The value of a quantity in its base unit: cores, or bytes.

    Raises:
        ValueError: The text is not a quantity.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity")
    if match["exponent"]:
        return Decimal(match["number"] + match["exponent"])
    return Decimal(match["number"]) * _SUFFIXES[match["suffix"] or ""]


def cpu(value: object) -> str:
    """The quantity for a number of cores, a number or a quantity: ``2`` → ``"2"``, ``0.5`` → ``"500m"``.

    Raises:
        ValueError: The value is not a positive amount of at least a thousandth of a core.
    """
    text = _text(value, 'a number of cores such as 2 or 0.5, or a quantity such as "500m"')
    cores = _parse(text, "cores", 'write 2, 0.5 or "500m"')
    if cores <= 0:
        raise ValueError(f"{value!r} is not more than zero cores")
    millicores = cores * 1000
    if millicores != millicores.to_integral_value():
        raise ValueError(f"{value!r} is finer than a thousandth of a core, which Kubernetes can't express")
    return f"{int(cores)}" if cores == cores.to_integral_value() else f"{int(millicores)}m"


def size(value: object) -> str:
    """The quantity for an amount of memory or disk; a plain number is MB: ``4096`` → ``"4096M"``, ``"4Gi"`` stays.

    Raises:
        ValueError: The value is not such an amount, or so small that the unit must be wrong.
    """
    text, amount = _amount(value)
    if amount < SMALLEST_MEMORY_MB * _MEGABYTE:
        raise ValueError(
            f"{value!r} is {_plain(amount)} bytes, too little for a Python process; "
            'plain numbers are MB, quantities have a suffix such as "8Gi"'
        )
    return text


def share(value: object) -> str:
    """The quantity for a part of a memory, which may be of any size: ``64`` → ``"64M"``.

    Raises:
        ValueError: The value is not such an amount.
    """
    return _amount(value)[0]


def megabytes(amount: Decimal) -> str:
    """The quantity for a number of bytes, in whole MB."""
    return f"{math.ceil(amount / _MEGABYTE)}M"


def times(quantity: str, factor: int) -> str:
    """A multiple of a quantity, in its unit: ``"1.5Gi"`` twice is ``"3Gi"``.

    Raises:
        ValueError: The text is not a quantity.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None or match["exponent"]:
        return _plain(parse(quantity) * factor)
    return f"{_plain(Decimal(match['number']) * factor)}{match['suffix'] or ''}"


def _amount(value: object) -> tuple[str, Decimal]:
    text = _text(value, 'a number of MB such as 4096, or a quantity such as "4Gi"')
    if _NUMBER.fullmatch(text):
        text = _megabytes(Decimal(text))
    amount = _parse(text, "an amount of memory", 'write a number of MB (4096) or a quantity ("4Gi", "500M")')
    if amount <= 0:
        raise ValueError(f"{value!r} is not more than zero")
    return text, amount


def _text(value: object, wanted: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not {wanted}")  # noqa: TRY004 - callers handle one kind of refusal
    return value.strip() if isinstance(value, str) else f"{Decimal(repr(value)):f}"


def _parse(text: str, what: str, advice: str) -> Decimal:
    if text.startswith("-"):
        raise ValueError(f"{text!r} is negative")
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {what}; {advice}") from None


def _megabytes(number: Decimal) -> str:
    if number == number.to_integral_value():
        return f"{int(number)}M"
    return f"{int(number * 1000)}k"


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
