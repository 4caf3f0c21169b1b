"""Failures of a worker, as the caller sees them: exceptions brought to the parent, deaths of workers explained."""

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

# BaseException's own accessors, for classes that restrict theirs: attributes of a frozen dataclass can't be set.
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
    """Replaces an exception of the function that can't be sent to the parent; has the text of the original."""


@dataclass
class SentError:
    """An exception in the form in which a worker sends it."""

    pickled: bytes | None  # None if it can't be pickled, or can't be loaded again
    class_: int | bytes | None  # the id of the class from a forked worker, its pickle from another interpreter
    class_name: str
    args: bytes | None
    state: dict[str, bytes]
    summary: str
    members: list[SentError]  # of an exception group that can't be pickled as a whole


def failure(error: BaseException, index: int, items: Any, *, by_value: bool) -> tuple[SentError, str]:
    """The exception of an item in the form to be sent, and a note with the item and the traceback."""
    note = f"parallel_map: raised at item {index}: {_shown_item(items, index)}\nin worker {os.getpid()}:\n"
    try:
        own_frames = error.__traceback__.tb_next if error.__traceback__ else None
        note += "".join(traceback.format_exception(type(error), error, own_frames))
        return _described(error, by_value=by_value), note
    except BaseException as trouble:  # noqa: BLE001  the exception's own code may fail in any way, also by recursion
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        summary = f"{name} (its details are unavailable: {type(trouble).__qualname__})"
        return SentError(None, None, name, None, {}, summary, []), note


def _shown_item(items: Any, index: int) -> str:
    try:
        return short_repr(items[index])
    except Exception as trouble:  # noqa: BLE001  the item is the user's
        return f"<its repr failed: {trouble!r}>"


def _described(error: BaseException, *, by_value: bool) -> SentError:
    kind = type(error)
    pickled = _dumped_or_none(error, by_value=by_value)
    if isinstance(error, _GROUP) and pickled is None:
        args = _dumped_or_none(_GROUP.message.__get__(error), by_value=by_value)
        members = [_described(member, by_value=by_value) for member in _GROUP.exceptions.__get__(error)]
    else:
        args, members = _dumped_or_none(error.args, by_value=by_value), []
    state = {
        name: data for name, value in _state_of(error).items() if (data := _dumped_or_none(value, by_value=by_value))
    }
    without_notes: Any = traceback.TracebackException(kind, error, None)
    without_notes.__notes__ = None
    return SentError(
        pickled=pickled,
        class_=_dumped_or_none(kind, by_value=True) if by_value else id(kind),
        class_name=f"{kind.__module__}.{kind.__qualname__}",
        args=args,
        state=state,
        summary=list(without_notes.format_exception_only())[-1].strip(),
        members=members,
    )


def _dumped_or_none(value: object, *, by_value: bool) -> bytes | None:
    """A pickle that has been loaded once as a check; None if that failed."""
    try:
        data = dumps(value, by_value=True) if by_value else dumps_inherited(value, plain=True)
        return data if type(pickle.loads(data)) is type(value) else None
    except BaseException:  # noqa: BLE001  user-defined pickling may raise anything; the value isn't sent then
        return None


def rebuilt(sent: SentError) -> BaseException:
    """The exception, or as much of it as can be rebuilt."""
    error: BaseException = RemoteError(sent.summary)
    for make in (_unpickled, _group_of_parts, _made_of_parts):
        with contextlib.suppress(Exception):  # the user's code; it may need state that only the worker had
            return make(sent)
    if "__notes__" in sent.state:
        _state_of(error)["__notes__"] = pickle.loads(sent.state["__notes__"])
    return error


def _unpickled(sent: SentError) -> BaseException:
    if sent.pickled is None:
        raise LookupError(sent.class_name)
    error: BaseException = pickle.loads(sent.pickled)
    return error


def _group_of_parts(sent: SentError) -> BaseException:
    """The group with its rebuilt members; a plain ExceptionGroup if its class exists in the worker only."""
    if not sent.members or sent.args is None:
        raise LookupError(sent.class_name)
    kind = _class_of(sent) or _GROUP
    error: BaseException = _GROUP.__new__(kind, pickle.loads(sent.args), [rebuilt(member) for member in sent.members])
    return _with_state(error, sent)


def _made_of_parts(sent: SentError) -> BaseException:
    """The exception without a call of its `__init__`, which may need more than `args`."""
    kind = _class_of(sent)
    if kind is None:
        raise LookupError(sent.class_name)
    args = pickle.loads(sent.args) if sent.args else (sent.summary,)
    error = kind.__new__(kind, *args)
    _set_args(error, args)
    return _with_state(error, sent)


def _with_state(error: BaseException, sent: SentError) -> BaseException:
    _state_of(error).update({name: pickle.loads(data) for name, data in sent.state.items()})
    return error


def _class_of(sent: SentError) -> type[BaseException] | None:
    """The exception's class in this process; None if it exists in the worker only."""
    if not isinstance(sent.class_, int):
        return pickle.loads(sent.class_) if sent.class_ else None
    kinds = [BaseException]
    while kinds:
        kind = kinds.pop()
        if id(kind) == sent.class_ and f"{kind.__module__}.{kind.__qualname__}" == sent.class_name:
            return kind  # a forked worker inherited it, so the address is the same
        kinds += kind.__subclasses__()
    return None


def add_note(error: BaseException, text: str) -> None:
    if sys.version_info >= (3, 11):
        _state_of(error).setdefault("__notes__", []).append(text)  # PEP 678
    else:
        _set_cause(error, RemoteError(text))


def short_repr(value: object) -> str:
    return reprlib.repr(value)


EXIT_WAIT_SECONDS = 1.0  # the longest time from the end of a pipe to the end of its process


class WorkerDied(RuntimeError):  # noqa: N818  the name describes the event
    """A worker process ended while it had work: killed, crashed, or exited by the function itself.

    Attributes:
        index: The index of the item that it was working on; None if unknown.
        exitcode: As in `subprocess`: the exit status, or the negative number of the signal; None if unknown.
    """

    def __init__(self, message: str, index: int | None = None, exitcode: int | None = None) -> None:
        super().__init__(message, index, exitcode)
        self.message = message
        self.index = index
        self.exitcode = exitcode

    def __str__(self) -> str:
        return self.message


class WorkerOutOfMemory(WorkerDied, MemoryError):  # noqa: N818  the name describes the event
    """A worker was killed by the kernel because memory ran out, according to the cgroup's counter."""


def exit_description(code: int | None) -> str:
    if code is None:
        return "ended (another part of the program collected its exit status)"
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
        advice = "Another process, or the function itself, sent it this signal."
    elif out_of_memory_kills() > kills_before:
        kind = WorkerOutOfMemory
        advice = f"The kernel killed it because memory ran out: request more, or lower max_parallel. {_memory()}"
    else:
        advice = f"SIGKILL comes from the kernel when memory runs out, or from kill -9. {_memory()}"
    return kind(f"a worker of parallel_map {what}\n{advice}", index, code)


def _memory() -> str:
    figures = [f"{name} {size / 2**20:.0f} MiB" for name, size in memory_figures().items()]
    return f"Memory: {', '.join(figures) or 'unknown, since /proc is not readable'}."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
