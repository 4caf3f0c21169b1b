"""Parsers of files with packages, for ``Config(parser=…)``: they return the options of ``@pypi`` and ``@conda``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from k8sflow import toml
from k8sflow.errors import ParameterError as ParserValueError

__all__ = [
    "ParserValueError",
    "conda_environment_yml_parser",
    "pyproject_toml_parser",
    "requirements_txt_parser",
]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REQUIREMENT = re.compile(
    rf"(?P<name>{_NAME})\s*(?:\[(?P<extras>[A-Za-z0-9._,\s-]*)\])?\s*"
    r"(?:@\s*(?P<url>\S+)|\(?(?P<conditions>[^;@()]*)\)?)\s*(?P<marker>;.*)?"
)
_CONDITION = re.compile(r"(~=|===|==|!=|<=|>=|<|>)\s*(v?\d[A-Za-z0-9.*+!_-]*)")
_CONDA = re.compile(r"([A-Za-z0-9_\-.]+)(\s*[=<>!~].+)?")
_COMMENT = re.compile(r"\s+#.*$")
_OPTION = "Options such as -r and --hash are read by @pypi_base(requirements='requirements.txt')."


def requirements_txt_parser(content: str) -> dict[str, Any]:
    """The packages of a requirements file, for ``Config(parser=requirements_txt_parser)``.

    Args:
        content: The text of the file.

    Returns:
        ``packages``, which maps names (with extras and addresses) to versions, and ``python``, or None.

    Raises:
        ParserValueError: A line is an option, has a marker, or can't be read.
    """
    return _collected(_requirement_lines(content), " =", None)


def pyproject_toml_parser(content: str) -> dict[str, Any]:
    """The dependencies of a project, for ``Config(parser=pyproject_toml_parser)``.

    Args:
        content: The text of the pyproject.toml.

    Returns:
        As ``requirements_txt_parser``; ``python`` is the project's ``requires-python``.

    Raises:
        ParserValueError: A dependency has a marker, or can't be read.
        TOMLDecodeError: The text is not TOML.
    """
    project = toml.loads(content).get("project", {})
    python = project.get("requires-python")
    python = None if python is None else python.lstrip("=").strip()
    return _collected(((None, line.strip()) for line in project.get("dependencies", [])), "=", python)


def conda_environment_yml_parser(content: str) -> dict[str, Any]:
    """The packages of an environment.yml of conda, for ``Config(parser=conda_environment_yml_parser)``.

    Args:
        content: The text of the file; channels and the environment's name are left out.

    Returns:
        As ``requirements_txt_parser``.

    Raises:
        ParserValueError: A line has a channel, a section such as ``pip:``, or can't be read.
    """
    packages: dict[str, str] = {}
    python: str | None = None
    is_inside = False
    for number, line in _lines(content):
        if line.lower().startswith("dependencies:"):
            is_inside = True
            continue
        is_inside = is_inside and line.startswith("-")
        if not is_inside:
            continue
        written = line.lstrip("-").strip()
        if written.endswith(":"):
            raise ParserValueError(
                f"line {number}: the section '{written}' of an environment.yml can't be used.",
                advice="Name these packages by @pypi_base(packages=…) or a requirements file.",
            )
        found = _CONDA.fullmatch(written)
        if found is None:
            raise ParserValueError(
                f"line {number}: '{written}' is not a name with a version.",
                advice="Write it without a channel: k8sflow installs the packages of PyPI.",
            )
        version = (found[2] or "").strip()
        version = version.lstrip("=").strip() if version.startswith("=") else version
        if found[1].lower() == "python":
            if python is not None and version:
                raise ParserValueError(f"line {number}: '{written}' is a second version of Python.")
            python = version
        else:
            packages[found[1]] = version
    return {"packages": packages, "python": python}


def _lines(content: str) -> Iterator[tuple[int, str]]:
    for number, written in enumerate(content.splitlines(), 1):
        line = _COMMENT.sub("", written.strip()).strip()
        if line and not line.startswith("#"):
            yield number, line


def _requirement_lines(content: str) -> Iterator[tuple[int | None, str]]:
    for number, line in _lines(content):
        if line != "-e file:.":  # Rye writes it for the project itself
            yield number, line


def _collected(lines: Iterable[tuple[int | None, str]], stripped: str, python: str | None) -> dict[str, Any]:
    packages: dict[str, str] = {}
    for number, line in lines:
        where = "" if number is None else f"line {number}: "
        found = _REQUIREMENT.fullmatch(line)
        conditions = None if found is None else _conditions(found["conditions"] or "")
        if found is None or conditions is None:
            raise ParserValueError(
                f"{where}'{line}' is not a valid requirement (PEP 508).", advice=_OPTION if number is not None else ""
            )
        if found["marker"]:
            raise ParserValueError(
                f"{where}'{line}' has a marker, which packages= can't express.",
                advice="@pypi_base(requirements=…) and @pypi_base(pyproject=…) read files with markers.",
            )
        name = found["name"]
        extras = sorted({extra.strip() for extra in (found["extras"] or "").split(",") if extra.strip()})
        version = conditions.lstrip(stripped)
        if name.lower() == "python":
            if python is not None and version:
                raise ParserValueError(f"{where}'{line}' is a second version of Python.")
            python = version or None
        else:
            key = name + (f"[{','.join(extras)}]" if extras else "") + (f"@{found['url']}" if found["url"] else "")
            packages[key] = version
    return {"packages": packages, "python": python}


def _conditions(text: str) -> str | None:
    """Conditions in the order that Metaflow has, without blanks; None if one can't be read."""
    found = []
    for part in text.strip().removesuffix(",").split(",") if text.strip() else ():
        condition = _CONDITION.fullmatch(part.strip())
        if condition is None:
            return None
        found.append(condition[1] + condition[2])
    return ",".join(sorted(found))
