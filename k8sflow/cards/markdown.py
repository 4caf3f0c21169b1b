"""Markdown as HTML."""

from __future__ import annotations

from markdown_it import MarkdownIt

from k8sflow.cards.markup import Html

_PARSER = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])


def html_of_markdown(text: str) -> Html:
    """Markdown as HTML. Raw HTML is escaped, and a link that would run code is text."""
    return Html(_PARSER.render(text))
