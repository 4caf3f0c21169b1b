"""The modules of Metaflow that people import from, as modules of k8sflow's names.

``from k8sflow.metaflow_config import …`` works as well as ``from metaflow.metaflow_config import …`` under
``k8sflow.as_metaflow``. Each module has the names of the modules of k8sflow that are listed with it, and those of
k8sflow itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

from k8sflow import absent

OURS, METAFLOW = "k8sflow", "metaflow"
# Set to 1 in the processes of a flow that imports from ``metaflow``, and in those that they start: k8sflow takes
# Metaflow's name there once it is imported.
VARIABLE = "K8SFLOW_AS_METAFLOW"
# multiprocessing gives sys.path to the interpreters that it starts; in this folder they find metaflow.
_SPAWNED = os.path.join(os.path.dirname(__file__), "spawned")  # noqa: PTH118, PTH120  pathlib is not imported yet
_EVENTS = ("k8sflow.integrations",)
_CARDS, _S3 = ("k8sflow.cards",), ("k8sflow.s3", "k8sflow.exception")
_RUNNER = ("k8sflow.runner.executing", "k8sflow.runner.runner", "k8sflow.runner.notebook", "k8sflow.runner.deployer")
_PARAMETERS = ("k8sflow.flow.parameters", "k8sflow.flow.configs")
_MUTATORS = ("k8sflow.flow.decorators.mutators", "k8sflow.flow.decorators.user_decorators")
# Below ``metaflow``: the modules with their names. Without any, a module has only those of k8sflow.
_MODULES: dict[str, tuple[str, ...]] = {
    "cards": _CARDS,
    "client": ("k8sflow.client",),
    "client.core": ("k8sflow.client",),
    "datatools": _S3,
    "datatools.s3": _S3,
    "decorators": ("k8sflow.exception",),
    "events": _EVENTS,
    "exception": ("k8sflow.exception",),
    "flowspec": (),
    "includefile": (),
    "integrations": _EVENTS,
    "metaflow_config": ("k8sflow.metaflow_settings",),
    "metaflow_current": (),
    "metaflow_profile": (),
    "metaflow_version": ("k8sflow.version",),
    "multicore_utils": (),
    "parameters": _PARAMETERS,
    "plugins": (),
    "plugins.argo": (),
    "plugins.argo.argo_events": _EVENTS,
    "plugins.aws": (),
    "plugins.aws.batch": (),
    "plugins.aws.batch.batch_decorator": (),
    "plugins.cards": _CARDS,
    "plugins.cards.card_client": _CARDS,
    "plugins.cards.card_modules": _CARDS,
    "plugins.cards.card_modules.basic": _CARDS,
    "plugins.cards.card_modules.card": _CARDS,
    "plugins.cards.card_modules.components": _CARDS,
    "plugins.cards.exception": _CARDS,
    "plugins.catch_decorator": ("k8sflow.exception",),
    "plugins.datatools": _S3,
    "plugins.datatools.s3": _S3,
    "plugins.datatools.s3.s3": _S3,
    "plugins.kubernetes": (),
    "plugins.kubernetes.kubernetes_decorator": (),
    "plugins.parallel_decorator": (),
    "plugins.project_decorator": (),
    "plugins.pypi": (),
    "plugins.pypi.parsers": ("k8sflow.flow.dependency_parsers",),
    "plugins.resources_decorator": (),
    "plugins.retry_decorator": (),
    "plugins.timeout_decorator": ("k8sflow.exception",),
    "runner": _RUNNER,
    "runner.deployer": _RUNNER,
    "runner.metaflow_runner": _RUNNER,
    "runner.nbdeploy": _RUNNER,
    "runner.nbrun": _RUNNER,
    "util": ("k8sflow.metaflow_util",),
    "user_configs": _PARAMETERS,
    "user_configs.config_parameters": _PARAMETERS,
    "user_decorators": _MUTATORS,
    "user_decorators.mutable_flow": _MUTATORS,
    "user_decorators.mutable_step": _MUTATORS,
    "user_decorators.user_flow_decorator": _MUTATORS,
    "user_decorators.user_step_decorator": _MUTATORS,
}
# Libraries that Metaflow carries in its own folders.
_CARRIED = {"_vendor.click": "click", "_vendor.yaml": "yaml"}


def install() -> None:
    """Makes ``import metaflow`` import k8sflow: here, and in processes started from here that import k8sflow first.

    Raises:
        ImportError: Metaflow itself was imported before.
    """
    if is_installed():
        return
    if METAFLOW in sys.modules:
        raise ImportError("metaflow was imported before k8sflow could take its name.", name=METAFLOW)
    os.environ[VARIABLE] = "1"
    sys.meta_path.insert(0, _METAFLOW)
    sys.path[:] = spawning(sys.path)


def is_installed() -> bool:
    """True if ``import metaflow`` imports k8sflow."""
    return _METAFLOW in sys.meta_path


def spawning(path: Sequence[str]) -> list[str]:
    """``sys.path`` with which multiprocessing's new interpreters import ``metaflow`` as this process does."""
    if not is_installed() or _SPAWNED in path:
        return list(path)
    return [*path[:1], _SPAWNED, *path[1:]]  # after the folder of the script, and before an installed Metaflow


def interpreter_options() -> list[str]:
    """The words after ``python`` in the call of a flow, so that it can import from ``metaflow`` as this process can."""
    return ["-m", "k8sflow.as_metaflow"] if is_installed() else []


def stand_in() -> None:
    """Makes ``import metaflow`` import k8sflow in this process, unless Metaflow itself can be imported."""
    if not is_installed() and METAFLOW not in sys.modules and importlib.util.find_spec(METAFLOW) is None:
        sys.meta_path.append(_METAFLOW)


def is_known(name: str) -> bool:
    """True if there is such a module, without ``metaflow``."""
    return name in _MODULES


class Finder:
    """Finds the modules below a name, as the import system asks for them (importlib.abc.MetaPathFinder).

    Args:
        root: ``k8sflow`` or ``metaflow``.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        """The module's spec; None if it isn't one of these.

        Raises:
            ModuleNotFoundError: Metaflow may have this module or name, and k8sflow doesn't.
        """
        root, _, module = name.partition(".")
        if root != self._root:
            return None
        if not module or module == "_vendor" or module in _MODULES or module in _CARRIED:
            return ModuleSpec(name, cast("Any", self), is_package=True)
        parent, _, inner = module.rpartition(".")
        if parent in _MODULES:  # `from parent import inner` asks for it as well, and ignores an error with its name
            raise ModuleNotFoundError(absent.inner(f"{root}.{parent}", inner))
        if root == METAFLOW:
            raise ModuleNotFoundError(absent.module(module), name=name)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module (importlib.abc.Loader)."""
        module = spec.name.partition(".")[2]
        return _Names(spec.name, _MODULES.get(module, ()))

    def exec_module(self, module: ModuleType) -> None:
        """Puts the real library in the place of one that Metaflow carries (importlib.abc.Loader)."""
        if (carried := _CARRIED.get(module.__name__.partition(".")[2])) is not None:
            sys.modules[module.__name__] = importlib.import_module(carried)


class _Names(ModuleType):
    """A module that looks its names up where k8sflow has them."""

    def __init__(self, name: str, homes: Sequence[str]) -> None:
        super().__init__(name, "Names of Metaflow, from k8sflow.")
        self._homes = (*homes, OURS)

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return self.__dir__()
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        inner = f"{self.__name__}.{name}"
        if is_known(inner.partition(".")[2]):
            return importlib.import_module(inner)
        for home in self._homes:
            found = getattr(importlib.import_module(home), name, self)
            if found is not self:
                setattr(self, name, found)
                return found
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        homes = [importlib.import_module(home) for home in self._homes[: -1 if len(self._homes) > 1 else None]]
        return sorted({name for home in homes for name in getattr(home, "__all__", ())})


_METAFLOW = Finder(METAFLOW)
