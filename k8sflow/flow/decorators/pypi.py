"""``@pypi`` and ``@pypi_base``: the packages of a step, in an environment of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Decoration, Option, decorator
from k8sflow.flow.decorators.package_names import bare, normalized
from k8sflow.flow.missing_module import explain_at_the_end

_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[A-Za-z0-9._,\s-]*\])?")
_PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,2})?")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.*+!_-]*")
_OPERATORS = ("<", ">", "=", "!", "~")
_SOURCES = ("git+", "http://", "https://", "file:", "./", "../", "/")
_PAGE = "docs/environments.md"


@dataclass(frozen=True)
class Requested:
    """The environment that a step asks for.

    Args:
        requirements: The packages, as lines of a requirements file, in alphabetical order.
        python: The version of Python, such as ``3.12``; None for that of the run.
    """

    requirements: tuple[str, ...]
    python: str | None = None


def _packages(value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, version in parsers.table(value).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name.strip()):
            raise ValueError(f"{name!r} can't be the name of a package")
        if isinstance(version, bool | float) or not isinstance(version, str | int | None):
            raise ValueError(f"the version of {name!r} has to be a text, such as '2.10': a number would be 2.1")  # noqa: TRY004  one refusal
        if normalized(bare(name)) in {normalized(bare(other)) for other in found}:
            raise ValueError(f"{name!r} is named twice")
        found[name.strip()] = _condition(name, "" if version is None else str(version).strip())
    return found


def _condition(name: str, version: str) -> str:
    """The rest of a package's line in a requirements file."""
    if "\n" in version:
        raise ValueError(f"the version of {name!r} has more than one line")
    if version in {"", "*"}:
        return ""
    if version.startswith("@"):
        return f" @ {version[1:].strip()}"
    if version.startswith(_SOURCES):
        return f" @ {version}"
    if version.startswith(_OPERATORS):
        return version
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is not a version of {name!r}")
    return f"=={version}"


def _python(value: object) -> str:
    found = str(value) if isinstance(value, str) else ""
    if not _PYTHON.fullmatch(found.strip()):
        raise ValueError(f"{value!r} is not a version of Python such as '3.12'")
    return found.strip()


def _extras(value: object) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(str(extra).strip() for extra in parsers.listed(extras, "extras"))
        for name, extras in parsers.table(value).items()
    }


def _check(options: Mapping[str, Any]) -> None:
    names = {normalized(bare(name)) for name in options["packages"] or {}}
    for name in options["extras"] or {}:
        if normalized(name) not in names:
            raise ValueError(f"extras names {name!r}, which is not among the packages")


_Packages = Annotated[
    Mapping[str, str] | None, Option(_packages, "the packages: names and versions, as {'pandas': '>=2.2'}")
]
_Python = Annotated[str | None, Option(_python, "the version of Python, such as '3.12'")]
_Extras = Annotated[
    Mapping[str, Sequence[str]] | None, Option(_extras, "extras of packages, as {'pandas': ['parquet']}")
]


@decorator("runs the step in an environment with these packages of PyPI", check=_check, page=_PAGE)
def pypi(
    *,
    packages: _Packages = None,
    python: _Python = None,
    extras: _Extras = None,
    disabled: Annotated[bool | str, Option(parsers.flag, "whether the step runs without an environment")] = False,
) -> None: ...


@decorator("gives every step an environment with these packages of PyPI", on="flow", check=_check, page=_PAGE)
def pypi_base(
    *,
    packages: _Packages = None,
    python: _Python = None,
    extras: _Extras = None,
    disabled: Annotated[bool | str, Option(parsers.flag, "whether steps run without an environment")] = False,
) -> None: ...


def requested(of_flow: Sequence[Decoration], of_step: Sequence[Decoration]) -> Requested | None:
    """The environment that a step asks for; None if it runs in that of the driver.

    Args:
        of_flow: The decorators of the flow's class.
        of_step: The decorators of the step, those of ``--with`` included.

    Raises:
        FlowDefinitionError: An option can't be used.
    """
    base = next((found.parsed() for found in of_flow if found.name == pypi_base.name), None)
    own = next((found.parsed() for found in of_step if found.name == pypi.name), None)
    if own is not None and own["disabled"]:
        return None
    layers = [options for options in (base, own) if options is not None and not options["disabled"]]
    if not layers:
        return None
    lines: dict[str, str] = {}
    for options in layers:
        for name, condition in (options["packages"] or {}).items():
            key = normalized(bare(name))
            lines[key] = _line(name, condition, options["extras"] or {})
    pythons = [options["python"] for options in layers if options["python"] is not None]
    return Requested(tuple(lines[key] for key in sorted(lines)), pythons[-1] if pythons else None)


def _line(name: str, condition: str, extras: Mapping[str, Sequence[str]]) -> str:
    package = bare(name)
    inside = name.strip()[len(package) :].strip().strip("[]")
    written = [part.strip() for part in inside.split(",") if part.strip()]
    more = [extra for key, found in extras.items() if normalized(key) == normalized(package) for extra in found]
    every = ",".join(dict.fromkeys([*written, *more]))
    return f"{package}[{every}]{condition}" if every else f"{package}{condition}"


explain_at_the_end()
