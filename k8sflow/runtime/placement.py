"""The executor of each step; ``pod_sizes`` and ``job_sizes`` have the options of its pod or job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from k8sflow.config import Settings
from k8sflow.errors import FlowDefinitionError
from k8sflow.executors.by_name import BATCH, KUBERNETES, LOCAL
from k8sflow.flow.decorators.base import Decoration
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.decorators.pod_options import PodOptions, common_namespace
from k8sflow.flow.decorators.policy import InfrastructureRetry, StepPolicy
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.problems import all_problems
from k8sflow.runtime.job_sizes import job_options, recorded_jobs
from k8sflow.runtime.pod_sizes import check_gpu, pod_options, recorded_pods, with_template
from k8sflow.storage.records import RunRecord


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
        pods = recorded_pods(record.pods, settings)
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
                    pods[name] = pod_options(own, added, settings, policy, is_gang=node.is_parallel)
                    if pods[name].pod_template is not None:
                        pods[name] = with_template(pods[name], definition)
                    policy = replace(policy, more_memory=pods[name].more_memory())
                if policy != StepPolicy():
                    policies[name] = policy
            except FlowDefinitionError as error:
                raise all_problems(definition.name, [node.location.problem(error.summary, error.advice)]) from error
        check_gpu(added, pods)
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
