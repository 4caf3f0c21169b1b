"""Components for the figures, frames and other values that ``current.card.append`` accepts."""

from __future__ import annotations

from typing import Any

from k8sflow.cards.base import MetaflowCardComponent
from k8sflow.cards.frames import library_of


def component_of(value: Any) -> MetaflowCardComponent:
    """The component that shows a value; its error, if the value can't be shown."""
    from k8sflow.cards.texts import Artifact, Error, Markdown  # noqa: PLC0415  only steps with a card

    try:
        if isinstance(value, MetaflowCardComponent):
            return value
        if isinstance(value, str):
            return Markdown(value)
        if isinstance(value, BaseException):
            return Error(value)
        found = accepted(value)
        return Artifact(value) if found is None else found
    except Exception as error:  # noqa: BLE001  the value's code may raise anything, and a card never harms its step
        return Error(error, f"A {type(value).__name__} can't be shown")


def accepted(value: Any) -> MetaflowCardComponent | None:
    """The component for a value of a library, read without importing the library; None for any other value.

    Args:
        value: The value.
    """
    from k8sflow.cards.pictures import picture_of  # noqa: PLC0415  only steps with a card
    from k8sflow.cards.tables import Table  # noqa: PLC0415
    from k8sflow.cards.texts import HtmlFrame  # noqa: PLC0415

    picture = picture_of(value)
    if picture is not None:
        return picture
    if library_of(value) in {"pandas", "polars", "pyarrow"} and type(value).__name__ in _FRAMES:
        return Table(value)
    if callable(html := getattr(type(value), "_repr_html_", None)):
        text = html(value)
        return HtmlFrame(text) if isinstance(text, str) else None
    return None


_FRAMES = {"DataFrame", "LazyFrame", "Series", "Table", "RecordBatch"}
