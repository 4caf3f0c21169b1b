"""requirements.lock, which pins the packages of the k8sflow image."""

from __future__ import annotations

import sys

from packaging.requirements import Requirement

from tests.cluster.lock import normal
from tests.cluster.places import CHECKOUT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def pins() -> dict[str, str]:
    lines = (CHECKOUT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_lock_satisfies_every_dependency() -> None:
    """Each dependency of what the image runs is pinned, to a version that pyproject.toml allows."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["controller"],
        *project["project"]["optional-dependencies"]["ui"],
        *project["build-system"]["requires"],
    ]
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": "3.12"}):
            name = normal(requirement.name)
            assert name in pins(), f"run `make lock`: {name} is not in requirements.lock"
            assert pins()[name] in requirement.specifier, f"run `make lock`: {requirement}"
