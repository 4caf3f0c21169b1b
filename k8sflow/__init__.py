"""Data and ML flows as plain Python classes: on your machine, and unchanged on Kubernetes."""

from __future__ import annotations

from k8sflow import interrupted  # noqa: F401  first: from here on, Ctrl-C ends a command without a traceback

# isort: split
from k8sflow import shadowing  # until the end of this file, a user's random.py doesn't hide Python's

# isort: split
import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import k8sflow.started  # noqa: F401  records the working folder before a flow's file can change it
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
        inspect_spin,
        metadata,
        namespace,
    )
    from k8sflow.errors import (
        AccessError,
        ApiStatusError,
        ApiUnreachableError,
        ArtifactError,
        BatchError,
        BucketNotFoundError,
        CaughtError,
        ConfigurationError,
        DependencyError,
        FlowDefinitionError,
        K8sflowError,
        KubernetesError,
        LoginEndedError,
        MissingArtifactError,
        MissingInMergeArtifactsException,
        NamespaceMismatchError,
        NotFoundError,
        ObjectNotFoundError,
        OutageError,
        PackageError,
        ParameterError,
        RunCancelledError,
        RunError,
        S3ClosedError,
        S3Error,
        S3RangeError,
        S3UrlError,
        StorageError,
        SupersededError,
        TagError,
        TimeoutException,
        UnhandledInMergeArtifactsException,
        UnreachableError,
    )
    from k8sflow.flow.config_values import ConfigValue, yaml_parser
    from k8sflow.flow.configs import Config, ParameterContext, config_expr
    from k8sflow.flow.current import current
    from k8sflow.flow.decorators.batch import batch
    from k8sflow.flow.decorators.cache import cache
    from k8sflow.flow.decorators.card import card
    from k8sflow.flow.decorators.catch import catch
    from k8sflow.flow.decorators.conda import conda, conda_base
    from k8sflow.flow.decorators.environment import environment
    from k8sflow.flow.decorators.exit_hook import exit_hook
    from k8sflow.flow.decorators.kubernetes import kubernetes, resources
    from k8sflow.flow.decorators.mutators import FlowMutator, MutableFlow, MutableStep, StepMutator
    from k8sflow.flow.decorators.parallel import parallel, pytorch_parallel
    from k8sflow.flow.decorators.project import project
    from k8sflow.flow.decorators.pypi import pypi, pypi_base
    from k8sflow.flow.decorators.retry import retry
    from k8sflow.flow.decorators.schedule import schedule
    from k8sflow.flow.decorators.secrets import secrets
    from k8sflow.flow.decorators.step import step
    from k8sflow.flow.decorators.timeout import timeout
    from k8sflow.flow.decorators.trigger import trigger, trigger_on_finish
    from k8sflow.flow.decorators.user_decorators import USER_SKIP_STEP, UserStepDecorator, user_step_decorator
    from k8sflow.flow.dependency_parsers import (
        conda_environment_yml_parser,
        pyproject_toml_parser,
        requirements_txt_parser,
    )
    from k8sflow.flow.include_file import IncludeFile
    from k8sflow.flow.parameters import JSONType, JSONTypeClass, Parameter
    from k8sflow.flow.spec import FlowSpec
    from k8sflow.integrations import namespaced_event_name
    from k8sflow.parallel import (
        RemoteError,
        WorkerDied,
        WorkerOutOfMemory,
        parallel_imap,
        parallel_imap_unordered,
        parallel_map,
    )
    from k8sflow.runner.deployer import DeployedFlow, Deployer, NBDeployer
    from k8sflow.runner.notebook import NBRunner
    from k8sflow.runner.runner import Runner
    from k8sflow.s3 import S3
    from k8sflow.timing import profile

__version__ = VERSION

hooks.register("instance", "k8sflow.cli.flow:main")
hooks.register("instance_in_pod", "k8sflow.runtime.commands.step:run_in_pod")
hooks.register("current_run", "k8sflow.client.run:Run")
hooks.register("current_task", "k8sflow.client.run:task_of")
hooks.register("cards", "k8sflow.cards.of_task:CardsOfTask")
hooks.register("read_url", "k8sflow.s3.read_url:read_url")

# The module of each public name, imported on first use, so that a flow pays only for what it uses.
_HOMES = {
    "AccessError": "k8sflow.errors",
    "ApiStatusError": "k8sflow.errors",
    "ApiUnreachableError": "k8sflow.errors",
    "ArtifactError": "k8sflow.errors",
    "BatchError": "k8sflow.errors",
    "BucketNotFoundError": "k8sflow.errors",
    "CaughtError": "k8sflow.errors",
    "Config": "k8sflow.flow.configs",
    "ConfigValue": "k8sflow.flow.config_values",
    "ConfigurationError": "k8sflow.errors",
    "DataArtifact": "k8sflow.client",
    "DependencyError": "k8sflow.errors",
    "DeployedFlow": "k8sflow.runner.deployer",
    "Deployer": "k8sflow.runner.deployer",
    "Flow": "k8sflow.client",
    "FlowDefinitionError": "k8sflow.errors",
    "FlowMutator": "k8sflow.flow.decorators.mutators",
    "FlowSpec": "k8sflow.flow.spec",
    "IncludeFile": "k8sflow.flow.include_file",
    "JSONType": "k8sflow.flow.parameters",
    "JSONTypeClass": "k8sflow.flow.parameters",
    "K8sflowError": "k8sflow.errors",
    "KubernetesError": "k8sflow.errors",
    "LoginEndedError": "k8sflow.errors",
    "Metaflow": "k8sflow.client",
    "MissingArtifactError": "k8sflow.errors",
    "MissingInMergeArtifactsException": "k8sflow.errors",
    "MutableFlow": "k8sflow.flow.decorators.mutators",
    "MutableStep": "k8sflow.flow.decorators.mutators",
    "NBDeployer": "k8sflow.runner.deployer",
    "NBRunner": "k8sflow.runner.notebook",
    "NamespaceMismatchError": "k8sflow.errors",
    "NotFoundError": "k8sflow.errors",
    "ObjectNotFoundError": "k8sflow.errors",
    "OutageError": "k8sflow.errors",
    "PackageError": "k8sflow.errors",
    "Parameter": "k8sflow.flow.parameters",
    "ParameterContext": "k8sflow.flow.configs",
    "ParameterError": "k8sflow.errors",
    "RemoteError": "k8sflow.parallel",
    "Run": "k8sflow.client",
    "RunCancelledError": "k8sflow.errors",
    "RunError": "k8sflow.errors",
    "Runner": "k8sflow.runner.runner",
    "S3": "k8sflow.s3",
    "S3ClosedError": "k8sflow.errors",
    "S3Error": "k8sflow.errors",
    "S3RangeError": "k8sflow.errors",
    "S3UrlError": "k8sflow.errors",
    "Step": "k8sflow.client",
    "StepMutator": "k8sflow.flow.decorators.mutators",
    "StorageError": "k8sflow.errors",
    "SupersededError": "k8sflow.errors",
    "TagError": "k8sflow.errors",
    "Task": "k8sflow.client",
    "TimeoutException": "k8sflow.errors",
    "USER_SKIP_STEP": "k8sflow.flow.decorators.user_decorators",
    "UnhandledInMergeArtifactsException": "k8sflow.errors",
    "UnreachableError": "k8sflow.errors",
    "UserStepDecorator": "k8sflow.flow.decorators.user_decorators",
    "WorkerDied": "k8sflow.parallel",
    "WorkerOutOfMemory": "k8sflow.parallel",
    "batch": "k8sflow.flow.decorators.batch",
    "cache": "k8sflow.flow.decorators.cache",
    "card": "k8sflow.flow.decorators.card",
    "catch": "k8sflow.flow.decorators.catch",
    "conda": "k8sflow.flow.decorators.conda",
    "conda_base": "k8sflow.flow.decorators.conda",
    "conda_environment_yml_parser": "k8sflow.flow.dependency_parsers",
    "config_expr": "k8sflow.flow.configs",
    "current": "k8sflow.flow.current",
    "default_metadata": "k8sflow.client",
    "default_namespace": "k8sflow.client",
    "environment": "k8sflow.flow.decorators.environment",
    "exit_hook": "k8sflow.flow.decorators.exit_hook",
    "get_metadata": "k8sflow.client",
    "get_namespace": "k8sflow.client",
    "inspect_spin": "k8sflow.client",
    "kubernetes": "k8sflow.flow.decorators.kubernetes",
    "metadata": "k8sflow.client",
    "namespace": "k8sflow.client",
    "namespaced_event_name": "k8sflow.integrations",
    "parallel": "k8sflow.flow.decorators.parallel",
    "parallel_imap": "k8sflow.parallel",
    "parallel_imap_unordered": "k8sflow.parallel",
    "parallel_map": "k8sflow.parallel",
    "profile": "k8sflow.timing",
    "project": "k8sflow.flow.decorators.project",
    "pypi": "k8sflow.flow.decorators.pypi",
    "pypi_base": "k8sflow.flow.decorators.pypi",
    "pyproject_toml_parser": "k8sflow.flow.dependency_parsers",
    "pytorch_parallel": "k8sflow.flow.decorators.parallel",
    "requirements_txt_parser": "k8sflow.flow.dependency_parsers",
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
    "S3",
    "USER_SKIP_STEP",
    "AccessError",
    "ApiStatusError",
    "ApiUnreachableError",
    "ArtifactError",
    "BatchError",
    "BucketNotFoundError",
    "CaughtError",
    "Config",
    "ConfigValue",
    "ConfigurationError",
    "DataArtifact",
    "DependencyError",
    "DeployedFlow",
    "Deployer",
    "Flow",
    "FlowDefinitionError",
    "FlowMutator",
    "FlowSpec",
    "IncludeFile",
    "JSONType",
    "JSONTypeClass",
    "K8sflowError",
    "KubernetesError",
    "LoginEndedError",
    "Metaflow",
    "MissingArtifactError",
    "MissingInMergeArtifactsException",
    "MutableFlow",
    "MutableStep",
    "NBDeployer",
    "NBRunner",
    "NamespaceMismatchError",
    "NotFoundError",
    "ObjectNotFoundError",
    "OutageError",
    "PackageError",
    "Parameter",
    "ParameterContext",
    "ParameterError",
    "RemoteError",
    "Run",
    "RunCancelledError",
    "RunError",
    "Runner",
    "S3ClosedError",
    "S3Error",
    "S3RangeError",
    "S3UrlError",
    "Step",
    "StepMutator",
    "StorageError",
    "SupersededError",
    "TagError",
    "Task",
    "TimeoutException",
    "UnhandledInMergeArtifactsException",
    "UnreachableError",
    "UserStepDecorator",
    "WorkerDied",
    "WorkerOutOfMemory",
    "batch",
    "cache",
    "card",
    "catch",
    "conda",
    "conda_base",
    "conda_environment_yml_parser",
    "config_expr",
    "current",
    "default_metadata",
    "default_namespace",
    "environment",
    "exit_hook",
    "get_metadata",
    "get_namespace",
    "inspect_spin",
    "kubernetes",
    "metadata",
    "namespace",
    "namespaced_event_name",
    "parallel",
    "parallel_imap",
    "parallel_imap_unordered",
    "parallel_map",
    "profile",
    "project",
    "pypi",
    "pypi_base",
    "pyproject_toml_parser",
    "pytorch_parallel",
    "requirements_txt_parser",
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
        modules = importlib.import_module("k8sflow.metaflow_modules")
        if modules.is_known(name):
            return importlib.import_module(f"k8sflow.{name}")
        if (message := importlib.import_module("k8sflow.absent").message(name)) is not None:
            raise ImportError(message, name=__name__)
        raise AttributeError(f"module 'k8sflow' has no attribute {name!r}")
    if name == "parallel":  # always the module, which acts as the decorator too: it must not depend on import order
        return importlib.import_module("k8sflow.parallel")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _ModuleAndDecorator(ModuleType):
    """A module named like a decorator, which acts as the decorator when it is called or read."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return _decorator_of(self)(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(_decorator_of(self), name)


def _decorator_of(module: ModuleType) -> Any:
    name = module.__name__.rpartition(".")[2]
    return getattr(importlib.import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """This package. Importing ``k8sflow.parallel`` sets that name here, where ``@parallel`` must be found as well."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value.__class__ = _ModuleAndDecorator
        super().__setattr__(name, value)


class _Modules:
    """Finds modules of k8sflow that are named as Metaflow's (importlib.abc.MetaPathFinder)."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith("k8sflow."):
            return None
        modules = importlib.import_module("k8sflow.metaflow_modules")
        return modules.Finder(__name__).find_spec(name, path, target)


sys.modules[__name__].__class__ = _Package
sys.meta_path.append(_Modules())
if os.environ.get("K8SFLOW_AS_METAFLOW") == "1" and "metaflow" not in sys.modules:
    importlib.import_module("k8sflow.metaflow_modules").install()
shadowing.AT_IMPORT.leave()
