"""The cards of a task: made by an upper layer, if its step has any."""

from __future__ import annotations

from typing import Protocol

from k8sflow import hooks
from k8sflow.flow.decorators.card import card
from k8sflow.flow.definition import FlowDefinition
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.inside.current_facts import describe
from k8sflow.task.spec import EXIT_HOOK_STEP, TaskSpec


class Cards(Protocol):
    """``current.card``, as the task's runner sees it."""

    def finish(self) -> None:
        """Makes the final cards, and waits for them."""


def cards_of(
    definition: FlowDefinition, record: RunRecord, run_store: RunStore, spec: TaskSpec, *, is_own_process: bool
) -> Cards | None:
    """The cards of a task, or None if its step has no ``@card``."""
    step = spec.name.step
    if step == EXIT_HOOK_STEP:
        return None
    decorations = definition.decorations_of(step, definition.added(record.decorators))
    # They are applied from the lowest one upwards; people count from the top.
    options = [found.parsed() for found in reversed(decorations) if found.name == card.name]
    if not options:
        return None
    name = (step, spec.name.id, spec.attempt)
    cards: Cards = hooks.call("cards", run_store, name, options, describe(definition, record), is_own_process)
    return cards
