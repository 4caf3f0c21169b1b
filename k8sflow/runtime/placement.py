"""The executor of each step, and the options of its pod."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from k8sflow.config import Settings
from k8sflow.errors import FlowDefinitionError
from k8sflow.executors.by_name import BATCH, KUBERNETES, LOCAL
from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.base import Decoration, options_of
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.decorators.environment import variables_of
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, common_namespace, merge
from k8sflow.flow.decorators.pod_variables import check_names
from k8sflow.flow.decorators.policy import InfrastructureRetry, StepPolicy
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.problems import all_problems
from k8sflow.flow.script import script_of
from k8sflow.runtime.batch_jobs import job_options, recorded_jobs
from k8sflow.storage.records import RunRecord

_DEADLINE_SLACK_SECONDS = 600
_HOST_BYTES = 128_000_000  # of the processes that start the branches of a shared pod: about 110 MB were measured


@dataclass(frozen=True)
class Placement:
    """The steps that run on Kubernetes or AWS Batch, with their options; every other step runs on this machine.

    Args:
        pods: What the steps on Kubernetes ask of their pods.
        namespace: The namespace of their Jobs.
        policies: Retries, timeout and catch of the steps that say anything of it, wherever they run.
        has_gangs: Whether pods of a ``num_parallel`` step have to find each other.
        batch: What the steps on AWS Batch ask of their jobs.
        together: Those of them whose tasks run together, each on a node of its own.
    """

    pods: Mapping[str, PodOptions]
    namespace: str
    policies: Mapping[str, StepPolicy] = field(default_factory=dict)
    has_gangs: bool = False
    batch: Mapping[str, BatchOptions] = field(default_factory=dict)
    together: frozenset[str] = frozenset()

    @property
    def uses_kubernetes(self) -> bool:
        """True if any step runs on Kubernetes."""
        return bool(self.pods)

    @property
    def is_remote(self) -> bool:
        """True if any step runs elsewhere than on this machine, so that the run is in a bucket."""
        return bool(self.pods or self.batch)

    def outlives(self, step: str) -> bool:
        """True if tasks of a step keep running when their driver dies, and are found by the next one."""
        return self.executor_of(step) != LOCAL

    def inside(self, settings: Settings) -> Settings:
        """The settings with the namespace of the run's pods."""
        return replace(settings, kubernetes_namespace=self.namespace)

    def executor_of(self, step: str) -> str:
        """The name of a step's executor."""
        if step in self.batch:
            return BATCH
        return KUBERNETES if step in self.pods else LOCAL

    @staticmethod
    def of_record(record: RunRecord, settings: Settings) -> Placement:
        """The placement that a run was started with; settings of this process apply where its pods have no option.

        A driver in the cluster has settings of its own, such as the service account of the tasks.
        """
        own = _from_settings(settings)
        pods = {step: merge(options, own, DEFAULT_OPTIONS) for step, options in record.pods.items()}
        namespace = common_namespace(pods, settings.kubernetes_namespace)
        batch = recorded_jobs(record.batch, settings)
        has_gangs, together = _has_gangs(record.graph, pods), _together(record.graph, batch)
        return Placement(pods, namespace, record.policies, has_gangs, batch, together)

    @staticmethod
    def of(definition: FlowDefinition, with_: tuple[str, ...], settings: Settings) -> Placement:
        """The placement that a flow's decorators and ``--with`` ask for.

        Raises:
            FlowDefinitionError: A decorator is wrong.
        """
        added = definition.added(with_)
        pods: dict[str, PodOptions] = {}
        batch: dict[str, BatchOptions] = {}
        policies = {}
        for name, node in definition.graph.nodes.items():
            own = definition.decorations_of(name)
            try:
                where = _executor(own, added)
                policy = StepPolicy.of(definition.decorations_of(name, added), on_kubernetes=where != LOCAL)
                policy = replace(policy, infrastructure=InfrastructureRetry.of(settings))
                if where == BATCH:
                    batch[name] = job_options(own, added, settings, policy)
                    policy = replace(policy, more_memory=batch[name].more_memory())
                if where == KUBERNETES:
                    pods[name] = _pod(own, added, settings, policy, is_gang=node.is_parallel)
                    if pods[name].pod_template is not None:
                        pods[name] = _with_template(pods[name], definition)
                    policy = replace(policy, more_memory=pods[name].more_memory())
                if policy != StepPolicy():
                    policies[name] = policy
            except FlowDefinitionError as error:
                raise all_problems(definition.name, [node.location.problem(error.summary, error.advice)]) from error
        _check_gpu(added, pods)
        namespace = common_namespace(pods, settings.kubernetes_namespace)
        has_gangs, together = _has_gangs(definition.graph, pods), _together(definition.graph, batch)
        return Placement(pods, namespace, policies, has_gangs, batch, together)


def _executor(own: tuple[Decoration, ...], added: tuple[Decoration, ...]) -> str:
    """The name of a step's executor: what is written at the step holds, else ``--with``.

    Raises:
        FlowDefinitionError: Both systems are named in the same place.
    """
    for found, where in ((own, "the step has"), (added, "--with names")):
        names = {decoration.name for decoration in found} & {KUBERNETES, BATCH}
        if len(names) > 1:
            raise FlowDefinitionError(
                f"{where} @kubernetes and @batch, and a task can run on one of them only.",
                advice="Remove one of them. A decorator at a step holds against --with.",
            )
        if names:
            return names.pop()
    return LOCAL


def _has_gangs(graph: Graph, pods: Mapping[str, PodOptions]) -> bool:
    return any(step in pods and graph[step].is_parallel for step in graph.nodes)


def _together(graph: Graph, batch: Mapping[str, BatchOptions]) -> frozenset[str]:
    return frozenset(step for step in graph.nodes if step in batch and graph[step].is_parallel)


def _pod(
    own: tuple[Decoration, ...],
    added: tuple[Decoration, ...],
    settings: Settings,
    policy: StepPolicy,
    *,
    is_gang: bool = False,
) -> PodOptions:
    """The options of a step's pod, strongest first: the step, --with, the settings, the default.

    A step with a timeout is ended by the agent in its pod. The pod's own deadline is for the case that the agent no
    longer can, and leaves time for the image.
    """
    named = [PodOptions(env=_variables(found)) for found in (own, added)]
    asked = [*_options(own), *_options(added)]
    options = merge(*asked, *named, _from_settings(settings), DEFAULT_OPTIONS)
    options = _without_idle_gpu(options, own)
    if is_gang:
        options = _unshared(options, own)
    elif (options.branches_per_pod or 1) > 1:
        options = _shared(options, own, added)
    try:
        options.check()
    except ValueError as error:
        raise FlowDefinitionError(f"its pod can't be made: {error}.") from error
    if policy.timeout_seconds is None:
        return options
    turns = math.ceil((options.branches_per_pod or 1) / (options.branches_at_a_time or 1))
    deadline = math.ceil((policy.timeout_seconds + policy.grace_seconds) * turns) + _DEADLINE_SLACK_SECONDS
    return replace(options, deadline_seconds=min(deadline, options.deadline_seconds or deadline))


def _without_idle_gpu(options: PodOptions, own: tuple[Decoration, ...]) -> PodOptions:
    """The options of a step without GPUs, less those about GPUs that ``--with`` adds to every step."""
    if options.has_devices:
        return options
    written = merge(*_options(own))
    return replace(options, gpu_vendor=written.gpu_vendor, gpu_model=written.gpu_model)


def _check_gpu(added: tuple[Decoration, ...], pods: Mapping[str, PodOptions]) -> None:
    """Returns if some step has GPUs, or ``--with`` doesn't say which.

    Raises:
        FlowDefinitionError: It says which, and no step has any.
    """
    asked = merge(*_options(added))
    for name in ("gpu_vendor", "gpu_model"):
        value = getattr(asked, name)
        if value is not None and pods and not any(options.has_devices for options in pods.values()):
            raise FlowDefinitionError(
                f"--with kubernetes:{name}={value} has no effect: no step requests a GPU.",
                advice="Request GPUs where they are needed with @resources(gpu=1), or in all steps by adding gpu=1.",
            )


def _variables(found: tuple[Decoration, ...]) -> dict[str, str] | None:
    """The variables that ``@environment`` sets in a pod, which is in its Job as well.

    Raises:
        FlowDefinitionError: It sets a variable that a step can't set there.
    """
    variables = variables_of(found)
    try:
        check_names(variables)
    except ValueError as error:
        raise FlowDefinitionError(f"@environment can't set one of its variables on Kubernetes: {error}.") from error
    return variables or None


def _shared(options: PodOptions, own: tuple[Decoration, ...], added: tuple[Decoration, ...]) -> PodOptions:
    """The options of a pod that branches share: ``@resources`` describes a branch, ``@kubernetes`` the pod.

    A pod that has no size of its own has the cores of one branch, and memory for those that run at a time and for the
    processes that start them.
    """
    if options.spot is not None:
        raise FlowDefinitionError(
            "spot can't be used with branches_per_pod.",
            cause="A spot notice ends one task early, and is no reason for the failure of several.",
            advice="Leave one of them out: branches without a result run again in another pod in any case.",
        )
    branch = merge(*_options(own, "resources"), *_options(added, "resources"))
    pod = merge(*_options(own, "kubernetes"), *_options(added, "kubernetes"))
    branch_cpu = branch.cpu or DEFAULT_OPTIONS.cpu or "1"
    cpu = pod.cpu or branch_cpu
    fitting = max(1, int(quantity.parse(cpu) / quantity.parse(branch_cpu)))
    at_a_time = min(options.branches_at_a_time or fitting, options.branches_per_pod or 1)
    memory = pod.memory or options.memory
    if pod.memory is None and branch.memory is not None:
        memory = quantity.megabytes(quantity.parse(branch.memory) * at_a_time + _HOST_BYTES)
    return replace(options, cpu=cpu, memory=memory, branches_at_a_time=at_a_time)


def _unshared(options: PodOptions, own: tuple[Decoration, ...]) -> PodOptions:
    """The options of a step whose tasks run together, each in a pod of its own, whatever ``--with`` says."""
    if (merge(*_options(own)).branches_per_pod or 1) > 1:
        raise FlowDefinitionError(
            "branches_per_pod can't be used in a step with @parallel.",
            cause="Its tasks run together, each in a pod of its own, and find each other by the pods' names.",
            advice="Remove branches_per_pod, or make the step a foreach.",
        )
    return replace(options, branches_per_pod=None, branches_at_a_time=None)


def _with_template(options: PodOptions, definition: FlowDefinition) -> PodOptions:
    """The options with the content of their pod template, which the run's record keeps.

    Raises:
        FlowDefinitionError: Its file can't be used.
    """
    from k8sflow.kubernetes import pod_template  # noqa: PLC0415  few runs have one

    assert options.pod_template is not None
    file = str(options.pod_template["file"])
    return replace(options, pod_template=pod_template.load(script_of(definition.flow).folder / file, file))


def _options(found: tuple[Decoration, ...], *names: str) -> list[PodOptions]:
    """The options of some decorators, those of ``@kubernetes`` before those of ``@resources``."""
    both = (options_of(found, name) for name in names or ("kubernetes", "resources"))
    return [PodOptions(**options) for options in both if options is not None]


def _from_settings(settings: Settings) -> PodOptions:
    return PodOptions(
        image=settings.kubernetes_image or settings.kubernetes_runtime_image,
        service_account=settings.kubernetes_service_account,
    )
