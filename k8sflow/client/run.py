"""One run of a flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from k8sflow.client.artifact import TaskData
from k8sflow.client.code import Code
from k8sflow.client.html import run_html
from k8sflow.client.namespaces import get_namespace
from k8sflow.client.step import Step
from k8sflow.client.stores import known_stores
from k8sflow.client.task import Task
from k8sflow.client.tree import FLOWS, RUNS, components, local_time
from k8sflow.errors import NotFoundError, RunError, StorageError, TagError
from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.lookup import Runs, among, split
from k8sflow.storage.records import Commit, OutcomeRecord, RunRecord
from k8sflow.storage.run_index import EndFacts, RunFacts
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.tables import Tables
from k8sflow.storage.tags import checked, system_tags
from k8sflow.storage.usage import Usage, together

if TYPE_CHECKING:
    from k8sflow.client.flow import Flow


class Run:
    """One run of a flow. ``Run("BigSum/20260301-142530-482913")``, or a flow's ``latest_run``.

    Tasks of the command ``spin`` are read in the same way: ``Run("BigSum/spins/20260301-142530-482913")``.

    Args:
        run: The run.
        facts: What a listing of the flow's runs shows of it; None to read its records.

    Raises:
        NotFoundError: There is no such run.
    """

    def __init__(self, run: str | RunStore, facts: RunFacts | None = None) -> None:
        self._facts = facts
        self.run_store = run if isinstance(run, RunStore) else _find(run)
        self.id = self.run_store.run

    @property
    def pathspec(self) -> str:
        """``flow/run``."""
        return self.run_store.pathspec

    @property
    def path_components(self) -> list[str]:
        """The parts of the pathspec."""
        return components(self.pathspec)

    @property
    def parent(self) -> Flow:
        """The flow."""
        return FLOWS.find(self.run_store.flow)

    @cached_property
    def record(self) -> RunRecord:
        """The inputs of the run, recorded at its start."""
        return self.run_store.read()

    def share_record(self, earlier: Run) -> None:
        """Takes the record from another object for the same run, if that has read it: it never changes."""
        if "record" in vars(earlier):
            vars(self)["record"] = earlier.record

    @cached_property
    def graph(self) -> Graph:
        """The flow's graph at the start of the run."""
        return self.record.graph

    @cached_property
    def tables(self) -> Tables:
        """The artifacts of the run's tasks; artifacts that many of them inherited are read once."""
        return Tables(self.run_store)

    @property
    def end(self) -> EndFacts | None:
        """The outcome of the run, and whether it reached its last step; None if it has no outcome yet."""
        if self._facts is not None and self._facts.end is not None:
            return self._facts.end
        outcome = self.outcome
        return None if outcome is None else EndFacts(outcome.outcome, outcome.finished, usage=outcome.usage)

    @property
    def _last(self) -> tuple[float, bool] | None:
        """When the last step finished, and whether it failed under ``@catch``; None if the run has not reached it."""
        if self._facts is not None and (end := self._facts.end) is not None and end.is_complete:
            return None if end.reached is None else (end.reached, end.is_caught)
        commit = self.run_store.read_commit(self.record.end, "0")
        return None if commit is None else (commit.finished, commit.is_caught)

    @property
    def successful(self) -> bool:
        """True if the run reached its end, unless its last step failed and ``@catch`` let it continue."""
        last = self._last
        return last is not None and not last[1]

    @property
    def finished(self) -> bool:
        """True if the run reached its end; ``status`` also covers failed and cancelled runs."""
        return self._last is not None

    @property
    def has_ended(self) -> bool:
        """True if the run has ended in any way."""
        return self.end is not None or self._last is not None

    @property
    def finished_at(self) -> datetime | None:
        """The time at which the run reached its end; None if it runs, failed or was cancelled."""
        last = self._last
        return local_time(last[0]) if last is not None else None

    @property
    def outcome(self) -> OutcomeRecord | None:
        """The outcome of the run, or None while it runs."""
        return self.run_store.read_run_outcome()

    @property
    def status(self) -> str:
        """``running``, ``succeeded``, ``failed`` or ``cancelled``."""
        return self.status_after(self.end)

    def status_after(self, end: EndFacts | None) -> str:
        """The status of the run, given what ``end`` returned."""
        if end is None:
            return "succeeded" if self._last is not None else "running"
        return end.outcome if end.outcome in _NAMED else "failed"

    @property
    def has_dead_driver(self) -> bool:
        """True if the process that drove the run, on this machine, is known to be dead; of a run without an end."""
        from k8sflow.storage.lease import lease_of  # noqa: PLC0415  most readers ask for runs that have ended

        if self.record.is_detached:
            return False
        holder = lease_of(self.run_store).holder()
        return holder is not None and holder.is_dead

    @property
    def usage(self) -> Usage | None:
        """The resources that the run's tasks used so far, without those taken from another run; None if unknown."""
        end = self.end
        return end.usage if end is not None else together(self.run_store.usage().values())

    @property
    def created(self) -> float:
        """The start time of the run, in seconds since 1970."""
        return self.record.created if self._facts is None else self._facts.created

    @property
    def created_at(self) -> datetime:
        """The start time of the run."""
        return local_time(self.created)

    @property
    def user_name(self) -> str:
        """The user who started it."""
        return self.record.user if self._facts is None else self._facts.user

    @property
    def origin_run_id(self) -> str | None:
        """The id of the run that this one resumes, or None."""
        return self.record.origin_run_id if self._facts is None else self._facts.origin_run_id

    @property
    def origin_pathspec(self) -> str | None:
        """The pathspec of the run that this one resumes, or None."""
        return f"{self.run_store.flow}/{self.origin_run_id}" if self.origin_run_id else None

    @property
    def code(self) -> Code | None:
        """The code package, or None for a run on one machine, which needs none."""
        return Code(self.run_store, self.record) if self.record.package else None

    @property
    def environment_info(self) -> dict[str, str] | None:
        """The code and the versions that its pods used; None for a run without a code package."""
        if (code := self.code) is None:
            return None
        known = {
            "script": self.record.file,
            "code_package_sha": code.sha,
            "username": self.user_name,
            "python_version": self.record.python_version,
            "k8sflow_version": self.record.k8sflow_version,
        }
        return {name: value for name, value in known.items() if value}

    @property
    def trigger(self) -> None:
        """The event that started the run; always None, because people start runs."""
        return

    # ------------------------------------------------------------------ tags

    @property
    def tags(self) -> frozenset[str]:
        """The user's tags and those of the system."""
        return self.user_tags | self.system_tags

    @property
    def user_tags(self) -> frozenset[str]:
        """The tags that people gave the run, at its start or later."""
        if self._facts is not None and self._facts.tags is not None:
            return frozenset(self._facts.tags)
        return frozenset(self.run_store.read_tags(lambda: self.record.tags))

    @property
    def system_tags(self) -> frozenset[str]:
        """The tags that follow from the run's record: user, date, runtime, project."""
        return system_tags(self.record) if self._facts is None else self._facts.system_tags

    def is_in_namespace(self) -> bool:
        """True if the run is in the current namespace."""
        return self.has_tag(get_namespace())

    def has_tag(self, tag: str | None) -> bool:
        """True if the run is in a namespace (None for any). A run that can't be read is in every namespace."""
        try:
            return tag is None or tag in self.system_tags or tag in self.user_tags
        except (RunError, StorageError):  # reading more of this run raises it again
            return True

    def add_tag(self, tag: str | Iterable[str]) -> None:
        """Adds a tag, or several.

        Raises:
            TagError: It is not a valid tag.
        """
        self.replace_tags((), [tag] if isinstance(tag, str) else tag)

    add_tags = add_tag

    def remove_tag(self, tag: str | Iterable[str]) -> None:
        """Removes a tag, or several; ignores missing ones.

        Raises:
            TagError: It is a system tag.
        """
        self.replace_tags([tag] if isinstance(tag, str) else tag, ())

    remove_tags = remove_tag

    def replace_tag(self, tag_to_remove: str, tag_to_add: str) -> None:
        """Replaces one tag in a single change."""
        self.replace_tags([tag_to_remove], [tag_to_add])

    def replace_tags(self, tags_to_remove: Iterable[str], tags_to_add: Iterable[str]) -> None:
        """Removes tags and adds others in a single change, so that readers never see a state in between.

        Raises:
            TagError: An added one is not a valid tag, or a removed one is a system tag.
        """
        removed, added = set(checked(tags_to_remove)), checked(tags_to_add)
        if fixed := sorted(removed & self.system_tags):
            raise TagError(
                f"{fixed[0]!r} is a system tag, which follows from the run's record.",
                advice="Only tags that people added can be removed.",
            )
        tags = self.run_store.change_tags(
            lambda before: tuple(dict.fromkeys([*(tag for tag in before if tag not in removed), *added]))
        )
        if self._facts is not None:
            self._facts = replace(self._facts, tags=tags)

    # ------------------------------------------------------------------ steps

    def node(self, step: str) -> Node | None:
        """A step's node in the graph; None for ``_parameters``, which is not part of it."""
        return self.graph.nodes.get(step)

    def task_ids(self, step: str) -> list[str]:
        """The ids of a step's tasks; ``_parameters`` always has one."""
        return [PARAMETERS_TASK] if step == PARAMETERS else self.run_store.tasks(step)

    def commit(self, step: str, task: str) -> Commit | None:
        """A task's commit, or None if it has none yet; that of ``_parameters`` follows from the run's record."""
        if step == PARAMETERS:
            return Commit(0, (), {}, started=self.record.created, finished=self.record.created)
        return self.run_store.read_commit(step, task)

    @property
    def end_task(self) -> Task | None:
        """The end step's task, or None if the run did not reach it."""
        return self[self.record.end].task if self._last is not None else None

    @property
    def data(self) -> TaskData | None:
        """The artifacts of the end step, or None if the run did not reach it."""
        task = self.end_task
        return task.data if task is not None else None

    def steps(self, *tags: str) -> Iterator[Step]:
        """The started steps, the newest first, if the run has all the tags."""
        return iter(self) if self.tags.issuperset(tags) else iter(())

    def __iter__(self) -> Iterator[Step]:
        return reversed(self.started_steps(self.graph.by_time()))

    def started_steps(self, names: Iterable[str]) -> list[Step]:
        """The started ones of some steps, in the given order."""
        started = set(self.run_store.steps())
        return [self.unchecked_step(name) for name in names if name in started]

    def unchecked_step(self, step: str) -> Step:
        """A step, whether or not it has started."""
        return Step(step, parent=self)

    def beside(self, flow: str, run: str) -> Run:
        """Another run in the same store."""
        return Run(RunStore(self.run_store.store, flow, run))

    def __getitem__(self, step: str) -> Step:
        if step == PARAMETERS:
            return Step(step, parent=self)
        if step not in self.record.steps:
            raise NotFoundError(
                f"{self.pathspec} has no step {step!r}.", advice=among(step, self.record.steps, "Its steps are")
            )
        if step not in self:
            raise NotFoundError(
                f"the step {self.pathspec}/{step} has not started.",
                cause="The run took another branch, failed before it, or has not reached it yet.",
                advice=among(step, [found.id for found in self], "The started steps are"),
            )
        return Step(step, parent=self)

    def __contains__(self, step: str) -> bool:
        return step == PARAMETERS or (step in self.record.steps and step in set(self.run_store.steps()))

    def __repr__(self) -> str:
        return f"Run({self.pathspec!r})"

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return run_html(self)


# A step outside the graph, which iteration skips, as in Metaflow. Its only task has the parameters, configs and
# constants.
PARAMETERS, PARAMETERS_TASK = "_parameters", "0"
_NAMED = {Outcome.SUCCEEDED, Outcome.CANCELLED}


def _find(pathspec: str) -> RunStore:
    flow, run = split(pathspec, "flow/run")
    name, _, folder = flow.partition("/")
    if folder:  # that of the trial tasks of spin
        return Runs(name, known_stores(), folder)[run]
    return FLOWS.find(name)[run].run_store


def task_of(run_store: RunStore, step: str, task: str) -> Task:
    """A task of a run; it may not have any records yet."""
    return Task(task, parent=Run(run_store).unchecked_step(step))


RUNS.register(Run)
