"""What is wrong with what stands in a class body: kept there, for the static check, which tells every mistake at once.

Where no static check would come by, outside of a flow's class, it is an error at once.
"""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from k8sflow.errors import FlowDefinitionError, K8sflowError
from k8sflow.flow.decorator_lines import line_of

_OUR_FILES = __file__.rpartition("flow")[0]
_P = ParamSpec("_P")


@dataclass(frozen=True)
class Fault:
    """Something that can't work, and how to write it right; where it stands is known by what has it."""

    message: str
    advice: str = ""


@dataclass(frozen=True)
class Located:
    """A fault, and the file and line in which it is."""

    place: tuple[str, int]
    fault: Fault

    def error(self) -> FlowDefinitionError:
        """The fault as an error, for where it can't wait."""
        return FlowDefinitionError(f"{located(self.place)}{self.fault.message}", advice=self.fault.advice)


class Faulty(Protocol):
    """What is declared in a class body by a call."""

    k8sflow_fault: Located | None


@dataclass(frozen=True)
class Misplaced:
    """Stands in a class for what was decorated and can't carry a decorator, such as a property."""

    k8sflow_fault: Located


_Declared = TypeVar("_Declared", bound=Faulty)


def declaring(
    init: Callable[Concatenate[_Declared, _P], None],
) -> Callable[Concatenate[_Declared, _P], None]:
    """Lets an ``__init__`` that is called wrongly in a class body keep the fault in ``k8sflow_fault``."""

    @functools.wraps(init)
    def checked(self: _Declared, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            init(self, *args, **kwargs)
        except (K8sflowError, TypeError) as error:
            frame = caller()
            fault = _fault_of(error, type(self).__name__, functools.partial(init, self), args, kwargs)
            if fault is None:
                raise
            found = Located(place_of(frame), fault)
            if not is_class_body(frame):
                if isinstance(error, TypeError):
                    raise found.error() from None
                raise
            self.k8sflow_fault = found

    return checked  # type: ignore[return-value]  # self keeps its name


def _fault_of(
    error: Exception, name: str, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Fault | None:
    if isinstance(error, K8sflowError):
        return Fault(error.summary, error.advice)
    return wrong_call(name, call, args, kwargs)


def wrong_call(name: str, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Fault | None:
    """What is wrong with the arguments of a call, or None where its signature takes them."""
    from inspect import Parameter, signature  # noqa: PLC0415  for those who err

    accepted = signature(call)
    try:
        accepted.bind(*args, **kwargs)
    except TypeError as error:
        kinds = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
        names = [parameter.name for parameter in accepted.parameters.values() if parameter.kind in kinds]
        listed = f"Its options are {', '.join(names)}." if names else "It takes no options."
        if unknown := [key for key in kwargs if key not in names]:
            return Fault(f"{name} has no option {unknown[0]!r}.", f"{did_you_mean(unknown[0], names)} {listed}".strip())
        return Fault(f"{name}: {error}.", listed)
    return None


def caller() -> FrameType:
    """The frame of the user's code that is being run."""
    frame = sys._getframe(1)  # noqa: SLF001  the only way to know where a decorator is written
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OUR_FILES):
        frame = frame.f_back
    return frame


def place_of(frame: FrameType) -> tuple[str, int]:
    """The file and the line that a frame is at."""
    return frame.f_code.co_filename, line_of(frame)


def is_class_body(frame: FrameType) -> bool:
    """Whether a frame is that of a class statement, whose class the static check will look at."""
    return "__qualname__" in frame.f_locals and "__module__" in frame.f_locals


def did_you_mean(word: str, words: Any) -> str:
    """``Did you mean …?`` where one of the words is close, else an empty text."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f"Did you mean {found[0]!r}?" if found else ""


def located(place: tuple[str, int]) -> str:
    """A place as it stands before a message: ``flow.py:12: ``."""
    file, line = place
    return f"{file}:{line}: " if line else (f"{file} " if file else "")


def reason(error: Exception) -> str:
    """Why a file can't be read, in words that stand behind its name."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
