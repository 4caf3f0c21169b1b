"""The values of configs as steps see them: tables whose keys are attributes too, and the parsers that make them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from k8sflow.errors import ParameterError
from k8sflow.flow.problems import did_you_mean

Parser = Callable[[str], Any]


class ConfigValue(dict[Any, Any]):
    """A table of a config: ``value.key`` and ``value["key"]``; it can't change, and keys keep their types."""

    def __init__(self, values: Mapping[Any, Any]) -> None:
        super().__init__({key: wrapped(value) for key, value in values.items()})

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        known = list(map(str, self))
        has = f"It has {', '.join(known)}." if known else "It is empty."
        raise AttributeError(f"the config has no {name!r}. {did_you_mean(name, known) or has}")

    def to_dict(self) -> dict[Any, Any]:
        """The table as plain dictionaries."""
        return {key: plain(value) for key, value in self.items()}

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a config can't change during a run. Put the new value under another name.")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = _refuse
    __setattr__ = __delattr__ = __ior__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return ConfigValue, (dict(self),)


def wrapped(value: Any) -> Any:
    """A value whose tables can be read by attributes, also those in lists and tuples."""
    if isinstance(value, Mapping):
        return value if isinstance(value, ConfigValue) else ConfigValue(value)
    return type(value)(map(wrapped, value)) if type(value) in {list, tuple} else value


def plain(value: Any) -> Any:
    """The same value with plain dictionaries."""
    if isinstance(value, ConfigValue):
        return value.to_dict()
    return type(value)(map(plain, value)) if type(value) in {list, tuple} else value


def parser_of(named: str | Parser, where: str) -> Parser:
    """A parser: a function, one of ours by name, or ``module.function``.

    Raises:
        ParameterError: There is none of this name.
    """
    if callable(named):
        return named
    ours: dict[str, Parser] = {"json": json.loads, "yaml": yaml_parser, "toml": _toml}
    if named in ours:
        return ours[named]
    module, _, function = named.rpartition(".")
    try:
        found: Parser = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ParameterError(f"{where}: the parser {named!r} can't be found: {error}") from error
    return found


def yaml_parser(text: str) -> Any:
    """The value of a text in YAML, for ``Config(parser=yaml_parser)``."""
    import yaml  # noqa: PLC0415  only where a config is written in YAML

    return yaml.safe_load(text)


def _toml(text: str) -> Any:
    from k8sflow import toml  # noqa: PLC0415  as above

    return toml.loads(text)
