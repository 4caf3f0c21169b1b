"""Charts: Vega and Vega-Lite as pictures, which need no JavaScript, and Plotly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from k8sflow.cards.base import Component
from k8sflow.cards.frames import library_of
from k8sflow.cards.markup import Html, data_url, frame, tag
from k8sflow.cards.texts import Error, shortened

_SECONDS = 40.0
# Vega's engine has threads, and a fork of a process that has used it hangs: so a new interpreter converts the chart.
_CONVERT = """
import sys, json
try:
    import vl_convert
except ImportError:
    sys.exit(3)
spec = json.load(sys.stdin)
is_lite = "vega-lite" in str(spec.get("$schema", "vega-lite"))
convert = vl_convert.vegalite_to_svg if is_lite else vl_convert.vega_to_svg
sys.stdout.buffer.write(convert(spec).encode())
"""
_NOT_INSTALLED = 3


class VegaChart(Component):
    """A chart of Vega or Vega-Lite.

    Args:
        spec: The specification, as a dictionary.
        show_controls: Kept for flows written for Metaflow.
    """

    def __init__(self, spec: Mapping[str, Any], show_controls: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  as in Metaflow
        self.update(spec)

    def update(self, spec: Any = None) -> None:
        """Replaces the specification, by another one or by a chart of Altair."""
        if spec is not None:
            found = spec.to_dict() if hasattr(spec, "to_dict") else dict(spec)
            self._spec = json.dumps(found, default=str)

    @classmethod
    def from_altair_chart(cls, altair_chart: Any) -> VegaChart:
        """A chart of Altair.

        Raises:
            ValueError: It is something else.
        """
        if library_of(altair_chart) != "altair":
            raise ValueError(f"{type(altair_chart).__name__} is not a chart of Altair.")
        return cls(altair_chart.to_dict())

    def render(self) -> Html:
        """The component as HTML."""
        command = [sys.executable, "-c", _CONVERT]
        try:
            done = subprocess.run(
                command, input=self._spec.encode(), capture_output=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Error(error, "The chart can't be drawn").render()
        if done.returncode == 0:
            return tag(
                "figure", tag("img", src=data_url(done.stdout, "image/svg+xml"), alt=self._title()), class_="chart"
            )
        if done.returncode == _NOT_INSTALLED:
            note = (
                "The chart is shown as its specification: pip install 'k8sflow[cards]' where the step runs to draw it."
            )
            text = shortened(json.dumps(json.loads(self._spec), indent=1), 20_000)
            return tag("div", tag("p", note, class_="muted"), tag("pre", text, class_="code"))
        lines = done.stderr.decode("utf-8", "replace").strip()
        return Error(shortened(lines, 4_000), "The chart can't be drawn").render()

    def _title(self) -> str:
        title = json.loads(self._spec).get("title", "")
        return str(title.get("text", "") if isinstance(title, dict) else title) or "chart"


class PlotlyChart(Component):
    """A figure of Plotly, which moves: it needs JavaScript, which its frame contains.

    Args:
        figure: The figure.
    """

    def __init__(self, figure: Any) -> None:
        self.update(figure)

    def update(self, figure: Any) -> None:
        """Replaces the figure."""
        self._page = figure.to_html(
            full_html=True,
            include_plotlyjs=True,
            default_width="100%",
            config={"responsive": True, "displaylogo": False},
        )
        self._height = int(getattr(figure.layout, "height", None) or 450) + 20

    def render(self) -> Html:
        """The component as HTML."""
        return frame(self._page, height=self._height, title="Plotly figure")
