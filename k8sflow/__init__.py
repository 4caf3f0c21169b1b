"""Data and ML flows as plain Python classes: on your machine, and unchanged on Kubernetes."""

from __future__ import annotations

from k8sflow import interrupted  # noqa: F401  first: from here on, Ctrl-C ends a command without a traceback

# isort: split
from k8sflow import shadowing  # until the end of this file, a user's random.py doesn't hide Python's

# isort: split
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import k8sflow.started  # noqa: F401  it notes the working folder, before a flow's file can change it
from k8sflow import hooks
from k8sflow.version import VERSION

if TYPE_CHECKING:
    from k8sflow.client import (
        DataArtifact,
        Flow,
        Metaflow,
        Run,
        Step,
        Task,
        default_metadata,
        default_namespace,
        get_metadata,
        get_namespace,
        metadata,
        namespace,
    )
    from k8sflow.errors import K8sflowError
    from k8sflow.flow.config_values import ConfigValue, yaml_parser
    from k8sflow.flow.configs import Config, ParameterContext, config_expr
    from k8sflow.flow.current import current
    from k8sflow.flow.decorators.catch import catch
    from k8sflow.flow.decorators.caught import CaughtError
    from k8sflow.flow.decorators.environment import environment
    from k8sflow.flow.decorators.exit_hook import exit_hook
    from k8sflow.flow.decorators.kubernetes import kubernetes, resources
    from k8sflow.flow.decorators.mutators import FlowMutator, MutableFlow, MutableStep, StepMutator
    from k8sflow.flow.decorators.parallel import parallel
    from k8sflow.flow.decorators.project import project
    from k8sflow.flow.decorators.retry import retry
    from k8sflow.flow.decorators.schedule import schedule
    from k8sflow.flow.decorators.secrets import secrets
    from k8sflow.flow.decorators.step import step
    from k8sflow.flow.decorators.timeout import timeout
    from k8sflow.flow.decorators.trigger import trigger, trigger_on_finish
    from k8sflow.flow.decorators.user_decorators import USER_SKIP_STEP, UserStepDecorator, user_step_decorator
    from k8sflow.flow.parameters import IncludeFile, JSONType, Parameter
    from k8sflow.flow.spec import FlowSpec
    from k8sflow.parallel import parallel_imap, parallel_imap_unordered, parallel_map
    from k8sflow.runner.deployer import DeployedFlow, Deployer
    from k8sflow.runner.notebook import NBRunner
    from k8sflow.runner.runner import Runner

__version__ = VERSION

hooks.register("instance", "k8sflow.cli.flow:main")
hooks.register("current_run", "k8sflow.client.run:Run")
hooks.register("current_task", "k8sflow.client.run:task_of")

# Where each public name lives; loaded when it is first asked for, so that a flow pays only for what it uses.
_HOMES = {
    "CaughtError": "k8sflow.flow.decorators.caught",
    "Config": "k8sflow.flow.configs",
    "ConfigValue": "k8sflow.flow.config_values",
    "DataArtifact": "k8sflow.client",
    "DeployedFlow": "k8sflow.runner.deployer",
    "Deployer": "k8sflow.runner.deployer",
    "Flow": "k8sflow.client",
    "FlowMutator": "k8sflow.flow.decorators.mutators",
    "FlowSpec": "k8sflow.flow.spec",
    "IncludeFile": "k8sflow.flow.parameters",
    "JSONType": "k8sflow.flow.parameters",
    "K8sflowError": "k8sflow.errors",
    "Metaflow": "k8sflow.client",
    "MutableFlow": "k8sflow.flow.decorators.mutators",
    "MutableStep": "k8sflow.flow.decorators.mutators",
    "NBRunner": "k8sflow.runner.notebook",
    "Parameter": "k8sflow.flow.parameters",
    "ParameterContext": "k8sflow.flow.configs",
    "Run": "k8sflow.client",
    "Runner": "k8sflow.runner.runner",
    "Step": "k8sflow.client",
    "StepMutator": "k8sflow.flow.decorators.mutators",
    "Task": "k8sflow.client",
    "USER_SKIP_STEP": "k8sflow.flow.decorators.user_decorators",
    "UserStepDecorator": "k8sflow.flow.decorators.user_decorators",
    "catch": "k8sflow.flow.decorators.catch",
    "config_expr": "k8sflow.flow.configs",
    "current": "k8sflow.flow.current",
    "default_metadata": "k8sflow.client",
    "default_namespace": "k8sflow.client",
    "environment": "k8sflow.flow.decorators.environment",
    "exit_hook": "k8sflow.flow.decorators.exit_hook",
    "get_metadata": "k8sflow.client",
    "get_namespace": "k8sflow.client",
    "kubernetes": "k8sflow.flow.decorators.kubernetes",
    "metadata": "k8sflow.client",
    "namespace": "k8sflow.client",
    "parallel": "k8sflow.flow.decorators.parallel",
    "parallel_imap": "k8sflow.parallel",
    "parallel_imap_unordered": "k8sflow.parallel",
    "parallel_map": "k8sflow.parallel",
    "project": "k8sflow.flow.decorators.project",
    "resources": "k8sflow.flow.decorators.kubernetes",
    "retry": "k8sflow.flow.decorators.retry",
    "schedule": "k8sflow.flow.decorators.schedule",
    "secrets": "k8sflow.flow.decorators.secrets",
    "step": "k8sflow.flow.decorators.step",
    "timeout": "k8sflow.flow.decorators.timeout",
    "trigger": "k8sflow.flow.decorators.trigger",
    "trigger_on_finish": "k8sflow.flow.decorators.trigger",
    "user_step_decorator": "k8sflow.flow.decorators.user_decorators",
    "yaml_parser": "k8sflow.flow.config_values",
}

__all__ = [
    "USER_SKIP_STEP",
    "CaughtError",
    "Config",
    "ConfigValue",
    "DataArtifact",
    "DeployedFlow",
    "Deployer",
    "Flow",
    "FlowMutator",
    "FlowSpec",
    "IncludeFile",
    "JSONType",
    "K8sflowError",
    "Metaflow",
    "MutableFlow",
    "MutableStep",
    "NBRunner",
    "Parameter",
    "ParameterContext",
    "Run",
    "Runner",
    "Step",
    "StepMutator",
    "Task",
    "UserStepDecorator",
    "catch",
    "config_expr",
    "current",
    "default_metadata",
    "default_namespace",
    "environment",
    "exit_hook",
    "get_metadata",
    "get_namespace",
    "kubernetes",
    "metadata",
    "namespace",
    "parallel",
    "parallel_imap",
    "parallel_imap_unordered",
    "parallel_map",
    "project",
    "resources",
    "retry",
    "schedule",
    "secrets",
    "step",
    "timeout",
    "trigger",
    "trigger_on_finish",
    "user_step_decorator",
    "yaml_parser",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'k8sflow' has no attribute {name!r}")
    if name == "parallel":  # always the module, which is the decorator too: what it is must not hang on import order
        return importlib.import_module("k8sflow.parallel")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _ModuleAndDecorator(ModuleType):
    """A module of ours that is called like a decorator, and is the decorator when it is called or asked for more."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return _decorator_of(self)(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(_decorator_of(self), name)


def _decorator_of(module: ModuleType) -> Any:
    name = module.__name__.rpartition(".")[2]
    return getattr(importlib.import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """This package. Importing ``k8sflow.parallel`` sets that name here, where ``@parallel`` has to be found as well."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value.__class__ = _ModuleAndDecorator
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
shadowing.AT_IMPORT.leave()
