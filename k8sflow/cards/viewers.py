"""Nested values as trees that can be folded, without JavaScript."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from k8sflow.cards.base import Component
from k8sflow.cards.markup import Html, tag
from k8sflow.cards.texts import shortened
from k8sflow.task.safe_repr import safe_repr

_MOST_ITEMS = 1_000
_MOST_DEPTH = 30
_OPEN_DEPTH = 2


class JSONViewer(Component):
    """A value of dictionaries and lists, which can be folded.

    Args:
        data: The value, or JSON as text.
        collapsible: Whether its parts can be folded.
        max_height: The height from which on it scrolls, in CSS.
        show_copy_button: Kept for flows written for Metaflow; the text can be selected.
        title: A title.
    """

    def __init__(
        self,
        data: Any,
        collapsible: bool = True,  # noqa: FBT001, FBT002  as in Metaflow
        max_height: str | None = "400px",
        show_copy_button: bool = True,  # noqa: ARG002, FBT001, FBT002  as in Metaflow
        title: str | None = None,
    ) -> None:
        self._is_foldable, self._height, self._title = collapsible, max_height, title
        self.update(data)

    def update(self, data: Any) -> None:
        """Replaces the value."""
        self._data = plain_value(self._parsed(data), [_MOST_ITEMS * 10], 0)

    def _parsed(self, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        try:
            return json.loads(data)
        except ValueError:
            return data

    def render(self) -> Html:
        """The component as HTML."""
        body = tree_of(self._data, 0) if self._is_foldable else tag("pre", self._text())
        title = tag("div", self._title, class_="title") if self._title else None
        height = "".join(letter for letter in str(self._height or "none") if letter.isalnum() or letter in ".%")
        return tag("div", title, tag("div", body, class_="tree", style=f"max-height:{height}", tabindex="0"))

    def _text(self) -> str:
        return shortened(json.dumps(self._data, indent=2, ensure_ascii=False, default=str), 200_000)


class YAMLViewer(JSONViewer):
    """A value as YAML.

    Args:
        data: The value, or YAML as text.
        collapsible: Whether it can be folded as a whole.
        max_height: The height from which on it scrolls, in CSS.
        show_copy_button: Kept for flows written for Metaflow.
        title: A title.
    """

    def _parsed(self, data: Any) -> Any:
        return data

    def render(self) -> Html:
        """The component as HTML."""
        text = self._data if isinstance(self._data, str) else "\n".join(_yaml(self._data, 0))
        block = tag("pre", shortened(text, 200_000), class_="code")
        title = self._title or "YAML"
        if self._is_foldable:
            return tag("details", tag("summary", title), block, open=True)
        return tag("div", tag("div", title, class_="title"), block)


def plain_value(value: Any, room: list[int], depth: int) -> Any:
    """A value of JSON's types, with texts for all others, and for what is beyond some thousand items or too deep."""
    room[0] -= 1
    if isinstance(value, dict | list | tuple | set | frozenset) and (depth >= _MOST_DEPTH or room[0] < 0):
        return f"… {len(value):,} items"
    if isinstance(value, dict):
        return _Cut(
            {
                shortened(str(key), 1_000): plain_value(each, room, depth + 1)
                for key, each in islice(value.items(), _MOST_ITEMS)
            },
            len(value),
        )
    if isinstance(value, list | tuple | set | frozenset):
        return _CutList([plain_value(each, room, depth + 1) for each in islice(value, _MOST_ITEMS)], len(value))
    if isinstance(value, str):
        return shortened(value, 100_000)
    if value is None or isinstance(value, bool | int | float):
        return value
    return shortened(safe_repr(value), 2_000)


class _Cut(dict[str, Any]):
    """The first items of a dictionary, and the number of all."""

    def __init__(self, items: dict[str, Any] | None = None, count: int = 0) -> None:
        super().__init__(items or {})
        self.total = count


class _CutList(list[Any]):
    """The first items of a list, and the number of all."""

    def __init__(self, items: list[Any] | None = None, count: int = 0) -> None:
        super().__init__(items or [])
        self.total = count


def tree_of(value: Any, depth: int, name: str | None = None) -> Html:
    label = tag("span", name, ": ", class_="key") if name is not None else None
    if not isinstance(value, _Cut | _CutList):
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _scalar(value)
        return tag("div", label, tag("span", text, class_="string" if isinstance(value, str) else "scalar"))
    if not value:
        return tag("div", label, "{}" if isinstance(value, _Cut) else "[]")
    pairs = value.items() if isinstance(value, _Cut) else ((str(index), each) for index, each in enumerate(value))
    kind = f"{{{value.total:,}}}" if isinstance(value, _Cut) else f"[{value.total:,}]"
    inside = [tree_of(each, depth + 1, key) for key, each in pairs]
    more = tag("div", f"… and {value.total - len(value):,} more", class_="muted") if value.total > len(value) else None
    head = tag("summary", label, tag("span", kind, class_="muted"))
    return tag("details", head, *inside, more, open=depth < _OPEN_DEPTH)


def _scalar(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else safe_repr(value)


def _yaml(value: Any, depth: int) -> list[str]:
    """The lines of a value in YAML; texts as JSON, which is YAML too."""
    pad = "  " * depth
    if not isinstance(value, _Cut | _CutList) or not value:
        return [pad + _yaml_scalar(value)]
    lines = []
    pairs = value.items() if isinstance(value, _Cut) else [("-", each) for each in value]
    for key, each in pairs:
        head = f"{pad}- " if key == "-" and isinstance(value, _CutList) else f"{pad}{_yaml_text(key)}: "
        if isinstance(each, _Cut | _CutList) and each:
            inner = _yaml(each, depth + 1)
            if isinstance(value, _CutList):
                lines += [head + inner[0].lstrip(), *inner[1:]]
            else:
                lines += [head.rstrip(), *inner]
        else:
            lines.append(head + _yaml_scalar(each))
    if value.total > len(value):
        lines.append(f"{pad}# … and {value.total - len(value):,} more")
    return lines


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, _Cut | _CutList):
        return "{}" if isinstance(value, _Cut) else "[]"
    return _yaml_text(value) if isinstance(value, str) else _scalar(value)


def _yaml_text(text: str) -> str:
    plain = text and text.replace("_", "").replace("-", "").replace(" ", "").isalnum() and text[0].isalpha()
    ambiguous = text.lower() in {"true", "false", "null", "yes", "no", "on", "off", "nan", "inf"}
    return text if plain and not ambiguous and text == text.strip() else json.dumps(text, ensure_ascii=False)
