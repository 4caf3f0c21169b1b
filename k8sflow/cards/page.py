"""The HTML document around a card: one file, which loads nothing."""

from __future__ import annotations

from pathlib import Path

from k8sflow.cards.markup import Html, html_of, tag

# Nothing may be loaded, and no script may run: what a value's text might contain does nothing, escaped or not.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, *parts: object, header: object = None, bare: bool = False) -> str:
    """A whole page.

    Args:
        title: Its title.
        parts: Markup, or text, which is escaped.
        header: What is above the parts.
        bare: True to leave out the heading, as for a component in a notebook.
    """
    body = [html_of(part) for part in parts]
    head = None if bare else tag("header", tag("h1", title), header)
    has_frames = any("<iframe" in part for part in body)  # a frame inherits the policy of the page around it
    policy = None if has_frames else tag("meta", http_equiv="Content-Security-Policy", content=_POLICY)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    meta = [
        tag("meta", charset="utf-8"),
        policy,
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(style)),
    ]
    return (
        "<!DOCTYPE html>\n" + tag("html", tag("head", *meta), tag("body", tag("main", head, *body)), lang="en") + "\n"
    )
