"""Parameters: values that are given to a run when it starts, and can't change after that."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from k8sflow.errors import FlowDefinitionError, ParameterError

if TYPE_CHECKING:
    from k8sflow.flow.spec import FlowSpec

ParameterValue = str | int | float | bool | None


class Parameter:
    """A value of a run, set on the command line as ``--name`` and read in steps as ``self.name``.

    Args:
        name: The name on the command line.
        default: The value where none is given. Its type is the parameter's type where ``type`` is not given.
        type: One of str, int, float, bool.
        help: One line for ``--help``.
        required: Whether a run without a value is an error.

    Raises:
        FlowDefinitionError: The name, the type or the default can't be used.
    """

    def __init__(
        self,
        name: str,
        default: ParameterValue = None,
        type: Callable[[Any], Any] | None = None,  # noqa: A002  the name that users know
        help: str = "",  # noqa: A002  the name that users know
        required: bool = False,  # noqa: FBT001, FBT002  the order that users know
    ) -> None:
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier() or name[0] == "-":
            raise FlowDefinitionError(
                f"Parameter({name!r}): the name can't be an option.", advice="Use letters, digits, - and _."
            )
        kind = _builtin_type(default) if type is None else type
        if kind not in _EXAMPLES:
            raise FlowDefinitionError(f"Parameter({name!r}): the type {kind!r} is not one of str, int, float, bool.")
        self.name = name
        self.kind: Callable[[Any], Any] = kind
        self.help = help
        self.required = required
        self.default = None if default is None else self.convert(default, "the default")
        self.attribute = name

    def __set_name__(self, owner: type, name: str) -> None:
        """Keeps the attribute through which steps read the value."""
        self.attribute = name

    def __get__(self, instance: FlowSpec | None, owner: type) -> Any:
        """The run's value, on a task's ``self``; the Parameter itself on the class."""
        if instance is None:
            return self
        if self.attribute in instance.__dict__:
            return instance.__dict__[self.attribute]
        return instance.__getattr__(self.attribute)

    def __set__(self, instance: FlowSpec, value: object) -> None:
        """Refuses: a parameter's value is part of what the run is.

        Raises:
            AttributeError: Always.
        """
        self._refuse()

    def __delete__(self, instance: FlowSpec) -> None:
        """Refuses as well.

        Raises:
            AttributeError: Always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise AttributeError(
            f"self.{self.attribute} is the Parameter {self.name!r}, which can't change during a run. "
            f"Put the new value under another name."
        )

    def convert(self, value: object, source: str) -> Any:
        """The value in the parameter's type.

        Raises:
            ParameterError: The value can't be of this type.
        """
        try:
            if self.kind is bool:
                return _to_bool(value)
            if self.kind is int and isinstance(value, float) and not value.is_integer():
                raise ValueError("not a whole number")  # noqa: TRY301  told below as any other
            return self.kind(value)
        except (TypeError, ValueError) as error:
            raise ParameterError(
                f"Parameter {self.name!r}: {source} {reprlib.repr(value)} is not of type {self.type_name}.",
                advice=f"Give a value of type {self.type_name}, for example --{self.name} {_EXAMPLES[self.kind]}",
            ) from error

    @property
    def type_name(self) -> str:
        """The type as it is written in source."""
        return getattr(self.kind, "__name__", str(self.kind))


_EXAMPLES: dict[Callable[[Any], Any], str] = {str: "text", int: "10", float: "0.5", bool: "true"}
_WORDS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}


def _builtin_type(default: object) -> Callable[[Any], Any]:
    """The type that a default stands for: its own, or str for None."""
    return str if default is None else type(default)


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise ValueError(f"none of {', '.join(_WORDS)}")
    return _WORDS[word]
