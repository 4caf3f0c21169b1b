"""What goes wrong in a worker, as the caller hears of it: an exception's way home, a worker's death explained."""

from __future__ import annotations

import builtins
import contextlib
import os
import pickle
import reprlib
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from .limits import memory_figures, out_of_memory_kills
from .pickling import dumps, dumps_inherited

# As BaseException has them, whatever a class does about its attributes: a frozen dataclass lets nobody set them.
_state_of = BaseException.__dict__["__dict__"].__get__
_set_args = BaseException.__dict__["args"].__set__
_set_cause = BaseException.__dict__["__cause__"].__set__
_GROUP: Any = getattr(builtins, "BaseExceptionGroup", ())  # Python 3.11's


class Stopped(Exception):  # noqa: N818  seen in this package only
    """Carries a StopIteration of the function through generators, which would raise RuntimeError instead (PEP 479)."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__()
        self.error = error


class RemoteError(RuntimeError):
    """Stands for an exception of the function that can't be brought over; its text holds the original's."""


@dataclass
class Told:
    """An exception as a worker tells it."""

    pickled: bytes | None  # None where it can't be pickled, or not loaded again
    class_: int | bytes | None  # in a forked worker its id; from another interpreter its pickle
    class_name: str
    args: bytes | None
    state: dict[str, bytes]
    summary: str
    members: list[Told]  # of a group that can't be pickled as a whole


def failure(error: BaseException, index: int, items: Any, *, by_value: bool) -> tuple[Told, str]:
    """The exception of an item, and the note that tells the caller of it."""
    note = f"parallel_map: raised at item {index}: {_shown_item(items, index)}\nin worker {os.getpid()}:\n"
    try:
        own_frames = error.__traceback__.tb_next if error.__traceback__ else None
        note += "".join(traceback.format_exception(type(error), error, own_frames))
        return _told(error, by_value=by_value), note
    except BaseException as trouble:  # noqa: BLE001  an exception may do anything when asked; nested too deep it can't say
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        summary = f"{name} (no more can be told of it: {type(trouble).__qualname__})"
        return Told(None, None, name, None, {}, summary, []), note


def _shown_item(items: Any, index: int) -> str:
    try:
        return short_repr(items[index])
    except Exception as trouble:  # noqa: BLE001  the item is the user's
        return f"<not to be shown: {trouble!r}>"


def _told(error: BaseException, *, by_value: bool) -> Told:
    kind = type(error)
    pickled = _dumped_or_none(error, by_value=by_value)
    if isinstance(error, _GROUP) and pickled is None:
        args = _dumped_or_none(_GROUP.message.__get__(error), by_value=by_value)
        members = [_told(member, by_value=by_value) for member in _GROUP.exceptions.__get__(error)]
    else:
        args, members = _dumped_or_none(error.args, by_value=by_value), []
    state = {
        name: data for name, value in _state_of(error).items() if (data := _dumped_or_none(value, by_value=by_value))
    }
    without_notes: Any = traceback.TracebackException(kind, error, None)
    without_notes.__notes__ = None
    return Told(
        pickled=pickled,
        class_=_dumped_or_none(kind, by_value=True) if by_value else id(kind),
        class_name=f"{kind.__module__}.{kind.__qualname__}",
        args=args,
        state=state,
        summary=list(without_notes.format_exception_only())[-1].strip(),
        members=members,
    )


def _dumped_or_none(value: object, *, by_value: bool) -> bytes | None:
    """A pickle that has been loaded once to see that it can be."""
    try:
        data = dumps(value, by_value=True) if by_value else dumps_inherited(value, plain=True)
        return data if type(pickle.loads(data)) is type(value) else None
    except BaseException:  # noqa: BLE001  whatever user-defined pickling raises: then the value stays here
        return None


def rebuilt(told: Told) -> BaseException:
    """The exception, or as much of it as can be brought over."""
    error: BaseException = RemoteError(told.summary)
    for make in (_unpickled, _group_of_parts, _made_of_parts):
        with contextlib.suppress(Exception):  # the user's code; it may need what only the worker had
            return make(told)
    if "__notes__" in told.state:
        _state_of(error)["__notes__"] = pickle.loads(told.state["__notes__"])
    return error


def _unpickled(told: Told) -> BaseException:
    if told.pickled is None:
        raise LookupError(told.class_name)
    error: BaseException = pickle.loads(told.pickled)
    return error


def _group_of_parts(told: Told) -> BaseException:
    """The group with each member as it can be brought over; a plain one where its class exists in the worker only."""
    if not told.members or told.args is None:
        raise LookupError(told.class_name)
    kind = _class_of(told) or _GROUP
    error: BaseException = _GROUP.__new__(kind, pickle.loads(told.args), [rebuilt(member) for member in told.members])
    return _with_state(error, told)


def _made_of_parts(told: Told) -> BaseException:
    """The exception without a call of its `__init__`, which may want what `args` hasn't."""
    kind = _class_of(told)
    if kind is None:
        raise LookupError(told.class_name)
    args = pickle.loads(told.args) if told.args else (told.summary,)
    error = kind.__new__(kind, *args)
    _set_args(error, args)
    return _with_state(error, told)


def _with_state(error: BaseException, told: Told) -> BaseException:
    _state_of(error).update({name: pickle.loads(data) for name, data in told.state.items()})
    return error


def _class_of(told: Told) -> type[BaseException] | None:
    """The exception's class in this process; None if it exists in the worker only."""
    if not isinstance(told.class_, int):
        return pickle.loads(told.class_) if told.class_ else None
    kinds = [BaseException]
    while kinds:
        kind = kinds.pop()
        if id(kind) == told.class_ and f"{kind.__module__}.{kind.__qualname__}" == told.class_name:
            return kind  # a forked worker inherited ours, so it is even where it was
        kinds += kind.__subclasses__()
    return None


def add_note(error: BaseException, text: str) -> None:
    if sys.version_info >= (3, 11):
        _state_of(error).setdefault("__notes__", []).append(text)  # PEP 678
    else:
        _set_cause(error, RemoteError(text))


def short_repr(value: object) -> str:
    return reprlib.repr(value)


LAST_BREATH_SECONDS = 1.0  # a pipe's end is seen this much before its process's at most


class WorkerDied(RuntimeError):  # noqa: N818  says what happened
    """A worker process ended while it had work: killed, crashed, or left by the function itself.

    Attributes:
        index: The item it was busy with, None where that is unknown.
        exitcode: As in `subprocess`: the exit status, or the negative number of the signal; None if unknown.
    """

    def __init__(self, message: str, index: int | None = None, exitcode: int | None = None) -> None:
        super().__init__(message, index, exitcode)
        self.message = message
        self.index = index
        self.exitcode = exitcode

    def __str__(self) -> str:
        return self.message


class WorkerOutOfMemory(WorkerDied, MemoryError):  # noqa: N818  says what happened
    """A worker was killed by the kernel for want of memory; the cgroup's counter says so."""


def how_it_ended(code: int | None) -> str:
    if code is None:
        return "ended (its status was collected by somebody else)"
    return f"exited with status {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"


def death_error(what: str, index: int | None, code: int | None, kills_before: int) -> WorkerDied:
    kind = WorkerDied
    if code is None:
        advice = "The function must not close descriptors that it didn't open, nor reap children that it didn't start."
    elif code >= 0:
        advice = "The function, or something it called, left the process by os._exit."
    elif -code in (getattr(signal, name, 0) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")):
        advice = "A compiled extension crashed; faulthandler.enable() before the call shows where."
    elif -code != signal.SIGKILL:
        advice = "Somebody sent it this signal."
    elif out_of_memory_kills() > kills_before:
        kind = WorkerOutOfMemory
        advice = f"The kernel killed it for want of memory: ask for more, or set max_parallel lower. {memory_figures()}"
    else:
        advice = f"SIGKILL comes from the kernel when memory is short, or from a kill -9. {memory_figures()}"
    return kind(f"a worker of parallel_map {what}\n{advice}", index, code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
