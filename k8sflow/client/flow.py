"""The flows in the known stores, and their runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial

from k8sflow.client.namespaces import get_namespace
from k8sflow.client.run import Run
from k8sflow.client.stores import known_stores
from k8sflow.client.tree import FLOWS
from k8sflow.errors import NamespaceMismatchError, NotFoundError
from k8sflow.runtime.lookup import Runs, among, flow_names
from k8sflow.storage.objects import ObjectStore


class Metaflow:
    """Every flow that has runs: the root of the tree, under Metaflow's name.

    ``Metaflow().flows``, ``Metaflow()["BigSum"]``.
    """

    @property
    def flows(self) -> list[Flow]:
        """The flows that have a run in the namespace, by name."""
        return list(self)

    def __iter__(self) -> Iterator[Flow]:
        flows = (Flow(name, is_checked=False) for name in flow_names(known_stores()))
        return (flow for flow in flows if flow.latest_run is not None)

    def __getitem__(self, name: str) -> Flow:
        return Flow(name)

    def __contains__(self, name: str) -> bool:
        return name in flow_names(known_stores())

    def __repr__(self) -> str:
        return "Metaflow()"


class Flow:
    """The runs of a flow, in every known store.

    Args:
        name: The flow's class name.
        stores: The stores to search; None for all known ones.
        everyone: True to find runs outside the namespace too.
        is_checked: True to refuse a flow without runs in the namespace.

    Raises:
        NotFoundError: It has no run.
        NamespaceMismatchError: It has none in the namespace.
    """

    def __init__(
        self,
        name: str,
        *,
        stores: Sequence[ObjectStore] | None = None,
        everyone: bool = False,
        is_checked: bool = True,
    ) -> None:
        self.id = name
        # As in Metaflow, the namespace is fixed now; a later namespace() applies to objects created after it.
        self._namespace = None if everyone else get_namespace()
        self.lookup = Runs(name, known_stores() if stores is None else stores)
        if not self.lookup:
            where = " or ".join(store.url for store in self.lookup.stores) or "any known store"
            known = flow_names(self.lookup.stores)
            advice = (
                "Look from the folder in which the flow was started, or one below it, or set K8SFLOW_ROOT; for a "
                "bucket, K8SFLOW_BUCKET."
            )
            if known:
                advice = among(name, known, "The flows there are")
            raise NotFoundError(f"there is no run of a flow {name!r} in {where}.", advice=advice)
        if is_checked and self._namespace is not None and self.latest_run is None:
            others = "1 is" if len(self.lookup) == 1 else f"{len(self.lookup)} are"
            raise NamespaceMismatchError(
                f"no run of {name} is in the namespace {self._namespace}; {others} outside it.",
                advice="k8sflow.namespace(None) finds the runs of everybody, k8sflow.namespace('user:ada') those of "
                "Ada.",
            )

    @property
    def pathspec(self) -> str:
        """The flow's name."""
        return self.id

    @property
    def path_components(self) -> list[str]:
        """The flow's name."""
        return [self.id]

    @property
    def tags(self) -> frozenset[str]:
        """Always empty: only runs have tags."""
        return frozenset()

    user_tags = system_tags = tags

    def is_in_namespace(self) -> bool:
        """True if it has a run in the namespace."""
        return any(run.is_in_namespace() for run in self._all())

    @property
    def parent(self) -> Metaflow:
        """All flows."""
        return Metaflow()

    @property
    def created_at(self) -> datetime:
        """The start time of its first run."""
        return Run([*self.lookup][-1]).created_at

    @property
    def latest_run(self) -> Run | None:
        """The run that was started last, or None if there is none in the namespace."""
        return next(iter(self), None)

    @property
    def latest_successful_run(self) -> Run | None:
        """The last run that succeeded, or None."""
        return next((run for run in self if run.successful), None)

    def runs(self, *tags: str) -> Iterator[Run]:
        """The runs that have all the tags, the latest first."""
        return (run for run in self if run.tags.issuperset(tags))

    def __iter__(self) -> Iterator[Run]:
        """The runs, the latest first; those in a bucket as a listing shows them, with the tags of that moment."""
        return (run for run in self._all() if run.has_tag(self._namespace))

    def _all(self) -> Iterator[Run]:
        """All runs. Beyond the latest one, listing them takes less time than reading their records."""
        for number, run in enumerate(self.lookup):
            is_read = not run.store.is_shared or (number == 0 and not self.lookup.has_facts)
            yield Run(run) if is_read else Run(run, self.lookup.facts.get(run.run))

    def __getitem__(self, run: str | int) -> Run:
        found = Run(self.lookup[str(run)])
        if not found.has_tag(self._namespace):
            raise NamespaceMismatchError(
                f"the run {found.pathspec} is not in the namespace {self._namespace}.",
                cause="Another user started it." if found.user_name else "",
                advice="k8sflow.namespace(None) finds the runs of everybody.",
            )
        return found

    def __contains__(self, run: str | int) -> bool:
        return str(run) in self.lookup

    def __repr__(self) -> str:
        return f"Flow({self.id!r})"


FLOWS.register(partial(Flow, is_checked=False))
