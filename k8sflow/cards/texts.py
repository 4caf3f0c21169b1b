"""Components of text: Markdown, code, values, errors, and HTML that the user wrote."""

from __future__ import annotations

import inspect
import pprint
import textwrap
import traceback
from collections.abc import Callable
from typing import Any

from k8sflow.cards.base import Component
from k8sflow.cards.markup import Html, frame, tag
from k8sflow.task.safe_repr import safe_repr

_LONGEST = 20_000
_SMALL = 2_000  # items, up to which a container is laid out on several lines


def shortened(text: str, most: int = _LONGEST) -> str:
    """A text without its middle, if it is long."""
    if len(text) <= most:
        return text
    return f"{text[: most * 3 // 4]}\n… {len(text) - most:,} characters …\n{text[-most // 4 :]}"


class Markdown(Component):
    """Text in Markdown. HTML in it is shown as text.

    Args:
        text: The text; common indentation is removed.
    """

    def __init__(self, text: object = None) -> None:
        self.update(text)

    def update(self, text: object = None) -> None:
        """Replaces the text."""
        self._text = textwrap.dedent("" if text is None else str(text)).strip()

    def render(self) -> Html:
        """The component as HTML."""
        from k8sflow.cards.markdown import html_of_markdown  # noqa: PLC0415  in the process that makes the card

        return tag("div", html_of_markdown(self._text), class_="markdown")


class PythonCode(Component):
    """Python source.

    Args:
        code_func: A function, whose source is shown.
        code_string: Or the source itself.
    """

    def __init__(self, code_func: Callable[..., Any] | None = None, code_string: str | None = None) -> None:
        self.update(code_func, code_string)

    def update(self, code_func: Callable[..., Any] | None = None, code_string: str | None = None) -> None:
        """Replaces the source."""
        if code_func is None:
            self._code = str(code_string or "")
            return
        try:
            self._code = textwrap.dedent(inspect.getsource(code_func))
        except (OSError, TypeError) as error:
            self._code = f"# The source of {safe_repr(code_func)} can't be read: {error}"

    def render(self) -> Html:
        """The component as HTML."""
        return tag("pre", tag("code", shortened(self._code, 200_000)), class_="code")


class Artifact(Component):
    """A value as Python shows it.

    Args:
        artifact: The value.
        name: A title.
        compressed: Whether a long text is shortened.
    """

    def __init__(self, artifact: Any, name: str | None = None, compressed: bool = True) -> None:  # noqa: FBT001, FBT002  as in Metaflow
        self._name = name
        self._compressed = compressed
        self.update(artifact)

    def update(self, artifact: Any) -> None:
        """Replaces the value."""
        self._type = type(artifact).__name__
        text = pretty(artifact)
        self._text = shortened(text, 2_000) if self._compressed else shortened(text, 1_000_000)

    def render(self) -> Html:
        """The component as HTML."""
        title = tag("div", self._name, tag("span", self._type, class_="muted"), class_="title")
        return tag("div", title if self._name else None, tag("pre", self._text), class_="artifact")


def pretty(value: object) -> str:
    """A value over several lines where it is a small container, else its repr."""
    if isinstance(value, dict | list | tuple | set) and len(value) <= _SMALL:
        try:
            return pprint.pformat(value, width=100, compact=True, sort_dicts=False)
        except Exception:  # noqa: BLE001  the parts are of the user's classes
            return safe_repr(value)
    return safe_repr(value)


class Error(Component):
    """An exception.

    Args:
        exception: The exception, or a text.
        title: A title; the exception's type if it is left out.
    """

    def __init__(self, exception: object, title: str | None = None) -> None:
        self._title = title or (type(exception).__name__ if isinstance(exception, BaseException) else "Error")
        if isinstance(exception, BaseException):
            self._text = "".join(traceback.format_exception(exception)).rstrip()
        else:
            self._text = str(exception)

    def render(self) -> Html:
        """The component as HTML."""
        return tag("div", tag("div", self._title, class_="title"), tag("pre", shortened(self._text)), class_="failure")


class HtmlFrame(Component):
    """HTML of your own, which is shown in a frame that can reach nothing of the page around it.

    Args:
        html: The HTML: a whole document, or a part of one.
        height: The height of the frame in pixels where it can't be measured.
    """

    def __init__(self, html: object, height: int = 420) -> None:
        self._html = str(html)
        self._height = height

    def update(self, html: object) -> None:
        """Replaces the HTML."""
        self._html = str(html)

    def render(self) -> Html:
        """The component as HTML."""
        return frame(self._html, height=self._height)
