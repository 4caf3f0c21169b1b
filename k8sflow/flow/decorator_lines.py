"""The line on which a decorator is written, also on Python 3.10, which reports the line of the `def` below it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import FrameType


def line_of(frame: FrameType) -> int:
    """Return the line that a frame is at; while it applies a decorator, the decorator's."""
    if sys.version_info >= (3, 11):
        return frame.f_lineno
    above = _calls_after(frame)
    decorators = _decorators(frame.f_code.co_filename).get(frame.f_lineno, ())
    return decorators[above] if above < len(decorators) else frame.f_lineno


def _calls_after(frame: FrameType) -> int:
    """Count the decorators still to be applied: the calls that follow directly, each an instruction of two bytes."""
    import dis  # noqa: PLC0415  not loaded on newer versions

    following = frame.f_code.co_code[frame.f_lasti + 2 :: 2]
    call = dis.opmap["CALL_FUNCTION"]
    return next((count for count, code in enumerate(following) if code != call), len(following))


@lru_cache
def _decorators(file: str) -> Mapping[int, tuple[int, ...]]:
    """Map the line of each decorated `def` and `class` in a file to the lines of its decorators, from the top."""
    import linecache  # noqa: PLC0415  as above

    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # a notebook's cell with a magic command, which linecache has as it was typed
        return {}
    return {
        node.lineno: tuple(decorator.lineno for decorator in node.decorator_list)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.decorator_list
    }
