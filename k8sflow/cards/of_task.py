"""The cards of the running task: ``current.card``, and the process that makes their pages."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from k8sflow.cards.accept import component_of
from k8sflow.cards.base import MetaflowCardComponent
from k8sflow.cards.classes import is_editable
from k8sflow.cards.making import FINAL, FINISHED, REFRESH, REFRESHED, CardOptions, Snapshot
from k8sflow.errors import ConfigurationError
from k8sflow.parallel.forking import flush_output, fork_process
from k8sflow.storage.cards import CardName, TaskCards
from k8sflow.storage.run_store import RunStore

_LEAST_PAUSE = 0.02
_GRACE_SECONDS = 15.0


class OneCard:
    """The components of one card: ``current.card["id"]``."""

    def __init__(self, cards: CardsOfTask, options: CardOptions | None) -> None:
        self._cards = cards
        self._position = None if options is None else options.name.position
        self._components: dict[str, MetaflowCardComponent] = {}

    def append(self, component: Any, id: str | None = None) -> None:  # noqa: A002  as in Metaflow
        """Adds a component, a figure, a frame or any other value.

        Args:
            component: What to show.
            id: A name for ``components``; a component of the same name is replaced.
        """
        found = component_of(component)
        name = id or f"component-{len(self._components)}"
        with contextlib.suppress(AttributeError, TypeError):  # a class of the user may allow no attributes
            found.component_id = name
        self._components[name] = found

    def extend(self, components: Sequence[Any]) -> None:
        """Adds several components."""
        for component in components:
            self.append(component)

    def clear(self) -> None:
        """Removes all components."""
        self._components.clear()

    def refresh(self, data: Any = None, force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  as in Metaflow
        """Updates the page while the task runs; at most once a second, and without waiting for it.

        Args:
            data: For ``render_runtime`` and ``refresh`` of a class of your own.
            force: Kept for flows written for Metaflow.
        """
        self._cards.refresh_with(data)

    @property
    def components(self) -> Mapping[str, MetaflowCardComponent]:
        """The components by their names."""
        return self._components

    def __iter__(self) -> Iterator[MetaflowCardComponent]:
        return iter(list(self._components.values()))

    def __len__(self) -> int:
        return len(self._components)


class CardsOfTask(OneCard):
    """``current.card``: the card itself, if the step has one; of several, the one that takes components by default.

    Args:
        run_store: The records of the run.
        name: The step, the task's id and the attempt.
        decorations: The options of each ``@card``, in the order in which they are written.
        graph: The flow's graph as JSON types.
        is_own_process: Whether a process makes the pages; else components are only collected, as in a test of a step.
    """

    def __init__(
        self,
        run_store: RunStore,
        name: tuple[str, str, int],
        decorations: Sequence[Mapping[str, Any]],
        graph: Mapping[str, Any],
        is_own_process: bool = True,  # noqa: FBT001, FBT002  a hook takes its arguments by position
    ) -> None:
        super().__init__(self, None)
        self._stored = TaskCards(run_store, *name)
        self._options = [_options(position, given) for position, given in enumerate(decorations)]
        self._graph = graph
        self._warned: set[str] = set()
        self._all = {options.name.position: OneCard(self, options) for options in self._options}
        chosen = self._chosen()
        if chosen is not None:  # it and this object share their components
            self._components = self._all[chosen]._components  # noqa: SLF001  of its own base class
        self._process = _Process.start(self._stored, self._options) if is_own_process else None

    def _chosen(self) -> int | None:
        """The position of the card to which ``append`` adds; None if it could be several."""
        editable = [options for options in self._options if self._is_editable(options)]
        for candidates in (
            [options for options in editable if options.customize],
            editable,
            [options for options in editable if not options.name.id],
        ):
            if len(candidates) == 1:
                return candidates[0].name.position
        return None

    def _is_editable(self, options: CardOptions) -> bool:
        try:
            return is_editable(options.name.type)
        except ConfigurationError:  # the card's page will be this error
            return False

    def append(self, component: Any, id: str | None = None) -> None:  # noqa: A002  as in Metaflow
        """Adds a component, a figure, a frame or any other value to the card."""
        if self._chosen() is None:
            ids = ", ".join(repr(options.name.id) for options in self._options if options.name.id) or "none"
            self._warn(
                "current.card.append adds to nothing: the step has no card that takes components, or several. "
                f"Use current.card[id], or @card(customize=True). The ids are {ids}."
            )
        super().append(component, id)

    def __getitem__(self, name: str) -> OneCard:
        """The card with an id; components of an unknown one are dropped, with a warning."""
        for options in self._options:
            if options.name.id == name:
                return self._all[options.name.position]
        ids = ", ".join(repr(options.name.id) for options in self._options if options.name.id) or "none"
        self._warn(f"current.card[{name!r}]: the step has no card of this id, so nothing is shown. The ids are {ids}.")
        return OneCard(self, None)

    def get(self, type: str | None = None) -> list[OneCard]:  # noqa: A002  as in Metaflow
        """The cards of a type."""
        return [self._all[each.name.position] for each in self._options if type in {None, each.name.type}]

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            print(message, file=sys.stderr)  # noqa: T201  a line of the task's own output

    def refresh_with(self, data: Any) -> None:
        """Updates all cards, unless that was asked for a moment ago."""
        if self._process is not None:
            self._process.refresh(lambda: self._snapshot(data, is_final=False))

    def finish(self) -> None:
        """Makes the final cards, and waits for them."""
        if self._process is not None:
            self._process.finish(self._snapshot(None, is_final=True), sum(each.timeout for each in self._options))
            self._process = None

    def _snapshot(self, data: Any, *, is_final: bool) -> Snapshot:
        parts = {position: tuple(map(_pickled, card)) for position, card in self._all.items()}
        try:
            pickled = pickle.dumps(data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  the data is the user's, which may even call sys.exit
            self._warn(f"current.card.refresh: the data can't be pickled: {error}")
            pickled = pickle.dumps(None)
        return Snapshot(parts, pickled, is_final, self._graph)


def _options(position: int, given: Mapping[str, Any]) -> CardOptions:
    name = CardName(position, given["type"], given["id"] or "")
    return CardOptions(
        name,
        given["options"] or {},
        float(given["timeout"]),
        given["save_errors"],
        given["customize"],
        float(given["refresh_interval"]),
    )


def _pickled(component: MetaflowCardComponent) -> bytes:
    """A component for another process; its error, if it can't be pickled."""
    try:
        return pickle.dumps(component)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  the class may be the user's, or be in a function, or call sys.exit
        from k8sflow.cards.texts import Error  # noqa: PLC0415  few components

        try:
            import cloudpickle  # noqa: PLC0415  few components

            found: bytes = cloudpickle.dumps(component)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  as above
            return pickle.dumps(Error(str(error), f"{type(component).__name__} can't be sent to the card's process"))
        return found


class _Process:
    """The supervisor, as the task's process sees it.

    Args:
        pid: Its process id.
        folder: The folder for snapshots.
        outbox: The descriptor for messages to it.
        inbox: The descriptor from which it is heard that it has finished.
    """

    def __init__(self, pid: int, folder: Path, outbox: int, inbox: int) -> None:
        self._pid, self._folder, self._outbox, self._inbox = pid, folder, outbox, inbox
        self._owner = os.getpid()
        self._not_before = 0.0

    @staticmethod
    def start(cards: TaskCards, options: Sequence[CardOptions]) -> _Process | None:
        """Starts the supervisor; None where the system refuses, which the task's output says."""
        try:
            folder = Path(tempfile.mkdtemp(prefix="k8sflow-cards-"))
            inbox, outbox = os.pipe()
            done, report = os.pipe()
            flush_output()
            pid = fork_process()
        except OSError as error:
            print(f"@card: no card can be created: {error}", file=sys.stderr)  # noqa: T201  the task's own output
            return None
        if pid == 0:
            from k8sflow.cards.supervisor import supervise  # noqa: PLC0415  only in this fork

            os.close(outbox)
            os.close(done)
            supervise(cards, options, folder, inbox, report)
        os.close(inbox)
        os.close(report)
        os.set_blocking(outbox, False)
        return _Process(pid, folder, outbox, done)

    def refresh(self, snapshot: Any) -> None:
        """Sends a snapshot, unless one was sent a moment ago, or this is a fork of the task's process."""
        started = time.monotonic()
        if started < self._not_before or os.getpid() != self._owner:
            return
        try:
            snapshot().write(self._folder / REFRESHED)
            os.write(self._outbox, REFRESH)
        except (OSError, MemoryError):  # the supervisor has died, its pipe or the disk is full: the next may succeed
            pass
        now = time.monotonic()
        self._not_before = now + max(_LEAST_PAUSE, 10 * (now - started))

    def finish(self, snapshot: Snapshot, seconds: float) -> None:
        """Sends the last snapshot, and waits for the cards.

        Args:
            snapshot: The components at the step's end.
            seconds: How long all cards together may take.
        """
        if os.getpid() != self._owner:
            return
        try:
            flush_output()
            snapshot.write(self._folder / FINISHED)
            os.write(self._outbox, FINAL)
            select.select([self._inbox], [], [], seconds + _GRACE_SECONDS)
        except (OSError, MemoryError, ValueError) as error:  # ValueError: the step has closed descriptors
            print(f"@card: no card can be created: {error}", file=sys.stderr)  # noqa: T201  the task's own output
        finally:
            self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, 9)
        with contextlib.suppress(ChildProcessError):  # the step has waited for all of its children
            os.waitpid(self._pid, 0)
        for descriptor in (self._outbox, self._inbox):
            with contextlib.suppress(OSError):  # the step may have closed all that it knew nothing of
                os.close(descriptor)
        shutil.rmtree(self._folder, ignore_errors=True)
