"""``@card``: makes an HTML page about each task of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TYPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_]+)*")


def _id(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name of letters, digits, - and _")
    return value


def _type(value: object) -> str:
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a type of cards, or module.Class")
    return value


@decorator("makes an HTML page about each task of the step, to be looked at with `card view`", repeats=True)
def card(
    *,
    type: Annotated[str, Option(_type, "the type of the card: default, blank, html, or one of your own")] = "default",  # noqa: A002
    id: Annotated[str | None, Option(_id, "the name of the card: current.card[id]")] = None,  # noqa: A002
    options: Annotated[Mapping[str, Any] | None, Option(parsers.table, "a dictionary for the card's class")] = None,
    timeout: Annotated[
        float | str, Option(parsers.amount, "the seconds after which the process that makes the card is killed")
    ] = 45,
    save_errors: Annotated[
        bool | str, Option(parsers.flag, "whether a card that can't be made is replaced by its error")
    ] = True,
    customize: Annotated[
        bool | str, Option(parsers.flag, "whether current.card.append adds to this card, of several")
    ] = False,
    refresh_interval: Annotated[
        float | str, Option(parsers.amount, "the fewest seconds between two refreshes while the task runs, from 1 on")
    ] = 1,
) -> None: ...
