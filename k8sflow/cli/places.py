"""What a person means by ``train/3``, ``20260301-142530-482913/train`` or ``BigSum/my-run/train/3.1``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k8sflow import config, debug_log
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.request import code_folder, local_roots
from k8sflow.storage.objects import ObjectStore

if TYPE_CHECKING:
    from k8sflow.client import Flow, Run, Step, Task


@dataclass(frozen=True)
class Place:
    """A run, or a part of it.

    Args:
        run: The run.
        step: The step, where one is meant.
        task: The task, where one is meant.
        artifact: The name of an artifact, where one is meant.
    """

    run: Run
    step: Step | None = None
    task: Task | None = None
    artifact: str | None = None

    @property
    def pathspec(self) -> str:
        """``flow/run/step/task``, as far as it goes."""
        return (self.task or self.step or self.run).pathspec

    def tasks(self) -> Iterator[Task]:
        """All the tasks that are meant, in the order of the source and of the foreach branches."""
        if self.task is not None:
            yield self.task
        else:
            for step in [self.step] if self.step is not None else self._steps():
                yield from reversed(list(step))

    def names_below(self) -> list[str]:
        """The names of the steps that have begun, or of a step's tasks, in the same order."""
        if self.step is None:
            return [step.id for step in self._steps()]
        return [task.id for task in self.tasks()]

    def _steps(self) -> list[Step]:
        return self.run.started_steps(self.run.record.steps)


@dataclass(frozen=True)
class Reach:
    """The runs among which commands look.

    Args:
        flow: The flow whose file was called; None where places begin with the name of a flow.
        stores: Opens the stores with the runs.
    """

    flow: str | None
    stores: Callable[[], list[ObjectStore]]

    @staticmethod
    def of_flow(flow: type[FlowSpec]) -> Reach:
        """The runs of one flow: where ``python flow.py run`` puts them, or older versions did."""

        def stores() -> list[ObjectStore]:
            from k8sflow.client.stores import known_stores  # noqa: PLC0415  --help reads no runs

            settings = debug_log.configure(config.load(code_folder(flow)))
            return known_stores(settings, local_roots(flow, settings))

        return Reach(flow.__name__, stores)

    @staticmethod
    def everywhere() -> Reach:
        """The runs of all flows that can be seen from the working folder."""

        def stores() -> list[ObjectStore]:
            from k8sflow.client.stores import known_stores  # noqa: PLC0415  as above

            return known_stores(debug_log.configure(config.load_here()))

        return Reach(None, stores)

    def flows(self) -> list[str]:
        """The names of the flows that have runs."""
        from k8sflow.client.flow import flow_names  # noqa: PLC0415  as above

        return flow_names(self.stores())

    def runs_of(self, flow: str, *, everyone: bool = True) -> Flow:
        """The runs of a flow; without ``everyone`` those of the namespace.

        Raises:
            NotFoundError: There is none.
        """
        from k8sflow.client import Flow  # noqa: PLC0415  as above

        return Flow(flow, stores=self.stores(), everyone=everyone)

    def place(self, text: str | None) -> Place:
        """What a person means; where no run is named, the latest one.

        Raises:
            NotFoundError: There is no such thing; told with what there is.
        """
        from k8sflow.client import NotFoundError  # noqa: PLC0415  as above

        parts = [part for part in (text or "").split("/") if part]
        name = self.flow
        if name is None:
            if not parts:
                raise NotFoundError("no run was named.", advice="Name one, as flow/run, or a flow for its latest run.")
            name = parts.pop(0)
        flow = self.runs_of(name)
        if self.flow is not None and parts[:1] == [self.flow] and parts[0] not in flow:
            parts.pop(0)
        run = self._run(flow, parts)
        step = run[parts.pop(0)] if parts else None
        task = step[parts.pop(0)] if parts and step is not None else None
        artifact = parts.pop(0) if parts and task is not None else None
        if parts:
            raise NotFoundError(f"{text!r} has too many parts.", advice="A place is flow/run/step/task/artifact.")
        return Place(run, step, task, artifact)

    def run(self, text: str | None) -> Run:
        """The run that a person means, or the latest one.

        Raises:
            NotFoundError: There is none, or only a part of a run was meant.
        """
        from k8sflow.client import NotFoundError  # noqa: PLC0415  as above

        name, _, run = (text or "").strip("/").rpartition("/")
        if self.flow is not None and run not in {"", self.flow} and name in {"", self.flow}:
            return self.runs_of(self.flow)[run]
        place = self.place(text)
        if place.step is not None:
            raise NotFoundError(f"{text!r} is no run, but a part of {place.run.pathspec}.", advice="Name the run.")
        return place.run

    def _run(self, flow: Flow, parts: list[str]) -> Run:
        """The run at the head of the parts, which is taken from them; the latest one where there is none."""
        from k8sflow.client import NotFoundError  # noqa: PLC0415  as above
        from k8sflow.client.errors import among  # noqa: PLC0415

        if parts and parts[0] in flow:
            return flow[parts.pop(0)]
        latest = next((run for run in flow if run.is_in_namespace()), None)
        if latest is None:  # which raises
            latest = next(iter(self.runs_of(flow.id, everyone=False)))
        if parts and parts[0] not in latest.record.steps:
            known = [*latest.record.steps, *(run.id for run in flow)]
            raise NotFoundError(
                f"{parts[0]!r} is neither a run of {flow.id} nor a step of its latest run, {latest.id}.",
                advice=among(parts[0], known, "There are"),
            )
        return latest
