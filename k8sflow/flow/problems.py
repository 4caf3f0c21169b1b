"""Problems of a flow: found in its class body and its source, and reported all at once by the check.

Outside of a flow's class, where no check would see it, a problem is raised as an error at once.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from k8sflow.errors import FlowDefinitionError, K8sflowError
from k8sflow.flow.decorator_lines import line_of

_OUR_FILES = __file__.rpartition("flow")[0]
_P = ParamSpec("_P")


@dataclass(frozen=True)
class Location:
    """A line of the user's source; line 0 where only the file, or another origin such as ``--with``, is known."""

    file: str = ""
    line: int = 0

    def problem(self, message: str, advice: str = "") -> Problem:
        """A problem at this line."""
        return Problem(message, advice, self)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """Something that can't work, where it is, and how to write it correctly.

    Args:
        message: What is wrong.
        advice: How to write it correctly.
        location: Where it is.
    """

    message: str
    advice: str = ""
    location: Location = Location()

    def at(self, location: Location) -> Problem:
        """The same problem at a line."""
        return replace(self, location=location)

    def error(self) -> FlowDefinitionError:
        """The problem as an error, for where it can't wait for the check."""
        where = f"{self.location}: " if self.location.line else f"{self.location.file} ".lstrip()
        return FlowDefinitionError(f"{where}{self.message}", advice=self.advice)

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" + (f"\n    {self.advice}" if self.advice else "")


def all_problems(flow: str, problems: Iterable[Problem]) -> FlowDefinitionError:
    """The error that reports every problem of a flow at once, in the order of the source."""
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: (problem.location.file, problem.location.line))
    count = "a mistake" if len(ordered) == 1 else f"{len(ordered)} mistakes"
    error = FlowDefinitionError(f"{flow} has {count}; nothing was run.", advice="\n".join(map(str, ordered)))
    error.mistakes = tuple(ordered)
    return error


class Faulty(Protocol):
    """Something that a call in a class body declares."""

    k8sflow_problem: Problem | None


@dataclass(frozen=True)
class Misplaced:
    """Replaces a member of a class that was decorated and can't have a decorator, such as a property."""

    k8sflow_problem: Problem


_Declared = TypeVar("_Declared", bound=Faulty)


def declaring(
    init: Callable[Concatenate[_Declared, _P], None],
) -> Callable[Concatenate[_Declared, _P], None]:
    """Lets an ``__init__`` that is called wrongly in a class body keep the problem in ``k8sflow_problem``."""

    @functools.wraps(init)
    def checked(self: _Declared, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            init(self, *args, **kwargs)
        except (K8sflowError, TypeError) as error:
            frame = caller()
            problem = _fault_of(error, type(self).__name__, functools.partial(init, self), args, kwargs)
            if problem is None:
                raise
            found = problem.at(location_of(frame))
            if not is_class_body(frame):
                if isinstance(error, TypeError):
                    raise found.error() from None
                raise
            self.k8sflow_problem = found

    return checked  # type: ignore[return-value]  # self keeps its name


def _fault_of(
    error: Exception, name: str, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Problem | None:
    if isinstance(error, K8sflowError):
        return Problem(error.summary, error.advice)
    return wrong_call(name, call, args, kwargs)


def wrong_call(name: str, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Problem | None:
    """The problem with the arguments of a call, or None if its signature accepts them."""
    accepted = inspect.signature(call)
    try:
        accepted.bind(*args, **kwargs)
    except TypeError as error:
        kinds = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
        names = [parameter.name for parameter in accepted.parameters.values() if parameter.kind in kinds]
        listed = f"Its options are {', '.join(names)}." if names else "It takes no options."
        if unknown := [key for key in kwargs if key not in names]:
            return Problem(
                f"{name} has no option {unknown[0]!r}.", f"{did_you_mean(unknown[0], names)} {listed}".strip()
            )
        return Problem(f"{name}: {error}.", listed)
    return None


def caller() -> FrameType:
    """The frame of the user's code that is being run."""
    frame = sys._getframe(1)  # noqa: SLF001  the only way to know where a decorator is written
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OUR_FILES):
        frame = frame.f_back
    return frame


def location_of(frame: FrameType) -> Location:
    """The file and the line that a frame is at."""
    return Location(frame.f_code.co_filename, line_of(frame))


def is_class_body(frame: FrameType) -> bool:
    """True if a frame is that of a class statement, whose class the static check will look at."""
    return "__qualname__" in frame.f_locals and "__module__" in frame.f_locals


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``Did you mean …?`` where one of the words is close, else an empty text."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f"Did you mean {found[0]!r}?" if found else ""


def reason(error: Exception) -> str:
    """Why a file can't be read, in words that follow its name."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
