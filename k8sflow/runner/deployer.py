"""``Deployer``: detached runs of a flow's file, driven in the cluster."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from k8sflow import metaflow_modules
from k8sflow.client import Run
from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError, ConfigurationError, FlowDefinitionError, RunError
from k8sflow.flow.spec import FlowSpec
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.runner.notebook import NBRunner
from k8sflow.runner.runner import Runner
from k8sflow.runtime.placement import Placement
from k8sflow.storage.run_store import RunStore

if TYPE_CHECKING:
    from k8sflow.kubernetes.api import KubernetesApi

_Answer = TypeVar("_Answer")


class Deployer:
    """Deploys a flow's file to run without this machine: ``Deployer("flow.py").kubernetes().create()``.

    Args:
        flow_file: The file.
        show_output: True to show the output of the commands.
        env: Variables to add to the environment.
        cwd: The working directory of the commands; None for this process's.
        options: Options of ``run``, as for ``Runner``.

    Raises:
        RunError: There is no such file.
    """

    def __init__(
        self,
        flow_file: str | os.PathLike[str],
        show_output: bool = True,  # noqa: FBT001, FBT002  the order that users know
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self._runner: Runner = Runner(flow_file, show_output, env=env, cwd=cwd, **options)

    def kubernetes(self, **options: Any) -> KubernetesDeployer:
        """Chooses the cluster with the controller.

        Args:
            options: The options of ``@kubernetes`` for every step: ``image``, ``memory``, …
        """
        return KubernetesDeployer(self._runner, options)

    def argo_workflows(self, **_options: Any) -> NoReturn:
        """Metaflow's deployment to Argo Workflows, which k8sflow doesn't have.

        Raises:
            RunError: Always; it says how a flow is deployed here.
        """
        raise _other_system("Argo Workflows")

    def step_functions(self, **_options: Any) -> NoReturn:
        """Metaflow's deployment to AWS Step Functions, which k8sflow doesn't have.

        Raises:
            RunError: Always; it says how a flow is deployed here.
        """
        raise _other_system("AWS Step Functions")


class NBDeployer(Deployer):
    """Deploys a flow that is defined in one cell of a notebook; the cell becomes a file, as for ``NBRunner``.

    Args:
        flow: The flow's class.
        show_output: True to show the output of the commands.
        env: Variables to add to the environment.
        base_dir: The folder of the file, and the working directory; the current one by default.
        options: Options of ``run``, as for ``Runner``.

    Raises:
        RunError: The cell can't be found.
    """

    def __init__(
        self,
        flow: type[FlowSpec],
        show_output: bool = True,  # noqa: FBT001, FBT002  the order that users know
        *,
        env: Mapping[str, str] | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self._runner = NBRunner(flow, show_output, env=env, base_dir=base_dir, **options)

    def cleanup(self) -> None:
        """Deletes the file; detached runs continue."""
        self._runner.cleanup()


def _other_system(name: str) -> RunError:
    return RunError(
        f"k8sflow doesn't deploy flows to {name}.",
        advice="Deployer(file).kubernetes().create().trigger() starts a run that k8sflow's controller sees to in the "
        "cluster, as `python flow.py run --with kubernetes --detach` does (docs/operators.md).",
    )


class KubernetesDeployer:
    """Deploys a flow to a cluster.

    Args:
        runner: Runs the flow's commands.
        options: The options of ``@kubernetes`` for every step.
    """

    def __init__(self, runner: Runner, options: Mapping[str, Any]) -> None:
        self._runner = runner
        written = ",".join(f"{name}={_written(value)}" for name, value in options.items())
        self._with = f"kubernetes:{written}" if written else "kubernetes"
        self._namespace = options.get("namespace")

    def create(self) -> DeployedFlow:
        """Checks the flow, and that the cluster accepts it.

        Raises:
            FlowDefinitionError: The flow has mistakes.
            ConfigurationError: There is no kubeconfig, or it is invalid.
            KubernetesError: There is no controller, or this user may not create FlowRuns.
        """
        file = self._runner.flow_file
        hook = metaflow_modules.interpreter_options()
        checked = subprocess.run(
            [sys.executable, *hook, str(file), "check"],
            env=self._runner.environment,
            cwd=self._runner.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if checked.returncode != 0:
            raise FlowDefinitionError(f"{file.name} can't be deployed.", cause=checked.stderr.strip())
        settings = self._runner.settings
        with _needs_api():
            from k8sflow.runtime.detached.submit import check_detachable  # noqa: PLC0415  a pod's flow may import Deployer, without the API

        check_detachable(settings, self._namespace or settings.kubernetes_namespace)
        return DeployedFlow(self._runner, self._with)


class DeployedFlow:
    """A flow that the cluster accepts.

    Args:
        runner: Runs the flow's commands.
        with_: The value of ``--with`` that runs its steps on Kubernetes.
    """

    def __init__(self, runner: Runner, with_: str) -> None:
        self._runner = runner
        self._with = with_

    def trigger(self, **options: Any) -> TriggeredRun:
        """Starts a detached run, and returns when the controller has accepted it.

        Args:
            options: The flow's parameters, and options of ``run``, as keyword arguments.

        Raises:
            RunError: No run was started, or the controller refused it.
        """
        more = options.pop("decospecs", self._runner.options.get("decospecs", []))
        given = [self._with, *([more] if isinstance(more, str) else more)]
        submitted = self._runner.run(**{**options, "decospecs": given, "detach": True})
        if submitted.returncode != 0:
            raise RunError(f"{submitted.run.pathspec} was not detached.", cause=submitted.stderr.strip())
        return TriggeredRun(submitted.run.run_store, self._runner.settings)

    def __repr__(self) -> str:
        return f"<DeployedFlow: {self._runner.flow_file.name}, {self._with}>"


class TriggeredRun:
    """A detached run.

    Args:
        run_store: The run's records.
        settings: The settings of its flow.
    """

    def __init__(self, run_store: RunStore, settings: Settings) -> None:
        self._run_store = run_store
        self._settings = settings

    @property
    def run(self) -> Run:
        """The run, as the client reads it."""
        return Run(self._run_store)

    @property
    def status(self) -> str | None:
        """Pending, Running, Succeeded, Failed or Cancelled; None if its FlowRun was deleted.

        Raises:
            KubernetesError: The cluster can't be reached.
        """
        try:
            found = self._call(lambda api: api.get(self._path))
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None
        phase = flowruns.phase_of(found)
        return (phase or flowruns.Phase.PENDING).value

    def terminate(self) -> bool:
        """Deletes its FlowRun, which cancels the run unless it has ended; returns False if there was none.

        Raises:
            KubernetesError: The cluster can't be reached, or refused the request.
        """
        if self.status is None:
            return False
        self._call(lambda api: api.delete(self._path))
        return True

    def __repr__(self) -> str:
        return f"<TriggeredRun: {self._run_store.flow}/{self._run_store.run}>"

    @property
    def _path(self) -> str:
        namespace = Placement.of_record(self._run_store.read(), self._settings).namespace
        return flowruns.object_path(namespace, flowruns.flowrun_name(self._run_store.flow, self._run_store.run))

    def _call(self, ask: Callable[[KubernetesApi], Awaitable[_Answer]]) -> _Answer:
        """Asks the API server, from a thread of its own: a notebook has an event loop already."""
        with _needs_api():
            from k8sflow.kubernetes.api import KubernetesApi  # noqa: PLC0415  as above
            from k8sflow.kubernetes.kubeconfig import load_access  # noqa: PLC0415

        async def call() -> _Answer:
            async with KubernetesApi(load_access(self._settings.kubernetes_context, os.environ)) as api:
                return await ask(api)

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(call())).result()


@contextmanager
def _needs_api() -> Iterator[None]:
    """Translates a failed import of the API client.

    Raises:
        ConfigurationError: A package is missing, as in a task's pod.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"runs can't be detached here: the package {error.name} is not installed.",
            cause="The pods of tasks have only the part of k8sflow that runs tasks.",
            advice="Install k8sflow in the step's image, or use Deployer outside the pod.",
        ) from error


def _written(value: Any) -> str:
    """An option's value in the syntax of ``--with``."""
    return json.dumps(value) if isinstance(value, (list, dict, tuple)) else str(value)
