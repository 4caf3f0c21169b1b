"""A timeline of events, the newest first."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from k8sflow.cards.base import Component, MetaflowCardComponent
from k8sflow.cards.markup import Html, tag
from k8sflow.cards.rendering import rendered
from k8sflow.cards.texts import pretty, shortened

_THEMES = {"default", "success", "warning", "error", "info", "primary", "secondary", "tool_call", "ai_response"}


class EventsTimeline(Component):
    """Events with their times, the newest first.

    Args:
        title: A title.
        max_events: How many are kept.
    """

    def __init__(self, title: str | None = None, max_events: int = 100) -> None:
        self._title = title
        self._events: deque[dict[str, Any]] = deque(maxlen=max(int(max_events), 1))
        self._count, self._finished = 0, False

    def update(
        self,
        event_data: Mapping[str, Any],
        style_theme: str | None = None,
        priority: str | None = None,
        payloads: Mapping[str, MetaflowCardComponent] | None = None,
        finished: bool | None = None,  # noqa: FBT001  as in Metaflow
    ) -> None:
        """Adds an event.

        Args:
            event_data: Its facts.
            style_theme: ``default``, ``success``, ``warning``, ``error`` or ``info``.
            priority: ``low``, ``normal``, ``high`` or ``critical``, shown beside it.
            payloads: Components that belong to it, by title.
            finished: Whether no more events will follow.
        """
        theme = style_theme if style_theme in _THEMES else "default"
        facts = {str(key): shortened(value if isinstance(value, str) else pretty(value), 2_000)
                 for key, value in event_data.items()}  # fmt: skip
        self._events.append(
            {"at": time.time(), "theme": theme, "priority": priority, "facts": facts, "payloads": dict(payloads or {})}
        )
        self._count += 1
        self._finished = self._finished if finished is None else finished

    def render(self) -> Html:
        """The component as HTML."""
        state = "finished" if self._finished else "running"
        shown = f"{self._count:,} events" if self._count == len(self._events) else (
            f"the last {len(self._events):,} of {self._count:,} events"
        )  # fmt: skip
        head = tag(
            "div",
            tag("span", self._title, class_="title"),
            tag("span", f"{shown}, {state}", class_="muted"),
            class_="ends",
        )
        return tag("div", head, tag("ol", *(_event(each) for each in reversed(self._events))), class_="events")


def _event(event: Mapping[str, Any]) -> Html:
    at = time.strftime("%H:%M:%S", time.localtime(event["at"]))
    urgent = tag("span", event["priority"], class_="pill") if event["priority"] in {"high", "critical"} else None
    facts = [tag("div", tag("span", key, ": ", class_="key"), value) for key, value in event["facts"].items()]
    payloads = [
        tag(
            "details",
            tag("summary", title),
            rendered(component) if isinstance(component, MetaflowCardComponent) else str(component),
        )
        for title, component in event["payloads"].items()
    ]
    return tag("li", tag("time", at), tag("div", urgent, *facts, *payloads), class_=event["theme"])
