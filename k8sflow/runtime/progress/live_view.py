"""A terminal: output scrolls by, and below it is a block with the progress of each step."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import click

from k8sflow.runtime.progress.tally import Tally
from k8sflow.units import duration

if TYPE_CHECKING:
    from rich.console import Console

_TICK_SECONDS = 0.25
# A driver that is ahead of the terminal by so much waits for it.
_MOST_HELD_CHARACTERS = 1 << 18
_FEWEST_COLUMNS = 40
_FEWEST_ROWS = 8


class LiveView:
    """Writes lines above a block, four times a second at most, whatever happens in between.

    One thread of its own does all the writing, which no signal interrupts: a frame is whole, and the next one knows
    what it left on the screen. The cursor is neither hidden nor moved between frames, so that a process that is
    killed leaves the terminal as it should be.

    Args:
        stream: The terminal.
        title: What the block is about.
        began: When the run was asked for, by time.monotonic().
        steps: The flow's steps, in their order.
        has_colours: Whether the terminal shows them.
    """

    tells_tasks = True

    def __init__(self, stream: TextIO, title: str, began: float, steps: Sequence[str], *, has_colours: bool) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self._stream = stream
        self._title = title
        self._began = began
        self._steps = steps
        self.has_colours = has_colours
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._held = 0
        self._tally: Tally | None = None
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_closed = False
        self._is_hurried = False
        self._console: Console | None = None
        self._block: list[str] = []
        self._widths: list[int] = []

    def write(self, lines: str) -> None:
        """Shows lines at the next frame; waits where the terminal is behind."""
        self._lines.append(lines)  # first and by itself: Ctrl-C may come in the middle of any other line
        if self._thread is None or not self._thread.is_alive():
            self._flush()
            return
        with self._changed:
            self._held += len(lines)
            self._changed.notify_all()
            while self._held > _MOST_HELD_CHARACTERS and self._thread.is_alive() and not self._is_hurried:
                self._changed.wait()

    def hurry(self) -> None:
        """Lets nobody wait for the terminal from now on."""
        self._is_hurried = True

    def follow(self, tally: Tally) -> None:
        """Shows the tally from now on."""
        if self._tally is None:
            self._tally = tally
            self._thread = threading.Thread(target=self._loop, name="k8sflow-live", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Takes the block away and writes what was held back."""
        if self._thread is not None:
            with self._changed:
                self._is_closing = True
                self._changed.notify_all()
            self._thread.join()
            self._thread = None
        self._flush()

    # ------------------------------------------------------------------ the thread

    def _loop(self) -> None:
        try:
            self._show_frames()
        except Exception as error:  # noqa: BLE001  the thread's border: lines are written without the block from now on
            self._put(f"{self._erase()}The block of steps can't be shown: {type(error).__name__}: {error}\n")
            self._widths = []

    def _show_frames(self) -> None:
        next_frame = time.monotonic() + _TICK_SECONDS
        while self._waits(next_frame):
            now = time.monotonic()
            if now < next_frame:
                self._frame(self._block)
            else:
                self._frame(self._render(now))
                next_frame = time.monotonic() + _TICK_SECONDS
        self._frame([])

    def _waits(self, next_frame: float) -> bool:
        """Waits until the next frame is due, or too much is held back; False where there is to be none."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closing or self._held > _MOST_HELD_CHARACTERS, next_frame - time.monotonic()
            )
            return not self._is_closing

    def _render(self, now: float) -> list[str]:
        """The block as it should be now; none where there is no room for one."""
        from rich.console import Console  # noqa: PLC0415  a run that is over at once needs no block

        from k8sflow.runtime.progress import block  # noqa: PLC0415

        columns, rows = self._size()
        if self._tally is None or columns < _FEWEST_COLUMNS or rows < _FEWEST_ROWS:
            return []
        if self._console is None:
            self._console = Console(
                file=self._stream,
                force_terminal=True,
                no_color=not self.has_colours,
                highlight=False,
                markup=False,
                emoji=False,
            )
        self._console.size = type(self._console.size)(columns - 1, rows)
        title = f"{self._title}   {duration(now - self._began)}"
        coming = [step for step in self._steps if step not in self._tally.steps]
        return block.render(self._console, title, self._tally, now, coming, rows)

    def _frame(self, block: list[str]) -> None:
        """Takes the old block away, writes the lines that have come, and the block below them."""
        erase = self._erase()
        lines = self._take()
        self._put("".join([erase, lines, *(f"{line}\n" for line in block)]))
        self._block = block
        self._widths = [_width(line) for line in block]

    def _erase(self) -> str:
        """The characters that erase the block: a terminal that has become narrower has wrapped its lines."""
        if not self._widths:
            return ""
        columns, _ = self._size()
        height = sum(max(1, -(-width // max(1, columns))) for width in self._widths)
        # Line by line: where the block is at the top of the screen, tmux would keep what \x1b[J clears in its history.
        return "\r\x1b[J" + "\x1b[1A\x1b[2K" * height

    # ------------------------------------------------------------------ the stream

    def _take(self) -> str:
        with self._changed:
            lines, self._lines = self._lines, []
            self._held = 0
            self._changed.notify_all()
        return "".join(lines)

    def _flush(self) -> None:
        self._put(self._take())

    def _put(self, text: str) -> None:
        if not text or self._is_closed:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the terminal was closed; the run may continue without it
            self._is_closed = True

    def _size(self) -> tuple[int, int]:
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self._stream.fileno())
        return 80, 24


def _width(line: str) -> int:
    from rich.cells import cell_len  # noqa: PLC0415

    return cell_len(click.unstyle(line))
