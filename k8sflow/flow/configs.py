"""``Config``: values that are known before a run starts, so that decorators and parameters can be made from them."""

from __future__ import annotations

import ast
import io
import os
import reprlib
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from k8sflow.errors import FlowDefinitionError, K8sflowError, ParameterError
from k8sflow.flow import files
from k8sflow.flow.config_expressions import Late, evaluated, running_configs
from k8sflow.flow.config_values import ConfigValue as ConfigValue  # noqa: PLC0414  stored values name it here
from k8sflow.flow.config_values import Parser, parse_failure, parser_of, wrapped
from k8sflow.flow.delayed import Values, is_delayed, settled
from k8sflow.flow.problems import Problem, caller, declaring, is_class_body
from k8sflow.user import current_user

if TYPE_CHECKING:
    from k8sflow.flow.config_set import ConfigSet
    from k8sflow.flow.spec import FlowSpec


class ParameterContext(NamedTuple):
    """The argument of a function that makes a default when a run starts.

    Args:
        flow_name: The flow's class name.
        user_name: The user starting the run.
        parameter_name: The parameter whose default it is.
        logger: Prints a line for the user.
        ds_type: Where the run's state will be: local or s3.
        configs: The flow's configs by name.
    """

    flow_name: str
    user_name: str
    parameter_name: str
    logger: Callable[[str], None] = print
    ds_type: str = "local"
    configs: Mapping[str, Any] = {}


class Config(Late):
    """A configuration of the flow, from ``--config NAME FILE``, ``--config-value NAME JSON`` or its default.

    Args:
        name: The name on the command line.
        default: The file or URL where none is given, or a function of a ``ParameterContext`` that names one; a file is
            beside the flow, if it is not in the working folder.
        default_value: The value where no file is given, instead of ``default``: a text for the parser, a dictionary,
            or a function of a ``ParameterContext`` that makes one of them.
        help: One line for people.
        required: Whether a run without a value is an error.
        parser: Makes the value of the text: a function, ``"module.function"``, or json, yaml or toml; by default what
            the file's name says.
        show_default: Whether ``--help`` shows the default.
        plain: Whether the value stays as the parser returned it; without a parser it is the text.

    Raises:
        FlowDefinitionError: An option is wrong; in a flow's class, the check reports it.
    """

    k8sflow_problem: Problem | None = None
    k8sflow_misuses: list[Problem]
    _name = _attribute = "config"  # where a wrong call has given none
    _owner: type | None = None

    def __new__(cls, *_: Any, **__: Any) -> Config:  # noqa: PYI034  Self is not in Python 3.10
        """Creates the object, which is an attribute of the class even after a wrong call."""
        made = super().__new__(cls)
        made._origin, made.k8sflow_misuses = made, []
        return made

    @declaring
    def __init__(
        self,
        name: str,
        default: str | os.PathLike[str] | Callable[[ParameterContext], str | None] | None = None,
        default_value: Any = None,
        help: str = "",  # noqa: A002  the name that users know
        required: bool = False,  # noqa: FBT001, FBT002  the order that users know
        parser: str | Parser | None = None,
        *,
        show_default: bool = True,
        plain: bool = False,
    ) -> None:
        if default is not None and default_value is not None:
            raise FlowDefinitionError(
                f"Config({name!r}): default and default_value are both set, and only one can be used.",
                advice="Keep default, which is a file's name, or default_value, which is the value itself.",
            )
        self._name = name
        self._attribute = name
        self._show_default = show_default
        self._options = {"default": default, "default_value": default_value, "help": help, "required": required}
        self._parser = parser
        self._plain = plain

    def __set_name__(self, owner: type, name: str) -> None:
        """Keeps the class and the attribute; another flow's config has an object of its own."""
        if self._owner is None:
            self._attribute, self._owner = name, owner
        else:
            copy = object.__new__(type(self))
            copy.__dict__.update(self.__dict__, _attribute=name, _owner=owner)
            setattr(owner, name, copy)

    def __get__(self, instance: FlowSpec | None, owner: type) -> Any:
        """The run's value, on a task's ``self``; the Config itself on the class."""
        if instance is None:
            return self
        if self._attribute in instance.__dict__:
            return instance.__dict__[self._attribute]
        return instance.__getattr__(self._attribute)

    def __set__(self, instance: FlowSpec, value: object) -> None:
        """Refuses: a config is part of what the run is."""
        raise AttributeError(f"self.{self._attribute} is the Config {self._name!r}, which can't change during a run.")

    def k8sflow_value(self, configs: Values | None = None) -> Any:
        """The value; that of its default where there are no configs, or the flow has no such config.

        Raises:
            ParameterError: There is none, or it can't be read.
        """
        if configs is None or not configs.has(self):
            return self.k8sflow_default(None)
        return configs.value_of(self)

    def k8sflow_is_in(self, configs: Values) -> bool:
        """True if these are the values of its flow's configs."""
        return configs.has(self)

    def k8sflow_is_placed(self) -> bool:
        return self._owner is not None

    def k8sflow_text(self) -> str:
        """The name by which ``config_expr`` has it."""
        return self._attribute if self._attribute.isidentifier() else self._name

    def k8sflow_source(self) -> Config:
        """Itself."""
        return self

    def k8sflow_help(self) -> str:
        """Its name, help and default, for ``--help``."""
        found = [self._options[option] for option in ("default", "default_value")]
        default = next((value for value in found if value is not None), None)
        note = "[required]" if default is None and self._options["required"] else ""
        if default is not None and self._show_default:
            is_late = is_delayed(default) or callable(default)
            note = f"[default: {'made when the run starts' if is_late else reprlib.repr(default)}]"
        return f"{self._name}: {self._options['help']} {note}".strip().removesuffix(":")

    def k8sflow_read(self, *, file: str | None = None, text: str | None = None) -> Any:
        """The value in a file or a text.

        Raises:
            ParameterError: It can't be read.
        """
        return self._parsed(file) if file is not None else self._made(text or "", "json")

    def k8sflow_wrapped(self, value: Any) -> Any:
        """A value as steps see it; the parser doesn't see it."""
        return value if self._plain else wrapped(value)

    def __repr__(self) -> str:
        return f"Config({self._name!r})"

    def k8sflow_default(self, configs: ConfigSet | None) -> Any:
        """The value of its default.

        Args:
            configs: The values of the flow's configs, where the default is made from them.

        Raises:
            ParameterError: There is none, or it can't be read.
        """
        if self.k8sflow_problem is not None:
            raise ParameterError(self.k8sflow_problem.message, advice=self.k8sflow_problem.advice)
        file = self._called("default", configs)
        if file is not None:
            return self._parsed(files.found(self._owner, os.fspath(file)))
        value = self._called("default_value", configs)
        if value is None and self._options["required"]:
            raise ParameterError(f"Config {self._name!r} is required.", advice=f"Give --config {self._name} FILE.")
        return self._made(value, "json") if isinstance(value, str) else self.k8sflow_wrapped(value)

    def _called(self, option: str, configs: ConfigSet | None) -> Any:
        """An option's value, or what the function in it returns.

        Raises:
            ParameterError: The function failed.
        """
        value = self._options[option]
        if is_delayed(value):
            return settled(value, configs)
        if not callable(value):
            return value
        owner = self._owner if configs is None else configs.flow
        flow = owner.__name__ if owner is not None else ""
        try:
            return value(ParameterContext(flow, current_user(), self._name))
        except Exception as error:  # the function is the user's code
            raise ParameterError(
                f"Config {self._name!r}: the function in its {option} failed: {type(error).__name__}: {error}"
            ) from error

    def _parsed(self, file: str) -> Any:
        try:
            text = io.TextIOWrapper(io.BytesIO(files.content(file)), encoding="utf-8-sig").read()
        except (OSError, UnicodeDecodeError, K8sflowError) as error:
            advice = f"Give --config {self._name} FILE."
            raise files.unreadable(f"Config {self._name!r}: {file}", error, advice) from error
        kind = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}.get(files.suffix(file), "json")
        return self._made(text, kind, file)

    def _made(self, text: str, kind: str, source: str = "its value") -> Any:
        if self._plain and self._parser is None:
            return text
        parser = parser_of(self._parser or kind, f"Config({self._name!r})")
        try:
            value = parser(text)
            return value if self._plain else wrapped(value)
        except Exception as error:  # a parser is anyone's code, and may raise anything
            raise ParameterError(
                f"Config {self._name!r}: {source} can't be parsed: {parse_failure(error)}",
                advice=f"It is read as {kind.upper()}." if self._parser is None else "",
            ) from error


class _Text(Late):
    """A Python expression over configs.

    Args:
        text: The expression.
        names: The names in its module and in the class body around it.
    """

    def __init__(self, text: str, names: Mapping[str, Any]) -> None:
        self._text, self._names = text, names

    def k8sflow_value(self, configs: Values | None = None) -> Any:
        """The value of the expression.

        Raises:
            ParameterError: It fails.
        """

        def value() -> Any:
            values = {name: config.k8sflow_value(configs) for name, config in self._used(configs).items()}
            return eval(self._text, {**self._names, **values})  # noqa: S307  the expression is the flow's own code

        return evaluated(self._text, value)

    def k8sflow_is_in(self, configs: Values) -> bool:
        """True if these are the configs that it reads."""
        used = evaluated(self._text, lambda: self._used(configs))
        return bool(used) and all(configs.has(config) for config in used.values())

    def k8sflow_text(self) -> str:
        """The expression."""
        return self._text if self._text.isidentifier() else f"({self._text})"

    def k8sflow_source(self) -> None:
        """No single config."""

    def __get__(self, instance: object | None, owner: type) -> Any:
        """The run's value, on a task's ``self``; the late value on the class."""
        return self if instance is None else self.k8sflow_value(running_configs())

    def _used(self, configs: Values | None) -> dict[str, Config]:
        """The configs that the expression uses, by name; those of the flow come first."""
        found = {name: value for name, value in self._names.items() if isinstance(value, Config)}
        found |= {} if configs is None else configs.by_name()
        used = {node.id for node in ast.walk(ast.parse(self._text.strip(), mode="eval")) if isinstance(node, ast.Name)}
        return {name: config for name, config in found.items() if name in used}


def config_expr(text: str) -> Any:
    """A Python expression over the flow's configs, evaluated when they are known: ``config_expr("limits.cpu * 2")``.

    It may also use the names of the module in which it is written: functions, imports, constants.
    """
    frame = caller()
    return _Text(text, ChainMap(frame.f_locals, frame.f_globals) if is_class_body(frame) else frame.f_globals)
