"""The runs among which a command looks, and what a person selects of them: ``train/3``, ``BigSum/my-run/train/3.1``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from k8sflow import config, debug_log
from k8sflow.errors import NotFoundError
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.request import code_folder, local_roots
from k8sflow.storage.objects import ObjectStore

if TYPE_CHECKING:
    from k8sflow.client import Flow, Run, Step, Task
    from k8sflow.runtime.lookup import RunReference
    from k8sflow.storage.run_store import RunStore


@dataclass(frozen=True)
class Selection:
    """A run, or a part of it.

    Args:
        run: The run.
        step: The step, where one is selected.
        task: The task, where one is selected.
        artifact: The name of an artifact, where one is selected.
    """

    run: Run
    step: Step | None = None
    task: Task | None = None
    artifact: str | None = None

    @staticmethod
    def of(reference: RunReference) -> Selection:
        """The selection that a reference names.

        Raises:
            NotFoundError: The run has no such step, or the step no such task.
        """
        from k8sflow.client import Run  # noqa: PLC0415  --help reads no runs

        run = Run(reference.run)
        step = run[reference.step] if reference.step is not None else None
        task = step[reference.task] if step is not None and reference.task is not None else None
        return Selection(run, step, task, reference.artifact)

    @property
    def pathspec(self) -> str:
        """``flow/run/step/task``, as far as it goes."""
        return (self.task or self.step or self.run).pathspec

    def tasks(self) -> Iterator[Task]:
        """All the selected tasks, in the order of the source and of the foreach branches."""
        if self.task is not None:
            yield self.task
        else:
            for step in [self.step] if self.step is not None else self._steps():
                yield from reversed(list(step))

    def names_below(self) -> list[str]:
        """The names of the steps that have started, or of a step's tasks, in the same order."""
        if self.step is None:
            return [step.id for step in self._steps()]
        return [task.id for task in self.tasks()]

    def _steps(self) -> list[Step]:
        return self.run.started_steps(self.run.record.steps)


@dataclass(frozen=True)
class Scope:
    """The runs among which commands look.

    Args:
        flow: The flow whose file was called; None where names begin with the name of a flow.
        stores: Opens the stores with the runs.
    """

    flow: str | None
    stores: Callable[[], list[ObjectStore]]

    @staticmethod
    def of_flow(flow: type[FlowSpec]) -> Scope:
        """The runs of one flow: where ``python flow.py run`` puts them, or older versions did."""

        def stores() -> list[ObjectStore]:
            from k8sflow.client.stores import known_stores  # noqa: PLC0415  --help reads no runs

            settings = debug_log.configure(config.load(code_folder(flow)))
            return known_stores(settings, local_roots(flow, settings))

        return Scope(flow.__name__, stores)

    @staticmethod
    def everywhere() -> Scope:
        """The runs of all flows that can be seen from the working folder."""

        def stores() -> list[ObjectStore]:
            from k8sflow.client.stores import known_stores  # noqa: PLC0415  as above

            return known_stores(debug_log.configure(config.load_here()))

        return Scope(None, stores)

    def flows(self) -> list[str]:
        """The names of the flows that have runs."""
        from k8sflow.runtime.lookup import flow_names  # noqa: PLC0415  as above

        return flow_names(self.stores())

    def folders_of(self, flow: str | None) -> list[tuple[ObjectStore, str]]:
        """The stores that have objects of a flow, also after its last run was deleted, or of any that may be one.

        Args:
            flow: The flow; None for all.

        Raises:
            NotFoundError: There is no such flow.
        """
        from k8sflow.storage.layout import may_be_flow  # noqa: PLC0415  as above

        found = [(store, name) for store in self.stores() for name in store.list_folders("") if may_be_flow(name)]
        if flow is not None:
            found = [each for each in found if each[1] == flow]
            if not found:
                self.runs_of(flow)  # which says what there is instead
        return found

    @staticmethod
    def flow_argument() -> click.Argument:
        """The argument of a command for one flow or all; an empty text is refused, as of a variable that isn't set."""

        def given(context: click.Context, argument: click.Parameter, value: str | None) -> str | None:
            if value is not None and not value.strip():
                raise click.BadParameter("it is empty. Without it, all flows are meant.", context, argument)
            return value

        return click.Argument(["flow"], required=False, callback=given)

    def runs_of(self, flow: str, *, everyone: bool = True) -> Flow:
        """The runs of a flow; without ``everyone`` those of the namespace.

        Raises:
            NotFoundError: There is none.
        """
        from k8sflow.client import Flow  # noqa: PLC0415  as above

        return Flow(flow, stores=self.stores(), everyone=everyone)

    def select(self, text: str | None) -> Selection:
        """The selection for a pathspec that a user typed; without a run, it is part of the latest one.

        Raises:
            NotFoundError: It doesn't exist; the error lists what does.
        """
        words = (text or "").strip("/")
        name, rest = (
            (self.flow, words) if self.flow is not None else words.split("/", 1) if "/" in words else (words, "")
        )
        if not name:
            raise NotFoundError("no run was named.", advice="Name one, as flow/run, or a flow for its latest run.")
        flow = self.runs_of(name)
        return Selection.of(flow.lookup.resolve(rest, lambda: self._latest(flow)))

    def run(self, text: str | None) -> Run:
        """The run that a person names, or the latest one.

        Raises:
            NotFoundError: There is none, or a part of a run was named.
        """
        from k8sflow.client import Run  # noqa: PLC0415  as above

        if self.flow is not None and (text or "").strip("/") not in {"", self.flow}:
            return Run(self.runs_of(self.flow).lookup.named(str(text)))
        selection = self.select(text)
        if selection.step is not None:
            raise NotFoundError(
                f"{text!r} is not a run, but a part of {selection.run.pathspec}.", advice="Name the run."
            )
        return selection.run

    def _latest(self, flow: Flow) -> RunStore:
        """The latest run in the namespace.

        Raises:
            NamespaceMismatchError: The namespace has none.
        """
        run = next((run for run in flow if run.is_in_namespace()), None)
        return (run or next(iter(self.runs_of(flow.id, everyone=False)))).run_store
