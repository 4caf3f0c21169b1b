"""The output of a run: whole lines with a prefix, whatever a task writes, and how a run ended."""

from __future__ import annotations

import io
import re

import pytest

from k8sflow.executors.base import Finished, Output, OutputMissing, Queued, Started
from k8sflow.flow.outcome import Outcome
from k8sflow.outages import Notice
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.progress import Reporter
from k8sflow.runtime.progress import reporter as made
from k8sflow.task.result import Failure, TaskResult, Transition, failed
from k8sflow.task.spec import TaskName, TaskSpec

TASK = TaskSpec("F", "r1", TaskName("work", (3, 1)))
DONE = TaskResult(Outcome.SUCCEEDED, Transition())


def _reporter(stream: io.StringIO) -> Reporter:
    return made(0.0, str, stream=stream)


def _shown(*pieces: bytes) -> list[str]:
    """The lines of one task's output that came in these pieces."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    reporter.submitted([TASK])
    for piece in pieces:
        reporter.event(Output(TASK, "stdout", piece))
    reporter.event(Finished(TASK, DONE))
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "[work/3.1] done"
    return [line.removeprefix("[work/3.1] ") for line in lines[:-1]]


def test_the_width_of_a_foreach_is_a_line_of_its_own() -> None:
    """Whatever number of branches is submitted at a time, or again."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    reporter.opened("work", 2400)
    for attempt in range(2):
        reporter.submitted([TaskSpec("F", "r1", TaskName("work", (i,)), attempt=attempt) for i in range(12)])
    assert stream.getvalue() == "work: 2,400 branches\n"


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ((b"\x1b]0;title\x07text\x1b[?25l\x1b(B\n",), ["text"]),
        ((b"\xc2\x9b2Jc1\xc2\x85\n",), ["2Jc1"]),
        ((b"50%\r\r\n", b"a\rb\r\nc\n"), ["50%", "b", "c"]),
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"o", b"ne\nt", b"wo"), ["one", "two"]),
        ((b"\xe6\x97", b"\xa5\n"), ["日"]),
        ((b"\xff\n",), ["\ufffd"]),
        ((b"10%\r", b"20%\r30%\n"), ["30%"]),
        ((b"10%\r20%\r",), ["20%"]),
        ((b"dos\r\nlines\r\n",), ["dos", "lines"]),
        ((b"\x1b[31mred\x1b[0m\n",), ["red"]),
        ((b"\x1b[2J\x1b[Hcleared\x07\x00\n",), ["cleared"]),
        ((b"\n\n",), ["", ""]),
        ((), []),
    ],
)
def test_output_becomes_whole_lines(pieces: tuple[bytes, ...], lines: list[str]) -> None:
    """However it was cut; of a progress bar its last state; nothing that moves the cursor."""
    plain = [re.sub(r"\x1b\[\d*m", "", line) for line in _shown(*pieces)]
    assert [line.removeprefix("[work/3.1]").strip() for line in plain] == lines


def test_lines_of_two_tasks_do_not_mix() -> None:
    """Each waits for its own end."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    other = TaskSpec("F", "r1", TaskName("work", (3, 2)))
    for task, data in ((TASK, b"a"), (other, b"b"), (TASK, b"a\n"), (other, b"b\n")):
        reporter.event(Output(task, "stdout", data))
    assert stream.getvalue().splitlines() == ["[work/3.1] aa", "[work/3.2] bb"]


def test_a_bar_without_an_end_takes_no_memory() -> None:
    """Only the last state of a rewritten line is kept; a line without an end is shown in pieces."""
    reporter = _reporter(io.StringIO())
    for i in range(10_000):
        reporter.event(Output(TASK, "stdout", b"\r%04d%%" % i * 20))
        reporter.event(Output(TASK, "stderr", b"x" * 100))
    assert sum(len(output.rest) for output in reporter._outputs.values()) < 200_000


def test_a_reason_to_wait_is_shown_once() -> None:
    """With the advice; again when it changes."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    for reason in ("", "no room", "no room", "no image", "no room"):
        reporter.event(Queued(TASK, reason, "make room" if reason == "no room" else ""))
    shown = stream.getvalue()
    assert shown.count("waits: no room") == 2
    assert shown.count("waits: no image") == 1
    reporter.event(Started(TASK, "here"))
    assert "started (here)" in stream.getvalue()


def test_a_failure_and_the_summary_are_shown() -> None:
    """Task, outcome, traceback, what to do; how long it took."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    diagnosis = Failure("it used too much", "line 1\nline 2", "ask for more")
    reporter.failure(TASK, TaskResult(Outcome.OUT_OF_MEMORY, failure=diagnosis))
    shown = stream.getvalue()
    assert "F/r1/work/3.1 failed (out of memory): it used too much" in shown
    assert "    line 1\n    line 2" in shown
    assert "What to do: ask for more" in shown
    reporter.summary("F/r1", "failed", "  to resume:  python flow.py resume", good=False)
    assert re.search(r"F/r1 failed in .+ \(0 tasks\)\.\n  to resume:  python flow.py resume\n", stream.getvalue())


def test_messages_of_others_leave_the_screen_alone() -> None:
    """An exception's text may hold anything: what clears the screen, a title, a progress bar, colours without end."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    reporter.failure(TASK, _failed("ValueError: \x1b[2J\x1b[Hwiped\x07 50%\r\x1b[31mred"))
    assert "F/r1/work/3.1 failed (user error): ValueError: wiped 50% red\n" in stream.getvalue()


def test_a_long_message_is_one_line_among_others() -> None:
    """For a task that is run again; the whole message is in the log."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    reporter.submitted([TASK])
    reporter.retried(TASK, _failed("ValueError: first\nsecond"), Again(number=1, times=3))
    assert "ValueError: first …; it is run again (retry 1 of 3)" in stream.getvalue()
    assert "second" not in stream.getvalue()


def test_a_cancelled_task_has_not_failed_in_the_summary() -> None:
    """As in the record: one whose Job was deleted, and one that ran when the run ended."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    tasks = [TaskSpec("F", "r1", TaskName("work", (i,))) for i in range(5)]
    reporter.submitted(tasks)
    cancelled = failed(Outcome.CANCELLED, "its Job was deleted externally.")
    for task in tasks:
        reporter.event(Started(task, "here"))
    for task in tasks[:3]:
        reporter.event(Finished(task, cancelled))
    reporter.event(Finished(tasks[3], _failed("an error")))
    reporter.tally.caught(tasks[0])
    reporter.tally.retried(tasks[1], cancelled)
    reporter.summary("F/r1", "failed", "", good=False)
    assert "1 done, 1 failed, 2 cancelled, 1 not started, 1 run again" in stream.getvalue()


def _failed(summary: str) -> TaskResult:
    return failed(Outcome.USER_ERROR, summary)


def test_the_end_of_a_run_lists_output_that_could_not_be_stored() -> None:
    """In a run that succeeds, and in one that fails: the task, the number of bytes, the reason."""
    note = "1,234 bytes of stdout could not be stored: the bucket did not answer in time."
    stream = io.StringIO()
    reporter = _reporter(stream)
    reporter.submitted([TASK])
    reporter.event(Finished(TASK, TaskResult(Outcome.SUCCEEDED, Transition(), note=note)))
    assert note not in stream.getvalue()
    reporter.summary("F/r1", "succeeded", "", good=True)
    assert f"[work/3.1] {note}\n" in stream.getvalue()


def test_missing_output_is_counted_with_the_command_that_has_it() -> None:
    """The number is grammatical."""
    stream = io.StringIO()
    reporter = _reporter(stream)
    reporter.event(OutputMissing(TASK, 1))
    reporter.event(OutputMissing(TASK, 12345))
    assert "[work/3.1] 1 line was not shown; all of them: " in stream.getvalue()
    assert "[work/3.1] 12,345 lines were not shown; all of them: " in stream.getvalue()


def test_a_notice_that_nobody_reads_is_not_an_error() -> None:
    """It may come from any thread; the driver's own finds out about the stream."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    _reporter(Closed()).notice(Notice("The bucket", "the bucket can't be reached"))
