"""The cards of past tasks."""

from __future__ import annotations

import hashlib
import os
import tempfile
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from k8sflow.cards.markup import frame
from k8sflow.storage.cards import CardName, TaskCards

if TYPE_CHECKING:
    from k8sflow.client import Task


class Card:
    """A card of a task.

    Args:
        stored: The cards of its execution.
        name: Its name among them.
    """

    def __init__(self, stored: TaskCards, name: CardName) -> None:
        self._stored = stored
        self._name = name

    @property
    def type(self) -> str:
        """Its type."""
        return self._name.type

    @property
    def id(self) -> str | None:
        """Its id, or None."""
        return self._name.id or None

    @property
    def file(self) -> str:
        """Its name among the cards of its task: its position, type and id."""
        return self._name.file

    @property
    def path(self) -> str:
        """The file or the URL of its page."""
        return f"{self._stored.run_store.store.url.rstrip('/')}/{self._stored.key(self._name)}"

    @property
    def hash(self) -> str:
        """The sha256 of its page."""
        return hashlib.sha256(self.get().encode("utf-8", "replace")).hexdigest()

    def get(self) -> str:
        """Its page: one HTML file.

        Raises:
            ObjectNotFoundError: It was deleted.
        """
        return self._stored.read(self._name)

    def get_data(self) -> str:
        """The data of its last refresh as JSON; empty for most types."""
        return self._stored.read_data(self._name)

    def view(self) -> Path:
        """Opens it in the browser, and returns the path of the file with it."""
        path = Path(self.path)
        if not path.is_file():
            folder = Path(tempfile.mkdtemp(prefix="k8sflow-card-"))
            path = folder / f"{self._name.file}.html"
            path.write_text(self.get(), encoding="utf-8")
        webbrowser.open(path.absolute().as_uri())
        return path

    def __str__(self) -> str:
        return f"Card({self._stored.run_store.pathspec}/{self._stored.step}/{self._stored.task}, {self._name.file})"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        return frame(self.get(), height=600, title=str(self))


class CardList(Sequence[Card]):
    """The cards of a task, in the order of the decorators."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self._cards = list(cards)

    @overload
    def __getitem__(self, index: int) -> Card: ...
    @overload
    def __getitem__(self, index: slice) -> CardList: ...
    def __getitem__(self, index: int | slice) -> Card | CardList:
        return CardList(self._cards[index]) if isinstance(index, slice) else self._cards[index]

    def __len__(self) -> int:
        return len(self._cards)

    def __iter__(self) -> Iterator[Card]:
        return iter(self._cards)

    def __repr__(self) -> str:
        return f"<cards {self._cards!r}>"

    def _repr_html_(self) -> str:
        """The pages one below the other, for notebooks."""
        return "".join(card._repr_html_() for card in self._cards) or "<em>no cards</em>"


def get_cards(
    task: Task | str,
    id: str | None = None,  # noqa: A002  as in Metaflow
    type: str | None = None,  # noqa: A002  as in Metaflow
    follow_resumed: bool = True,  # noqa: FBT001, FBT002  as in Metaflow
) -> CardList:
    """The cards of a task; while it runs, as of their last refresh.

    Args:
        task: The task, or its pathspec.
        id: Only cards of this id.
        type: Only cards of this type.
        follow_resumed: Whether a task that was cloned has the cards of its origin.

    Raises:
        NotFoundError: There is no such task.
    """
    if isinstance(task, str | os.PathLike):
        from k8sflow.client import Task  # noqa: PLC0415  few callers

        task = Task(str(task))
    source = (task.origin_task if follow_resumed else None) or task
    run_store = source.parent.parent.run_store
    stored = TaskCards(run_store, source.parent.id, source.id, source.current_attempt)
    found = [name for name in stored.names() if id in {None, name.id} and type in {None, name.type}]
    return CardList([Card(stored, name) for name in found])
