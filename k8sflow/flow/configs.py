"""``Config``: values that are known before a run starts, so that decorators and parameters can be made from them."""

from __future__ import annotations

import ast
import os
from collections import ChainMap
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from k8sflow.errors import ParameterError
from k8sflow.flow.config_expressions import Late, evaluated
from k8sflow.flow.config_values import ConfigValue as ConfigValue  # noqa: PLC0414  stored values name it here
from k8sflow.flow.config_values import Parser, parser_of, wrapped
from k8sflow.flow.decorators.kind import bound, is_delayed, settled
from k8sflow.flow.problems import Located, caller, declaring, did_you_mean, is_class_body, reason
from k8sflow.flow.script import beside
from k8sflow.user import current_user

if TYPE_CHECKING:
    from k8sflow.flow.spec import FlowSpec

_UNKNOWN: Any = object()


class _State(NamedTuple):
    """What is known of a config: its value, who gave it, and whether the command line has been read."""

    value: Any = _UNKNOWN
    is_given: bool = False
    is_known: bool = False


_UNREAD = _State()


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


class Config(Late):
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
    k8sflow_misuses: list[Located]
    _name = _attribute = "config"  # where a wrong call has given none
    _owner: type | None = None
    _flow: type | None = None
    _state = _UNREAD

    def __new__(cls, *_: Any, **__: Any) -> Config:  # noqa: PYI034  Self is not in Python 3.10
        """Makes the object, which has its place in a class also after a wrong call."""
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
        show_default: bool = True,  # noqa: ARG002  as told
        plain: bool = False,
    ) -> None:
        self._name = name
        self._attribute = name
        self._options = {"default": default, "default_value": default_value, "help": help, "required": required}
        self._parser = parser
        self._plain = plain

    def __set_name__(self, owner: type, name: str) -> None:
        """Keeps the class and the attribute; another flow's config has an object of its own."""
        if self._owner is None:
            self._attribute, self._owner = name, owner
        else:
            placed = self.k8sflow_of(owner, name)
            placed._owner = owner  # noqa: SLF001  it is one of these
            setattr(owner, name, placed)

    def k8sflow_of(self, flow: type, attribute: str) -> Config:
        """A copy for another flow, whose value is not yet known."""
        found = object.__new__(type(self))
        found.__dict__.update(self.__dict__, _flow=flow, _attribute=attribute, _state=_UNREAD)
        return found

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
        if self._state.value is _UNKNOWN:
            self._state = self._state._replace(value=self._default())
        return self._state.value

    def k8sflow_bind(self, value: Any) -> None:
        """Sets the value, as an earlier process has had it."""
        self._state = _State(value, is_given=True, is_known=True)

    @property
    def k8sflow_is_given(self) -> bool:
        """Whether somebody gave the value; else it is read from its default."""
        return self._state.is_given

    def k8sflow_bound(self, flow: type) -> Config:
        """The config that this flow has in its place."""
        found = configs(flow)
        if self._owner in flow.__mro__ and self._attribute in found:
            return found[self._attribute]
        return next((config for config in found.values() if config._origin is self._origin), self)  # noqa: SLF001

    def k8sflow_is_known(self) -> bool:
        """Whether the flow's command line has been read."""
        return self._state.is_known

    def k8sflow_is_placed(self) -> bool:
        """Whether it is an attribute of a class, which the static check looks at."""
        return self._owner is not None

    def k8sflow_text(self) -> str:
        """The name by which ``config_expr`` has it."""
        return self._attribute if self._attribute.isidentifier() else self._name

    def k8sflow_source(self) -> Config:
        """Itself."""
        return self

    def k8sflow_read(self, *, file: str | None = None, text: str | None = None) -> None:
        """Sets the value from a file or a text.

        Raises:
            ParameterError: It can't be read.
        """
        self.k8sflow_bind(self._parsed(Path(file)) if file is not None else self._made(text or "", "json"))

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
        if is_delayed(value):
            return settled(value if self._owner is None else bound(value, self._flow or self._owner))
        if not callable(value):
            return value
        owner = self._flow or self._owner
        flow = owner.__name__ if owner is not None else ""
        try:
            return value(ParameterContext(flow, current_user(), self._name))
        except Exception as error:  # the function is the user's code
            raise ParameterError(
                f"Config {self._name!r}: the function in its {option} failed: {type(error).__name__}: {error}"
            ) from error

    def _parsed(self, path: Path) -> Any:
        try:
            text = path.read_text(encoding="utf-8-sig")
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
            return value if self._plain else wrapped(value)
        except Exception as error:  # a parser is anybody's code, and raises what it likes for a text that it can't read
            raise ParameterError(
                f"Config {self._name!r}: {source} can't be parsed: {type(error).__name__}: {error}",
                advice=f"It is read as {kind.upper()}." if self._parser is None else "",
            ) from error


class _Text(Late):
    """A Python expression over configs.

    Args:
        text: The expression.
        names: The names that its module and the class body around it have.
        flow: The flow whose configs it reads.
    """

    def __init__(self, text: str, names: Mapping[str, Any], flow: type[FlowSpec] | None = None) -> None:
        self._text, self._names, self._flow = text, names, flow

    def k8sflow_value(self) -> Any:
        """The value of the expression.

        Raises:
            ParameterError: It fails.
        """
        return evaluated(self._text, self._evaluated)

    def k8sflow_bound(self, flow: type) -> _Text:
        """The same expression over the configs of this flow."""
        return _Text(self._text, self._names, flow)

    def k8sflow_text(self) -> str:
        """The expression."""
        return self._text if self._text.isidentifier() else f"({self._text})"

    def k8sflow_source(self) -> None:
        """No single config."""

    def k8sflow_is_known(self) -> bool:
        """Whether the command line of the flow that it reads has been read."""
        used = evaluated(self._text, self._used)
        return bool(used) and all(config.k8sflow_is_known() for config in used.values())

    def __get__(self, instance: object | None, owner: type) -> Any:
        """The run's value, on a task's ``self``; the late value on the class."""
        return self if instance is None else self.k8sflow_bound(owner).k8sflow_value()

    def _used(self) -> dict[str, Config]:
        """The configs that the expression uses, by name; a flow's own ones come first."""
        found = {n: value for n, value in self._names.items() if isinstance(value, Config)}
        for attribute, config in ({} if self._flow is None else configs(self._flow)).items():
            found[attribute] = found[config._name] = config  # noqa: SLF001  every public name is the user's
        used = {node.id for node in ast.walk(ast.parse(self._text.strip(), mode="eval")) if isinstance(node, ast.Name)}
        return {name: config for name, config in found.items() if name in used}

    def _evaluated(self) -> Any:
        values = {name: config.k8sflow_value() for name, config in self._used().items()}
        return eval(self._text, {**self._names, **values})  # noqa: S307  the expression is the flow's own code


def config_expr(text: str) -> Any:
    """A Python expression over the flow's configs, evaluated when they are known: ``config_expr("limits.cpu * 2")``.

    It may also use what the module has in which it is written: functions, imports, constants.
    """
    frame = caller()
    return _Text(text, ChainMap(frame.f_locals, frame.f_globals) if is_class_body(frame) else frame.f_globals)


def configs(flow: type[FlowSpec]) -> dict[str, Config]:
    """The configs of a flow by the attribute that they are read through; what it inherits becomes its own."""
    found: dict[str, Config] = {}
    for base in reversed(flow.__mro__):
        found |= {
            name: member
            for name, member in vars(base).items() if isinstance(member, Config) and member.k8sflow_fault is None
        }  # fmt: skip
    for attribute, config in found.items():
        if vars(flow).get(attribute) is not config:
            found[attribute] = config.k8sflow_of(flow, attribute)
            type.__setattr__(flow, attribute, found[attribute])
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
    for config in by_name.values():
        config._state = config._state._replace(is_known=True)  # noqa: SLF001  as above


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
    before = {attribute: config._state for attribute, config in found.items()}  # noqa: SLF001  as above
    try:
        for config in found.values():
            config._state = _UNREAD._replace(is_known=True)  # noqa: SLF001  as above
        for name, value in values.items():
            names[name].k8sflow_bind(value if names[name]._plain else wrapped(value))  # noqa: SLF001  as above
        yield
    finally:
        for attribute, config in found.items():
            config._state = before[attribute]  # noqa: SLF001  as above


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
