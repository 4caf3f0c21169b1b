"""The process that makes the cards of a task: a fork of the task's process from before its step ran.

It waits for snapshots of the cards, and makes each card in a fork of its own. One that raises, hangs, is killed or
takes too much memory is replaced by its error, and harms nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from k8sflow.cards.builtin import error_page
from k8sflow.cards.making import DONE, FINAL, FINISHED, REFRESH, REFRESHED, CardOptions, Snapshot, make
from k8sflow.cards.texts import shortened
from k8sflow.errors import AccessError, K8sflowError, StorageError
from k8sflow.parallel.forking import fork_process, renew_output
from k8sflow.parallel.limits import memory_figures
from k8sflow.storage.cards import TaskCards

_PR_SET_PDEATHSIG = 1
_MOST_MEMORY, _LEAST_MEMORY = 4 << 30, 256 << 20
_FAILED, _NO_MEMORY = 1, 3
_WHY = ".why"  # the file with the error in one line


@dataclass
class _Making:
    """A card that is being made, in a process of its own."""

    card: CardOptions
    pid: int
    deadline: float
    log: Path


class Supervisor:
    """Makes the cards whenever the task's process asks for it.

    Args:
        cards: Where the cards are stored.
        options: The cards.
        folder: The folder in which the task's process puts the snapshots.
        inbox: The descriptor from which its messages are read.
        outbox: The descriptor that gets DONE.
    """

    def __init__(self, cards: TaskCards, options: Sequence[CardOptions], folder: Path, inbox: int, outbox: int) -> None:
        self._cards = cards
        self._options = options
        self._folder = folder
        self._inbox, self._outbox = inbox, outbox
        self._running: list[_Making] = []
        self._next = {card.name.position: 0.0 for card in options}
        self._wanted: set[int] = set()

    def run(self) -> None:
        """Makes cards until the final ones exist, or the task's process has died."""
        os.set_blocking(self._inbox, False)
        while True:
            ready, _, _ = select.select([self._inbox], [], [], self._pause())
            words = self._read() if ready else b""
            if words is None:
                return
            self._reap(kill_late=True)
            if FINAL in words:
                self._finish()
                return
            if REFRESH in words:
                self._wanted = set(self._next)
            self._refresh()

    def _read(self) -> bytes | None:
        """The messages; None if the task's process has died."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self._inbox, 1 << 16) or None
        return b""

    def _pause(self) -> float | None:
        if self._running:
            return 0.02
        waiting = [self._next[position] - time.monotonic() for position in self._wanted]
        return max(min(waiting), 0.0) if waiting else None

    def _refresh(self) -> None:
        """Starts to make each card that the task has changed, unless that happened a moment ago."""
        busy, now = {each.card.name.position for each in self._running}, time.monotonic()
        for card in self._options:
            position = card.name.position
            if position in self._wanted and position not in busy and now >= self._next[position]:
                self._wanted.discard(position)
                self._next[position] = now + max(card.refresh_interval, 1.0)
                self._start(card, REFRESHED)

    def _finish(self) -> None:
        for each in self._running:  # what they make is older than what follows
            self._kill(each)
        self._running = []
        for card in self._options:
            self._start(card, FINISHED)
        while self._running:
            self._reap(kill_late=True)
            if self._running:
                time.sleep(0.002)
        os.write(self._outbox, DONE)

    # ------------------------------------------------------------------ one card

    def _start(self, card: CardOptions, snapshot: str) -> None:
        log = self._folder / f"{card.name.position}.log"
        pid = fork_process()
        if pid == 0:
            self._make(card, self._folder / snapshot, log)
        self._running.append(_Making(card, pid, time.monotonic() + card.timeout, log))

    def _make(self, card: CardOptions, snapshot: Path, log: Path) -> NoReturn:
        """Makes a card in this fork, and ends it."""
        code = _FAILED
        try:
            _prepare(log)
            try:
                cards = replace(
                    self._cards,
                    run_store=replace(self._cards.run_store, store=self._cards.run_store.store.after_fork()),
                )
                make(cards, card, Snapshot.read(snapshot))
                code = 0
            except MemoryError:
                code = _NO_MEMORY
            except K8sflowError as error:
                log.with_suffix(_WHY).write_text(error.summary, errors="replace")
                print(error)  # noqa: T201  into the log
            except BaseException as error:  # noqa: BLE001  the card's class is the user's
                why = traceback.format_exception_only(type(error), error)[-1].strip()
                log.with_suffix(_WHY).write_text(shortened(why, 500), errors="replace")
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self, *, kill_late: bool) -> None:
        still = []
        for each in self._running:
            pid, status = os.waitpid(each.pid, os.WNOHANG)
            if pid:
                self._ended(each, os.waitstatus_to_exitcode(status))
            elif kill_late and time.monotonic() > each.deadline:
                self._kill(each)
                self._failed(each, f"it was not made within {each.card.timeout:g} s",
                             "@card(timeout=...) sets how long it may take.")  # fmt: skip
            else:
                still.append(each)
        self._running = still

    @staticmethod
    def _kill(making: _Making) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(making.pid, signal.SIGKILL)
        os.waitpid(making.pid, 0)

    def _ended(self, making: _Making, code: int) -> None:
        if code == 0:
            return
        output = making.log.read_text(errors="replace")[-20_000:] if making.log.exists() else ""
        if code == _NO_MEMORY:
            self._failed(making, "it needs more memory than a card may use", output)
        elif code < 0:
            name = signal.Signals(-code).name
            cause = " Most likely it used too much memory." if -code == signal.SIGKILL else ""
            self._failed(making, f"the process that made it was killed by {name}", f"{cause}\n{output}".strip())
        else:
            why = making.log.with_suffix(_WHY)
            what = why.read_text(errors="replace") if why.exists() else f"its process ended with exit code {code}"
            self._failed(making, what, output)

    def _failed(self, making: _Making, what: str, text: str) -> None:
        """Says that a card can't be made, and stores its error in its place."""
        card = making.card
        print(f"{card} can't be made: {what}", file=sys.stderr, flush=True)  # noqa: T201  the task's own output
        if card.save_errors:
            page = error_page(self._pathspec(), f"{card} can't be made: {what}", text)
            try:
                self._cards.write(card.name, page)
            except (StorageError, AccessError) as error:
                print(f"{card} can't be stored: {error}", file=sys.stderr, flush=True)  # noqa: T201  the task's own output

    def _pathspec(self) -> str:
        return f"{self._cards.run_store.pathspec}/{self._cards.step}/{self._cards.task}"


def supervise(cards: TaskCards, options: Sequence[CardOptions], folder: Path, inbox: int, outbox: int) -> NoReturn:
    """Becomes the supervisor in this fork; ends it.

    Args:
        cards: As in ``Supervisor``.
        options: As in ``Supervisor``.
        folder: As in ``Supervisor``.
        inbox: As in ``Supervisor``.
        outbox: As in ``Supervisor``.
    """
    try:
        _die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        renew_output()
        store = cards.run_store.store.after_fork()
        mine = replace(cards, run_store=replace(cards.run_store, store=store))
        Supervisor(mine, options, folder, inbox, outbox).run()
    except BaseException:  # noqa: BLE001  the fork's boundary: it must never continue as the task does
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        os._exit(0)


def _die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent dies (prctl(2), Linux only)."""
    parent = os.getppid()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _prepare(log: Path) -> None:
    """Limits a fork that makes a card: its output goes to a file, and it is the first to be killed for memory."""
    _die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415  not on Windows

        limit = _data_size() + _allowed_memory()
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def _allowed_memory() -> int:
    """The bytes that a card may use: half of what is free, within limits."""
    figures = memory_figures()
    free = [figures["available on the machine"]] if "available on the machine" in figures else []
    if "limit" in figures and "in use" in figures:
        free.append(figures["limit"] - figures["in use"])
    return max(min([_MOST_MEMORY, *(each // 2 for each in free)]), _LEAST_MEMORY)


def _data_size() -> int:
    """The bytes that count against RLIMIT_DATA now (proc(5), VmData)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
