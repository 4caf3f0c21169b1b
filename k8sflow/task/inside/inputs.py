"""The inputs of a join: the branches' artifacts, read when they are touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k8sflow.errors import ArtifactError, MissingArtifactError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.missing_artifact import explain
from k8sflow.flow.spec import CONTEXT, FlowSpec, NextCall
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.records import Commit
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.tables import Table, Tables
from k8sflow.task.inherited import end_of_branch
from k8sflow.task.spec import TaskInput, TaskName

# So many branches are kept, with the values that were read of them.
_WINDOW = 256
# Of how each branch ended as much as fits is kept, for a join that goes over its inputs again.
_KEPT_BYTES = 32 << 20
_COMMIT_BYTES, _REFERENCE_BYTES = 2000, 500


class Branch:
    """One branch's last task, as a join sees it: its artifacts are attributes, under any name that a user may choose.

    The methods and properties of the flow are there as well, on the branch's artifacts.

    Args:
        name: The task.
        commit: How it ended.
        tables: What the run's tasks left.
        run_values: The run's parameters and constants.
        artifacts: Where values are.
        definition: The flow.
    """

    def __init__(
        self,
        name: TaskName,
        commit: Commit,
        tables: Tables,
        run_values: dict[str, ArtifactRef],
        artifacts: ArtifactStore,
        definition: FlowDefinition,
    ) -> None:
        self._k8sflow_name = name
        self._k8sflow_commit = commit
        self._k8sflow_tables = tables
        self._k8sflow_run_values = run_values
        self._k8sflow_artifacts = artifacts
        self._k8sflow_definition = definition

    @property
    def index(self) -> int | None:
        """The branch's index in its foreach, or None after a static branch outside of any."""
        stack = self._k8sflow_commit.stack
        return stack[-1].index if stack else None

    @property
    def input(self) -> Any:
        """The branch's item of its foreach."""
        stack = self._k8sflow_commit.stack
        if not stack:
            return None
        return self._k8sflow_artifacts.load(stack[-1].chunk, "foreach item")[stack[-1].offset]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        is_left = name in self._k8sflow_run_values or table_of(self).get(name) is not None
        if not is_left and any(name in vars(base) for base in self._k8sflow_definition.flow.__mro__):
            return getattr(_as_flow(self), name)
        value = self._k8sflow_load(name)
        self.__dict__[name] = value
        return value

    def _k8sflow_load(self, name: str) -> Any:
        """The value of an artifact, and of nothing else."""
        ref = self._k8sflow_run_values.get(name) or table_of(self).get(name)
        if ref is None:
            known = ", ".join(sorted(table_of(self).refs())) or "nothing"
            what = f"the branch {self._k8sflow_name} left no artifact {name!r}. It left {known}."
            step = self._k8sflow_name.step
            raise MissingArtifactError(what, explain=lambda: explain(self._k8sflow_definition, step, name))
        return self._k8sflow_artifacts.load(ref, name)

    def __repr__(self) -> str:
        return f"<input {self._k8sflow_name}>"


class _Left:
    """The context behind ``self`` in a method of the flow where a join calls it on one of its inputs.

    Args:
        branch: The input.
    """

    def __init__(self, branch: Branch) -> None:
        self._branch = branch

    def load(self, name: str) -> Any:
        """The value of an artifact of the branch."""
        return self._branch._k8sflow_load(name)  # noqa: SLF001  as below

    def forget(self, name: str) -> bool:  # noqa: ARG002  the protocol's name
        """Nothing can be dropped: the branch has ended."""
        return False

    def next(self, flow: FlowSpec, call: NextCall) -> None:  # noqa: ARG002  as above
        """Refuses: the branch has ended."""
        raise RuntimeError(f"{self._branch!r} has ended: it can't go on from a join.")

    @property
    def index(self) -> int | None:
        """The branch's index in its foreach."""
        return self._branch.index

    @property
    def input(self) -> Any:
        """The branch's item of its foreach."""
        return self._branch.input

    def foreach_stack(self) -> list[tuple[int, int, Any]]:
        stack, artifacts = self._branch._k8sflow_commit.stack, self._branch._k8sflow_artifacts  # noqa: SLF001  as below
        return [(f.index, f.width, artifacts.load(f.chunk, "foreach item")[f.offset]) for f in stack]

    def merge_artifacts(
        self,
        flow: FlowSpec,  # noqa: ARG002  as above
        inputs: Any,  # noqa: ARG002
        exclude: list[str],  # noqa: ARG002
        include: list[str],  # noqa: ARG002
    ) -> None:
        raise RuntimeError(f"{self._branch!r} has ended: call self.merge_artifacts(inputs).")

    def has_parameter(self, name: str) -> bool:
        return name in self._branch._k8sflow_definition.parameters  # noqa: SLF001  as below

    def fixed(self, name: str) -> str:
        """The kind of an attribute that no step can set, in words; empty for all others."""
        return self._branch._k8sflow_definition.fixed(name)  # noqa: SLF001  as below


def _as_flow(branch: Branch) -> FlowSpec:
    """The flow's object as it was when the branch ended."""
    kind = branch._k8sflow_definition.flow  # noqa: SLF001  as below
    flow = kind.__new__(kind)
    flow.__dict__[CONTEXT] = _Left(branch)
    return flow


def table_of(branch: Branch) -> Table:
    """All that a branch left."""
    tables, name = branch._k8sflow_tables, branch._k8sflow_name  # noqa: SLF001  every public name is the user's
    return tables.table(str(name), branch._k8sflow_commit)  # noqa: SLF001  as above


class Inputs:
    """The branches that a join joins, in the order of the foreach or of the names in ``self.next()``.

    Args:
        parents: The ranges of tasks that end the branches.
        run_store: Where their commits are.
        run_values: The run's parameters and constants.
        artifacts: Where values are.
        definition: The flow.
        join: The join's step.
    """

    def __init__(
        self,
        parents: tuple[TaskInput, ...],
        run_store: RunStore,
        run_values: dict[str, ArtifactRef],
        artifacts: ArtifactStore,
        definition: FlowDefinition,
        join: str,
    ) -> None:
        self._parents = parents
        self._run_store = run_store
        self._run_values = run_values
        self._artifacts = artifacts
        self._definition = definition
        self._ends = definition.graph[join].parents
        self._tables = Tables(run_store)
        self._cache: dict[int, Branch] = {}
        self._commits: dict[TaskName, Commit] = {}
        self._attempts: dict[tuple[int, ...], tuple[TaskName, int]] = {}
        self._room = _KEPT_BYTES

    def __len__(self) -> int:
        return sum(map(len, self._parents))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if position not in self._cache:
            if len(self._cache) >= _WINDOW:
                self._cache.clear()
            self._cache[position] = self._read(position)
        return self._cache[position]

    def __iter__(self) -> Iterator[Branch]:
        parallel = self._run_store.store.parallel_reads
        if parallel == 1 or len(self) == 1:
            yield from map(self.__getitem__, range(len(self)))
            return
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it brings logging, whose end each task waits for

        with ThreadPoolExecutor(parallel) as pool:
            for start in range(0, len(self), _WINDOW):
                yield from pool.map(self._read, range(start, min(start + _WINDOW, len(self))))

    def __getattr__(self, step: str) -> Branch:
        if step.startswith("_"):
            raise AttributeError(step)
        position = 0
        for parent in self._parents:
            if parent.until:
                for branch in self:
                    if branch._k8sflow_name.step == step:  # noqa: SLF001  every public name is the user's
                        return branch
            elif parent.step == step and len(parent):
                branch = self[position]
                assert isinstance(branch, Branch)
                return branch
            position += len(parent)
        if step in self._ends:
            raise AttributeError(
                f"inputs has no branch {step!r} this time: a switch took another way, or no branch ran."
            )
        raise AttributeError(f"inputs has no branch {step!r}: the joined steps are {', '.join(self._ends)}.")

    def _read(self, position: int) -> Branch:
        for parent in self._parents:
            if 0 <= position < len(parent):
                name = parent[position]
                commit = self._commit(name)
                if parent.until:
                    name, commit = end_of_branch(self._definition.graph, name, commit, parent.until, self._commit)
                return Branch(name, commit, self._tables, self._run_values, self._artifacts, self._definition)
            position -= len(parent)
        raise IndexError(f"inputs has {len(self)} branches.")

    def _commit(self, name: TaskName) -> Commit:
        if name in self._commits:
            return self._commits[name]
        commit = self._run_store.read_commit(name.step, name.id, is_written=True)
        if commit is None:
            raise ArtifactError(
                f"the task {name} has no result in {self._run_store.store.url}.",
                cause="It was removed since it finished.",
            )
        if self._definition.graph[name.step].is_parallel:
            self._refuse_mixture(name, commit)
        size = _COMMIT_BYTES + sum(_REFERENCE_BYTES + len(ref.inline or "") for ref in commit.artifacts.values())
        if size <= self._room:
            self._room -= size
            self._commits[name] = commit
        return commit

    def _refuse_mixture(self, name: TaskName, commit: Commit) -> None:
        """Refuses results of different executions of tasks that have to run together."""
        first, attempt = self._attempts.setdefault(name.path[:-1], (name, commit.attempt))
        if commit.attempt != attempt:
            raise ArtifactError(
                f"the results of {first} and {name} are of different executions: attempts {attempt} and "
                f"{commit.attempt}.",
                cause="These tasks run together and are retried as one, but one of an earlier execution was late.",
                advice=f"Run the step {name.step} again: resume {name.step}",
            )
