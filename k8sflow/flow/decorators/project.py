"""``@project``: puts a flow into a project, with a branch for each user and one for production."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator

_PROJECT = re.compile(r"[a-z0-9_]{1,128}")
_BRANCH = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def _project_name(value: object) -> str:
    if not isinstance(value, str) or not _PROJECT.fullmatch(value):
        raise ValueError(f"{value!r} is not made of lower-case letters, digits and _ (at most 128)")
    return value


def branch_name(value: object) -> str:
    """A branch's name.

    Raises:
        ValueError: It can't be one.
    """
    if not isinstance(value, str) or not _BRANCH.fullmatch(value):
        raise ValueError(f"{value!r} is not made of letters, digits, _, . and - (at most 128)")
    return value


def _check(options: Mapping[str, Any]) -> None:
    if options["name"] is None:
        raise ValueError("it needs a name: write for example @project(name='fraud')")


@decorator("puts the flow into a project, with a branch for each user and one for production", on="flow", check=_check)
def project(
    *,
    name: Annotated[str | None, Option(_project_name, "the project's name: lower-case letters, digits and _")] = None,
    branch: Annotated[str | None, Option(branch_name, "the branch; --branch on the command line comes first")] = None,
    production: Annotated[
        bool | str, Option(parsers.flag, "whether it is for production; --production on the command line comes first")
    ] = False,
) -> None: ...


def description(
    options: Mapping[str, Any],
    flow: str,
    user: str,
    branch: str | None,
    production: bool | None,  # noqa: FBT001
) -> dict[str, Any]:
    named = branch if branch is not None else options.get("branch")
    is_production = bool(options["production"] if production is None else production)
    name = f"test.{named}" if named else f"user.{user}"
    if is_production:
        name = f"prod.{named}" if named else "prod"
    return {
        "project_name": options["name"],
        "branch_name": name,
        "project_flow_name": f"{options['name']}.{name}.{flow}",
        "is_user_branch": not is_production and not named,
        "is_production": is_production,
    }
