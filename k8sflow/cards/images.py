"""Images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from k8sflow.cards.base import Component
from k8sflow.cards.markup import Html, data_url, tag

_MIME = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}


class Image(Component):
    """An image.

    Args:
        src: Its bytes, a ``data:`` URL, the path of a file, or an image or figure of PIL or matplotlib.
        label: A text below it.
        disable_updates: Kept for flows written for Metaflow.
    """

    def __init__(self, src: Any = None, label: str | None = None, disable_updates: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002  as in Metaflow
        self._url, self._label, self._problem = "", label, ""
        if src is not None:
            self.update(src, label)

    def update(self, image: Any, label: str | None = None) -> None:
        """Replaces the image, and its label if one is given."""
        self._label = self._label if label is None else label
        self._url, self._problem = "", ""
        try:
            self._url = _url_of(image)
        except Exception as error:  # noqa: BLE001  libraries that draw raise anything, and a card never harms its step
            self._problem = str(error) or type(error).__name__

    @classmethod
    def from_matplotlib(cls, plot: Any, label: str | None = None, disable_updates: bool = False) -> Image:  # noqa: ARG003, FBT001, FBT002  as in Metaflow
        """A figure or axes of matplotlib, as it is now."""
        return cls(plot, label)

    @classmethod
    def from_pil_image(cls, pilimage: Any, label: str | None = None, disable_updates: bool = False) -> Image:  # noqa: ARG003, FBT001, FBT002  as in Metaflow
        """An image of PIL."""
        return cls(pilimage, label)

    @staticmethod
    def mime_of(data: bytes) -> str:
        """The type of an image, from its first bytes; empty if it is none."""
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return "image/webp"
        if data.lstrip()[:4] == b"<svg" or (data.lstrip()[:5] == b"<?xml" and b"<svg" in data[:1000]):
            return "image/svg+xml"
        return next((mime for start, mime in _MIME.items() if data.startswith(start)), "")

    def render(self) -> Html:
        """The component as HTML."""
        if self._problem or not self._url:
            return tag("p", f"No image: {self._problem or 'nothing was given'}", class_="muted")
        label = tag("figcaption", self._label) if self._label else None
        return tag("figure", tag("img", src=self._url, alt=self._label or ""), label)


def _url_of(image: Any) -> str:
    """A ``data:`` URL of an image.

    Raises:
        OSError: Its file can't be read.
        ValueError: It is not an image.
        TypeError: It is of another kind.
    """
    if isinstance(image, str) and image.startswith("data:image/"):
        return image
    if isinstance(image, str | Path):
        image = Path(image).read_bytes()
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        if not (mime := Image.mime_of(data)):
            raise ValueError(f"{len(data):,} bytes that are not a PNG, JPEG, GIF, WebP, BMP or SVG")
        return data_url(data, mime)
    if hasattr(image, "savefig") or hasattr(image, "figure"):
        return data_url(_png_of(image), "image/png")
    if hasattr(image, "save"):
        file = io.BytesIO()
        image.save(file, format="PNG")
        return data_url(file.getvalue(), "image/png")
    raise TypeError(f"{type(image).__name__} is not an image")


def _png_of(figure: Any) -> bytes:
    """A matplotlib figure, or that of an axes, as PNG."""
    target = figure if hasattr(figure, "savefig") else figure.figure
    file = io.BytesIO()
    target.savefig(file, format="png", dpi=150, bbox_inches="tight")
    return file.getvalue()
