"""Images, figures and charts of other libraries, recognised without importing these."""

from __future__ import annotations

from typing import Any

from k8sflow.cards.base import MetaflowCardComponent
from k8sflow.cards.charts import PlotlyChart, VegaChart
from k8sflow.cards.frames import library_of
from k8sflow.cards.images import Image


def picture_of(value: Any) -> MetaflowCardComponent | None:
    """The component for an image, a figure or a chart; None for any other value."""
    match library_of(value):
        case "matplotlib" | "seaborn" if hasattr(value, "savefig") or hasattr(value, "figure"):
            return Image.from_matplotlib(value)
        case "PIL" if hasattr(value, "save"):
            return Image.from_pil_image(value)
        case "altair" if hasattr(value, "to_dict"):
            return VegaChart.from_altair_chart(value)
        case "plotly" if hasattr(value, "to_plotly_json"):
            return PlotlyChart(value)
        case _ if isinstance(value, bytes) and Image.mime_of(value):
            return Image(value)
    return None
