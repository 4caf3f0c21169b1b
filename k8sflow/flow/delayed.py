"""Values in class bodies and decorators that wait for the run's configs, and tables of options made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from k8sflow.errors import ParameterError


class Values(Protocol):
    """The values of a flow's configs."""

    def value_of(self, config: Any) -> Any:
        """The value of a config."""

    def has(self, config: Any) -> bool:
        """True if it is one of the flow's configs."""

    def by_name(self) -> Mapping[str, Any]:
        """The configs by every name that an expression may use for them."""


class Unpacked(str):
    """The key for all keys of a table that isn't known yet: ``{**config.env}``, ``retry(**config.retry)``."""

    __slots__ = ()


def is_delayed(value: object) -> bool:
    """True if a value, or a part of it, waits for the run's configs."""
    if isinstance(value, dict):
        return any(map(is_delayed, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_delayed, value))
    return hasattr(type(value), "k8sflow_value")


def settled(value: Any, configs: Values | None = None) -> Any:
    """The value with everything in it that waited for configs.

    Args:
        value: Any value; tables, lists and tuples are searched.
        configs: The flow's ``ConfigSet``; None where a config outside of a flow gives its own default.

    Raises:
        ParameterError: A config has no value, or an expression over it fails.
    """
    if not is_delayed(value):
        return value
    if isinstance(value, dict):
        found: dict[Any, Any] = {}
        for name, part in value.items():
            found |= _entries(name, part, configs)
        return found
    if isinstance(value, list | tuple):
        return type(value)(settled(part, configs) for part in value)
    return value.k8sflow_value(configs)


def opened(options: Mapping[str, Any], configs: Values | None = None) -> dict[str, Any]:
    """The options of a call with their values settled, and the tables unpacked among them.

    Raises:
        ParameterError: As ``settled``; or an unpacked table has an option that is given too.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        more = _entries(name, value, configs)
        if twice := [key for key in more if key in found]:
            raise ParameterError(f"{twice[0]} is given twice: {name} has it too.", advice="Remove one of them.")
        found |= more
    return found


def _entries(name: Any, value: object, configs: Values | None) -> dict[Any, Any]:
    known = settled(value, configs)
    if not isinstance(name, Unpacked):
        return {name: known}
    if not isinstance(known, Mapping):
        raise ParameterError(f"{name} is of type {type(known).__name__}, which can't be unpacked as a table.")
    return dict(known)
