"""Waking a selector, by a thread and by signals."""

from __future__ import annotations

import os
import selectors
import signal
import threading
from collections.abc import Iterator

import pytest

from k8sflow.task.host.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    found = Wakeup()
    yield found
    found.close()


@pytest.fixture
def selector(wakeup: Wakeup) -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as found:
        found.register(wakeup, selectors.EVENT_READ)
        yield found


def test_a_thread_wakes_a_selector(wakeup: Wakeup, selector: selectors.BaseSelector) -> None:
    """Until the wake-up is cleared; many of them are one."""
    assert selector.select(0) == []
    threading.Thread(target=lambda: [wakeup.wake() for _ in range(100_000)]).start()
    ((key, _),) = selector.select()
    assert key.fileobj is wakeup
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    while selector.select(0):
        wakeup.clear()
    wakeup.clear()  # of nothing
    assert selector.select(0) == []
    wakeup.wake()
    assert selector.select(0)


def test_a_signal_wakes_a_selector(wakeup: Wakeup, selector: selectors.BaseSelector) -> None:
    """One that has a handler."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    wakeup.wake_on_signals()
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert selector.select(10)
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, before)
