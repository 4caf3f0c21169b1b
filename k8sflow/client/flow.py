"""The flows in the known stores, and their runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property, partial

from k8sflow.client.errors import among
from k8sflow.client.namespaces import get_namespace
from k8sflow.client.run import Run
from k8sflow.client.stores import known_stores
from k8sflow.client.tree import FLOWS
from k8sflow.errors import NamespaceMismatchError, NotFoundError, RunError, StorageError
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import started_at
from k8sflow.storage.run_store import RunStore


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
        self._stores: dict[str, ObjectStore] = {}
        looked = known_stores() if stores is None else stores
        for store in looked:
            self._stores = {**dict.fromkeys(store.list_folders(f"{name}/runs/"), store), **self._stores}
        if not self._stores:
            where = " or ".join(store.url for store in looked) or "any known store"
            known = flow_names(looked)
            raise NotFoundError(
                f"there is no run of a flow {name!r} in {where}.",
                advice=among(name, known, "The flows there are") if known
                else "Look from the folder in which the flow was started, or one below it, or set K8SFLOW_ROOT; for a "
                "bucket, K8SFLOW_BUCKET.",
            )  # fmt: skip
        if is_checked and self._namespace is not None and self.latest_run is None:
            raise NamespaceMismatchError(
                f"no run of {name} is in the namespace {self._namespace}; {len(self._stores)} are outside it.",
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
        return any(self._run(name).is_in_namespace() for name in self._newest_first)

    @property
    def parent(self) -> Metaflow:
        """All flows."""
        return Metaflow()

    @property
    def created_at(self) -> datetime:
        """The start time of its first run."""
        return self._run(self._newest_first[-1]).created_at

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
        """The runs, the latest first."""
        runs = map(self._run, self._newest_first)
        return (run for run in runs if run.has_tag(self._namespace))

    def __getitem__(self, run: str) -> Run:
        if run not in self._stores:
            newest = sorted(self._stores, reverse=True)
            raise NotFoundError(f"there is no run {self.id}/{run}.", advice=among(run, newest, "The runs are"))
        found = self._run(run)
        if not found.has_tag(self._namespace):
            raise NamespaceMismatchError(
                f"the run {found.pathspec} is not in the namespace {self._namespace}.",
                cause="Another user started it." if found.user_name else "",
                advice="k8sflow.namespace(None) finds the runs of everybody.",
            )
        return found

    def __contains__(self, run: str) -> bool:
        return run in self._stores

    def __repr__(self) -> str:
        return f"Flow({self.id!r})"

    def _run(self, run: str) -> Run:
        return Run(RunStore(self._stores[run], self.id, run))

    @cached_property
    def _newest_first(self) -> list[str]:
        """The ids of the runs, in the namespace or not."""
        return sorted(self._stores, key=lambda name: started(self._run(name)), reverse=True)


FLOWS.register(partial(Flow, is_checked=False))


def flow_names(stores: Sequence[ObjectStore]) -> list[str]:
    """The names of the flows that have runs in a store."""
    found = {name for store in stores for name in store.list_folders("")}
    return sorted(name for name in found if any(next(s.list_folders(f"{name}/runs/"), None) for s in stores))


def started(run: Run) -> float:
    """The start time of a run, from its id or, if the user chose the id, from its record."""
    try:
        return started_at(run.id).timestamp()
    except ValueError:
        pass
    try:
        return run.record.created
    except (RunError, StorageError):  # reading more of this run raises it again
        return 0.0
