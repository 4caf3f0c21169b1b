"""The live block: the screen after each frame, whatever is written and however wide the screen is."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator, Mapping

import click
import pytest

from k8sflow.executors.base import Finished, Output, Started
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.progress import Reporter, live_view, reporter
from k8sflow.runtime.progress.live_view import LiveView
from k8sflow.runtime.progress.plain_view import PlainView
from k8sflow.runtime.progress.tally import Tally
from k8sflow.task.result import TaskResult, Transition, failed
from k8sflow.task.spec import TaskName, TaskSpec

DONE = TaskResult(Outcome.SUCCEEDED, Transition())
FAILED = failed(Outcome.USER_ERROR, "it broke")
XTERM = {"TERM": "xterm-256color"}


class Terminal(io.StringIO):
    """A terminal of a size that a test sets, and what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.controller, self.descriptor = pty.openpty()
        self.resize(80, 24)

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return True

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.columns = columns

    def screen(self) -> list[str]:
        """The lines that stand there: as a terminal without end shows what was written."""
        lines, row, column = [""], 0, 0
        for text, count, command in re.findall(r"([^\x1b\r\n]+|[\r\n])|\x1b\[([\d;]*)([A-Za-z])", self.getvalue()):
            if text == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif text == "\r":
                column = 0
            elif text:
                lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
                column += len(text)
            elif command == "A":
                row -= int(count)
                assert row >= 0, "the cursor left the top"
            elif command == "J":
                lines[row:] = [lines[row][:column]]
            elif command == "K":
                assert count == "2"
                lines[row] = ""
            else:
                assert command == "m", f"an escape sequence {command!r}"
        assert column == 0, "between frames the cursor is at the start of a line"
        while lines[-1:] == [""] and len(lines) > row + 1:
            lines.pop()
        return lines[:-1]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.controller)
    os.close(made.descriptor)


def _task(step: str, *path: int, attempt: int = 0) -> TaskSpec:
    return TaskSpec("F", "r1", TaskName(step, path), attempt)


def _view(terminal: Terminal, tally: Tally, steps: tuple[str, ...] = ()) -> LiveView:
    """A view whose frames a test draws, in place of its thread."""
    view = LiveView(terminal, "F/r1", 0.0, steps, has_colours=False)
    view._tally = tally
    return view


def _frame(view: LiveView, *lines: str) -> None:
    view._lines += lines
    view._frame(view._render(9.0))


def _tally(width: int = 10) -> Tally:
    tally = Tally(clock=lambda: 9.0)
    tally.submitted([_task("start")])
    tally.event(Started(_task("start"), "here"))
    tally.event(Finished(_task("start"), DONE))
    tally.submitted([_task("work", i) for i in range(width)])
    return tally


def test_the_block_stays_below_the_lines(terminal: Terminal) -> None:
    """Each frame takes the place of the one before it; what was written above it stays."""
    tally = _tally()
    view = _view(terminal, tally, ("start", "work", "join"))
    _frame(view)
    for i in range(6):
        tally.event(Started(_task("work", i), "here"))
        _frame(view, f"[work/{i}] one\n", f"[work/{i}] two\n")
        tally.event(Finished(_task("work", i), FAILED if i == 5 else DONE))
    _frame(view)
    lines = terminal.screen()
    assert lines[:12] == [f"[work/{i}] {word}" for i in range(6) for word in ("one", "two")]
    block = lines[12:]
    assert [line.split()[0] for line in block if line] == ["F/r1", "done", "start", "work", "to"]
    assert re.search(r"work +[━╸╺]+ +5 +· +4 +1 ", block[4])
    view._frame([])
    assert terminal.screen() == lines[:12]


def test_a_step_that_was_done_before_is_not_to_come(terminal: Terminal) -> None:
    """Cloned tasks, and those of an earlier driver, count as done, and take no time; the summary says so too."""
    tally = Tally(clock=lambda: 9.0)
    tally.done_before([_task("start")])
    tally.done_before([_task("work", i) for i in range(3)])
    tally.submitted([_task("work", 3)])
    tally.event(Started(_task("work", 3), "here"))
    view = _view(terminal, tally, ("start", "work", "join"))
    _frame(view)
    start, work, coming = terminal.screen()[3:]
    assert re.fullmatch(r"start +1 +· +· +· +before *", start)
    assert re.match(r"work +[━╸╺ ]+ +3 +1 +· +· ", work)
    assert coming == "to come: join"
    view._frame([])
    shown = Reporter(0.0, PlainView(terminal, has_colours=False), str)
    shown.tally = tally
    tally.event(Finished(_task("work", 3), DONE))
    shown.summary("F/r1", "succeeded", "", good=True)
    rows = [line.split() for line in terminal.screen()]
    assert rows[0] == ["start", "1", "done", "before"]
    assert rows[1][3:] == ["3", "done", "before,", "1", "done"]
    assert rows[2][-2:] == ["(1", "task)."]


def test_a_progress_bar_moves_in_the_block(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last state, of three tasks at most; when it ends it is one line above."""
    tally = _tally()
    view = _view(terminal, tally)
    monkeypatch.setattr(view, "write", lambda lines: view._lines.extend([lines]))
    shown = Reporter(0.0, view, str)
    shown.tally = tally
    tasks = [_task("work", i) for i in range(5)]
    for task in tasks:
        shown.event(Started(task, "here"))
        shown.event(Output(task, "stdout", b"begins\n"))
        shown.event(Output(task, "stderr", b"\r\x1b[32m10%|#   |\x1b[0m"))
        shown.event(Output(task, "stderr", "\r20%|██  |".encode()))
    _frame(view)
    bars = [f"[work/{i}] 20%|██  |" for i in range(3)]
    assert terminal.screen()[-3:] == bars
    shown.event(Output(tasks[0], "stderr", b"\r100%|####|\n"))
    shown.event(Output(tasks[1], "stderr", b"\r" + b"x" * 300))
    _frame(view)
    assert terminal.screen()[5] == "[work/0] 100%|####|"
    assert [line.rstrip() for line in terminal.screen()[-3:]] == [
        f"[work/1] {'x' * 69}…",
        bars[2],
        "[work/3] 20%|██  |",
    ]
    for task in tasks:
        shown.event(Finished(task, DONE))
    _frame(view)
    assert terminal.screen()[6:10] == [f"[work/1] {'x' * 300}", *(f"[work/{i}] 20%|██  |" for i in (2, 3, 4))]
    assert "%" not in terminal.screen()[-1]


@pytest.mark.parametrize("columns", [40, 60, 79, 80, 200])
def test_no_line_is_wider_than_the_terminal(terminal: Terminal, columns: int) -> None:
    """Also with large counts and long names, in whatever script."""
    terminal.resize(columns, 24)
    tally = _tally()
    for name in ("a_step_with_quite_a_long_name_for_what_it_does", "работа"):
        tally.submitted([_task(name, i) for i in range(3000)])
    view = _view(terminal, tally, tuple(f"coming_{i}" for i in range(40)))
    _frame(view)
    assert max(view._widths) <= columns - 1
    assert "3,000" in terminal.getvalue()
    heads = {"done", "running", "waiting", "failed", "time", "left"}
    assert set(click.unstyle(view._block[2]).split()) <= heads, "a column is whole or not there"


def test_the_block_is_erased_line_by_line(terminal: Terminal) -> None:
    """A terminal such as tmux takes into its history what is cleared from the first line of the screen on."""
    view = _view(terminal, _tally())
    _frame(view)
    assert "\x1b[J" not in view._erase().partition("\x1b[1A")[2]


def test_a_terminal_that_becomes_narrower_wraps_what_has_to_go(terminal: Terminal) -> None:
    """The block has more lines then than were written."""
    view = _view(terminal, _tally())
    _frame(view)
    widths, height = list(view._widths), len(view._block)
    terminal.resize(40, 24)
    assert view._erase().count("\x1b[1A") == sum(max(1, -(-width // 40)) for width in widths)
    assert sum(max(1, -(-width // 40)) for width in widths) > height


def test_a_small_terminal_has_no_block(terminal: Terminal) -> None:
    """Only lines."""
    terminal.resize(30, 24)
    view = _view(terminal, _tally())
    _frame(view, "a line\n")
    assert terminal.screen() == ["a line"]


def test_many_steps_fit(terminal: Terminal) -> None:
    """Those that go on are shown before those that are over."""
    tally = _tally()
    for i in range(50):
        tally.submitted([_task(f"step_{i}")])
        if i != 3:
            tally.event(Finished(_task(f"step_{i}"), DONE))
    view = _view(terminal, tally)
    _frame(view)
    block = terminal.screen()
    assert len(block) <= 12
    assert any(line.startswith("step_3 ") for line in block)
    assert any(line.startswith("work ") for line in block)
    assert any("more steps started" in line for line in block)


def test_a_frame_costs_the_same_for_any_number_of_tasks(terminal: Terminal) -> None:
    """Nothing is kept of tasks that have ended."""
    tally = _tally(100_000)
    for i in range(1000):
        tally.event(Started(_task("work", i), "here"))
        tally.event(Finished(_task("work", i), DONE))
    assert not tally._running
    assert len(tally.steps) == 2
    _frame(_view(terminal, tally))
    assert "99,000" in terminal.getvalue()


def test_the_remaining_time_is_shown_once_some_are_done() -> None:
    """As if the rest took as long as the tasks before them."""
    now = [0.0]
    tally = Tally(clock=lambda: now[0])
    step = tally.submitted([_task("work", i) for i in range(100)])
    assert step.remaining(0.0) is None
    for i in range(20):
        tally.event(Finished(_task("work", i), DONE))
    assert step.remaining(10.0) == pytest.approx(40.0)


def test_a_loop_has_no_bar_and_no_remaining_time(terminal: Terminal) -> None:
    """Nobody knows how often a step comes back to itself."""
    moments = iter(range(100))
    tally = Tally(clock=lambda: float(next(moments)))
    for turn in range(9):
        task = TaskSpec("F", "r1", TaskName("guess", (), turn))
        tally.submitted([task])
        tally.event(Started(task, "here"))
        if turn < 8:
            tally.event(Finished(task, DONE))
    assert tally.steps["guess"].remaining(9.0) is None
    _frame(_view(terminal, tally))
    assert "━" not in "".join(terminal.screen())


def test_a_retry_is_not_another_task() -> None:
    """Failed, waiting again, done; one that @catch takes is done too."""
    tally = _tally(2)
    first, second = _task("work", 0), _task("work", 1)
    step = tally.steps["work"]
    for task in (first, second):
        tally.event(Started(task, "here"))
        tally.event(Finished(task, FAILED))
    assert (step.waiting, step.failed, step.is_over) == (0, 2, True)
    tally.retried(first, FAILED)
    assert (step.waiting, step.failed, step.retries) == (1, 1, 1)
    tally.submitted([_task("work", 0, attempt=1)])
    tally.event(Started(_task("work", 0, attempt=1), "here"))
    tally.event(Finished(_task("work", 0, attempt=1), DONE))
    tally.caught(second)
    assert (step.total, step.done, step.failed, step.waiting) == (2, 2, 0, 0)


def _run(seen: Reporter, tasks: int) -> None:
    """Some events of a run, reported from the driver's thread."""
    seen.submitted([_task("work", i) for i in range(tasks)])
    for i in range(tasks):
        seen.event(Started(_task("work", i), "here"))
        seen.event(Output(_task("work", i), "stdout", b"\x1b[31mline\x1b[0m\nand a half"))
        seen.event(Finished(_task("work", i), DONE))


def test_everything_is_on_the_screen_at_the_end(terminal: Terminal) -> None:
    """By the thread of the view: all lines in their order, no block, the summary last."""
    seen = reporter(0.0, str, "F/r1", ("work",), stream=terminal, environment=XTERM)
    _run(seen, 5000)
    seen.retried(_task("work", 0), FAILED, Again())
    seen.summary("F/r1", "succeeded", "Look there.", good=True)
    lines = terminal.screen()
    expected = [f"[work/{i}] {text}" for i in range(5000) for text in ("line", "and a half")]
    assert lines[:10_000] == expected
    assert [line for line in lines[10_000:] if "running" in line] == []
    assert lines[-1] == "Look there."


def test_output_waits_for_a_slow_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The held back output stays small."""
    seen = reporter(0.0, str, "F/r1", ("work",), stream=terminal, environment=XTERM)
    view = seen._view
    assert isinstance(view, LiveView)
    most = 0
    seen.submitted([_task("work", 0)])
    for _ in range(200):
        seen.event(Output(_task("work", 0), "stdout", b"x" * 60_000 + b"\n"))
        most = max(most, sum(map(len, view._lines)))
    seen.close()
    assert most <= live_view._MOST_HELD_CHARACTERS + 70_000
    assert terminal.getvalue().count("x") == 200 * 60_000


@pytest.mark.parametrize(
    ("environment", "kind", "has_colours"),
    [
        (XTERM, LiveView, True),
        ({**XTERM, "NO_COLOR": "1"}, LiveView, False),
        ({**XTERM, "CI": "true"}, PlainView, True),
        ({**XTERM, "CI": "false"}, LiveView, True),
        ({"TERM": "dumb"}, PlainView, False),
        ({}, PlainView, False),
    ],
)
def test_the_view_suits_the_place(
    terminal: Terminal, environment: Mapping[str, str], kind: type, has_colours: bool
) -> None:
    """A block on a terminal that can show one, lines elsewhere."""
    view = reporter(0.0, str, stream=terminal, environment=environment)._view
    assert isinstance(view, kind)
    assert view.has_colours is has_colours
    assert isinstance(reporter(0.0, str, stream=io.StringIO(), environment=environment)._view, PlainView)


def test_a_closed_stream_is_written_to_by_nobody() -> None:
    """The run continues."""
    stream = io.StringIO()
    stream.close()
    seen = reporter(0.0, str, stream=stream, environment=XTERM)
    _run(seen, 2)
    seen.summary("F/r1", "succeeded", "", good=True)


def test_a_block_that_cant_be_shown_takes_no_lines_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that draws it ends with a line that says so; what follows is written without it."""
    stream = io.StringIO()
    view = LiveView(stream, "F/1", 0.0, ["start"], has_colours=False)

    def fail(now: float) -> list[str]:
        raise RuntimeError("no room")

    monkeypatch.setattr(view, "_render", fail)
    view.follow(Tally())
    thread = view._thread
    assert thread is not None
    thread.join()
    view.write("a line\n")
    assert "The block of steps can't be shown: RuntimeError: no room\n" in stream.getvalue()
    assert stream.getvalue().endswith("a line\n")
    view.close()
