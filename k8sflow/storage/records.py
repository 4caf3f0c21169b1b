"""The records of a run: its inputs, the result of each task, the outcome of each attempt."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from k8sflow.environments.lock import Lock, from_documents, to_documents
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.foreach import MAX_NUM_SPLITS
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.cache_plan import CachePlan
from k8sflow.storage.usage import Usage

FORMAT = 1
# The format of a commit with layers; a reader without support for layers would miss inherited artifacts.
LAYERED_FORMAT = 2
_RUN_ID = "%Y%m%d-%H%M%S-%f"


@dataclass(frozen=True)
class ForeachFrame:
    """One foreach branch around a task.

    Args:
        step: The step that opened the foreach.
        index: The index of this branch.
        width: The number of branches.
        chunk: A list of consecutive items, among them this branch's.
        offset: The index of the item in the chunk.
    """

    step: str
    index: int
    width: int
    chunk: ArtifactRef
    offset: int


@dataclass(frozen=True)
class ForeachItems:
    """The items of a foreach, saved as lists of consecutive items, each of them an artifact.

    Args:
        width: The number of items.
        chunks: The index of each chunk's first item, and the chunk.
        max_parallel: The number of branches that may run at a time; None for any number.
    """

    width: int
    chunks: tuple[tuple[int, ArtifactRef], ...]
    max_parallel: int | None = None

    def to_document(self) -> dict[str, Any]:
        """The items as JSON types."""
        chunks = [(first, ref.to_document()) for first, ref in self.chunks]
        return {"width": self.width, "chunks": chunks, "max_parallel": self.max_parallel}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> ForeachItems:
        """The items in a JSON document."""
        chunks = tuple((first, ArtifactRef.from_document(ref)) for first, ref in document["chunks"])
        return ForeachItems(document["width"], chunks, document["max_parallel"])


@dataclass(frozen=True)
class Commit:
    """The result of a task: written once, by the first attempt that finishes.

    Args:
        attempt: The attempt that wrote it.
        steps: The next steps.
        artifacts: The artifacts in the commit itself, by name; ``Tables`` adds those of its layers.
        stack: The foreach branches around the task, the outermost first.
        foreach: The items of the foreach that the task opens.
        started: The time at which the step's function was called, in seconds since 1970.
        finished: The time at which it returned.
        origin: The run in which the task ran, if this commit is a clone from a run that this one resumes, or if
            ``@cache`` took the result from there.
        is_caught: True if the step failed, and ``@catch`` let the run continue.
        layers: Tasks of the run, as ``step/id``, whose own artifacts are included (``storage/layers.py``).
        without: Names that a layer has and the task doesn't.
        usage: The resources that the attempt used; None if they were not measured.
        cached: The task of the origin whose result ``@cache`` took, as ``step/id``.
    """

    attempt: int
    steps: tuple[str, ...]
    artifacts: Mapping[str, ArtifactRef]
    stack: tuple[ForeachFrame, ...] = ()
    foreach: ForeachItems | None = None
    started: float = 0.0
    finished: float = 0.0
    origin: str | None = None
    is_caught: bool = False
    layers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    usage: Usage | None = None
    cached: str | None = None

    def to_document(self) -> dict[str, Any]:
        """The commit as JSON types, with the version of its format."""
        document = {
            "format": LAYERED_FORMAT if self.layers else FORMAT,
            "attempt": self.attempt,
            "steps": self.steps,
            "artifacts": {name: ref.to_document() for name, ref in self.artifacts.items()},
            "stack": [{**vars(frame), "chunk": frame.chunk.to_document()} for frame in self.stack],
            "foreach": None if self.foreach is None else self.foreach.to_document(),
            "started": self.started,
            "finished": self.finished,
        }
        optional = {name: getattr(self, name) for name in ("origin", "layers", "without", "is_caught", "cached")}
        optional["usage"] = self.usage and self.usage.to_document()
        return {**document, **{name: value for name, value in optional.items() if value}}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Commit:
        """The commit in a JSON document."""
        foreach = document["foreach"]
        return Commit(
            attempt=document["attempt"],
            steps=tuple(document["steps"]),
            artifacts={name: ArtifactRef.from_document(ref) for name, ref in document["artifacts"].items()},
            stack=tuple(
                ForeachFrame(**{**frame, "chunk": ArtifactRef.from_document(frame["chunk"])})
                for frame in document["stack"]
            ),
            foreach=None if foreach is None else ForeachItems.from_document(foreach),
            started=document["started"],
            finished=document["finished"],
            origin=document.get("origin"),
            is_caught=document.get("is_caught", False),
            layers=tuple(document.get("layers", ())),
            without=tuple(document.get("without", ())),
            usage=Usage.from_document(document.get("usage")),
            cached=document.get("cached"),
        )


@dataclass(frozen=True)
class KeptRecord:
    """The artifacts that a failed attempt had set, kept for ``@catch``.

    Args:
        artifacts: The artifacts in the record itself, by name.
        started: The time at which the step's function was called, in seconds since 1970.
        layers: Tasks of the run whose artifacts are included, as in a commit.
        without: Names that a layer has and the attempt hadn't.
    """

    artifacts: Mapping[str, ArtifactRef]
    started: float
    layers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> KeptRecord:
        """The record in a JSON document."""
        artifacts = {name: ArtifactRef.from_document(ref) for name, ref in document["artifacts"].items()}
        return KeptRecord(artifacts, document["started"], tuple(document["layers"]), tuple(document["without"]))


@dataclass(frozen=True)
class RunRecord:
    """The inputs of a run, known when it starts.

    Args:
        flow: The flow's class name.
        run: The run's id.
        file: The flow's file, relative to the code package.
        parameters: The values of parameters and constants, by attribute.
        graph: The steps in the order of the source.
        pods: The options of the pods of steps that run on Kubernetes, by step.
        package: sha256 of the code package, or None for a run on one machine.
        user: The user who started it.
        created: The start time, in seconds since 1970.
        tags: The user's tags at the start.
        decorators: The decorators added by ``--with``.
        origin_run_id: The run that this one resumes.
        flow_decorators: The options of the flow-level decorators, by name: project, schedule, trigger, …
        policies: Retries, timeout and catch by step.
        source: The path of the flow's file on the machine that started the run.
        namespace: The namespace in which its tasks look for runs; empty for the user's.
        origin_step: The step named to ``resume``, from which on everything runs again.
        is_detached: True if it was detached: the controller in the cluster makes sure that it has a driver.
        max_num_splits: The number of branches that a foreach may open.
        is_traced: True if the times of its tasks are recorded (``storage/trace.py``).
        modules: The modules and packages in the flow's folder; None in the records of older versions.
        code_hashes: The hashes of the flow's file and of the folder's loaded modules, by file relative to the folder.
        python_version: The version of the Python that started it.
        k8sflow_version: The version of k8sflow that started it.
        batch: The options of the jobs of steps that run on AWS Batch, by step.
        resources: The ``cpu`` and ``memory`` of ``@resources``, as quantities, by step.
        cache: What ``@cache`` does, by step.
        as_metaflow: True if the flow imports from ``metaflow``, which is k8sflow in its processes.
        environments: The locked packages of the steps that have an environment of their own, by step.
    """

    flow: str
    run: str
    file: str
    parameters: Mapping[str, ArtifactRef]
    graph: Graph
    pods: Mapping[str, PodOptions] = field(default_factory=dict)
    package: str | None = None
    user: str = ""
    created: float = 0.0
    tags: tuple[str, ...] = ()
    decorators: tuple[str, ...] = ()
    origin_run_id: str | None = None
    flow_decorators: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    policies: Mapping[str, StepPolicy] = field(default_factory=dict)
    source: str = ""
    namespace: str = ""
    origin_step: str | None = None
    is_detached: bool = False
    max_num_splits: int = MAX_NUM_SPLITS
    is_traced: bool = False
    modules: tuple[str, ...] | None = None
    code_hashes: Mapping[str, str] = field(default_factory=dict)
    python_version: str = ""
    k8sflow_version: str = ""
    batch: Mapping[str, BatchOptions] = field(default_factory=dict)
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cache: Mapping[str, CachePlan] = field(default_factory=dict)
    as_metaflow: bool = False
    environments: Mapping[str, Lock] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps, in the order of the source."""
        return tuple(self.graph.nodes)

    @property
    def end(self) -> str:
        """The name of the step that ends the run."""
        return next((node.name for node in self.graph.nodes.values() if node.is_end), "end")

    def to_document(self) -> dict[str, Any]:
        """The record as JSON types; the newest fields only where they are used: older versions can read the others."""
        newest = ("is_traced", "batch", "resources", "cache", "as_metaflow", "environments")
        fields = {name: value for name, value in vars(self).items() if name not in newest or value}
        if self.batch:
            fields["batch"] = {step: options.to_document() for step, options in self.batch.items()}
        if self.environments:
            fields["environments"] = to_documents(self.environments)
        if self.cache:
            fields["cache"] = {step: plan.to_document() for step, plan in self.cache.items()}
        return {
            **fields,
            "parameters": {name: ref.to_document() for name, ref in self.parameters.items()},
            "graph": self.graph.to_document(),
            "pods": {step: options.to_document() for step, options in self.pods.items()},
            "policies": {step: policy.to_document() for step, policy in self.policies.items()},
        }

    @staticmethod
    def from_document(document: dict[str, Any]) -> RunRecord:
        """The record in a JSON document."""
        for name, kind in (("flow", str), ("run", str), ("user", str), ("created", int | float)):
            if not isinstance(document.get(name, 0.0 if name == "created" else ""), kind):
                raise TypeError(f"{name} is {document[name]!r}")
        tuples = {
            key: tuple(document[key]) for key in ("tags", "decorators", "modules") if document.get(key) is not None
        }
        typed = {
            "parameters": {name: ArtifactRef.from_document(ref) for name, ref in document["parameters"].items()},
            "graph": Graph.from_document(document["flow"], document["graph"]),
            "pods": {step: PodOptions.from_document(found) for step, found in document.get("pods", {}).items()},
            "policies": {step: StepPolicy.from_document(found) for step, found in document.get("policies", {}).items()},
            "environments": from_documents(document.get("environments", {})),
            "batch": {step: BatchOptions.from_document(found) for step, found in document.get("batch", {}).items()},
            "cache": {step: CachePlan.from_document(found) for step, found in document.get("cache", {}).items()},
        }
        return RunRecord(**{**document, **tuples, **typed})


@dataclass(frozen=True)
class CancelRequest:
    """Someone's request to cancel a run that another process may drive.

    Args:
        user: Who asked.
        host: On which machine.
        requested: The time, in seconds since 1970.
    """

    user: str
    host: str
    requested: float

    @property
    def summary(self) -> str:
        """The user and the machine, for people."""
        return f"cancelled by {self.user} on {self.host}"

    @staticmethod
    def from_document(document: dict[str, Any]) -> CancelRequest:
        """The request that was written as JSON."""
        return CancelRequest(**document)


@dataclass(frozen=True)
class OutcomeRecord:
    """The outcome of an attempt of a task, or of a whole run.

    Args:
        outcome: The outcome.
        finished: The time of the end, in seconds since 1970.
        summary: What happened.
        detail: The evidence, for example the traceback.
        resolution: What to do.
        error_type: The class of an exception in the user's code: ``builtins.ValueError``.
        is_final: Whether another execution would fail in the same way, although the infrastructure is to blame.
        memory: The memory that it requested, where earlier attempts ran out of memory; empty for that of its step.
        usage: The resources that the tasks of a run used; None in the outcome of an attempt.
    """

    outcome: Outcome
    finished: float
    summary: str = ""
    detail: str = ""
    resolution: str = ""
    error_type: str = ""
    is_final: bool = False
    memory: str = ""
    usage: Usage | None = None

    def to_document(self) -> dict[str, Any]:
        """The record as JSON types; the last three fields only where they say something."""
        document = asdict(self)
        return {name: value for name, value in document.items() if value or name not in {"is_final", "memory", "usage"}}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> OutcomeRecord:
        """The record in a JSON document."""
        usage = Usage.from_document(document.get("usage"))
        return OutcomeRecord(**{**document, "outcome": Outcome(document["outcome"]), "usage": usage})


def new_run_id(now: float | None = None) -> str:
    """An id that sorts by time: ``20260301-142530-482913``, to the microsecond in UTC."""
    moment = datetime.now(timezone.utc) if now is None else datetime.fromtimestamp(now, timezone.utc)
    return moment.strftime(_RUN_ID)


def started_at(run_id: str) -> datetime:
    """The time in an id.

    Raises:
        ValueError: The id is a name chosen by the user.
    """
    return datetime.strptime(run_id, _RUN_ID).replace(tzinfo=timezone.utc)


def python_version() -> str:
    """The version of this Python, as ``3.11.7``."""
    return ".".join(map(str, sys.version_info[:3]))


def dump(document: Mapping[str, Any]) -> bytes:
    """A record as it is stored, with the version of its format."""
    return to_bytes({"format": FORMAT, **document})


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as it is stored."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
