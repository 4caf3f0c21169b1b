"""``@pypi`` and ``@pypi_base``: the packages of a step, in an environment of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import conda as conda_module
from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators import requested as values
from k8sflow.flow.decorators.base import Decoration, Option, decorator
from k8sflow.flow.decorators.package_names import bare, normalized
from k8sflow.flow.decorators.requested import Requested, Source, SourceKind
from k8sflow.flow.missing_module import explain_at_the_end

_PAGE = "docs/environments.md"
_FILES = ("requirements", "pyproject", "lock")


def _extras(value: object) -> dict[str, tuple[str, ...]] | tuple[str, ...]:
    if not isinstance(value, Mapping):
        return values.names(value)
    return {
        name: tuple(str(extra).strip() for extra in parsers.listed(extras, "extras"))
        for name, extras in parsers.table(value).items()
    }


def _check(options: Mapping[str, Any]) -> None:
    names = {normalized(bare(name)) for name in options["packages"] or {}}
    for name in options["extras"] or {} if isinstance(options["extras"], Mapping) else {}:
        if normalized(name) not in names:
            raise ValueError(f"extras names {name!r}, which is not among the packages")
    others = [name for name in ("packages", "requirements", "pyproject") if options[name]]
    if options["lock"] and others:
        raise ValueError(f"lock has all packages of the step, so {' and '.join(others)} can't be added to it")


def _check_base(options: Mapping[str, Any]) -> None:
    _check(options)
    project = options["pyproject"] or options["lock"]
    if _of_project(options) and not project and not options["disabled"]:
        raise ValueError("groups, and extras as a list, are those of a project: name it by pyproject or lock")


_Packages = Annotated[
    Mapping[str, str] | None, Option(values.packages, "the packages: names and versions, as {'pandas': '>=2.2'}")
]
_Python = Annotated[str | None, Option(values.python, "the version of Python, such as '3.12'")]
_Extras = Annotated[
    Mapping[str, Sequence[str]] | Sequence[str] | None,
    Option(_extras, "extras of packages, as {'pandas': ['parquet']}, or those of the project, as ['plots']"),
]
_Requirements = Annotated[
    str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
    Option(values.files, "a requirements file, or several, beside the flow's file"),
]
_Pyproject = Annotated[
    str | os.PathLike[str] | None, Option(values.file, "the pyproject.toml whose dependencies are the packages")
]
_Groups = Annotated[str | Sequence[str] | None, Option(values.names, "dependency groups of the project")]
_Lock = Annotated[
    str | os.PathLike[str] | None, Option(values.file, "the uv.lock, or pylock.toml, that has all packages")
]


@decorator("runs the step in an environment with these packages of PyPI", check=_check, page=_PAGE)
def pypi(
    *,
    packages: _Packages = None,
    python: _Python = None,
    extras: _Extras = None,
    requirements: _Requirements = None,
    pyproject: _Pyproject = None,
    groups: _Groups = None,
    lock: _Lock = None,
    disabled: Annotated[bool | str, Option(parsers.flag, "whether the step runs without an environment")] = False,
) -> None: ...


@decorator("gives every step an environment with these packages of PyPI", on="flow", check=_check_base, page=_PAGE)
def pypi_base(
    *,
    packages: _Packages = None,
    python: _Python = None,
    extras: _Extras = None,
    requirements: _Requirements = None,
    pyproject: _Pyproject = None,
    groups: _Groups = None,
    lock: _Lock = None,
    disabled: Annotated[bool | str, Option(parsers.flag, "whether steps run without an environment")] = False,
) -> None: ...


def requested(
    of_flow: Sequence[Decoration], of_step: Sequence[Decoration], script: Source | None = None
) -> Requested | None:
    """The environment that a step asks for; None if it runs in that of the driver.

    Args:
        of_flow: The decorators of the flow's class.
        of_step: The decorators of the step, those of ``--with`` included.
        script: The flow's file, where metadata at its top names packages.

    Raises:
        FlowDefinitionError: An option can't be used.
    """
    own = _layers(of_step)
    if any(options["disabled"] for _, options in own):
        return None
    base = _layers(of_flow)
    if any(options["disabled"] for _, options in base):
        script = None
    layers = [(found, options) for found, options in (*base, *own) if not options["disabled"]]
    if not layers and script is None:
        return None
    lines: dict[str, str] = {}
    for _, options in layers:
        extras = options["extras"] if isinstance(options["extras"], Mapping) else {}
        for name, condition in (options["packages"] or {}).items():
            lines[normalized(bare(name))] = values.line(name, condition, extras)
    pythons = [options["python"] for _, options in layers if options["python"] is not None]
    sources = _sources(layers, script)
    if lines and any(source.kind is SourceKind.LOCK for source in sources):
        raise _added_to_lock(layers)
    return Requested(tuple(lines[key] for key in sorted(lines)), pythons[-1] if pythons else None, sources)


def _layers(decorations: Sequence[Decoration]) -> list[tuple[Decoration, dict[str, Any]]]:
    """The decorators that name packages, conda's first, with their options as those of ``@pypi``."""
    empty = dict.fromkeys(("extras", "groups", *_FILES))
    conda = [found for found in decorations if found.name in {"conda", "conda_base"}]
    pypi = [found for found in decorations if found.name in {"pypi", "pypi_base"}]
    return [
        *((found, {**empty, **conda_module.as_pypi(found)}) for found in conda),
        *((found, found.parsed()) for found in pypi),
    ]


def _of_project(options: Mapping[str, Any]) -> bool:
    """True if options name groups or extras of a project."""
    extras = options["extras"]
    return bool(options["groups"]) or bool(extras and not isinstance(extras, Mapping))


def _sources(layers: Sequence[tuple[Decoration, Mapping[str, Any]]], script: Source | None) -> tuple[Source, ...]:
    """The files that layers name. A later project, or a lock, takes the place of those before it."""
    requirements: list[str] = []
    project: tuple[SourceKind, str] | None = None
    groups: list[str] = []
    extras: list[str] = []
    for decoration, options in layers:
        named = options["lock"] or options["pyproject"]
        if named:
            project = (SourceKind.LOCK if options["lock"] else SourceKind.PYPROJECT, named)
            groups, extras = [], []
        if options["lock"]:
            requirements, script = [], None
        requirements += options["requirements"] or ()
        groups += options["groups"] or ()
        if _of_project(options):
            if project is None:
                raise _without_project(decoration)
            extras += options["extras"] if not isinstance(options["extras"], Mapping | None) else ()
    if requirements and project is not None and project[0] is SourceKind.LOCK:
        raise _added_to_lock(layers)
    return (
        *([script] if script is not None else []),
        *(Source(SourceKind.REQUIREMENTS, file) for file in dict.fromkeys(requirements)),
        *([Source(*project, tuple(dict.fromkeys(groups)), tuple(dict.fromkeys(extras)))] if project else []),
    )


def _without_project(decoration: Decoration) -> FlowDefinitionError:
    return FlowDefinitionError(
        f"{decoration.location}: @{decoration.name} names groups or extras of a project, and no project is named.",
        advice="Write pyproject= or lock= here, or in @pypi_base above the class.",
    )


def _added_to_lock(layers: Sequence[tuple[Decoration, Mapping[str, Any]]]) -> FlowDefinitionError:
    adding = next(found for found, options in reversed(layers) if options["packages"] or options["requirements"])
    locked, options = next((found, options) for found, options in reversed(layers) if options["lock"])
    return FlowDefinitionError(
        f"{adding.location}: @{adding.name} names packages, and @{locked.name} has lock={options['lock']!r}, which "
        "has all packages of a step.",
        advice="Add them to the project's dependencies (`uv add NAME --group GROUP`) and name the group: "
        "@pypi(groups=['GROUP']).",
    )


explain_at_the_end()
