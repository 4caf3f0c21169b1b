"""Artifacts on a page: what is stored about them, and their values as data (``plain.py``)."""

from __future__ import annotations

import base64
from typing import Any

from k8sflow import units
from k8sflow.cards.markup import Html, data_url, joined, tag
from k8sflow.cards.texts import shortened
from k8sflow.cards.viewers import plain_value, tree_of
from k8sflow.client import DataArtifact
from k8sflow.errors import ArtifactError, K8sflowError
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.encoding import sha256
from k8sflow.storage.objects import ObjectStore
from k8sflow.task.safe_repr import safe_repr
from k8sflow.ui.plain import Array, Part, read_plain

# An artifact that is larger is not fetched to be looked at.
MOST_BYTES = 64 << 20
_MOST_TEXT = 200_000
_MOST_ROWS, _MOST_COLUMNS, _MOST_ITEMS = 100, 20, 10_000
_SHORT = 120
_IMAGES = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def value_of(store: ObjectStore, flow: str, ref: ArtifactRef, name: str) -> Any:
    """The value of an artifact as data; no code is run.

    Args:
        store: The store.
        flow: The flow.
        ref: The reference to the value.
        name: The artifact's name, for errors.

    Raises:
        ArtifactError: It is damaged, missing, too large, or not a value that can be read as data.
    """
    if max(ref.size, ref.value_size) > MOST_BYTES:
        raise ArtifactError(
            f"it is too large to be shown: {units.size(ref.value_size)}.", advice="Load it with the client."
        )
    if ref.inline is not None:
        data = base64.b64decode(ref.inline)
    else:
        data = bytes(ArtifactStore(store, flow).load_blob(ref.blob, name))
    if sha256([data]) != ref.blob:
        raise ArtifactError("its content is damaged: it has another sha256 than the one that was saved.")
    return read_plain(data, ref.encoding, ref.value_size)


def short_value(store: ObjectStore, flow: str, ref: ArtifactRef, name: str) -> str:
    """One line about a value that is a part of its reference; empty for others, which would have to be fetched."""
    if ref.inline is None:
        return ""
    try:
        value = value_of(store, flow, ref, name)
    except (K8sflowError, ValueError):
        return ""
    text = safe_repr(value)
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"


def shown(value: Any) -> Html:
    """A value as markup.

    Raises:
        ArtifactError: It is so odd that it can't be shown.
    """
    try:
        return _shown(value)
    except Exception as error:  # data may claim to be anything
        raise ArtifactError(f"it can't be shown: {type(error).__name__}: {error}") from error


def _shown(value: Any) -> Html:
    if isinstance(value, str):
        return tag("pre", shortened(value, _MOST_TEXT), tabindex="0")
    if isinstance(value, bytes | bytearray):
        return _shown_bytes(bytes(value))
    if isinstance(value, Array):
        return _shown_array(value)
    if isinstance(value, Part):
        return tag("p", "A value of the class ", tag("code", value.name), ".")
    if _is_table(value):
        return _shown_table(value)
    return tag("div", tree_of(plain_value(value, [_MOST_ITEMS], 0), 0), class_="tree", tabindex="0")


def _shown_bytes(data: bytes) -> Html:
    for magic, kind in _IMAGES.items():
        if data.startswith(magic):
            return tag("figure", tag("img", src=data_url(data, kind), alt="the image in this artifact"))
    rows = [data[start : start + 16].hex(" ") for start in range(0, min(len(data), 512), 16)]
    return joined([tag("p", f"{len(data):,} bytes", class_="muted"), tag("pre", "\n".join(rows), tabindex="0")])


def _shown_array(array: Array) -> Html:
    columns = array.shape[-1] if len(array.shape) > 1 else 1
    numbers = array.numbers
    width = max(columns, 1)
    rows = [numbers[start : start + width] for start in range(0, len(numbers), width)][:_MOST_ROWS]
    cells = [
        [tag("td", f"{each:.6g}" if isinstance(each, float) else each, class_="number") for each in row[:_MOST_COLUMNS]]
        for row in rows
    ]
    body = [tag("tr", tag("th", index, scope="row"), *row) for index, row in enumerate(cells)]
    head = tag("p", repr(array), class_="muted")
    return joined([head, tag("div", tag("table", tag("tbody", *body)), class_="scroll", tabindex="0")])


def _is_table(value: Any) -> bool:
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value[:_MOST_ROWS]):
        return False
    names = list(value[0])
    if not all(isinstance(name, str | int) and len(str(name)) <= _SHORT for name in names):
        return False
    simple = str | int | float | bool | None
    return bool(names) and all(
        list(row) == names and all(isinstance(each, simple) for each in row.values()) for row in value[:_MOST_ROWS]
    )


def _shown_table(rows: list[dict[Any, Any]]) -> Html:
    names = list(rows[0])[:_MOST_COLUMNS]
    head = tag("tr", *(tag("th", str(name), scope="col") for name in names))
    body = [tag("tr", *(tag("td", _cell(row[name])) for name in names)) for row in rows[:_MOST_ROWS]]
    more = f"{len(rows):,} rows" + (f", of which the first {_MOST_ROWS} are shown" if len(rows) > _MOST_ROWS else "")
    table = tag("table", tag("thead", head), tag("tbody", *body))
    return joined([tag("p", more, class_="muted"), tag("div", table, class_="scroll", tabindex="0")])


def _cell(value: Any) -> str:
    return "" if value is None else shortened(str(value), 1_000)


def loaded(artifact: DataArtifact) -> str:
    """A page with the value of an artifact after loading it, which runs the code of its classes.

    Raises:
        ArtifactError: It can't be loaded.
    """
    from k8sflow.cards.accept import component_of  # noqa: PLC0415  only with --unpickle
    from k8sflow.cards.page import document  # noqa: PLC0415  as above

    return document(artifact.pathspec, Html(component_of(artifact.data).render()), bare=True)


def nothing() -> Html:
    """No markup."""
    return Html("")
