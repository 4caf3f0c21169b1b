"""The base classes of cards and of what is in them, under the names that Metaflow's users know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from k8sflow.cards.markup import Html, frame
from k8sflow.cards.page import document

if TYPE_CHECKING:
    from k8sflow.client import Task


class MetaflowCardComponent:
    """A part of a card. Derive from it for one of your own, with ``render``.

    Attributes:
        component_id: The name under which ``current.card.components`` has it.
        REALTIME_UPDATABLE: Kept for flows written for Metaflow; each component shows its newest state at a refresh.
    """

    REALTIME_UPDATABLE: ClassVar[bool] = False
    component_id: str | None = None

    def render(self) -> str:
        """The component as HTML. Text that isn't ``Html`` is shown in a sandboxed frame."""
        raise NotImplementedError(f"{type(self).__name__} has no method render.")

    def update(self, *_args: Any, **_options: Any) -> None:
        """Changes what the component shows at the next refresh.

        Raises:
            NotImplementedError: It has nothing that could be changed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method update.")


class Component(MetaflowCardComponent):
    """A component of k8sflow, whose markup is a part of the page."""

    REALTIME_UPDATABLE = True

    def render(self) -> Html:
        """The component as HTML."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return frame(document("", self.render(), bare=True), height=300)


class MetaflowCard:
    """A type of cards. Derive from it for one of your own, with a ``type`` and ``render``.

    Args:
        options: The options of the decorator.
        components: The components of ``current.card``, rendered, if the class allows components.
        graph: The flow's graph as JSON types: ``current.graph``.
        flow: None; Metaflow's classes may have it in their signature.

    Attributes:
        type: What users write: ``@card(type=...)``.
        ALLOW_USER_COMPONENTS: Whether ``current.card.append`` adds to such a card.
        RUNTIME_UPDATABLE: Whether ``render_runtime`` makes the page while the task runs.
    """

    type: ClassVar[str] = ""
    ALLOW_USER_COMPONENTS: ClassVar[bool] = False
    IS_EDITABLE: ClassVar[bool] = False
    RUNTIME_UPDATABLE: ClassVar[bool] = False
    known: ClassVar[dict[str, CardClass]] = {}

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        components: Sequence[Any] = (),
        graph: Mapping[str, Any] | None = None,
        flow: Any = None,  # noqa: ARG002  in Metaflow's signature
    ) -> None:
        self.options = dict(options or {})
        self.components = list(components)
        self.graph = graph

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if cls.type:
            MetaflowCard.known[cls.type] = cls

    def render(self, task: Task) -> str:
        """The whole page, as HTML.

        Args:
            task: The task, as the client reads it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method render.")

    def render_runtime(self, task: Task, data: Any) -> str:
        """The page while the task runs.

        Args:
            task: The task.
            data: What ``current.card.refresh`` was called with.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method render_runtime.")

    def refresh(self, task: Task, data: Any) -> Any:  # noqa: ARG002  as above
        """Data for the page's function ``metaflow_card_update``, while the task runs; None for none.

        Args:
            task: The task.
            data: What ``current.card.refresh`` was called with.
        """
        return None

    def reload_content_token(self, task: Task, data: Any) -> Any:  # noqa: ARG002  as above
        """Kept for classes written for Metaflow; ``card server`` reloads a page whenever it has changed."""
        return None


CardClass: TypeAlias = type[MetaflowCard]
