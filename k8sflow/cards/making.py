"""Makes the page of one card, in a process that may fail."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k8sflow import hooks
from k8sflow.cards.base import MetaflowCardComponent
from k8sflow.cards.builtin import BlankCard, DefaultCard
from k8sflow.cards.classes import class_of
from k8sflow.cards.rendering import text_of
from k8sflow.cards.texts import Error
from k8sflow.storage.cards import CardName, TaskCards

# The messages between the task's process and its supervisor, and the files with the snapshots that they are about.
REFRESH, FINAL, DONE = b"r", b"f", b"d"
REFRESHED, FINISHED = "refresh.pickle", "final.pickle"


@dataclass(frozen=True)
class CardOptions:
    """The options of one ``@card``.

    Args:
        name: The name of the card.
        options: The options for its class.
        timeout: The seconds after which the process that makes it is killed.
        save_errors: Whether its error is stored if it can't be made.
        customize: Whether ``current.card.append`` adds to it.
        refresh_interval: The fewest seconds between two refreshes.
    """

    name: CardName
    options: Mapping[str, Any]
    timeout: float
    save_errors: bool
    customize: bool
    refresh_interval: float

    def __str__(self) -> str:
        shown = f"@card(type={self.name.type!r}"
        return f"{shown}, id={self.name.id!r})" if self.name.id else f"{shown})"


@dataclass(frozen=True)
class Snapshot:
    """The content of all cards of a step at one moment.

    Args:
        components: The pickled components of each card, by its position.
        data: What ``refresh`` was called with, pickled.
        is_final: Whether the step has ended.
        graph: The flow's graph as JSON types.
    """

    components: Mapping[int, tuple[bytes, ...]]
    data: bytes
    is_final: bool
    graph: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Writes it to a file, which appears whole."""
        part = path.with_suffix(".part")
        part.write_bytes(pickle.dumps(self, pickle.HIGHEST_PROTOCOL))
        part.rename(path)

    @staticmethod
    def read(path: Path) -> Snapshot:
        """The snapshot in a file."""
        found: Snapshot = pickle.loads(path.read_bytes())
        return found


def make(cards: TaskCards, card: CardOptions, snapshot: Snapshot) -> None:
    """Makes a card and stores it.

    Raises:
        Exception: Anything that the card's class raises.
    """
    kind = class_of(card.name.type)
    task = hooks.call("current_task", cards.run_store, cards.step, cards.task)
    parts = [_loaded(data) for data in snapshot.components.get(card.name.position, ())]
    # A class of the user gets what its components are rendered to, as in Metaflow; one of k8sflow's, the components.
    lays_out = issubclass(kind, DefaultCard | BlankCard)
    given = parts if lays_out else list(map(text_of, parts))
    more = {"options": dict(card.options)} if card.options else {}  # else the class's own default, as in Metaflow
    made = kind(components=given, graph=snapshot.graph, **more)
    if snapshot.is_final:
        cards.write(card.name, made.render(task))
        return
    if not made.RUNTIME_UPDATABLE:
        return
    data = pickle.loads(snapshot.data)
    cards.write(card.name, made.render_runtime(task, data))
    if (update := made.refresh(task, data)) is not None:
        cards.write_data(card.name, json.dumps(update, default=str))


def _loaded(data: bytes) -> MetaflowCardComponent:
    try:
        found: MetaflowCardComponent = pickle.loads(data)
    except Exception as error:  # noqa: BLE001  the component's class may be the user's
        return Error(error, "A component can't be shown")
    return found
