"""Values that are known only when a run starts: configs, and expressions over them in a class body.

Decorators and parameters take such a value as it is, and read it when the run starts. Its attributes, items and method
calls are late values again. Where Python needs the value at once (an f-string, ``if``, ``==``) it gets it if the flow's
command line has been read; in a class body that is a problem, which the check reports.
"""

from __future__ import annotations

import json
import math
import operator
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from k8sflow.errors import ParameterError
from k8sflow.flow import config_misuse as misuse
from k8sflow.flow.config_values import ConfigValue
from k8sflow.flow.delayed import Unpacked, Values, settled


class _Running:
    """The configs of the flow that this process runs; None while its command line has not been read."""

    configs: Values | None = None


@contextmanager
def running(configs: Values) -> Iterator[None]:
    """Makes the values of a flow's configs available to Python code that uses them directly, until the block ends."""
    before, _Running.configs = _Running.configs, configs
    try:
        yield
    finally:
        _Running.configs = before


def running_configs() -> Values | None:
    """The values of the configs of the flow that this process runs."""
    return _Running.configs


def run_with(configs: Values) -> None:
    """Makes the values of a flow's configs available in this process from here on."""
    _Running.configs = configs


class ConfigSource(Protocol):
    """A Config, as the values made from it see it."""

    k8sflow_misuses: list[Any]

    def k8sflow_is_placed(self) -> bool:
        """True if it is an attribute of a class, which the check looks at."""


class Late:
    """Base of late values."""

    def k8sflow_value(self, configs: Values | None = None) -> Any:
        """The value.

        Args:
            configs: The values of the flow's configs; None where a config outside of a flow gives its own default.

        Raises:
            ParameterError: There is none.
        """
        raise NotImplementedError

    def k8sflow_is_in(self, configs: Values) -> bool:
        """True if these are the configs from which it is read."""
        raise NotImplementedError

    def k8sflow_text(self) -> str:
        """The value as it is written in ``config_expr``."""
        raise NotImplementedError

    def k8sflow_source(self) -> ConfigSource | None:
        """The Config that it is read from; None for ``config_expr``."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", "k8sflow_")):
            raise AttributeError(f"{name}. For a config's key that starts with _, write config[{name!r}].")
        return UnknownConfigValue(f"{self.k8sflow_text()}.{name}", self, lambda value, _: _attribute(value, name))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, Unpacked):
            return self
        return UnknownConfigValue(
            f"{self.k8sflow_text()}[{shown(key)}]", self, lambda value, configs: value[settled(key, configs)]
        )

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith(("_", "k8sflow_")):
            _refuse()
        super().__setattr__(name, value)

    def __setitem__(self, key: object, value: object) -> NoReturn:
        _refuse()

    def __copy__(self) -> Late:
        return self

    def __deepcopy__(self, memo: object) -> Late:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._now("pickle"),)

    def __repr__(self) -> str:
        if misuse.is_running_class_body(sys._getframe(1)):  # noqa: SLF001  an f-string with !r, or repr()
            misuse.keep(self, "repr()")
        return f"<{self.k8sflow_text()}>"

    @property  # type: ignore[misc]  # a class may say so of its objects
    def __class__(self) -> type:
        """The type itself; the text of a value that isn't known can't be JSON."""
        if sys._getframe(1).f_code is json.JSONEncoder.default.__code__:  # noqa: SLF001  only the caller knows
            self._now("json.dumps()")
        return type(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._now("a loop or unpacking", ()))

    def _now(self, use: str, instead: Any = misuse.NOTHING) -> Any:
        """The value, where it is known.

        Args:
            use: What needs it, in words.
            instead: The value with which the class body continues after a problem, until the check reports it.

        Raises:
            FlowDefinitionError: It isn't known, and no check would report the problem, or nothing can replace it.
        """
        configs = _Running.configs
        if configs is not None and self.k8sflow_is_in(configs) and misuse.class_body() is None:
            return self.k8sflow_value(configs)
        misuse.keep(self, use, can_go_on=instead is not misuse.NOTHING)
        return instead


class UnknownConfigValue(Late):
    """A late value made from another one: ``config.a.b``, ``config["a"]``, ``config.a.get("b")``.

    Args:
        text: How it is written.
        parent: The value that it is made from.
        make: Makes it from the parent's value and the configs.
    """

    def __init__(self, text: str, parent: Late, make: Callable[[Any, Values | None], Any]) -> None:
        self._text, self._parent, self._make = text, parent, make

    def k8sflow_value(self, configs: Values | None = None) -> Any:
        """The value.

        Raises:
            ParameterError: There is none, or it is a method, where a key of that name was meant.
        """
        value = self._made(configs)
        if isinstance(getattr(value, "__self__", None), ConfigValue):
            parent, _, name = self._text.rpartition(".")
            raise ParameterError(
                f"{self._text} is a method of every table.", advice=f"For the key {name!r}, write {parent}[{name!r}]."
            )
        return value

    def k8sflow_is_in(self, configs: Values) -> bool:
        return self._parent.k8sflow_is_in(configs)

    def k8sflow_text(self) -> str:
        return self._text

    def k8sflow_source(self) -> ConfigSource | None:
        """The Config that it is read from."""
        return self._parent.k8sflow_source()

    def __get__(self, instance: object | None, owner: type) -> Any:
        """The run's value, on a task's ``self``; the late value on the class."""
        return self if instance is None else self.k8sflow_value(running_configs())

    def __call__(self, *args: Any, **kwargs: Any) -> UnknownConfigValue:
        given = [*map(shown, args), *(f"{name}={shown(value)}" for name, value in kwargs.items())]
        return UnknownConfigValue(
            f"{self._text}({', '.join(given)})",
            self,
            lambda method, configs: method(*settled(list(args), configs), **settled(dict(kwargs), configs)),
        )

    def __iter__(self) -> Iterator[Any]:
        if self._text.endswith(".keys()") and misuse.is_unpacking(sys._getframe(1)):  # noqa: SLF001  as above
            return iter((Unpacked(f"**{self._text.removesuffix('.keys()')}"),))
        return super().__iter__()

    def _made(self, configs: Values | None) -> Any:
        parent = self._parent
        value = parent._made(configs) if isinstance(parent, UnknownConfigValue) else parent.k8sflow_value(configs)  # noqa: SLF001  also a method
        return evaluated(self._text, lambda: self._make(value, configs))


def evaluated(text: str, value: Callable[[], Any]) -> Any:
    """The value of an expression over configs.

    Raises:
        ParameterError: It fails.
    """
    try:
        return value()
    except ParameterError:
        raise
    except Exception as error:  # an expression is the user's code, and may raise anything
        raise ParameterError(f"{text} can't be evaluated from the configs: {type(error).__name__}: {error}") from error


def shown(value: Any) -> str:
    """A part of an expression, as it is written."""
    return value.k8sflow_text() if isinstance(value, Late) else repr(value)


def _attribute(value: Any, name: str) -> Any:
    if value is None:
        raise ParameterError(f"the config has no value, so it has no {name!r}.", advice="Give it one, or a default.")
    return getattr(value, name)


def _itself(value: Any) -> Any:
    return value


def _refuse() -> NoReturn:
    raise TypeError("a config can't change. Put the value that you want into its file or its default_value.")


def _as_text(late: Late) -> str:
    return f"<{late.k8sflow_text()}: known only when the run starts>"


def _define(name: str, use: str, function: Callable[..., Any], instead: Callable[[Late], Any] | None) -> None:
    def method(self: Late, *operands: Any) -> Any:
        value = self._now(use, misuse.NOTHING if instead is None else instead(self))
        return function(value, *operands) if misuse.class_body() is None else value

    method.__name__ = name
    setattr(Late, name, method)


_SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "matmul": "@",
    "lshift": "<<",
    "rshift": ">>",
    "and": "&",
    "or": "|",
    "xor": "^",
    "divmod": "divmod()",
}
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_UNARY = {"neg": "-", "pos": "+", "abs": "abs()", "invert": "~"}


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, other: function(other, value)


def _define_all() -> None:
    for name, symbol in _SYMBOLS.items():
        function = divmod if name == "divmod" else getattr(operator, f"__{name}__")
        _define(f"__{name}__", symbol, function, lambda late: late)
        _define(f"__r{name}__", symbol, _reflected(function), lambda late: late)
    for name, symbol in {**_COMPARISONS, **_UNARY}.items():
        _define(f"__{name}__", symbol, getattr(operator, f"__{name}__"), lambda late: late)
    _define("__str__", "str(), an f-string or %s", str, _as_text)
    _define("__format__", "an f-string or format()", format, _as_text)
    _define("__fspath__", "a path", os.fspath, _as_text)
    _define("__bool__", "if, and, or, not", bool, lambda _: False)
    _define("__contains__", "in", operator.contains, lambda _: False)
    _define("__len__", "len()", len, lambda _: 1)
    _define("__int__", "int()", int, lambda _: 1)
    _define("__float__", "float()", float, lambda _: 1.0)
    _define("__complex__", "complex()", complex, lambda _: 1j)
    _define("__index__", "an index or a count", operator.index, lambda _: 1)
    _define("__round__", "round()", round, lambda _: 1)
    _define("__trunc__", "math.trunc()", math.trunc, lambda _: 1)
    _define("__floor__", "math.floor()", math.floor, lambda _: 1)
    _define("__ceil__", "math.ceil()", math.ceil, lambda _: 1)
    _define("__reversed__", "reversed()", reversed, lambda _: iter(()))
    _define("__bytes__", "bytes()", bytes, lambda late: _as_text(late).encode())
    _define("__hash__", "the key of a dict or the member of a set", hash, None)


_define_all()
