"""Parameters: values that are given to a run when it starts, and can't change after that."""

from __future__ import annotations

import contextlib
import copy
import json
import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.config_values import DuplicateKeyError, json_parser
from k8sflow.flow.configs import ParameterContext
from k8sflow.flow.delayed import is_delayed, settled
from k8sflow.flow.problems import Problem, caller, declaring, location_of

if TYPE_CHECKING:
    from k8sflow.flow.spec import FlowSpec

# Names that Metaflow's flows can't use either. Other options of a command make way for a parameter of their name.
RESERVED_OPTIONS = frozenset({
    "params", "with", "tag", "namespace", "obj", "tags", "decospecs", "run-id-file", "max-num-splits", "max-workers",
    "max-log-size", "user-namespace", "run-id", "task-id", "runner-attribute-file",
})  # fmt: skip


class JSONTypeClass:
    """The type of a parameter whose text is JSON."""

    __name__ = "JSON"

    def __call__(self, value: object) -> Any:
        return json_parser(value) if isinstance(value, str | bytes) else json.loads(json.dumps(value))

    def __repr__(self) -> str:
        return "JSONType"


JSONType = JSONTypeClass()


class Parameter:
    """A value of a run, set on the command line as ``--name`` and read in steps as ``self.name``.

    Args:
        name: The name on the command line.
        default: The value where none is given, or a value of a config, or a function of a ``ParameterContext`` that
            makes it when a run starts. Its type is the parameter's type where ``type`` is not given; a function's is
            str.
        type: One of str, int, float, bool, JSONType.
        help: One line for ``--help``.
        required: Whether a run without a value is an error.
        show_default: Whether ``--help`` shows the default.
        separator: The separator between the strings of a list: ``--name a,b`` with ``separator=","``.
        is_flag: Whether a bool is written as ``--name`` and ``--no-name``.
        multiple: Whether the option may be given more than once. The value is a tuple, empty where nothing is given,
            ``type`` is that of its items, and ``default`` is a list or tuple, or its only item.
        hidden: Whether ``--help`` leaves the parameter out.

    Raises:
        FlowDefinitionError: The name, the type or the default can't be used; in a flow's class, the check reports it.
    """

    k8sflow_problem: Problem | None = None
    _configs: ConfigSet | None = None  # for a default that depends on them
    default: Any = None
    _is_placed = False  # whether it is an attribute of a class

    @declaring
    def __init__(
        self,
        name: str,
        default: Any = None,
        type: Callable[[Any], Any] | None = None,  # noqa: A002  the name that users know
        help: str = "",  # noqa: A002  the name that users know
        required: bool = False,  # noqa: FBT001, FBT002  the order that users know
        show_default: bool = True,  # noqa: FBT001, FBT002  the order that users know
        *,
        separator: str | None = None,
        is_flag: bool = False,
        multiple: bool = False,
        hidden: bool = False,
    ) -> None:
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier() or name[0] == "-":
            raise FlowDefinitionError(
                f"Parameter({name!r}): the name can't be an option.", advice="Use letters, digits, - and _."
            )
        if name.replace("_", "-") in RESERVED_OPTIONS:
            raise FlowDefinitionError(
                f"Parameter({name!r}): the name is taken: the command line has an option {name} already.",
                advice="Give the parameter another name.",
            )
        self.is_late = callable(default) or is_delayed(default)
        kind = _builtin_type(None if self.is_late else default, separator, multiple=multiple) if type is None else type
        self._is_as_default = type is None and separator is None and is_delayed(default)
        if kind not in _EXAMPLES:
            raise FlowDefinitionError(
                f"Parameter({name!r}): the type {kind!r} is not one of str, int, float, bool, JSONType."
            )
        if separator is not None and (kind is not str or not separator):
            raise FlowDefinitionError(
                f"Parameter({name!r}): a separator makes a list of texts, so the type is str, not {_name_of(kind)}."
            )
        _check_together(name, kind, separator=separator, is_flag=is_flag, multiple=multiple)
        self.name = name
        self.location = location_of(caller())
        self._kind: Callable[[Any], Any] = kind
        self.is_typed = type is not None
        self.help = help
        self.required = required
        self.show_default = show_default
        self.separator = separator
        self.is_flag = is_flag
        self.multiple = multiple
        self.hidden = hidden
        self.attribute = name
        self._default = default
        self.default = None if default is None or self.is_late else self.convert(default, "the default")

    def __set_name__(self, owner: type, name: str) -> None:
        """Keeps the attribute through which steps read the value; another flow's has an object of its own."""
        if self._is_placed:
            placed = copy.copy(self)
            placed._is_placed = False  # noqa: SLF001  it is one of these
            setattr(owner, name, placed)
            placed.__set_name__(owner, name)
        else:
            self.attribute, self._is_placed = name, True

    def with_configs(self, configs: ConfigSet) -> Parameter:
        """The parameter, with its default made from these configs."""
        if not is_delayed(self._default):
            return self
        found = copy.copy(self)
        found._configs = configs  # noqa: SLF001  it is one of these
        return found

    def named(self, attribute: str, owner: type) -> Parameter:
        """The parameter under an attribute of a flow that a mutator gives it."""
        found = copy.copy(self)
        found._is_placed = False  # noqa: SLF001  as above
        found.__set_name__(owner, attribute)
        return found

    def __get__(self, instance: FlowSpec | None, owner: type) -> Any:
        """The run's value, on a task's ``self``; the Parameter itself on the class."""
        if instance is None:
            return self
        if self.attribute in instance.__dict__:
            return instance.__dict__[self.attribute]
        return instance.__getattr__(self.attribute)

    @property
    def default_text(self) -> str:
        """The default as it would be typed."""
        if self.separator is not None and isinstance(self.default, list):
            return self.separator.join(self.default)
        if self.multiple and isinstance(self.default, tuple):
            return ", ".join(map(str, self.default))
        with contextlib.suppress(TypeError, ValueError):
            if isinstance(self.default, (list, dict)):
                return json.dumps(self.default, ensure_ascii=False)
        return str(self.default)

    @property
    def _example(self) -> str:
        is_list = self.kind is JSONType and isinstance(self.default, list)
        return "'[1, 2]'" if is_list else _EXAMPLES[self.kind]

    def __set__(self, instance: FlowSpec, value: object) -> None:
        """Refuses: a parameter's value is part of what the run is.

        Raises:
            AttributeError: It is a parameter of the run: no mutator has removed it.
        """
        if instance._k8sflow_has_parameter(self.attribute):  # noqa: SLF001  every public name is the user's
            self._refuse()
        instance.__dict__[self.attribute] = value

    def __delete__(self, instance: FlowSpec) -> None:
        """Refuses as well.

        Raises:
            AttributeError: As above.
        """
        if instance._k8sflow_has_parameter(self.attribute):  # noqa: SLF001  every public name is the user's
            self._refuse()
        del instance.__dict__[self.attribute]

    def _refuse(self) -> NoReturn:
        raise AttributeError(
            f"self.{self.attribute} is the Parameter {self.name!r}, which can't change during a run. "
            f"Put the new value under another name."
        )

    def convert(self, value: object, source: str) -> Any:
        """The value in the parameter's type; of a parameter that may be given more than once, a tuple of such values.

        Raises:
            ParameterError: The value can't be of this type.
        """
        if self.multiple:
            return tuple(self._one(part, source) for part in (value if isinstance(value, list | tuple) else [value]))
        return self._one(value, source)

    def _one(self, value: object, source: str) -> Any:
        try:
            if self.separator is not None:
                if value == "":
                    return []
                parts = value.split(self.separator) if isinstance(value, str) else list(value)  # type: ignore[call-overload]
                return [str(part) for part in parts]
            if self.kind is bool:
                return _to_bool(value)
            if self.kind is int and isinstance(value, float) and not value.is_integer():
                raise ValueError("not a whole number")  # noqa: TRY301  reported below like any other
            return self.kind(value)
        except DuplicateKeyError as error:
            raise ParameterError(
                f"Parameter {self.name!r}: {source} {reprlib.repr(value)} can't be used: {error}.",
                advice="Remove one of them.",
            ) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise ParameterError(
                f"Parameter {self.name!r}: {source} {reprlib.repr(value)} is not of type {self.type_name}.",
                advice=f"Give a value of type {self.type_name}, for example --{self.name} {self._example}",
            ) from error

    @property
    def kind(self) -> Callable[[Any], Any]:
        """The type; for a default from a config, that of the config's value, and str while there is none."""
        if self._is_as_default:
            with contextlib.suppress(ParameterError):  # reported when a run needs the value
                found = _builtin_type(settled(self._default, self._configs), None, multiple=self.multiple)
                return found if found in _EXAMPLES else self._kind
        return self._kind

    @property
    def type_name(self) -> str:
        """The type as it is written in source."""
        return _name_of(self.kind)

    def default_value(self, context: ParameterContext) -> Any:
        """The value of a run where none was given; calls the function that makes it, if there is one.

        Raises:
            ParameterError: The function failed, or its result is not of the parameter's type.
        """
        value = self._late_value(context) if self.is_late else self.default
        return () if value is None and self.multiple and not self.required else value

    def _late_value(self, context: ParameterContext) -> Any:
        """The default from a config or a function; the errors are those of ``default_value``."""
        if is_delayed(self._default):
            value = settled(self._default, self._configs)
        else:
            try:
                value = self._default(context)
            except Exception as error:  # the function is the user's code
                raise ParameterError(
                    f"Parameter {self.name!r}: its default function failed: {type(error).__name__}: {error}"
                ) from error
        is_text = self.kind is str and self.separator is None and not self.multiple
        if not self.is_typed and is_text and not isinstance(value, str | None):
            raise ParameterError(
                f"Parameter {self.name!r}: its default function returned {type(value).__name__}, but its type is str.",
                advice=f"Name the type: Parameter({self.name!r}, type={type(value).__name__}, ...).",
            )
        return None if value is None else self.convert(value, "the default")


_EXAMPLES: dict[Any, str] = {str: "text", int: "10", float: "0.5", bool: "true", JSONType: "'{\"a\": 1}'"}
_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


def _name_of(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def _builtin_type(default: object, separator: str | None, *, multiple: bool = False) -> Any:
    """The type that a default implies: its own, str for None, JSON for lists and dictionaries."""
    if multiple and isinstance(default, list | tuple):
        types = {_builtin_type(item, None) for item in default}
        return types.pop() if len(types) == 1 else str
    if default is None or separator is not None:
        return str
    return JSONType if isinstance(default, dict | list) else type(default)


def _check_together(name: str, kind: Any, *, separator: str | None, is_flag: bool, multiple: bool) -> None:
    """Refuses options of which one would have no effect.

    Raises:
        FlowDefinitionError: There are such options.
    """
    if is_flag and kind is not bool:
        raise FlowDefinitionError(
            f"Parameter({name!r}): is_flag needs a bool, and the type is {_name_of(kind)}.",
            advice="Write default=False or type=bool, or remove is_flag.",
        )
    if multiple and (separator is not None or is_flag):
        raise FlowDefinitionError(
            f"Parameter({name!r}): multiple can't be used with {'is_flag' if is_flag else 'separator'}.",
            advice="Keep one of them.",
        )


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise ValueError(f"none of {', '.join(_WORDS)}")
    return _WORDS[word]
