"""Finds the part of a value that can't be pickled, and the expression that leads to it."""

from __future__ import annotations

import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

_SECONDS = 2.0
_PARTS = 10_000
_LEVELS = 20
# These are parts of many objects, and can be pickled by name or in full.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def path_to_culprit(value: object, path: str, pickle: Callable[[object], object]) -> tuple[str, object]:
    """The innermost part of a value that can't be pickled, as far as it is found; no part is tried after two seconds.

    Args:
        value: A value that can't be pickled.
        path: The expression for the value, such as ``self.model``.
        pickle: Pickles a part of it, or raises an exception.

    Returns:
        The expression for the part, such as ``self.model.callbacks[2].lock``, and the part; the arguments of this
        function where no part can be found.
    """
    end = time.monotonic() + _SECONDS
    seen = {id(value)}
    for _ in range(_LEVELS):
        found = None
        for suffix, part in islice(_parts(value), _PARTS):
            if time.monotonic() > end:
                return path, value
            if isinstance(part, _PLAIN) or id(part) in seen:
                continue
            if not _works(pickle, part):
                found = suffix, part
                break
        if found is None:
            return path, value
        path, value = f"{path}{found[0]}", found[1]
        seen.add(id(value))
    return path, value


def _works(call: Callable[..., object], *arguments: object) -> bool:
    try:
        call(*arguments)
    except Exception:  # noqa: BLE001  the code of the value's classes may raise anything
        return False
    return True


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """The parts of a value that pickle would write, each with the suffix of its expression."""
    if isinstance(value, dict):
        yield from ((f"[{_shown(key)}]", part) for key, part in value.items())
        yield from ((f" (the key {_shown(key)})", key) for key in value)
    elif isinstance(value, list | tuple | deque):
        names = getattr(value, "_fields", None)
        for index, part in enumerate(value):
            yield f".{names[index]}" if isinstance(names, tuple) and index < len(names) else f"[{index}]", part
    elif isinstance(value, set | frozenset):
        yield from ((f" (the element {_shown(part)})", part) for part in value)
    if isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, type):
        yield from ((f".{name}", part) for name, part in vars(value).items() if not name.startswith("__"))
    else:
        yield from _state(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f" (its variable {name})", cell.cell_contents
        except ValueError:  # a variable that isn't set yet
            continue
    for index, part in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{index}]", part
    for name, part in (function.__kwdefaults__ or {}).items():
        yield f".__kwdefaults__[{name!r}]", part
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" (the global variable {name})", function.__globals__[name]
    yield from ((f".{name}", part) for name, part in vars(function).items())


def _state(value: object) -> Iterator[tuple[str, object]]:
    """The parts that the object's class names to pickle: attributes, arguments of its constructor, and elements."""
    try:
        parts: Any = value.__reduce_ex__(5)
    except Exception:  # noqa: BLE001  this is what can't be pickled
        return
    if not isinstance(parts, tuple):  # the name of a global variable
        return
    arguments: Any = parts[1]
    state: Any = parts[2] if len(parts) > 2 else None  # noqa: PLR2004  it is optional
    attributes: Any = state if isinstance(state, tuple) and len(state) == 2 else (state,)  # noqa: PLR2004  with slots
    unnamed: list[object] = list(arguments or ())
    for group in attributes:
        if isinstance(group, dict):
            yield from ((f".{key}", part) for key, part in group.items())
        else:
            unnamed += group if isinstance(group, tuple) else [group]
    for part in unnamed:
        if not isinstance(part, type):
            yield from _named(value, part)


def _named(value: object, part: object) -> Iterator[tuple[str, object]]:
    """A part under the name of the attribute that holds it, if there is one."""
    names = [
        name for name in ("func", "args", "keywords", *getattr(value, "__dict__", ())) if _holds(value, name, part)
    ]
    yield f".{names[0]}" if names else " (a part of its state)", part


def _holds(value: object, name: str, part: object) -> bool:
    try:
        return getattr(value, name, None) is part
    except Exception:  # noqa: BLE001  a property of the user
        return False


def _shown(key: object) -> str:
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001  the repr of the user's class
        text = f"<{type(key).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004  as much as fits into a line
