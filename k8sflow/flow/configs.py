"""``Config``: values that are known before a run starts, so that decorators and parameters can be made from them."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from k8sflow.errors import ParameterError
from k8sflow.flow.config_values import ConfigValue as ConfigValue  # noqa: PLC0414  stored values name it here
from k8sflow.flow.config_values import Parser, parser_of, wrapped
from k8sflow.flow.faults import Located, caller, declaring, did_you_mean, reason
from k8sflow.flow.script import beside
from k8sflow.user import current_user

if TYPE_CHECKING:
    from k8sflow.flow.spec import FlowSpec

_UNKNOWN: Any = object()


class ParameterContext(NamedTuple):
    """What the function behind a default is given when a run starts.

    Args:
        flow_name: The flow's class name.
        user_name: Who starts the run.
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


class ConfigExpression:
    """A value made from configs, which is known when they are: ``config.a.b``, or of ``config_expr``."""

    def __init__(self, text: str, value: Callable[[], Any]) -> None:
        self._text = text
        self._value = value

    def k8sflow_value(self) -> Any:
        """The value.

        Raises:
            ParameterError: There is none.
        """
        try:
            return self._value()
        except ParameterError:
            raise
        except Exception as error:  # an expression is the user's code, and raises what it likes
            raise ParameterError(
                f"{self._text} can't be had from the configs: {type(error).__name__}: {error}"
            ) from error

    def __getattr__(self, name: str) -> ConfigExpression:
        if name.startswith("_"):
            raise AttributeError(name)
        return ConfigExpression(f"{self._text}.{name}", lambda: getattr(self._value(), name))

    def __getitem__(self, key: Any) -> ConfigExpression:
        return ConfigExpression(f"{self._text}[{key!r}]", lambda: self._value()[key])

    def __repr__(self) -> str:
        return f"<{self._text}>"


class Config:
    """A configuration of the flow, from ``--config NAME FILE``, ``--config-value NAME JSON`` or its default.

    Args:
        name: The name on the command line.
        default: The file where none is given, or a function of a ``ParameterContext`` that names one; beside the flow,
            if it is not in the working folder.
        default_value: The value where no file is given: a text for the parser, a dictionary, or a function of a
            ``ParameterContext`` that makes one of them.
        help: One line for people.
        required: Whether a run without a value is an error.
        parser: Makes the value of the text: a function, ``"module.function"``, or json, yaml or toml; by default what
            the file's name says.
        show_default: Taken so that what was written for Metaflow goes on working.
        plain: Whether the value is left as the parser made it; without a parser it is the text.

    Raises:
        FlowDefinitionError: An option is wrong; in a flow's class the static check tells.
    """

    k8sflow_fault: Located | None = None
    _name = "config"  # where a wrong call has given none

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
        show_default: bool = True,  # noqa: ARG002  as told
        plain: bool = False,
    ) -> None:
        self._name = name
        self._attribute = name
        self._options = {"default": default, "default_value": default_value, "help": help, "required": required}
        self._parser = parser
        self._plain = plain
        self._owner: type | None = None
        self._bound: Any = _UNKNOWN
        self._is_given = False

    def __set_name__(self, owner: type, name: str) -> None:
        """Keeps where the config stands."""
        self._attribute, self._owner = name, owner

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

    def k8sflow_value(self) -> Any:
        """The value; read from its default where nobody gave one.

        Raises:
            ParameterError: There is none, or it can't be read.
        """
        if self.k8sflow_fault is not None:
            raise ParameterError(self.k8sflow_fault.fault.message, advice=self.k8sflow_fault.fault.advice)
        if self._bound is _UNKNOWN:
            self._bound = self._default()
        return self._bound

    def k8sflow_bind(self, value: Any) -> None:
        """Sets the value, as an earlier process has had it."""
        self._bound = value
        self._is_given = value is not _UNKNOWN

    @property
    def k8sflow_is_given(self) -> bool:
        """Whether somebody gave the value; else it is read from its default."""
        return self._is_given

    def k8sflow_read(self, *, file: str | None = None, text: str | None = None) -> None:
        """Sets the value from a file or a text.

        Raises:
            ParameterError: It can't be read.
        """
        self.k8sflow_bind(self._parsed(Path(file)) if file is not None else self._made(text or "", "json"))

    def __getattr__(self, name: str) -> ConfigExpression:
        if name.startswith("_"):
            raise AttributeError(name)
        return ConfigExpression(f"{self._name}.{name}", lambda: getattr(self.k8sflow_value(), name))

    def __getitem__(self, key: Any) -> ConfigExpression:
        return ConfigExpression(f"{self._name}[{key!r}]", lambda: self.k8sflow_value()[key])

    def __repr__(self) -> str:
        return f"Config({self._name!r})"

    def _default(self) -> Any:
        file = self._called("default")
        if file is not None:
            return self._parsed(beside(self._owner, Path(file).expanduser()))
        value = self._called("default_value")
        if value is None and self._options["required"]:
            raise ParameterError(f"Config {self._name!r} is required.", advice=f"Give --config {self._name} FILE.")
        if isinstance(value, str):
            return self._made(value, "json")
        return value if self._plain else wrapped(value)

    def _called(self, option: str) -> Any:
        """An option's value; what it returns where it is a function.

        Raises:
            ParameterError: The function failed.
        """
        value = self._options[option]
        if not callable(value):
            return value
        flow = self._owner.__name__ if self._owner is not None else ""
        try:
            return value(ParameterContext(flow, current_user(), self._name))
        except Exception as error:  # the function is the user's code
            raise ParameterError(
                f"Config {self._name!r}: the function in its {option} failed: {type(error).__name__}: {error}"
            ) from error

    def _parsed(self, path: Path) -> Any:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(
                f"Config {self._name!r}: {path} can't be read: {reason(error)}.",
                advice=f"Give --config {self._name} FILE.",
            ) from error
        return self._made(text, {".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}.get(path.suffix, "json"), str(path))

    def _made(self, text: str, kind: str, source: str = "its value") -> Any:
        if self._plain and self._parser is None:
            return text
        parser = parser_of(self._parser or kind, f"Config({self._name!r})")
        try:
            value = parser(text)
        except Exception as error:  # a parser is anybody's code, and raises what it likes for a text that it can't read
            raise ParameterError(
                f"Config {self._name!r}: {source} can't be parsed: {type(error).__name__}: {error}",
                advice=f"It is read as {kind.upper()}." if self._parser is None else "",
            ) from error
        return value if self._plain else wrapped(value)


def config_expr(text: str) -> ConfigExpression:
    """A Python expression over the flow's configs, evaluated when they are known: ``config_expr("limits.cpu * 2")``.

    It may also use what the module has in which it is written: functions, imports, constants.
    """
    module = caller().f_globals

    def value() -> Any:
        used = {node.id for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Name)}
        names = {name: config.k8sflow_value() for name, config in _flow_configs.items() if name in used}
        return eval(text, {**module, **names})  # noqa: S307  the expression is the flow's own code

    return ConfigExpression(text, value)


# The configs of the flow of this process, by attribute and by name, for the expressions that name them.
_flow_configs: dict[str, Config] = {}


def configs(flow: type[FlowSpec]) -> dict[str, Config]:
    """The configs of a flow by the attribute that they are read through."""
    found: dict[str, Config] = {}
    for base in reversed(flow.__mro__):
        found |= {
            name: member
            for name, member in vars(base).items() if isinstance(member, Config) and member.k8sflow_fault is None
        }  # fmt: skip
    for attribute, config in found.items():
        _flow_configs[attribute] = _flow_configs[config._name] = config  # noqa: SLF001  every public name is the user's
    return found


def bind(flow: type[FlowSpec], arguments: Sequence[str]) -> None:
    """Takes ``--config NAME FILE`` and ``--config-value NAME JSON`` from a command line, wherever they stand.

    Raises:
        ParameterError: There is no such config, or its value can't be read.
    """
    by_name = {config._name: config for config in configs(flow).values()}  # noqa: SLF001  as above
    for option, name, value in _given(arguments):
        if name not in by_name:
            raise _no_config(flow, f"{option} {name}", name)
        by_name[name].k8sflow_read(**{"file" if option == "--config" else "text": value})


@contextmanager
def given(flow: type[FlowSpec], values: Mapping[str, Any]) -> Iterator[None]:
    """Gives the configs of a flow these values, those that aren't named their defaults, until the block is left.

    Args:
        flow: The flow's class.
        values: What the steps shall see, by name or by attribute; no parser looks at it.

    Raises:
        ParameterError: There is no such config.
    """
    found = configs(flow)
    names = {spelling: config for attribute, config in found.items() for spelling in (attribute, config._name)}  # noqa: SLF001  as above
    if unknown := [name for name in values if name not in names]:
        raise _no_config(flow, unknown[0], unknown[0])
    before = {attribute: config._bound for attribute, config in found.items()}  # noqa: SLF001  as above
    try:
        for config in found.values():
            config.k8sflow_bind(_UNKNOWN)
        for name, value in values.items():
            names[name].k8sflow_bind(value if names[name]._plain else wrapped(value))  # noqa: SLF001  as above
        yield
    finally:
        for attribute, config in found.items():
            config.k8sflow_bind(before[attribute])


def _no_config(flow: type[FlowSpec], what: str, name: str) -> ParameterError:
    names = [config._name for config in configs(flow).values()]  # noqa: SLF001  as above
    listed = f"Its configs are {', '.join(names)}." if names else "It has none."
    return ParameterError(
        f"{what}: {flow.__name__} has no such config.", advice=f"{did_you_mean(name, names)} {listed}".strip()
    )


def bind_known(flow: type[FlowSpec], load: Callable[[str], Any], known: Container[str]) -> None:
    """Takes the configs that an earlier run was started with, but for those that the command line has given.

    Args:
        flow: The flow's class.
        load: The value of a config, by attribute.
        known: The attributes that the run has values of.
    """
    for attribute, config in configs(flow).items():
        if attribute in known and not config.k8sflow_is_given:
            config.k8sflow_bind(load(attribute))


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for position, option in enumerate(arguments):
        if option in {"--config", "--config-value"} and position + 2 < len(arguments):
            yield option, arguments[position + 1], arguments[position + 2]
