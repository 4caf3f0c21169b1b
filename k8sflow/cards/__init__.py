"""Cards: HTML pages about tasks. What a step puts into ``current.card``, classes of one's own, and past cards."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from k8sflow.cards.base import MetaflowCard, MetaflowCardComponent
    from k8sflow.cards.builtin import BlankCard, DefaultCard, ErrorCard, HtmlCard
    from k8sflow.cards.charts import PlotlyChart, VegaChart
    from k8sflow.cards.events import EventsTimeline
    from k8sflow.cards.images import Image
    from k8sflow.cards.numbers import ProgressBar, ValueBox
    from k8sflow.cards.stored import Card, CardList, get_cards
    from k8sflow.cards.tables import Table
    from k8sflow.cards.texts import Artifact, Error, HtmlFrame, Markdown, PythonCode
    from k8sflow.cards.viewers import JSONViewer, YAMLViewer

_HOMES = {
    "Artifact": "texts",
    "BlankCard": "builtin",
    "Card": "stored",
    "CardList": "stored",
    "DefaultCard": "builtin",
    "Error": "texts",
    "ErrorCard": "builtin",
    "EventsTimeline": "events",
    "HtmlCard": "builtin",
    "HtmlFrame": "texts",
    "Image": "images",
    "JSONViewer": "viewers",
    "Markdown": "texts",
    "MetaflowCard": "base",
    "MetaflowCardComponent": "base",
    "PlotlyChart": "charts",
    "ProgressBar": "numbers",
    "PythonCode": "texts",
    "Table": "tables",
    "ValueBox": "numbers",
    "VegaChart": "charts",
    "YAMLViewer": "viewers",
    "get_cards": "stored",
}

__all__ = [
    "Artifact",
    "BlankCard",
    "Card",
    "CardList",
    "DefaultCard",
    "Error",
    "ErrorCard",
    "EventsTimeline",
    "HtmlCard",
    "HtmlFrame",
    "Image",
    "JSONViewer",
    "Markdown",
    "MetaflowCard",
    "MetaflowCardComponent",
    "PlotlyChart",
    "ProgressBar",
    "PythonCode",
    "Table",
    "ValueBox",
    "VegaChart",
    "YAMLViewer",
    "get_cards",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'k8sflow.cards' has no attribute {name!r}")
    return getattr(importlib.import_module(f"k8sflow.cards.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
