"""``@conda`` and ``@conda_base``, as Metaflow's flows have them, with the packages of PyPI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators import requested as values
from k8sflow.flow.decorators.base import Decoration, Option, decorator
from k8sflow.flow.decorators.conda_names import CHANNEL_ONLY, ON_PYPI
from k8sflow.flow.decorators.package_names import normalized

_PAGE = "docs/environments.md"
_VERSION = re.compile(r"\d[A-Za-z0-9.!_+]*(\*)?")
_PREFIXES = ("r-", "perl-", "gcc-", "gxx-", "libgcc", "libstdcxx", "libblas", "liblapack", "magma-cuda")
_ALTERNATIVES = "has alternatives (|), which PyPI's conditions don't have: write one range, such as '>=1.2,<2'"


def _libraries(value: object) -> dict[str, str]:
    found = {}
    for name, version in parsers.table(value).items():
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{name!r} can't be the name of a package")
        if isinstance(version, bool | float) or not isinstance(version, str | int | None):
            raise ValueError(f"the version of {name!r} has to be a text, such as '2.10': a number would be 2.1")  # noqa: TRY004  one refusal
        found[name.strip()] = "" if version is None else _condition(name, str(version).strip())
    return found


def _condition(name: str, version: str) -> str:
    """A version of conda as one of PyPI: ``1.2`` is exact, ``=1.2`` any 1.2.x, and a build at the end is left out."""
    if "|" in version:
        raise ValueError(f"the version of {name!r} {_ALTERNATIVES}")
    parts = [_part(name, part.strip()) for part in version.split(",")]
    return ",".join(part for part in parts if part)


def _part(name: str, written: str) -> str:
    operator = re.match(r"[<>=!~]*", written)
    assert operator is not None, "it matches an empty text too"
    version, _, build = written[operator.end() :].strip().replace(" ", "=").partition("=")
    if not written or version == "*":
        return ""
    is_loose = operator[0] == "=" and not build and not version.endswith("*")
    if operator[0] not in {"", "=", "==", "<", ">", "<=", ">=", "!=", "~="} or not _VERSION.fullmatch(version):
        raise ValueError(f"{written!r} is not a version of {name!r}")
    if version.endswith("*"):
        version = f"{version[:-1].rstrip('.')}.*"
        if operator[0] in {">=", "<", ">", "<="}:  # conda ignores the star there
            version = version.removesuffix(".*")
    if operator[0] in {"", "=", "=="}:
        return f"=={version}.*" if is_loose else f"=={version}"
    return f"{operator[0]}{version}"


@decorator("runs the step in an environment with packages of PyPI, named as conda names them", page=_PAGE)
def conda(
    *,
    libraries: Annotated[Mapping[str, str] | None, Option(_libraries, "the packages")] = None,
    packages: Annotated[Mapping[str, str] | None, Option(_libraries, "the same, by Metaflow's newer name")] = None,
    python: Annotated[str | None, Option(values.python, "the version of Python, such as '3.12'")] = None,
    disabled: Annotated[bool | str, Option(parsers.flag, "whether the step runs without an environment")] = False,
) -> None: ...


@decorator("gives every step an environment with packages of PyPI, named as conda names them", on="flow", page=_PAGE)
def conda_base(
    *,
    libraries: Annotated[Mapping[str, str] | None, Option(_libraries, "the packages")] = None,
    packages: Annotated[Mapping[str, str] | None, Option(_libraries, "the same, by Metaflow's newer name")] = None,
    python: Annotated[str | None, Option(values.python, "the version of Python, such as '3.12'")] = None,
    disabled: Annotated[bool | str, Option(parsers.flag, "whether steps run without an environment")] = False,
) -> None: ...


def as_pypi(decoration: Decoration) -> dict[str, Any]:
    """The options of a use of ``@conda`` as those of ``@pypi``.

    Args:
        decoration: The use.

    Raises:
        FlowDefinitionError: It names packages that only a channel of conda has.
    """
    options = decoration.parsed()
    found: dict[str, str] = {}
    python, unknown = options["python"], []
    for name, version in {**(options["libraries"] or {}), **(options["packages"] or {})}.items():
        key = normalized(name)
        if key == "python":
            python = python or version.removeprefix("==").removesuffix(".*")
        elif "::" in name or _is_channel_only(key):
            unknown.append(name)
        else:
            found[ON_PYPI.get(key, name)] = version
    if unknown and not options["disabled"]:
        raise _not_on_pypi(decoration, unknown)
    return {"packages": found, "python": python or None, "disabled": options["disabled"]}


def _is_channel_only(name: str) -> bool:
    return name in CHANNEL_ONLY or name.startswith(_PREFIXES)


def _not_on_pypi(decoration: Decoration, names: Sequence[str]) -> FlowDefinitionError:
    hints = [f"{name}: {_hint(name)}" for name in names]
    return FlowDefinitionError(
        f"{decoration.location}: @{decoration.name} names {', '.join(names)}, which only a channel of conda has.",
        cause="k8sflow installs the packages of PyPI, under the names that @conda has for them.",
        advice=f"{' '.join(hints)} With packages that are installed already, `python flow.py --environment=local run` "
        "runs all steps in this Python, and an image with them can be named by @kubernetes(image=…) beside "
        f"@{decoration.name.removesuffix('_base')}(disabled=True).",
    )


def _hint(name: str) -> str:
    channel, _, package = name.rpartition("::")
    key = normalized(package)
    if channel and not _is_channel_only(key):
        return f"write {ON_PYPI.get(key, package)!r}, if PyPI's package is the same."
    return CHANNEL_ONLY.get(key, "") or "it has to be in the image, or on the machine."


def notice(decorations: Sequence[Decoration]) -> str | None:
    """One line about the packages of conda that decorators name; None if they name none.

    Args:
        decorations: The decorators of the flow and of its steps.
    """
    used = [found.parsed() for found in decorations if found.name in {conda.name, conda_base.name}]
    names = {
        normalized(name): name
        for options in used
        if not options["disabled"]
        for name in {**(options["libraries"] or {}), **(options["packages"] or {})}
    }
    names.pop("python", None)
    if not names:
        return None
    other = [f"{name} is {ON_PYPI[key]}" for key, name in sorted(names.items()) if ON_PYPI.get(key, key) != key]
    where = f", where {', '.join(other)}" if other else ""
    return f"The packages of @conda come from PyPI{where}."
