"""Which signal means what, by a clock of the test's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from k8sflow.runtime.commands import interrupts as module
from k8sflow.runtime.commands.interrupts import interrupts


class Left(BaseException):
    """The process would have ended here."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def received(monkeypatch: pytest.MonkeyPatch, *signals: tuple[float, signal.Signals]) -> list[str]:
    """The effects of signals that come at these times."""
    now, seen = [0.0], []

    def leave(code: int) -> None:
        seen.append(f"left with {code}")
        raise Left

    monkeypatch.setattr(module.os, "_exit", leave)
    try:
        with interrupts(lambda: seen.append("cancel"), "", lambda: seen.append("deletes"), lambda: now[0]):
            for at, number in signals:
                now[0] = at
                try:
                    os.kill(os.getpid(), number)
                except KeyboardInterrupt:
                    seen.append("raised")
    except Left:
        pass
    return seen


CANCELLED = ["cancel", "raised"]
LEFT = [*CANCELLED, "deletes", "left with 130"]
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize(
    ("signals", "happens"),
    [
        ([(0, INT)], CANCELLED),
        ([(0, INT), (0.9, INT)], CANCELLED),
        ([(0, INT), (1.0, INT)], LEFT),
        ([(0, INT), (0.5, INT), (1.2, INT)], LEFT),
        ([(0, TERM), (0, TERM)], CANCELLED),
        ([(0, TERM), (60, TERM), (120, HUP)], CANCELLED),
        ([(0, INT), (7.5, TERM)], CANCELLED),
        ([(0, HUP), (0.1, TERM)], CANCELLED),
        ([(0, TERM), (5, INT)], LEFT),
    ],
)
def test_only_a_later_sigint_leaves(
    monkeypatch: pytest.MonkeyPatch, signals: list[tuple[float, signal.Signals]], happens: list[str]
) -> None:
    """It has its deletes sent first; everything else is one cancellation."""
    assert received(monkeypatch, *signals) == happens


def test_handlers_come_back_where_nothing_was_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends by itself leaves the process as it was; a cancelled one is only ended by a later SIGINT."""
    before = signal.getsignal(TERM)
    received(monkeypatch)
    assert signal.getsignal(TERM) is before
    received(monkeypatch, (0, INT))
    assert signal.getsignal(TERM) is not before


def test_deletes_that_fail_keep_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process leaves all the same."""

    def fail() -> None:
        raise OSError

    left: list[int] = []

    def leave(code: int) -> None:
        left.append(code)

    monkeypatch.setattr(module.os, "_exit", leave)
    with pytest.raises(OSError):  # noqa: PT011  only because the process is still there
        module._leave("", fail)
    assert left == [130]
