"""``run_step``: runs one step in this process, on inputs that a test provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8sflow.errors import RunError
from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.problems import did_you_mean
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.records import Commit, ForeachFrame, ForeachItems
from k8sflow.storage.tables import Tables
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from k8sflow.testing.memory_run import compiled, new_run, raised_by_user

_Stack = Sequence[tuple[int, int, Any]]


@dataclass(frozen=True, repr=False, eq=False)
class StepResult:
    """The result of a step; each artifact is also an attribute, unless a field of this class has its name.

    Args:
        step: The step.
        artifacts: The artifacts that the next step would see, by name, including the ones passed in.
        next: The next steps; for a switch, the chosen one.
        foreach: The items of the foreach that the step opens, or None.
        input: The item of the foreach branch in which the step ran, or None.
    """

    step: str
    artifacts: dict[str, Any]
    next: tuple[str, ...]
    foreach: list[Any] | None = None
    input: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "artifacts":
            raise AttributeError(name)
        if name not in self.artifacts:
            known = ", ".join(self.artifacts) or "none"
            raise AttributeError(f"step {self.step} has no artifact {name!r}; its artifacts: {known}.")
        return self.artifacts[name]

    def __repr__(self) -> str:
        return f"<{self.step} -> {', '.join(self.next) or 'the end'}: {', '.join(self.artifacts) or 'no artifacts'}>"


_Given = Mapping[str, Any] | StepResult


def run_step(
    flow: type[FlowSpec],
    step: str,
    *,
    artifacts: _Given | None = None,
    parameters: Mapping[str, Any] | None = None,
    configs: Mapping[str, Any] | None = None,
    input: Any = None,  # noqa: A002  the name that it has in a step
    index: int = 0,
    foreach_stack: _Stack | None = None,
    inputs: Sequence[_Given] | Mapping[str, _Given] | None = None,
    retry_count: int = 0,
) -> StepResult:
    """Runs one step in this process, once, inside its decorators' wrappers, and returns its result.

    ``@retry``, ``@catch`` and ``@timeout`` do nothing here: an exception in the step is raised unchanged. Values are
    pickled as in every run. Nothing is written to disk.

    Args:
        flow: The flow's class.
        step: The step's name.
        artifacts: Artifacts that earlier steps set on ``self``, by name, or the result of the step before.
        parameters: Values of parameters; the others have their defaults.
        configs: Values of configs by name, as the step reads them; the others have their defaults.
        input: The item, for a step in a foreach.
        index: The item's index, for a step in a foreach.
        foreach_stack: All foreaches around the step, for nested ones, as ``self.foreach_stack()`` returns them: index,
            number of branches, item, the outermost first. Replaces ``input`` and ``index``.
        inputs: The results of the branches, for a join: a list in the order of the branches, or a dictionary by step.
        retry_count: The value of ``current.retry_count``.

    Raises:
        FlowDefinitionError: The flow has mistakes; the error lists all of them.
        ParameterError: A parameter or a config is unknown or missing, or its value can't be used.
        RunError: The step can't run on these inputs.
        BaseException: The step's own exception, unchanged.
    """
    __tracebackhide__ = True
    with compiled(flow, configs) as definition:
        runner = new_run(definition, parameters or {})
        node = _node(definition.graph, step)
        before = _Before(runner, node, _stack(definition.graph, node, foreach_stack, input, index))
        spec = before.task(artifacts, inputs, retry_count)
        try:
            runner.execute(spec)
        except BaseException as error:  # noqa: BLE001  raised again, only with a shorter traceback
            raise raised_by_user(error)  # noqa: B904  it is the same exception
        return _result(runner, before)


def _node(graph: Graph, step: str) -> Node:
    if step not in graph.nodes:
        raise RunError(
            f"{graph.flow} has no step {step!r}.",
            advice=f"{did_you_mean(str(step), graph.nodes)} Its steps are {', '.join(graph.nodes)}.".strip(),
        )
    return graph[step]


def _stack(graph: Graph, node: Node, given: _Stack | None, item: Any, index: int) -> list[tuple[int, int, Any]]:
    """The index, width and item of each foreach around the step."""
    depth = graph.depth(node.name)
    if given is None:
        if depth == 0 and item is not None:
            raise RunError(f"step {node.name} is not in a foreach, so it has no input.", advice="Omit input.")
        around = [(0, 1, None)] * (depth - 1)
        return [*around, (index, index + 1, item)][:depth] if depth else []
    if len(given) != depth:
        raise RunError(
            f"step {node.name} is in {depth} foreaches, but foreach_stack has {len(given)}.",
            advice="Pass (index, number of branches, item) for each, the outermost first.",
        )
    return list(given)


@dataclass(frozen=True)
class _Before:
    """Writes the results of the tasks before a step, as these tasks would have written them.

    Args:
        runner: The run.
        node: The step.
        stack: The index, width and item of each foreach around it.
    """

    runner: TaskRunner
    node: Node
    stack: Sequence[tuple[int, int, Any]]

    @property
    def name(self) -> TaskName:
        """The step's task."""
        return TaskName(self.node.name, tuple(index for index, _, _ in self.stack))

    def task(self, artifacts: _Given | None, inputs: object, attempt: int) -> TaskSpec:
        """The step's task, with its inputs written."""
        found = self._inputs_of_join(inputs, artifacts) if self.node.is_join else self._input(artifacts, inputs)
        width = self.stack[-1][1] if self.node.is_parallel else 1
        return TaskSpec(self.runner.record.flow, self.runner.record.run, self.name, attempt, found, width)

    def _input(self, artifacts: _Given | None, inputs: object) -> tuple[TaskInput, ...]:
        """The task before a step that is not a join."""
        if inputs is not None:
            raise RunError(f"step {self.node.name} is not a join, so it takes no inputs.", advice="Pass artifacts.")
        parents = [self._graph[parent] for parent in self.node.parents if parent != self.node.name]
        if not parents:
            if artifacts:
                raise RunError(
                    f"step {self.node.name} is the first step of the flow: no earlier step has set artifacts.",
                    advice="Pass parameters.",
                )
            return ()
        parent = parents[0]
        depth = self._graph.depth(parent.name)
        items = None
        if parent.is_wide:
            index, width, item = self.stack[-1]
            items = ForeachItems(width, ((index, self._store.save([item], "input")),))
        name = TaskName(parent.name, self.name.path[:depth])
        self._commit(name, artifacts or {}, self._frames()[:depth], items)
        return (TaskInput(name.step, name.path),)

    def _inputs_of_join(self, inputs: object, artifacts: object) -> tuple[TaskInput, ...]:
        """The tasks before a join, one for each branch."""
        if artifacts:
            raise RunError(
                f"step {self.node.name} is a join, which inherits no artifacts by itself.",
                advice="Pass inputs: the artifacts of each branch.",
            )
        split, frames = self._graph[str(self.node.joins)], self._frames()
        branches = list(self._branches(inputs))
        # If a branch leads from the split straight to the join, the split itself is its last task.
        self._commit(TaskName(split.name, self.name.path), dict(branches).get(split.name, {}), frames)
        given = []
        for number, (step, result) in enumerate(branches):
            around, path = frames, self.name.path
            if split.is_wide:
                item = self._store.save([result.input if isinstance(result, StepResult) else None], "input")
                around = (*frames, ForeachFrame(split.name, number, len(branches), item, 0))
                path = (*path, number)
            if step != split.name:
                self._commit(TaskName(step, path), result, around)
            given.append(TaskInput(step, path))
        return tuple(given)

    def _branches(self, inputs: Any) -> Sequence[tuple[str, _Given]]:
        """The last step of each branch, and its result."""
        parents = self.node.parents
        if isinstance(inputs, Mapping):
            if unknown := [step for step in inputs if step not in parents]:
                raise RunError(
                    f"step {self.node.name} doesn't join {unknown[0]!r}.",
                    advice=f"{did_you_mean(str(unknown[0]), parents)} It joins {', '.join(parents)}.".strip(),
                )
            return [(step, inputs[step]) for step in parents if step in inputs]
        if inputs is None or isinstance(inputs, (str, StepResult)):
            raise RunError(
                f"step {self.node.name} joins {', '.join(parents)}: it needs inputs.",
                advice="Pass a list with the artifacts of each branch: inputs=[{...}, {...}].",
            )
        results = list(inputs)
        is_wide = self._graph[str(self.node.joins)].is_wide
        if not is_wide and len(results) != len(parents):
            raise RunError(
                f"step {self.node.name} joins {', '.join(parents)}, but got {len(results)} inputs.",
                advice="Pass them by step: inputs={'a': {...}, 'b': {...}}.",
            )
        steps = [parents[0]] * len(results) if is_wide else parents
        return [
            (found.step if isinstance(found, StepResult) and found.step in parents else step, found)
            for step, found in zip(steps, results, strict=True)
        ]

    @property
    def _graph(self) -> Graph:
        return self.runner.definition.graph

    @property
    def _store(self) -> ArtifactStore:
        return ArtifactStore(self.runner.store, self.runner.record.flow)

    def _frames(self) -> tuple[ForeachFrame, ...]:
        opened = [split for split in self.node.splits if self._graph[split].is_wide]
        return tuple(
            ForeachFrame(step, index, width, self._store.save([item], "input"), 0)
            for step, (index, width, item) in zip(opened, self.stack, strict=True)
        )

    def _commit(
        self, name: TaskName, result: _Given, stack: tuple[ForeachFrame, ...], items: ForeachItems | None = None
    ) -> None:
        values = result.artifacts if isinstance(result, StepResult) else result
        refs = {key: self._store.save(value, key) for key, value in values.items()}
        self.runner.run_store.commit(name.step, name.id, Commit(0, (self.node.name,), refs, stack, items))


def _result(runner: TaskRunner, before: _Before) -> StepResult:
    name, item = before.name, before.stack[-1][2] if before.stack else None
    commit = runner.run_store.read_commit(name.step, name.id)
    assert commit is not None
    store = ArtifactStore(runner.store, runner.record.flow)
    refs = Tables(runner.run_store).table(str(name), commit).refs()
    artifacts = {key: store.load(ref, key) for key, ref in refs.items()}
    items = None
    if commit.foreach is not None:
        items = [found for _, chunk in commit.foreach.chunks for found in store.load(chunk, "foreach")]
    return StepResult(name.step, artifacts, commit.steps, items, item)
