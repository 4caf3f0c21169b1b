"""Components as markup; one that fails becomes its error, and leaves the others alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k8sflow.cards.base import MetaflowCardComponent
from k8sflow.cards.markup import Html, frame, tag
from k8sflow.cards.numbers import ValueBox
from k8sflow.cards.texts import Error


def text_of(component: MetaflowCardComponent) -> str:
    """The markup of a component, as it is; its error, if it fails."""
    try:
        return component.render()
    except Exception as error:  # noqa: BLE001  the class may be the user's
        return Error(error, f"{type(component).__name__} can't be shown").render()


def rendered(component: MetaflowCardComponent) -> Html:
    """The markup of a component; text that a user's class returns is shown in a sandboxed frame."""
    found = text_of(component)
    return found if isinstance(found, Html) else frame(str(found))


def body_of(components: Sequence[MetaflowCardComponent]) -> Iterable[Html]:
    """The markup of components; boxes that follow each other are side by side."""
    boxes: list[Html] = []
    for component in components:
        if isinstance(component, ValueBox):
            boxes.append(rendered(component))
            continue
        yield from _row(boxes)
        boxes = []
        yield rendered(component)
    yield from _row(boxes)


def _row(boxes: list[Html]) -> Iterable[Html]:
    if boxes:
        yield tag("div", *boxes, class_="boxes")
