"""The driver's inbox: order is kept, and only output waits for a driver that is behind."""

from __future__ import annotations

import queue
import threading

import pytest

from k8sflow.executors.base import Finished, Output
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from tests.support import wait_for

TASK = TaskSpec("F", "r1", TaskName("work"))
PIECE = Output(TASK, "stdout", b"x" * 10_000)


def test_output_waits_until_the_driver_takes_some() -> None:
    """And nothing is lost, nor overtaken."""
    inbox = Inbox(most_bytes=100_000)
    thread = threading.Thread(target=lambda: [inbox.put(Output(TASK, "stdout", b"%d" % i * 5_000)) for i in range(200)])
    thread.start()
    wait_for(lambda: inbox._held_bytes >= 100_000)
    assert inbox._queue.qsize() < 30
    got = [inbox.get(timeout=10) for _ in range(200)]
    thread.join()
    assert [event.data for event in got if isinstance(event, Output)] == [b"%d" % i * 5_000 for i in range(200)]
    assert inbox._held_bytes == 0
    assert inbox.empty()


def test_small_pieces_count_too() -> None:
    """Each takes more than its bytes."""
    inbox = Inbox(most_bytes=100_000)
    thread = threading.Thread(target=lambda: [inbox.put(Output(TASK, "stdout", b"x")) for _ in range(1000)])
    thread.start()
    wait_for(lambda: inbox._held_bytes >= 100_000)
    assert inbox._queue.qsize() < 250
    inbox.close()
    thread.join()


def test_an_end_never_waits() -> None:
    """Nor does an executor's error: the driver has to hear of them."""
    inbox = Inbox(most_bytes=1)
    inbox.put(PIECE)
    end, error = Finished(TASK, TaskResult(Outcome.SUCCEEDED)), RuntimeError("dead")
    inbox.put(end)
    inbox.put(error)
    assert [inbox.get(), inbox.get(), inbox.get()] == [PIECE, end, error]


def test_a_closed_inbox_holds_nobody_up() -> None:
    """A driver that ends waits for the threads of its executors."""
    inbox = Inbox(most_bytes=1)
    inbox.put(PIECE)
    thread = threading.Thread(target=lambda: [inbox.put(PIECE) for _ in range(10)])
    thread.start()
    inbox.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert inbox.get() is PIECE
    with pytest.raises(queue.Empty):
        inbox.get(timeout=0)
