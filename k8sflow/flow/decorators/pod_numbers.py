"""Parsers of the options of ``@kubernetes`` that are whole numbers; they raise ValueError outside of the limits."""

from __future__ import annotations

from k8sflow.flow.decorators.parsers import count

_LONGEST_PORT = 65535
SHORTEST_GRACE_SECONDS = 5
# The API accepts any number, and the deletion of a pod, or the drain of its node, would wait for as long.
LONGEST_GRACE_SECONDS = 24 * 3600
# https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/#podspec-v1-core
_LARGEST_NUMBER = 2**31 - 1


def seconds(value: object) -> int:
    """A number of seconds of one or more."""
    found = count(value)
    if found == 0:
        raise ValueError("0 seconds is not a time")
    return found


def deadline(value: object) -> int:
    """A number of seconds that the API accepts as a pod's deadline."""
    return _at_most(_LARGEST_NUMBER, seconds(value), "a deadline is")


def user(value: object) -> int:
    """A numeric user."""
    return _at_most(_LARGEST_NUMBER, count(value), "a numeric user is")


def branches(value: object) -> int:
    """A number of branches of one or more."""
    found = count(value)
    if found == 0:
        raise ValueError("0 is not a number of branches")
    return found


def grace(value: object) -> int:
    """A number of seconds in which output can be stored."""
    found = count(value)
    if found < SHORTEST_GRACE_SECONDS:
        raise ValueError(f"{found} seconds leave no time to store output; use {SHORTEST_GRACE_SECONDS} or more")
    return _at_most(LONGEST_GRACE_SECONDS, found, "a deleted pod may take", " seconds, a day")


def port(value: object) -> int:
    """The number of a TCP port."""
    found = count(value)
    if not 0 < found <= _LONGEST_PORT:
        raise ValueError(f"{value!r} is not a port (1 to {_LONGEST_PORT})")
    return found


def _at_most(largest: int, value: int, what: str, unit: str = "") -> int:
    if value > largest:
        raise ValueError(f"{value} is too much; {what} at most {largest}{unit}")
    return value
