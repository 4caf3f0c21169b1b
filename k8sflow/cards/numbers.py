"""Components for single numbers: a bar of progress, and a box with a value."""

from __future__ import annotations

import math
from typing import Any

from k8sflow.cards.base import Component
from k8sflow.cards.markup import Html, tag

_THEMES = {"default", "success", "warning", "error", "info"}
_LIKE = {"danger": "error"}  # Metaflow's name


class ProgressBar(Component):
    """A bar of progress.

    Args:
        max: The value at which it is full.
        label: A text above it.
        value: How far it is.
        unit: The unit of both numbers.
        metadata: A text beside the numbers.
    """

    def __init__(
        self,
        max: float = 100,  # noqa: A002  as in Metaflow
        label: str | None = None,
        value: float = 0,
        unit: str | None = None,
        metadata: str | None = None,
    ) -> None:
        self._max, self._label, self._value, self._unit, self._metadata = max, label, value, unit, metadata

    def update(self, new_value: float, metadata: str | None = None) -> None:
        """Sets how far it is, and the text beside it if one is given."""
        self._value = new_value
        self._metadata = self._metadata if metadata is None else metadata

    def render(self) -> Html:
        """The component as HTML."""
        value, most = _number(self._value), _number(self._max)
        share = min(max(value / most, 0.0), 1.0) if most > 0 and math.isfinite(value) else 0.0
        unit = f" {self._unit}" if self._unit and self._unit != "%" else self._unit or ""
        numbers = f"{self._value}{unit}" if unit == "%" else f"{self._value} / {self._max}{unit}"
        head = tag(
            "div", tag("span", self._label), tag("span", self._metadata, " ", numbers, class_="muted"), class_="ends"
        )
        bar = tag("div", tag("div", style=f"width:{share * 100:.2f}%"), class_="bar", role="progressbar",
                  aria_label=self._label or "progress", aria_valuemin=0, aria_valuemax=100,
                  aria_valuenow=round(share * 100))  # fmt: skip
        return tag("div", head, bar, class_="progress")


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


class ValueBox(Component):
    """A value with a title, in a box; boxes that follow each other are side by side.

    Args:
        title: What it is.
        value: The value.
        subtitle: A text below it.
        theme: ``default``, ``success``, ``warning``, ``error`` or ``info``; any other is shown as ``default``.
        change_indicator: How it has changed, as ``Up 3%``.
    """

    def __init__(
        self,
        title: str | None = None,
        value: object = "",
        subtitle: str | None = None,
        theme: str | None = None,
        change_indicator: str | None = None,
    ) -> None:
        self._parts: dict[str, Any] = {"theme": "default"}
        self.update(title, value, subtitle, theme, change_indicator)

    def update(
        self,
        title: str | None = None,
        value: object = None,
        subtitle: str | None = None,
        theme: str | None = None,
        change_indicator: str | None = None,
    ) -> None:
        """Replaces what is given."""
        if theme is not None:
            named = _LIKE.get(str(theme), str(theme))
            theme = named if named in _THEMES else "default"
        given = {"title": title, "value": value, "subtitle": subtitle, "theme": theme, "change": change_indicator}
        self._parts |= {name: str(each) for name, each in given.items() if each is not None}

    def render(self) -> Html:
        """The component as HTML."""
        parts = self._parts
        return tag(
            "div",
            tag("div", parts.get("title"), class_="name") if "title" in parts else None,
            tag("div", parts.get("value", ""), class_="value"),
            tag("div", parts["change"], class_="change") if "change" in parts else None,
            tag("div", parts["subtitle"], class_="muted") if "subtitle" in parts else None,
            class_=f"box {parts['theme']}",
        )
