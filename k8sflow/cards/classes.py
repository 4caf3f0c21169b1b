"""The class of a card by its type: of k8sflow, of the flow's own modules, or of an installed package."""

from __future__ import annotations

import importlib
from typing import Any

from k8sflow.cards.base import MetaflowCard
from k8sflow.errors import ConfigurationError
from k8sflow.flow.problems import did_you_mean

ENTRY_POINTS = "k8sflow.cards"
_BUILT_IN = {"default": "DefaultCard", "blank": "BlankCard", "html": "HtmlCard", "error": "ErrorCard"}
# Whether they take components, so that their module, which imports much, need not be imported.
_EDITABLE = {"default": True, "blank": True, "html": False, "error": False}


def is_editable(kind: str) -> bool:
    """True if ``current.card.append`` may add to cards of a type.

    Raises:
        ConfigurationError: There is no such type.
    """
    if kind in _EDITABLE:
        return _EDITABLE[kind]
    found = class_of(kind)
    return bool(found.ALLOW_USER_COMPONENTS or found.IS_EDITABLE)


def class_of(kind: str) -> type[MetaflowCard]:
    """The class of cards of a type.

    Raises:
        ConfigurationError: There is none, or its module can't be loaded.
    """
    if kind in _BUILT_IN:
        built_in: type[MetaflowCard] = getattr(importlib.import_module("k8sflow.cards.builtin"), _BUILT_IN[kind])
        return built_in
    found = MetaflowCard.known.get(kind) or _installed(kind) or _dotted(kind)
    if found is not None:
        return found
    names = sorted({*_BUILT_IN, *MetaflowCard.known, *_installed_names()})
    raise ConfigurationError(
        f"there is no type {kind!r} of cards.",
        cause="A class of your own has to be imported by the flow's file, or by the package that has it.",
        advice=f"{did_you_mean(kind, names)} The types are {', '.join(names)}.".strip(),
    )


def _installed_names() -> list[str]:
    from importlib.metadata import entry_points  # noqa: PLC0415  reads the metadata of all that is installed

    return [point.name for point in entry_points(group=ENTRY_POINTS)]


def _installed(kind: str) -> type[MetaflowCard] | None:
    from importlib.metadata import entry_points  # noqa: PLC0415  as above

    for point in entry_points(group=ENTRY_POINTS, name=kind):
        try:
            return _checked(point.load(), f"the entry point {kind!r}")
        except Exception as error:  # the import runs the package's code, which may raise anything
            raise ConfigurationError(
                f"the cards of type {kind!r} can't be loaded: {type(error).__name__}: {error}",
                advice="Upgrade the package that has them, or uninstall it.",
            ) from error
    return None


def _dotted(kind: str) -> type[MetaflowCard] | None:
    """A class by ``module.Class``."""
    module, _, name = kind.rpartition(".")
    if not module:
        return None
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None
    except Exception as error:  # the import runs the module's code, which may raise anything
        raise ConfigurationError(
            f"the cards of type {kind!r} can't be loaded: {type(error).__name__}: {error}",
            advice=f"Correct {module}, so that it can be imported.",
        ) from error
    return _checked(found, kind)


def _checked(found: Any, where: str) -> type[MetaflowCard]:
    if not (isinstance(found, type) and issubclass(found, MetaflowCard)):
        raise ConfigurationError(f"{where} is not a class derived from MetaflowCard.")
    return found
