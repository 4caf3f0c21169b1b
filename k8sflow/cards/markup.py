"""HTML that is safe by its type: text becomes ``Html`` only by being escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

_WITHOUT_END = {"img", "input", "br", "hr", "meta"}


class Html(str):
    """Markup that may be put into a page as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        """The markup itself, for templates that escape everything else."""
        return str(self)


def html_of(value: object) -> Html:
    """Markup for a value: itself, or its text, escaped; nothing for None."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else escape(str(value)))


def joined(parts: Iterable[object]) -> Html:
    """The markup of all parts, one after the other."""
    return Html("".join(map(html_of, parts)))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        name: Its name.
        children: What is in it: markup, or text, which is escaped.
        attributes: Its attributes. Write ``class_`` for ``class``, and ``_`` for ``-``. None and False are omitted.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    end = "" if name in _WITHOUT_END else f"{joined(children)}</{name}>"
    return Html(f"<{name}{written}>{end}")


def data_url(data: bytes, mime: str) -> str:
    """A URL that contains the data."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def frame(page: str, *, height: int = 420, title: str = "HTML") -> Html:
    """A page of the user in a frame that can reach neither the page around it nor the reader's cookies."""
    return tag(
        "iframe", srcdoc=page, sandbox="allow-scripts", height=height, title=title, loading="lazy", class_="user"
    )
