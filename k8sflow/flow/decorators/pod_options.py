"""The options of ``@kubernetes``: what a step requests of its pod, each declared once, here.

The decorator, ``--with kubernetes:…``, the Job manifest and the docs all follow from the fields of ``PodOptions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import pod_numbers as numbers
from k8sflow.flow.decorators import pod_parsers as parse
from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.parsers import count, flag, text
from k8sflow.flow.decorators.step_requests import StepRequests, option

RESOURCES = ("cpu", "memory", "disk", "gpu", "shared_memory", "on_oom", "max_memory")
# All that depends on the work of a step.
SIZES = (*RESOURCES, "cpu_limit", "memory_limit", "qos", "gpu_model", "extended_resources", "resource_claims")
# How often the memory is doubled at most where no max_memory says so.
_MOST_DOUBLINGS = 3
DEFAULT_TMPFS_PATH = "/k8sflow_temp"
# The runtime and the task's code are there, where nothing else can be mounted.
RUNTIME_FOLDER = "/opt/k8sflow"
WORK_FOLDER = "/k8sflow/work"
# The options with volumes: those whose keys are folders, and those whose values are.
_BY_FOLDER = ("ephemeral_volumes", "empty_dirs")
_TO_FOLDER = ("persistent_volume_claims", "image_volumes", "secret_files", "config_map_files")
# By these a pod reaches what is in its namespace, or leaves its confines; a cluster's administrators decide whether the
# pods of detached runs may, which are made with the rights of the driver.
GUARDED = (
    "config_map_files",
    "config_maps",
    "persistent_volume_claims",
    "pod_template",
    "priority_class",
    "runtime_class",
    "secret_files",
    "secrets",
    "security_context",
)
# What only the API server can judge: a run with one of these asks it before it starts.
_JUDGED_BY_THE_SERVER = (
    "affinity",
    "topology_spread",
    "tolerations",
    "security_context",
    "dns_policy",
    "dns_config",
    "host_aliases",
    "resource_claims",
    "image_volumes",
    "ephemeral_volumes",
    "empty_dirs",
    "extended_resources",
    "pod_template",
)


@dataclass(frozen=True)
class PodOptions(StepRequests):
    """The requests of a step for its pod; None for those that are not set.

    The values are those that the parsers return: amounts are Kubernetes quantities, structures those of the API.
    """

    joined = frozenset({"labels", "annotations", "env"})

    image: str | None = option(parse.image, "image of the task's container, with Python 3.10 or newer")
    image_pull_policy: str | None = option(
        parse.one_of("Always", "IfNotPresent", "Never"), "Always, IfNotPresent or Never"
    )
    image_pull_secrets: tuple[str, ...] | None = option(parse.names, "Secrets with the registry's credentials")
    runtime_in_image: bool | None = option(
        flag, "True for an image that is built on the k8sflow image: no init container copies the runtime"
    )
    executable: str | None = option(text, "Python of the image that runs the step (default python3)")
    namespace: str | None = option(text, "namespace of the run's Jobs; one for all steps of a run")
    service_account: str | None = option(text, "service account of the pod")

    cpu: str | None = option(quantity.cpu, 'requested cores: 2, 0.5 or "500m"')
    cpu_limit: str | None = option(quantity.cpu, "limit of the cores (default: none)")
    memory: str | None = option(quantity.size, 'requested memory: MB or a quantity ("4Gi")')
    memory_limit: str | None = option(quantity.size, "limit of the memory: MB or a quantity (default: memory)")
    qos: str | None = option(
        parse.one_of("Guaranteed", "Burstable"), "Guaranteed (the limits are the requests) or Burstable (the default)"
    )
    disk: str | None = option(quantity.size, "requested local disk, also the limit: MB or a quantity")
    gpu: int | None = option(count, "number of GPUs")
    gpu_vendor: str | None = option(
        parse.gpu_vendor, f"{', '.join(parse.GPU_RESOURCES)} or a resource as vendor.com/gpu (default nvidia)"
    )
    gpu_model: str | None = option(parse.gpu_model, "model of the GPUs: the value of the node's label, or label=value")
    extended_resources: Mapping[str, str] | None = option(parse.amounts, "other resources, vendor.com/thing=2")
    resource_claims: Mapping[str, Mapping[str, str]] | None = option(
        parse.resource_claims, "devices by dynamic resource allocation, name=template/NAME or name=claim/NAME"
    )
    shared_memory: str | None = option(quantity.share, "size of /dev/shm, part of the memory: MB or a quantity")
    on_oom: str | None = option(
        parse.one_of("double"), '"double": a task that ran out of memory is run again with twice as much'
    )
    max_memory: str | None = option(
        quantity.size, f"most memory that on_oom may request: MB or a quantity (default {2**_MOST_DOUBLINGS} x memory)"
    )

    use_tmpfs: bool | None = option(flag, "whether the pod has a folder in memory (default: if tmpfs_size is set)")
    tmpfs_size: str | None = option(quantity.share, "size of the folder in memory (default: half of the memory)")
    tmpfs_path: str | None = option(parse.folder, f"path of the folder in memory (default {DEFAULT_TMPFS_PATH})")
    tmpfs_tempdir: bool | None = option(flag, "whether TMPDIR is the folder in memory (default: yes)")
    persistent_volume_claims: Mapping[str, str] | None = option(
        parse.folders, "PersistentVolumeClaims and their folders, claim=/folder"
    )
    ephemeral_volumes: Mapping[str, Mapping[str, str]] | None = option(
        parse.ephemeral_volumes, "volumes that live as long as the pod, /folder=100Gi; also storage_class, access_mode"
    )
    empty_dirs: Mapping[str, Mapping[str, str]] | None = option(
        parse.empty_dirs, "folders on the node's disk, /folder=10Gi; also a medium such as Memory"
    )
    image_volumes: Mapping[str, str] | None = option(parse.images, "images whose files are mounted, image=/folder")
    secrets: tuple[str, ...] | None = option(parse.names, "Secrets whose keys are environment variables")
    secret_files: Mapping[str, str] | None = option(parse.folders, "Secrets mounted as files, secret=/folder")
    config_maps: tuple[str, ...] | None = option(parse.names, "ConfigMaps whose keys are environment variables")
    config_map_files: Mapping[str, str] | None = option(parse.folders, "ConfigMaps mounted as files, name=/folder")
    env: Mapping[str, str] | None = option(parse.variables, "more environment variables of the container")

    node_selector: Mapping[str, str] | None = option(parse.selector, "labels that the node must have")
    compute_pool: str | None = option(parse.label_value, "value of the node label outerbounds.co/compute-pool")
    tolerations: tuple[Mapping[str, Any], ...] | None = option(parse.tolerations, "taints that the pod tolerates")
    affinity: Mapping[str, Any] | None = option(parse.affinity, "affinity to nodes and pods")
    topology_spread: tuple[Mapping[str, Any], ...] | None = option(
        parse.topology_spread, "label of nodes over which the step's pods are spread, or constraints"
    )
    priority_class: str | None = option(parse.name, "priority class of the pod")
    runtime_class: str | None = option(parse.name, "runtime class of the pod, such as gvisor")
    queue: str | None = option(parse.name, "Kueue's LocalQueue; the Job is created suspended, and Kueue starts it")

    labels: Mapping[str, str] | None = option(parse.own_labels, "more labels of the Job and the pod")
    annotations: Mapping[str, str] | None = option(parse.own_annotations, "more annotations of the Job and the pod")
    run_as_user: int | None = option(numbers.user, "numeric user of the container (default 65532)")
    security_context: Mapping[str, Any] | None = option(
        parse.security_context, "security context of the task's container, on top of the restricted one"
    )
    port: int | None = option(numbers.port, "port that the container declares")
    host_aliases: Mapping[str, list[str]] | None = option(parse.host_aliases, "host names in /etc/hosts, 10.0.0.5=db")
    dns_policy: str | None = option(
        parse.one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"), "DNS policy of the pod"
    )
    dns_config: Mapping[str, Any] | None = option(parse.dns_config, "name servers, searches and options of the DNS")
    hostname_resolution_timeout: int | None = option(
        numbers.seconds, "seconds that the pods of a step under @parallel wait for each other (default 600)"
    )
    deadline_seconds: int | None = option(numbers.deadline, "how long the pod may run (default 5 days)")
    grace_seconds: int | None = option(
        numbers.grace,
        "seconds from SIGTERM to SIGKILL, 5 to 86400, in which the step may finish (default: it ends at SIGTERM)",
    )
    spot: str | None = option(
        parse.one_of("aws", "gcp", "azure"), "aws, gcp or azure: looks for its notice that a spot node ends"
    )
    pending_timeout_seconds: int | None = option(
        numbers.seconds,
        "how long the pod may wait to start (default: 600 where its image or settings are wrong, else no limit)",
    )
    branches_per_pod: int | None = option(
        numbers.branches, "number of branches of a foreach that share a pod (default 1)"
    )
    branches_at_a_time: int | None = option(
        numbers.branches,
        "number of branches that run at a time in a pod they share (default: its cores divided by a branch's)",
    )
    pod_template: Mapping[str, Any] | None = option(parse.template, "file with a pod that is merged into the step's")

    @property
    def has_tmpfs(self) -> bool:
        """True if the pod has a folder in memory."""
        return self.tmpfs_size is not None if self.use_tmpfs is None else self.use_tmpfs

    @property
    def has_devices(self) -> bool:
        """True if the pod may have GPUs: by number (0 turns off what others ask for), by a claim, or as a resource."""
        return self.gpu is not None or bool(self.resource_claims) or bool(self.extended_resources)

    @property
    def most_memory(self) -> str | None:
        """The limit of the container's memory."""
        return self.memory_limit or self.memory

    @property
    def needs_the_server(self) -> bool:
        """True if an option is set that only the API server can judge."""
        return any(getattr(self, name) is not None for name in _JUDGED_BY_THE_SERVER)

    def mounts(self) -> dict[str, str]:
        """The folders that the options mount into the container, and the option that mounts each.

        Raises:
            ValueError: Two options mount the same folder, or one mounts a folder of the pod's own.
        """
        found = dict.fromkeys((RUNTIME_FOLDER, WORK_FOLDER), "k8sflow")
        of = {name: getattr(self, name) or {} for name in _BY_FOLDER + _TO_FOLDER}
        mounted = [(folder, name) for name in _BY_FOLDER for folder in of[name]]
        mounted += [(folder, name) for name in _TO_FOLDER for folder in of[name].values()]
        mounted += [(self.tmpfs_path or DEFAULT_TMPFS_PATH, "tmpfs_path")] if self.has_tmpfs else []
        mounted += [("/dev/shm", "shared_memory")] if self.shared_memory is not None else []  # noqa: S108
        for folder, name in mounted:
            if folder in found:
                raise ValueError(f"{name} mounts the folder {folder}, and so does {found[folder]}")
            found[folder] = name
        return found

    def check(self) -> None:
        """Returns if the options can be used together.

        Raises:
            ValueError: They can't.
        """
        self.mounts()
        self._check_limits()
        if not self.has_tmpfs:
            for name in ("tmpfs_size", "tmpfs_path", "tmpfs_tempdir"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} has no effect without use_tmpfs=True")
        if self.branches_at_a_time is not None and self.branches_per_pod is None:
            raise ValueError("branches_at_a_time has no effect without branches_per_pod")
        self._check_gpu()
        if self.dns_policy == "None" and not (self.dns_config or {}).get("nameservers") and self.pod_template is None:
            raise ValueError(
                'dns_policy="None" needs the name servers: dns_config={"nameservers": ["10.0.0.10"]}, for example'
            )
        context = self.security_context or {}
        if context.get("privileged") and context.get("allowPrivilegeEscalation") is False:
            raise ValueError("a privileged container can't forbid the escalation of privileges")

    def _check_gpu(self) -> None:
        if not self.has_devices:
            for name in ("gpu_vendor", "gpu_model"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(f"{name}={value!r} requests no GPU; add gpu=1, or leave {name} out")
        if self.gpu_model is not None and "=" not in self.gpu_model:
            vendor = self.gpu_vendor or "nvidia"
            if vendor not in parse.GPU_MODEL_LABELS:
                raise ValueError(f"gpu_model: no node label is known for the model of {vendor}; write label=value")

    def _check_limits(self) -> None:
        if self.on_oom is not None and self.memory_limit is not None:
            raise ValueError("on_oom raises the memory with its limit, so that memory_limit can't be set as well")
        for request, limit in (("cpu", "cpu_limit"), ("memory", "memory_limit")):
            asked, most = getattr(self, request), getattr(self, limit)
            if asked is not None and most is not None and quantity.parse(most) < quantity.parse(asked):
                raise ValueError(f"{limit}={most} is less than the {asked} that {request} requests")
            if self.qos == "Guaranteed" and asked is not None and most not in (None, asked):
                raise ValueError(f"qos=Guaranteed needs limits that are the requests, but {limit} is {most}")

    def half_of_memory(self) -> str:
        """Half of the memory's limit, in bytes."""
        assert self.most_memory is not None, "every pod requests memory"
        return str(int(quantity.parse(self.most_memory) / Decimal(2)))

    def more_memory(self) -> tuple[str, ...]:
        """The memory of each further execution of a task that ran out of memory, by ``on_oom`` and ``max_memory``.

        Raises:
            FlowDefinitionError: ``max_memory`` can have no effect.
        """
        if self.on_oom is None:
            if self.max_memory is None:
                return ()
            raise FlowDefinitionError(
                f"max_memory={self.max_memory!r} has no effect without on_oom.",
                advice='Add on_oom="double", or leave max_memory out.',
            )
        memory = self.memory or str(DEFAULT_OPTIONS.memory)
        if self.max_memory is None:
            return tuple(quantity.times(memory, 2**count) for count in range(1, _MOST_DOUBLINGS + 1))
        if not is_more(self.max_memory, memory):
            raise FlowDefinitionError(
                f"max_memory={self.max_memory!r} is not more than memory={memory!r}.",
                advice="Raise max_memory, or leave out on_oom and max_memory.",
            )
        found = [quantity.times(memory, 2)]
        while quantity.parse(found[-1]) < quantity.parse(self.max_memory):
            found.append(quantity.times(found[-1], 2))
        return (*found[:-1], self.max_memory)


DEFAULT_OPTIONS = PodOptions(cpu="1", memory="4096M")


def merge(*options: PodOptions) -> PodOptions:
    """The options that hold, strongest first: ``@kubernetes``, ``@resources``, ``--with``, settings, default."""
    return PodOptions.merged(options)


def is_more(max_memory: str, memory: str) -> bool:
    """True if a maximum leaves room for more memory than that of the first execution."""
    return quantity.parse(max_memory) > quantity.parse(memory)


def common_namespace(steps: Mapping[str, PodOptions], default: str) -> str:
    """The one namespace of a run.

    Raises:
        FlowDefinitionError: Two steps ask for different namespaces; a run's objects have one owner, so it has one.
    """
    asked = {options.namespace or default: step for step, options in steps.items()}
    if len(asked) > 1:
        listed = ", ".join(f"{step} in {namespace}" for namespace, step in sorted(asked.items()))
        raise FlowDefinitionError(
            f"the steps of the flow ask for different namespaces: {listed}.",
            cause="All Jobs of a run live in one namespace, with one owner.",
            advice="Name the namespace once: --with kubernetes:namespace=… or the setting kubernetes_namespace.",
        )
    return next(iter(asked), default)
