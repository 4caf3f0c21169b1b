"""Cards of pods."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from k8sflow.cards import get_cards
from tests.kind.conftest import Namespace
from tests.support import wait_for

KUBERNETES = ("--with", "kubernetes")


def test_a_pods_card_moves(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """The page is there while the pod runs, and complete afterwards."""
    run = f"c{secrets.token_hex(6)}"
    running = namespace.start("cards.py", "--run-id", run, *KUBERNETES)
    running.seen(r"\[work/0\] tick 2$")

    def page() -> str:
        return "".join(card.get() for card in get_cards(client(f"Cards/{run}")["work"]["0"], id="moving"))

    wait_for(lambda: "Item 1" in page() and "25 / 25" not in page(), 60)
    done = running.wait(120)
    assert done.code == 0, done.text
    assert "25 / 25" in page()
    (default,) = get_cards(client(f"Cards/{run}")["work"]["0"], id="default")
    assert "succeeded" in default.get()
