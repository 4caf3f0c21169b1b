"""What the records of a run say: what was asked for, what each task left, how each execution ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.foreach import MAX_NUM_SPLITS
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactRef

FORMAT = 1
# Of a commit with layers, in which a reader that doesn't know of them would miss what the task inherited.
LAYERED_FORMAT = 2
_RUN_ID = "%Y%m%d-%H%M%S-%f"


@dataclass(frozen=True)
class ForeachFrame:
    """One foreach branch around a task.

    Args:
        step: The step that opened the foreach.
        index: Which of its branches this is.
        width: How many there are.
        chunk: A list of consecutive items, one of which is this branch's.
        offset: The item's place in the chunk.
    """

    step: str
    index: int
    width: int
    chunk: ArtifactRef
    offset: int


@dataclass(frozen=True)
class ForeachItems:
    """The items of a foreach, frozen: lists of consecutive items, each an artifact of its own.

    Args:
        width: How many items there are.
        chunks: The index of each chunk's first item, and the chunk.
        max_parallel: How many of the branches may be under way at a time; None for any number.
    """

    width: int
    chunks: tuple[tuple[int, ArtifactRef], ...]
    max_parallel: int | None = None


@dataclass(frozen=True)
class Commit:
    """What a task left: written once, by whichever execution comes first.

    Args:
        attempt: The execution that wrote it.
        steps: The next steps.
        artifacts: The artifacts that the commit holds itself, by name; those of its layers there are too (``Tables``).
        stack: The foreach branches around the task, the outermost first.
        foreach: The items of the foreach that it opens.
        started: When the step's function was called, in seconds since 1970.
        finished: When it returned.
        origin: The run in which the task ran, where this commit was taken over by another one that resumes it.
        is_caught: Whether the step failed, and ``@catch`` let the run go on.
        layers: Tasks of the run, as ``step/id``, whose own artifacts are there too (``storage/layers.py``).
        without: The names of those that are not there, although a layer has them.
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

    def to_document(self) -> dict[str, Any]:
        """The commit as JSON types, with the version of its format."""
        document = {
            "format": LAYERED_FORMAT if self.layers else FORMAT,
            "attempt": self.attempt,
            "steps": self.steps,
            "artifacts": {name: ref.to_document() for name, ref in self.artifacts.items()},
            "stack": [{**vars(frame), "chunk": frame.chunk.to_document()} for frame in self.stack],
            "foreach": None if self.foreach is None else {
                "width": self.foreach.width,
                "chunks": [(first, ref.to_document()) for first, ref in self.foreach.chunks],
                "max_parallel": self.foreach.max_parallel,
            },
            "started": self.started,
            "finished": self.finished,
        }  # fmt: skip
        optional = {
            "origin": self.origin, "layers": self.layers, "without": self.without, "is_caught": self.is_caught,
        }  # fmt: skip
        return {**document, **{name: value for name, value in optional.items() if value}}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Commit:
        """The commit that a JSON document says."""
        foreach = document["foreach"]
        return Commit(
            attempt=document["attempt"],
            steps=tuple(document["steps"]),
            artifacts={name: ArtifactRef.from_document(ref) for name, ref in document["artifacts"].items()},
            stack=tuple(
                ForeachFrame(**{**frame, "chunk": ArtifactRef.from_document(frame["chunk"])})
                for frame in document["stack"]
            ),
            foreach=None if foreach is None else ForeachItems(
                foreach["width"],
                tuple((first, ArtifactRef.from_document(ref)) for first, ref in foreach["chunks"]),
                foreach["max_parallel"],
            ),
            started=document["started"],
            finished=document["finished"],
            origin=document.get("origin"),
            is_caught=document.get("is_caught", False),
            layers=tuple(document.get("layers", ())),
            without=tuple(document.get("without", ())),
        )  # fmt: skip


@dataclass(frozen=True)
class KeptRecord:
    """What a failed execution had set, kept for ``@catch``.

    Args:
        artifacts: The artifacts that the record holds itself, by name.
        started: When the step's function was called, in seconds since 1970.
        layers: Tasks of the run whose artifacts are there too, as in a commit.
        without: The names of those that are not there, although a layer has them.
    """

    artifacts: Mapping[str, ArtifactRef]
    started: float
    layers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> KeptRecord:
        """The record that a JSON document says."""
        artifacts = {name: ArtifactRef.from_document(ref) for name, ref in document["artifacts"].items()}
        return KeptRecord(artifacts, document["started"], tuple(document["layers"]), tuple(document["without"]))


@dataclass(frozen=True)
class RunRecord:
    """What was asked for when a run was started.

    Args:
        flow: The flow's class name.
        run: The run's id.
        file: The flow's file, relative to the code package.
        parameters: The parameters' values and the class's constants, by attribute.
        graph: The steps, in the order of the source.
        pods: The pod options of the steps that run on Kubernetes, by step.
        package: sha256 of the code package, or None for a run on this machine alone.
        user: Who started it.
        created: When, in seconds since 1970.
        tags: Words that the user gave it.
        decorators: What ``--with`` added.
        origin_run_id: The run that this one resumes.
        flow_decorators: What the flow's own decorators say, by name: project, schedule, trigger, …
        policies: Retries, timeout and catch, by step.
        source: The flow's file on the machine where the run was started.
        namespace: The tag by which its tasks look for runs; that of the user where it is empty.
        origin_step: The step from which on everything runs again, where the user of ``resume`` named one.
        is_detached: Whether it was handed to the controller in the cluster, which sees to it that it has a driver.
        max_num_splits: How many branches a foreach may open.
        modules: The modules and packages of the flow's folder; None in a run that was started before they were kept.
        code_hashes: The hashes of the flow's file and of the folder's loaded modules, by file relative to the folder.
        python_version: The version of the Python that started it.
        k8sflow_version: The version of k8sflow that started it.
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
    modules: tuple[str, ...] | None = None
    code_hashes: Mapping[str, str] = field(default_factory=dict)
    python_version: str = ""
    k8sflow_version: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps, in the order of the source."""
        return tuple(self.graph.nodes)

    @property
    def end(self) -> str:
        """The name of the step with which a run has reached its end."""
        return next((node.name for node in self.graph.nodes.values() if node.is_end), "end")

    def to_document(self) -> dict[str, Any]:
        """The record as JSON types."""
        return {
            **vars(self),
            "parameters": {name: asdict(ref) for name, ref in self.parameters.items()},
            "graph": self.graph.to_document(),
            "pods": {step: options.to_document() for step, options in self.pods.items()},
            "policies": {step: policy.to_document() for step, policy in self.policies.items()},
        }

    @staticmethod
    def from_document(document: dict[str, Any]) -> RunRecord:
        """The record that a JSON document says."""
        words = {
            key: tuple(document[key]) for key in ("tags", "decorators", "modules") if document.get(key) is not None
        }
        typed = {
            "parameters": {name: ArtifactRef.from_document(ref) for name, ref in document["parameters"].items()},
            "graph": Graph.from_document(document["flow"], document["graph"]),
            "pods": {step: PodOptions.from_document(found) for step, found in document.get("pods", {}).items()},
            "policies": {step: StepPolicy.from_document(found) for step, found in document.get("policies", {}).items()},
        }
        return RunRecord(**{**document, **words, **typed})


@dataclass(frozen=True)
class OutcomeRecord:
    """How an execution of a task, or a whole run, ended.

    Args:
        outcome: The outcome.
        finished: When, in seconds since 1970.
        summary: What happened.
        detail: The evidence, for example the traceback.
        resolution: What to do.
        error_type: The class of the exception, where it was one of the user's code: ``builtins.ValueError``.
    """

    outcome: Outcome
    finished: float
    summary: str = ""
    detail: str = ""
    resolution: str = ""
    error_type: str = ""

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> OutcomeRecord:
        """The record that a JSON document says."""
        return OutcomeRecord(**{**document, "outcome": Outcome(document["outcome"])})


def new_run_id(now: float | None = None) -> str:
    """An id that sorts by time: ``20260301-142530-482913``, to the microsecond in UTC."""
    moment = datetime.now(timezone.utc) if now is None else datetime.fromtimestamp(now, timezone.utc)
    return moment.strftime(_RUN_ID)


def started_at(run_id: str) -> datetime:
    """The time that an id was made from.

    Raises:
        ValueError: It was not made from a time.
    """
    return datetime.strptime(run_id, _RUN_ID).replace(tzinfo=timezone.utc)


def python_version() -> str:
    """The version of this Python, as ``3.11.7``."""
    return ".".join(map(str, sys.version_info[:3]))


def dump(document: Mapping[str, Any]) -> bytes:
    """A record as it lies in the store, with the version of its format."""
    return to_bytes({"format": FORMAT, **document})


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as it lies in the store."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
