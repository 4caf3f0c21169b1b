"""The configs of a flow with the values that they have in a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8sflow.errors import ParameterError
from k8sflow.flow.configs import Config
from k8sflow.flow.problems import did_you_mean


class ConfigSet(Mapping[str, Any]):
    """The values of a flow's configs, by attribute. A default is read when its value is first needed.

    Args:
        flow: The flow's class.
        given: The values that were given, by attribute, as steps see them.
    """

    def __init__(self, flow: type, given: Mapping[str, Any] | None = None) -> None:
        self.flow = flow
        self.given = dict(given or {})
        self._defaults: dict[str, Any] = {}
        self._declared = _declared(flow)

    @staticmethod
    def from_arguments(flow: type, arguments: Sequence[str]) -> ConfigSet:
        """The values that a command line gives, by ``--config NAME FILE`` and ``--config-value NAME JSON``.

        Raises:
            ParameterError: There is no such config, it is given both ways, or its value can't be read.
        """
        values = ConfigSet(flow)
        options: dict[str, str] = {}
        by_name = {config._name: attribute for attribute, config in values._declared.items()}  # noqa: SLF001  public names are the user's
        for option, name, value in _given(arguments):
            if name not in by_name:
                raise values._unknown(f"{option} {name}", name)
            if options.setdefault(name, option) != option:
                raise ParameterError(
                    f"Config {name!r} is given by --config and by --config-value, and only one can be used.",
                    advice="Remove one of them.",
                )
            attribute = by_name[name]
            source = {"file" if option == "--config" else "text": value}
            values.given[attribute] = values._declared[attribute].k8sflow_read(**source)
        return values

    @staticmethod
    def from_python(flow: type, values: Mapping[str, Any]) -> ConfigSet:
        """The values that Python code gives, by name or attribute; the parsers don't see them.

        Raises:
            ParameterError: There is no such config.
        """
        found = ConfigSet(flow)
        names = {spelling: a for a, config in found._declared.items() for spelling in (a, config._name)}  # noqa: SLF001  as above
        for name, value in values.items():
            if name not in names:
                raise found._unknown(name, name)
            attribute = names[name]
            found.given[attribute] = found._declared[attribute].k8sflow_wrapped(value)
        return found

    def over(self, recorded: Mapping[str, Any]) -> ConfigSet:
        """These values, and those that an earlier run has recorded where none was given.

        Args:
            recorded: The recorded values by attribute.
        """
        known = {name: recorded[name] for name in self._declared if name in recorded and name not in self.given}
        return ConfigSet(self.flow, {**known, **self.given})

    def __getitem__(self, attribute: str) -> Any:
        if attribute in self.given:
            return self.given[attribute]
        if attribute not in self._defaults:
            self._defaults[attribute] = self._declared[attribute].k8sflow_default(self)
        return self._defaults[attribute]

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)

    def __contains__(self, attribute: object) -> bool:
        return attribute in self._declared

    def help(self) -> list[str]:
        """Name, help and default of each config, for ``--help``."""
        return [config.k8sflow_help() for config in self._declared.values()]

    def has(self, config: Config) -> bool:
        return self._attribute_of(config) is not None

    def value_of(self, config: Config) -> Any:
        """The value of one of the flow's configs."""
        return self[str(self._attribute_of(config))]

    def by_name(self) -> dict[str, Config]:
        return {
            name: config
            for attribute, config in self._declared.items()
            for name in (attribute, config._name)  # noqa: SLF001  as above
        }

    def _attribute_of(self, config: Config) -> str | None:
        """The attribute of a config; a flow may override a config of its base class, or take one of another flow."""
        attribute = config._attribute  # noqa: SLF001  as above
        if config._owner in self.flow.__mro__ and attribute in self._declared:  # noqa: SLF001  as above
            return attribute
        origin = config._origin  # noqa: SLF001  as above
        return next((name for name, own in self._declared.items() if own._origin is origin), None)  # noqa: SLF001  as above

    def _unknown(self, what: str, name: str) -> ParameterError:
        names = [config._name for config in self._declared.values()]  # noqa: SLF001  as above
        listed = f"Its configs are {', '.join(names)}." if names else "It has none."
        return ParameterError(
            f"{what}: {self.flow.__name__} has no such config.",
            advice=f"{did_you_mean(name, names)} {listed}".strip(),
        )


def _declared(flow: type) -> dict[str, Config]:
    """The configs of a flow and its bases by attribute, without those that were declared wrongly."""
    found: dict[str, Config] = {}
    for base in reversed(flow.__mro__):
        found |= {
            name: member
            for name, member in vars(base).items()
            if isinstance(member, Config) and member.k8sflow_problem is None
        }
    return found


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for position, option in enumerate(arguments):
        if option in {"--config", "--config-value"} and position + 2 < len(arguments):
            yield option, arguments[position + 1], arguments[position + 2]
