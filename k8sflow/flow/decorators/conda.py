"""``@conda`` and ``@conda_base``, as Metaflow's flows have them: a flow with them is checked, and runs without them.

k8sflow makes environments of PyPI's packages only, where a package of conda may have another name, or be another
package. So a run refuses such a step, and says what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Decoration, Option, decorator
from k8sflow.flow.decorators.package_names import normalized

_PAGE = "docs/environments.md"
# Packages of conda that have another name on PyPI; None where PyPI needs none.
_ON_PYPI = {
    "cudatoolkit": None,
    "keras-gpu": "keras",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python",
    "pip": None,
    "py-xgboost": "xgboost",
    "python": None,
    "python-graphviz": "graphviz",
    "pytorch": "torch",
    "pytorch-cuda": None,
    "pytorch-gpu": "torch",
    "tensorflow-gpu": "tensorflow",
}


def _libraries(value: object) -> dict[str, str]:
    found = {}
    for name, version in parsers.table(value).items():
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{name!r} can't be the name of a package")
        if isinstance(version, bool) or not isinstance(version, str | int | float | None):
            raise ValueError(f"the version of {name!r} has to be a text")  # noqa: TRY004  one refusal
        found[name.strip()] = "" if version is None else str(version).strip()
    return found


def _python(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a version of Python")  # noqa: TRY004  one refusal
    return str(value)


@decorator("names packages of conda, as Metaflow's flows do; a run says what to write instead", page=_PAGE)
def conda(
    *,
    libraries: Annotated[Mapping[str, str] | None, Option(_libraries, "the packages of conda")] = None,
    packages: Annotated[Mapping[str, str] | None, Option(_libraries, "the same, by Metaflow's newer name")] = None,
    python: Annotated[str | None, Option(_python, "the version of Python")] = None,
    disabled: Annotated[bool | str, Option(parsers.flag, "whether the step runs without an environment")] = False,
) -> None: ...


@decorator(
    "names packages of conda for every step, as Metaflow's flows do; a run says what to write instead",
    on="flow",
    page=_PAGE,
)
def conda_base(
    *,
    libraries: Annotated[Mapping[str, str] | None, Option(_libraries, "the packages of conda")] = None,
    packages: Annotated[Mapping[str, str] | None, Option(_libraries, "the same, by Metaflow's newer name")] = None,
    python: Annotated[str | None, Option(_python, "the version of Python")] = None,
    disabled: Annotated[bool | str, Option(parsers.flag, "whether steps run without an environment")] = False,
) -> None: ...


def refuse(step: str, of_flow: Sequence[Decoration], of_step: Sequence[Decoration]) -> None:
    """Refuses a step that asks for an environment of conda.

    Args:
        step: Its name.
        of_flow: The decorators of the flow's class.
        of_step: The decorators of the step, those of ``--with`` included.

    Raises:
        FlowDefinitionError: It asks for one; the error has the line to write instead.
    """
    base = next((found for found in of_flow if found.name == conda_base.name), None)
    own = next((found for found in of_step if found.name == conda.name), None)
    if own is not None and own.parsed()["disabled"]:
        return
    asked = [found for found in (own, base) if found is not None and not found.parsed()["disabled"]]
    if asked:
        raise FlowDefinitionError(
            f"{asked[0].location}: step {step} has @{asked[0].name}, and k8sflow makes no environments of conda.",
            cause="It makes them of the packages of PyPI, which may have other names there.",
            advice=f"Write {_instead(asked[0])} (docs/environments.md). With packages that are installed already, "
            "`python flow.py --environment=local run` runs all steps in this Python.",
        )


def _instead(decoration: Decoration) -> str:
    options = decoration.parsed()
    packages: dict[str, str] = {}
    for name, version in {**(options["libraries"] or {}), **(options["packages"] or {})}.items():
        bare = normalized(name.rpartition("::")[2])
        here = _ON_PYPI.get(bare, bare)
        if here is not None:
            # A version of conda may end in a build, as in 1.2=py310_0, and = means any 1.2.x.
            packages[here] = version if version.startswith(("<", ">", "!", "~")) else version.lstrip("=").split("=")[0]
    written = [f"packages={packages!r}"] if packages else []
    if options["python"] is not None:
        written.append(f"python={options['python']!r}")
    name = "pypi" if decoration.name == conda.name else "pypi_base"
    return f"@{name}({', '.join(written)})"
