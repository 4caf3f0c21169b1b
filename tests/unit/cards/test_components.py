"""Each component with ordinary and odd values: it renders, and a value's text never becomes markup."""

from __future__ import annotations

import math
import pickle
from html import unescape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from k8sflow import cards
from k8sflow.cards.accept import component_of
from k8sflow.cards.base import MetaflowCardComponent
from k8sflow.cards.page import document
from k8sflow.cards.rendering import body_of, rendered

EVIL = "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'"
ODD = {
    "empty": "",
    "None": None,
    "html": EVIL,
    "unicode": "Grüße 日本語 \u202e\U0001f600 e\u0301",
    "surrogate": "\ud800",
    "NUL": "a\0b",
    "nan": math.nan,
    "inf": -math.inf,
    "long": "x" * 300_000,
    "big number": 10**6000,
    "bytes": b"\xff\x00",
    "numpy": np.float64(1.5),
    "nested": {"a": [1, {"b": (2, EVIL)}], EVIL: None},
    "recursive": [],
}
ODD["recursive"].append(ODD["recursive"])
MAKERS = {
    "Markdown": cards.Markdown,
    "Artifact": lambda value: cards.Artifact(value, name=str(value)[:100]),
    "Table": lambda value: cards.Table([[value, 1]], headers=[str(value)[:100], "n"]),
    "Error": cards.Error,
    "PythonCode": lambda value: cards.PythonCode(code_string=None if value is None else str(value)),
    "Image": lambda value: cards.Image(value if isinstance(value, bytes) else str(value)[:50], label=str(value)[:100]),
    "ProgressBar": lambda value: cards.ProgressBar(
        max=value, label=str(value)[:100], value=value, unit=str(value)[:100]
    ),
    "ValueBox": lambda value: cards.ValueBox(str(value)[:100], value, subtitle=str(value)[:100], change_indicator="x"),
    "JSONViewer": lambda value: cards.JSONViewer(value, title=str(value)[:100]),
    "YAMLViewer": lambda value: cards.YAMLViewer(value, title=str(value)[:100]),
    "append": component_of,
}


class Tags(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(component: MetaflowCardComponent) -> Tags:
    """The page with a component that has been sent to another process."""
    sent = pickle.loads(pickle.dumps(component))
    page = document("A card", *body_of([sent]))
    page.encode("utf-8", "replace")
    return Tags(page)


# The test can't make the text of a huge integer, which the other components need.
MADE = {
    f"{maker}-{kind}": (make, value)
    for maker, make in MAKERS.items()
    for kind, value in ODD.items()
    if make is component_of or not isinstance(value, int) or value <= 1 << 64
}


@pytest.mark.parametrize(("make", "value"), MADE.values(), ids=MADE)
def test_no_value_breaks_a_component_or_becomes_markup(make: Any, value: Any) -> None:
    tags = page_of(make(value))
    assert "script" not in tags.names
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert tags.names.count("main") == 1


@pytest.mark.parametrize("text", ["[x](javascript:alert(1))", "![x](javascript:alert(1))", "<b onclick=x>b</b>"])
def test_markdown_has_no_links_that_run_code(text: str) -> None:
    page = document("x", *body_of([cards.Markdown(text)]))
    assert 'href="javascript' not in page
    assert "<b onclick" not in page


def test_markdown_has_tables_and_removes_indentation() -> None:
    tags = page_of(
        cards.Markdown("""
        # Title
        | a | b |
        |---|---|
        | 1 | 2 |
    """)
    )
    assert {"h1", "table", "td"} <= set(tags.names)


def test_a_table_of_100_000_rows_shows_a_thousand_and_says_so() -> None:
    tags = page_of(cards.Table([[n, "x"] for n in range(100_000)], headers=["n", "x"]))
    assert tags.names.count("tr") == 1001
    assert "1,000 of 100,000 rows" in tags.text


def test_a_table_with_components_in_its_cells() -> None:
    tags = page_of(cards.Table([[cards.Markdown("**a**"), cards.ProgressBar(10, value=3)]]))
    assert {"strong", "td"} <= set(tags.names)


@pytest.mark.parametrize(
    "data", [None, [], [[]], "text", 3, iter([[1, 2]]), [1, 2], [{"a": 1}], [["ragged"], [1, 2, 3]]]
)
def test_a_table_of_anything(data: Any) -> None:
    page_of(cards.Table(data))


def test_html_of_the_user_is_in_a_sandboxed_frame() -> None:
    class Own(MetaflowCardComponent):
        def render(self) -> str:
            return EVIL

    class Shown:
        def _repr_html_(self) -> str:
            return EVIL

    for component in (Own(), cards.HtmlFrame(EVIL), component_of(Shown())):
        page = document("x", *body_of([component]))
        tags = Tags(page)
        assert "script" not in tags.names
        assert 'sandbox="allow-scripts"' in page


def test_a_component_that_raises_becomes_its_error() -> None:
    class Own(MetaflowCardComponent):
        def render(self) -> str:
            raise ValueError("broken <b>")

    class Broken:
        def _repr_html_(self) -> str:
            raise ValueError("broken")

        def __repr__(self) -> str:
            raise ValueError("broken")

    assert "broken &lt;b&gt;" in rendered(Own())
    assert "broken" in rendered(component_of(Broken()))


def test_updates_change_what_is_shown() -> None:
    bar, box, events = cards.ProgressBar(max=10), cards.ValueBox("a", 1), cards.EventsTimeline("t", max_events=2)
    bar.update(5, metadata="fast")
    box.update(value=2, theme="success")
    for number in range(3):
        events.update({"n": number, "html": EVIL}, style_theme="error", priority="high",
                      payloads={"x": cards.Markdown("**p**")}, finished=number == 2)  # fmt: skip
    page = document("x", *body_of([bar, box, events]))
    assert "width:50.00%" in page
    assert "box success" in page
    assert "the last 2 of 3 events, finished" in page
    assert "script" not in Tags(page).names


def test_values_that_metaflow_accepts_raise_nothing_in_the_step() -> None:
    """A card never harms its step: themes of one's own, and what is not a frame or an image."""
    assert cards.ValueBox("a", 1, theme="danger").render().startswith('<div class="box error">')
    assert cards.ValueBox("a", 1, theme="pink").render().startswith('<div class="box default">')
    assert "int is not a frame" in cards.Table.from_dataframe(3).render()

    class Picture:
        def save(self, *_arguments: object, **_options: object) -> None:
            raise KeyError("mode")

    assert "No image: " in cards.Image.from_pil_image(Picture()).render()


def test_a_page_loads_nothing_and_runs_no_script() -> None:
    page = document("A & B", *body_of([cards.Markdown("[a](https://example.org)")]))
    assert "default-src 'none'" in unescape(page)
    assert "<title>A &amp; B</title>" in page


def test_all_names_can_be_imported() -> None:
    assert list(cards.__all__) == sorted(cards.__all__, key=lambda name: (name[0].islower(), name))
    for name in cards.__all__:
        assert getattr(cards, name) is not None
