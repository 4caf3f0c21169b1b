"""Frames and figures of libraries become components.

These libraries start threads, after which ``parallel_map`` starts new interpreters instead of forks in this process, so
``make test`` gives this module a process of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from k8sflow import cards
from k8sflow.cards.accept import component_of
from k8sflow.cards.rendering import rendered
from tests.unit.cards.test_components import EVIL, page_of

FRAMES = {
    "pandas": lambda: pd.DataFrame({"n": [1, 2], EVIL: ["a", math.nan]}, index=["x", "y"]),
    "pandas multi-index": lambda: pd.DataFrame({"a": [1, 2], "b": [3, 4]}).set_index(["a"]).T,
    "pandas series": lambda: pd.Series([1, None], name="s"),
    "pandas duplicates": lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "empty": pd.DataFrame,
    "polars": lambda: pl.DataFrame({"n": [1, 2], EVIL: [[1], None]}),
    "polars lazy": lambda: pl.DataFrame({"n": [1, 2]}).lazy(),
    "polars series": lambda: pl.Series("s", [1, 2]),
}


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_a_frame_that_is_appended_becomes_a_table(make: Any) -> None:
    component = component_of(make())
    assert isinstance(component, cards.Table)
    assert "script" not in page_of(component).names


def test_an_arrow_table_becomes_a_table() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    tags = page_of(component_of(pyarrow.table({"n": [1, 2], "m": [None, "x"]})))
    assert "int64" in tags.text


def test_a_large_frame_is_cut() -> None:
    frame = pd.DataFrame(np.zeros((100_000, 300)))
    tags = page_of(cards.Table.from_dataframe(frame))
    assert "100 of 100,000 rows, 200 of 300 columns" in tags.text


def test_a_matplotlib_figure_is_taken_as_it_is_when_it_is_appended() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([1, 2])
    component = component_of(figure)
    plt.close(figure)
    assert "data:image/png;base64" in rendered(component)
    assert "data:image/png;base64" in rendered(component_of(axes))


def test_an_altair_chart_is_drawn_as_a_picture() -> None:
    altair = pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    chart = altair.Chart(pd.DataFrame({"x": [1, 2], "y": [3, 4]})).mark_line().encode(x="x", y="y")
    assert "data:image/svg+xml;base64" in rendered(component_of(chart))


def test_a_chart_that_can_t_be_drawn_shows_why() -> None:
    pytest.importorskip("vl_convert")
    assert "can&#x27;t be drawn" in rendered(cards.VegaChart({"mark": "nonsense"}))


def test_a_plotly_figure_is_in_a_frame_with_its_javascript() -> None:
    plotly = pytest.importorskip("plotly.graph_objects")
    tags = page_of(component_of(plotly.Figure(plotly.Scatter(y=[1, 2]))))
    assert tags.names.count("iframe") == 1
    assert "script" not in tags.names
