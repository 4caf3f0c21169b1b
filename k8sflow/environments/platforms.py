"""The tags of wheels and the values of markers for a platform and a Python, and which Python is used."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

from k8sflow.errors import DependencyError

_NEWEST = 30  # minor versions of Python 3 among which one is looked for


def packaging(what: str) -> Any:
    """The package ``packaging`` with its modules.

    Args:
        what: What needs it, as the subject of an error.

    Raises:
        DependencyError: It isn't installed.
    """
    try:
        import packaging.markers  # noqa: PLC0415  an optional dependency
        import packaging.requirements  # noqa: PLC0415
        import packaging.specifiers  # noqa: PLC0415
        import packaging.tags  # noqa: PLC0415
        import packaging.utils  # noqa: PLC0415
    except ImportError as error:
        raise DependencyError(
            f"{what} can't be read: the package packaging is not installed.",
            advice="Install it beside k8sflow: pip install 'k8sflow[pypi]'",
        ) from error
    return packaging


def tags(python: str, platform: str | None) -> dict[str, int]:
    """The tags of wheels that fit, with the best first: each with its place.

    Args:
        python: The version of Python, such as ``3.12``.
        platform: The platform as uv names it; None for this machine.
    """
    module = packaging("a lock").tags
    version = tuple(map(int, python.split(".")[:2]))
    names = list(module.platform_tags()) if platform is None else list(_manylinux(platform))
    found = [
        *module.cpython_tags(python_version=version, platforms=names),
        *module.compatible_tags(python_version=version, interpreter=f"cp{version[0]}{version[1]}", platforms=names),
    ]
    return {str(tag): place for place, tag in reversed(list(enumerate(found)))}


def _manylinux(platform: str) -> Iterator[str]:
    machine, _, library = platform.partition("-")
    newest = int(library.rpartition("_")[2])
    for minor in range(newest, 4, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if (old := {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}.get(minor)) is not None:
            yield f"{old}_{machine}"
    yield f"linux_{machine}"


def environment(python: str, platform: str | None) -> dict[str, str]:
    """The values of markers.

    Args:
        python: As in ``tags``.
        platform: As in ``tags``.
    """
    found: dict[str, str] = dict(packaging("a lock").markers.default_environment())
    own = ".".join(map(str, sys.version_info[:3]))
    if not f"{own}.".startswith(f"{python}."):
        full = f"{python}.0" if re.fullmatch(r"\d+\.\d+", python) else python
        short = ".".join(python.split(".")[:2])
        found |= {"python_version": short, "python_full_version": full, "implementation_version": full}
    if platform is not None:
        found |= {
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": platform.partition("-")[0],
            "platform_release": "",
            "platform_version": "",
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
        }
    return found


def chosen_python(what: str, wanted: str | None, conditions: list[tuple[str, str]]) -> str:
    """The version of Python of an environment.

    Args:
        what: The environment, as the subject of an error.
        wanted: The version, or the condition, that a decorator has; None for that of this process.
        conditions: Where a file has a condition, and the condition.

    Raises:
        DependencyError: No version fits.
    """
    own = ".".join(map(str, sys.version_info[:2]))
    is_exact = wanted is not None and wanted[0].isdigit()
    if wanted is not None and not is_exact:
        conditions = [*conditions, ("python=", wanted)]
    if not conditions:
        return wanted or own
    both = [(where, condition, _specifiers(what, where, condition)) for where, condition in conditions]
    if is_exact and wanted is not None:
        for where, condition, specifiers in both:
            if not _fits(specifiers, wanted):
                raise DependencyError(
                    f"{what} can't be resolved: {where} asks for Python {condition}, and the step for {wanted}.",
                    advice="Change python= in @pypi or @pypi_base, or the file.",
                )
        return wanted
    if all(specifiers.contains(".".join(map(str, sys.version_info[:3]))) for *_, specifiers in both):
        return own
    minors = sorted(range(8, _NEWEST), key=lambda minor: (abs(minor - sys.version_info[1]), minor))
    for minor in minors:
        if all(_fits(specifiers, f"3.{minor}") for *_, specifiers in both):
            return f"3.{minor}"
    listed = " and ".join(f"{where} {condition}" for where, condition, _ in both)
    raise DependencyError(
        f"{what} can't be resolved: no version of Python fits {listed}.",
        advice="Write one in full: @pypi_base(python='3.12.4').",
    )


def _fits(specifiers: Any, version: str) -> bool:
    tried = [f"{version}.0", f"{version}.99"] if re.fullmatch(r"\d+\.\d+", version) else [version]
    return any(specifiers.contains(one) for one in tried)


def _specifiers(what: str, where: str, condition: str) -> Any:
    module = packaging(what).specifiers
    try:
        return module.SpecifierSet(condition)
    except module.InvalidSpecifier as error:
        raise DependencyError(
            f"{what} can't be resolved: {where} has the version of Python {condition!r}, which is not a condition.",
            advice="Write for example '>=3.11'.",
        ) from error
