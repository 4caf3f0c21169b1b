"""``run_step``: one step in this process, with the inputs that a test gives it."""

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
from k8sflow.task.inside.runner import TaskRunner
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from k8sflow.testing.runs import compiled, new_run, raised_by_user

_Stack = Sequence[tuple[int, int, Any]]


@dataclass(frozen=True, repr=False, eq=False)
class StepResult:
    """The result of a step; each artifact is an attribute too, where no field of this class has its name.

    Args:
        step: The step.
        artifacts: The artifacts that the next step would see, by name: those that it was given among them.
        next: The next steps; of a switch, the one that was chosen.
        foreach: The items of the foreach that it opens, or None.
        input: The item of the foreach branch that it was run in, or None.
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
            raise AttributeError(f"step {self.step} left no artifact {name!r}; its artifacts: {known}.")
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
    """Runs one step in this process, once, inside of its decorators' wrappers, and returns what it left.

    ``@retry``, ``@catch`` and ``@timeout`` do nothing here: an exception of the step is raised as it is. Values go
    through the same pickling as in every run. Nothing is written to disk.

    Args:
        flow: The flow's class.
        step: The step's name.
        artifacts: What earlier steps have left on ``self``, by name, or the result of the step before.
        parameters: The parameters' values; others have their defaults.
        configs: The configs' values by name, as the step reads them; others have their defaults.
        input: For a step in a foreach, its item.
        index: For a step in a foreach, the item's index.
        foreach_stack: For a step in foreaches inside of each other, all of them as ``self.foreach_stack()`` gives
            them: index, number of branches, item, the outermost first. It takes the place of input and index.
        inputs: For a join, what each branch has left: a list in the order of the branches, or a dictionary by step.
        retry_count: What ``current.retry_count`` tells.

    Raises:
        FlowDefinitionError: The flow has mistakes; all of them are reported.
        ParameterError: A parameter or a config is unknown, missing, or its value can't be used.
        RunError: The step can't be run with these arguments.
        BaseException: What the step raises, as it is.
    """
    __tracebackhide__ = True
    with compiled(flow, configs) as definition:
        runner = new_run(definition, parameters or {})
        node = _node(definition.graph, step)
        stack = _stack(definition.graph, node, foreach_stack, input, index)
        before = _Before(runner, node, stack)
        given = before.of_join(inputs, artifacts) if node.is_join else before.of_step(artifacts, inputs)
        width = stack[-1][1] if node.is_parallel else 1
        spec = TaskSpec(flow.__name__, runner.record.run, before.name, retry_count, given, width)
        try:
            runner.execute(spec)
        except BaseException as error:  # noqa: BLE001  the same is raised, and nothing swallowed
            raise raised_by_user(error)  # noqa: B904  as documented
        return _result(runner, before.name, stack[-1][2] if stack else None)


def _node(graph: Graph, step: str) -> Node:
    if step not in graph.nodes:
        raise RunError(
            f"{graph.flow} has no step {step!r}.",
            advice=f"{did_you_mean(str(step), graph.nodes)} Its steps are {', '.join(graph.nodes)}.".strip(),
        )
    return graph[step]


def _stack(graph: Graph, node: Node, given: _Stack | None, item: Any, index: int) -> list[tuple[int, int, Any]]:
    """Index, width and item of each foreach around the step."""
    depth = graph.depth(node.name)
    if given is None:
        if depth == 0 and item is not None:
            raise RunError(f"step {node.name} is in no foreach, so it has no input.", advice="Leave input out.")
        around = [(0, 1, None)] * (depth - 1)
        return [*around, (index, index + 1, item)][:depth] if depth else []
    if len(given) != depth:
        raise RunError(
            f"step {node.name} is in {depth} foreaches, but foreach_stack has {len(given)}.",
            advice="Give (index, number of branches, item) for each, the outermost first.",
        )
    return list(given)


@dataclass(frozen=True)
class _Before:
    """Writes what the tasks before a step have left, as they would have done.

    Args:
        runner: The run.
        node: The step.
        stack: Index, width and item of each foreach around it.
    """

    runner: TaskRunner
    node: Node
    stack: Sequence[tuple[int, int, Any]]

    @property
    def name(self) -> TaskName:
        """The step's task."""
        return TaskName(self.node.name, tuple(index for index, _, _ in self.stack))

    def of_step(self, artifacts: _Given | None, inputs: object) -> tuple[TaskInput, ...]:
        """The task before a step that joins nothing."""
        if inputs is not None:
            raise RunError(f"step {self.node.name} joins nothing, so it takes no inputs.", advice="Give artifacts.")
        parents = [self._graph[parent] for parent in self.node.parents if parent != self.node.name]
        if not parents:
            if artifacts:
                raise RunError(
                    f"step {self.node.name} is where the run begins: no step before it has left artifacts.",
                    advice="Give parameters.",
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

    def of_join(self, inputs: object, artifacts: object) -> tuple[TaskInput, ...]:
        """The tasks before a join, one for each branch."""
        if artifacts:
            raise RunError(
                f"step {self.node.name} is a join, which takes over nothing by itself.",
                advice="Give inputs: what each branch has left.",
            )
        split, frames = self._graph[str(self.node.joins)], self._frames()
        branches = list(self._branches(inputs))
        # Where a branch goes from the split straight to the join, the split itself is its last task.
        self._commit(TaskName(split.name, self.name.path), dict(branches).get(split.name, {}), frames)
        given = []
        for number, (step, left) in enumerate(branches):
            around, path = frames, self.name.path
            if split.is_wide:
                item = self._store.save([left.input if isinstance(left, StepResult) else None], "input")
                around = (*frames, ForeachFrame(split.name, number, len(branches), item, 0))
                path = (*path, number)
            if step != split.name:
                self._commit(TaskName(step, path), left, around)
            given.append(TaskInput(step, path))
        return tuple(given)

    def _branches(self, inputs: Any) -> Sequence[tuple[str, _Given]]:
        """The step with which each branch has ended, and what it has left."""
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
                f"step {self.node.name} is a join of {', '.join(parents)}: it needs inputs.",
                advice="Give a list of what the branches have left: inputs=[{...}, {...}].",
            )
        left = list(inputs)
        is_wide = self._graph[str(self.node.joins)].is_wide
        if not is_wide and len(left) != len(parents):
            raise RunError(
                f"step {self.node.name} joins {', '.join(parents)}, but there are {len(left)} inputs.",
                advice="Give them by step: inputs={'a': {...}, 'b': {...}}.",
            )
        steps = [parents[0]] * len(left) if is_wide else parents
        return [
            (found.step if isinstance(found, StepResult) and found.step in parents else step, found)
            for step, found in zip(steps, left, strict=True)
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
        self, name: TaskName, left: _Given, stack: tuple[ForeachFrame, ...], items: ForeachItems | None = None
    ) -> None:
        values = left.artifacts if isinstance(left, StepResult) else left
        refs = {key: self._store.save(value, key) for key, value in values.items()}
        self.runner.run_store.commit(name.step, name.id, Commit(0, (self.node.name,), refs, stack, items))


def _result(runner: TaskRunner, name: TaskName, item: Any) -> StepResult:
    commit = runner.run_store.read_commit(name.step, name.id)
    assert commit is not None
    store = ArtifactStore(runner.store, runner.record.flow)
    refs = Tables(runner.run_store).table(str(name), commit).refs()
    artifacts = {key: store.load(ref, key) for key, ref in refs.items()}
    items = None
    if commit.foreach is not None:
        items = [found for _, chunk in commit.foreach.chunks for found in store.load(chunk, "foreach")]
    return StepResult(name.step, artifacts, commit.steps, items, item)
