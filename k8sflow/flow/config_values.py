"""The values of configs as steps see them: tables whose keys are attributes too, and the parsers that make them."""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from k8sflow.errors import ParameterError
from k8sflow.flow.problems import did_you_mean

Parser = Callable[[str], Any]
_UNCHECKED_YAML_TAGS = {"tag:yaml.org,2002:merge", "tag:yaml.org,2002:value"}


class DuplicateKeyError(ValueError):
    """A table has a key twice, so that one of the two values would be lost.

    Args:
        key: The key.
        lines: The lines with the key, counted from 1; empty where they aren't known.
    """

    def __init__(self, key: object, lines: Sequence[int]) -> None:
        found = f", in lines {' and '.join(map(str, lines))}" if lines else ""
        super().__init__(f"the key {key!r} is given twice in one table{found}")


def parse_failure(error: Exception) -> str:
    """The reason why a text can't be parsed."""
    return str(error) if isinstance(error, DuplicateKeyError) else f"{type(error).__name__}: {error}"


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
    """A parser: a function, a built-in one by name, or ``module.function``.

    Raises:
        ParameterError: There is none of this name.
    """
    if callable(named):
        return named
    ours: dict[str, Parser] = {"json": json_parser, "yaml": yaml_parser, "toml": _toml}
    if named in ours:
        return ours[named]
    module, _, function = named.rpartition(".")
    try:
        found: Parser = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ParameterError(f"{where}: the parser {named!r} can't be found: {error}") from error
    return found


def json_parser(text: str | bytes) -> Any:
    """The value of a text in JSON.

    Raises:
        ValueError: It isn't JSON, or a key is given twice in one table.
    """
    text = text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass")
    return json.loads(text, object_pairs_hook=functools.partial(_json_table, text))


def _json_table(text: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        key = next(key for key in keys if keys.count(key) > 1)
        written = re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:"
        raise DuplicateKeyError(key, [_line(text, match.start()) for match in re.finditer(written, text)])
    return found


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def yaml_parser(text: str) -> Any:
    """The value of a text in YAML, for ``Config(parser=yaml_parser)``.

    Raises:
        ValueError: A key is given twice in one table.
        yaml.YAMLError: It isn't YAML.
    """
    import yaml  # noqa: PLC0415  only where a config is written in YAML

    return yaml.load(text, Loader=_yaml_loader())  # noqa: S506  a SafeLoader


@functools.cache
def _yaml_loader() -> Any:
    import yaml  # noqa: PLC0415  as above

    class Loader(yaml.SafeLoader):
        """A safe loader that refuses duplicate keys, of which PyYAML keeps the last one."""

        # Not when values are constructed: by then, merged tables (<<) have been written into the nodes.
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            lines: dict[Any, int] = {}
            for key_node, _ in node.value:
                if not isinstance(key_node, yaml.ScalarNode) or key_node.tag in _UNCHECKED_YAML_TAGS:
                    continue
                key, line = self.construct_object(key_node), key_node.start_mark.line + 1
                if key in lines:
                    raise DuplicateKeyError(key, [lines[key], line])
                lines[key] = line
            return node

    return Loader


def _toml(text: str) -> Any:
    from k8sflow import toml  # noqa: PLC0415  as above

    return toml.loads(text)
