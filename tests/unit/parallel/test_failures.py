"""Exceptions of a worker reach the caller with their type, their item and their notes."""

from __future__ import annotations

import builtins
import errno
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from k8sflow.parallel import (
    Backend,
    RemoteError,
    forked,
    parallel_imap,
    parallel_imap_unordered,
    parallel_map,
)


class TwoArguments(Exception):
    """Its pickle can't be loaded: __init__ needs more than `args`."""

    def __init__(self, place: str, amount: int) -> None:
        super().__init__(f"{amount} at {place}")
        self.amount = amount


class Unsendable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()
        self.code = 5


def shown(error: BaseException) -> str:
    """The error as the user sees it."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def test_an_exception_keeps_its_type_and_says_where(way: Backend) -> None:
    """The original exception, the item's index and repr, and the traceback within the worker."""

    def fails_at_five(i: int) -> float:
        return 1 / (i - 5)

    for kind in (parallel_map, parallel_imap, parallel_imap_unordered):
        with pytest.raises(ZeroDivisionError) as caught:
            list(kind(fails_at_five, range(100), 2, backend=way))
        text = shown(caught.value)
        assert "item 5: 5" in text
        assert "return 1 / (i - 5)" in text


def test_the_repr_of_the_item_is_short() -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        parallel_map(lambda item: (_ for _ in ()).throw(ValueError("bad")), ["x" * 100_000], 2)
    assert "item 0: 'xxxx" in shown(caught.value)
    assert len(shown(caught.value)) < 5_000


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_an_item_without_a_repr_hides_nothing(start_method: str) -> None:
    with pytest.raises(ValueError, match="the cause"):
        parallel_map(lambda item: (_ for _ in ()).throw(ValueError("the cause")), [BadRepr()], 2)


def raising(error: Callable[[], BaseException]) -> Callable[[int], None]:
    def func(_item: int) -> None:
        raise error()

    return func


def test_exceptions_whose_pickle_fails_keep_their_type(start_method: str) -> None:
    with pytest.raises(TwoArguments, match="7 at home") as two:
        parallel_map(raising(lambda: TwoArguments("home", 7)), [1], 2)
    assert two.value.amount == 7
    with pytest.raises(Unsendable, match="holds a lock") as unsendable:
        parallel_map(raising(Unsendable), [1], 2)
    assert unsendable.value.code == 5


@dataclass(frozen=True)
class FrozenError(Exception):
    """Its attributes can't be set: no note, no cause."""

    place: str


class WellGuarded(Exception):
    """As unhelpful as an exception can be."""

    def __new__(cls, *args: Any) -> Any:
        if os.getpid() == HERE:
            raise RuntimeError("only workers create it")
        return super().__new__(cls, *args)

    def __init__(self, what: str) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def add_note(self, note: str) -> None:
        raise RuntimeError("no note")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no attributes")


HERE = os.getpid()


def test_exceptions_that_refuse_attributes_are_still_raised(way: Backend) -> None:
    """With a note."""
    with pytest.raises(FrozenError, match="cellar") as frozen:
        parallel_map(raising(lambda: FrozenError("cellar")), [1], 2, backend=way)
    assert frozen.value.place == "cellar"
    assert "item 0: 1" in shown(frozen.value)


def test_an_exception_that_cannot_be_rebuilt_is_raised_as_text() -> None:
    with pytest.raises(RemoteError, match="WellGuarded") as caught:
        parallel_map(raising(lambda: WellGuarded("gate")), [1], 2)
    assert "item 0: 1" in shown(caught.value)


def test_an_exception_of_a_local_class_can_be_caught(start_method: str) -> None:
    class LocalError(Exception):
        pass

    with pytest.raises(LocalError, match="here"):
        parallel_map(raising(lambda: LocalError("here")), [1], 2)


def test_an_exception_that_cannot_be_sent_is_raised_as_text() -> None:
    """The parent doesn't know a class that was created in the worker."""

    def func(_item: int) -> None:
        class MadeInTheWorkerError(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("never")

        raise MadeInTheWorkerError("some words")

    with pytest.raises(RemoteError, match="MadeInTheWorkerError: some words") as caught:
        parallel_map(func, [1], 2)
    assert "raise MadeInTheWorkerError" in shown(caught.value)


def test_an_exception_with_notes_that_cannot_be_sent_is_raised_with_them() -> None:
    """Its text is the original one, not that of its last note."""

    def func(_item: int) -> None:
        class MadeInTheWorkerError(Exception):
            pass

        error = MadeInTheWorkerError("some words")
        error.__notes__ = ["a hint"]  # type: ignore[attr-defined]
        raise error

    with pytest.raises(RemoteError, match="MadeInTheWorkerError: some words") as caught:
        parallel_map(func, [1], 2)
    assert caught.value.__notes__[0] == "a hint"  # type: ignore[attr-defined]
    assert "item 0: 1" in shown(caught.value)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are Python 3.11's")
def test_a_group_keeps_its_type_and_the_members_that_can_be_sent(start_method: str) -> None:
    """The others keep their position as text, each with its notes; nested groups too."""

    group_class: Any = vars(builtins)["ExceptionGroup"]  # unknown to a checker of Python 3.10

    class LocalGroup(group_class):
        pass

    def func(_item: int) -> None:
        class MadeInTheWorkerError(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("never")

        class GroupMadeInTheWorker(group_class):
            pass

        unknown = MadeInTheWorkerError("some words")
        unknown.add_note("of the unknown")  # type: ignore[attr-defined]
        value = ValueError("a value")
        value.add_note("of the value")  # type: ignore[attr-defined]
        inner = LocalGroup("inner", [Unsendable(), KeyError("k")])
        group = LocalGroup("outer", [value, unknown, inner, GroupMadeInTheWorker("worker's", [unknown])])
        group.add_note("of the group")
        raise group

    with pytest.raises(LocalGroup, match="outer") as caught:
        parallel_map(func, [1], 2)
    group: Any = caught.value
    value, unknown, inner, workers = group.exceptions
    assert type(value) is ValueError
    assert value.__notes__ == ["of the value"]
    if start_method == "fork":  # cloudpickle brings the class along
        assert type(unknown) is RemoteError
    assert str(unknown).endswith("some words")
    assert unknown.__notes__ == ["of the unknown"]
    assert type(inner) is LocalGroup
    assert [type(member) for member in inner.exceptions] == [Unsendable, KeyError]
    assert inner.exceptions[0].code == 5
    assert isinstance(workers, group_class)
    assert [type(member) for member in workers.exceptions] == [type(unknown)]
    assert group.__notes__[0] == "of the group"
    assert "item 0: 1" in group.__notes__[1]
    (matched, _) = group.split(KeyError)
    assert len(matched.exceptions) == 1


class SaysNothing(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class QuitsWhenPickled(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(7)


def deep_group() -> BaseException:
    error: BaseException = Unsendable()
    for _ in range(3000):
        error = vars(builtins)["ExceptionGroup"]("deep", [error])
    return error


def test_an_exception_that_cannot_be_inspected_is_not_mistaken_for_a_dead_worker(start_method: str) -> None:
    """The error names its class and the item."""
    makers: list[Callable[[], BaseException]] = (
        [SaysNothing, deep_group] if sys.version_info >= (3, 11) else [SaysNothing]
    )
    for make in makers:
        with pytest.raises(RemoteError, match=r"SaysNothing|ExceptionGroup") as caught:
            parallel_map(raising(make), [1], 2)
        assert "item 0: 1" in shown(caught.value)
    with pytest.raises(QuitsWhenPickled, match="now"):
        parallel_map(raising(lambda: QuitsWhenPickled("now")), [1], 2)


def test_a_refused_fork_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(forked, "fork_process", refused)
    with pytest.raises(BlockingIOError) as caught:
        parallel_map(abs, range(8), 8)
    assert "Lower max_parallel" in shown(caught.value)


def test_system_exit_in_the_function_reaches_the_caller(way: Backend) -> None:
    with pytest.raises(SystemExit) as caught:
        parallel_map(lambda i: sys.exit(3), [1], 2, backend=way)
    assert caught.value.code == 3


def test_a_result_that_cannot_be_sent_names_its_item(start_method: str) -> None:
    with pytest.raises((TypeError, pickle.PicklingError), match="lock") as caught:
        parallel_map(lambda i: threading.Lock() if i == 3 else i, range(9), 2)
    assert "item 3: 3" in shown(caught.value)


def test_an_item_of_a_generator_that_cannot_be_sent_names_itself(start_method: str) -> None:
    with pytest.raises((TypeError, pickle.PicklingError), match="lock") as caught:
        parallel_map(lambda lock: 1, (threading.Lock() for _ in range(3)), 2)
    assert "item 0" in shown(caught.value)


def test_results_before_a_failure_come_first(start_method: str) -> None:
    """Like `map`: finished results are yielded, then the exception is raised; nothing hangs."""
    seen = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(parallel_imap(lambda i: (i, 1 / (i - 5)), range(10), 1, chunk_size=10))
    results = parallel_imap(lambda i: threading.Lock() if i == 5 else i, range(10), 1, chunk_size=10)
    with pytest.raises((TypeError, pickle.PicklingError)):
        seen.extend(results)
    assert [entry for entry in seen if isinstance(entry, int)] == [0, 1, 2, 3, 4]


class FailsToLoad:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_a_result_that_cannot_be_loaded_names_its_items(start_method: str) -> None:
    with pytest.raises(ValueError, match="not a number") as caught:
        parallel_map(lambda i: FailsToLoad(), [1], 1)
    assert "unpickling the results of the items 0 to 0" in shown(caught.value)


@pytest.mark.parametrize("backend", ["fork", "spawn", "threads"])
def test_a_stop_iteration_of_the_function_is_raised_as_it_is(backend: Backend) -> None:
    """As by a loop over the items; our own generators would make a RuntimeError of it."""
    with pytest.raises(StopIteration) as raised:
        parallel_map(_first_of_none, [1, 2], backend=backend)
    assert "parallel_map: raised at item" in "".join(raised.value.__notes__)
    for lazy in (parallel_imap, parallel_imap_unordered):
        with pytest.raises(RuntimeError, match="generator raised StopIteration") as wrapped:
            list(lazy(_first_of_none, [1, 2], backend=backend))
        assert isinstance(wrapped.value.__cause__, StopIteration)


def test_a_stop_iteration_within_a_worker_of_one_core_is_raised_as_it_is() -> None:
    """The items of a call inside a worker run without workers where its share is one core."""
    with pytest.raises(StopIteration):
        parallel_map(lambda _: parallel_map(_first_of_none, [1], max_parallel=1), [1], max_parallel=1)


def _first_of_none(_item: int) -> object:
    return next(iter([]))
