"""A run by what a person calls it, in the stores that a flow's runs are in."""

from __future__ import annotations

from collections.abc import Iterator

from k8sflow.config import Settings
from k8sflow.errors import RunError, StorageError
from k8sflow.flow.problems import did_you_mean
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime import remote
from k8sflow.runtime.request import local_roots
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open import open_store
from k8sflow.storage.records import started_at
from k8sflow.storage.run_store import RunStore
from k8sflow.user import current_user


def stores(flow: type[FlowSpec], settings: Settings) -> Iterator[ObjectStore]:
    """Where runs of a flow are: the folders on this machine, and the bucket where one is set."""
    yield from (open_store(str(root)) for root in local_roots(flow, settings))
    if settings.bucket:
        yield remote.open_bucket(settings)


def run_of(flow: type[FlowSpec], settings: Settings, text: str) -> RunStore:
    """The run that ``run`` or ``flow/run`` names.

    Raises:
        RunError: There is none, or it is one of another flow.
    """
    name, _, run = text.strip("/").rpartition("/")
    if name and name != flow.__name__:
        raise RunError(
            f"{text!r} names no run of this file's flow, {flow.__name__}.",
            cause="It is a run of another flow, or a part of a run.",
            advice=f"Runs of {flow.__name__} are named by their id, or {flow.__name__}/ID.",
        )
    known: list[RunStore] = []
    where = []
    for store in stores(flow, settings):
        found = RunStore(store, flow.__name__, run)
        if run and store.exists(f"{found.prefix}/run.json"):
            return found
        known += [RunStore(store, flow.__name__, found) for found in store.list_folders(f"{flow.__name__}/runs/")]
        where.append(store.url)
    known = [each for each in known if each.run != run]  # a folder of this name is there, and no record in it
    alike = did_you_mean(run, [each.run for each in known])
    latest = f"The latest is {max(known, key=_began).run}." if known and not alike else ""
    raise RunError(f"there is no run {flow.__name__}/{run} in {' or '.join(where)}.", advice=alike or latest)


def latest_of(flow: type[FlowSpec], settings: Settings) -> RunStore:
    """The run that was started last, in a bucket by this user.

    Raises:
        RunError: There is none.
    """
    found = [run for run in map(_latest_in, _runs_by_store(flow, settings)) if run is not None]
    if not found:
        raise RunError(f"there is no run of {flow.__name__} yet.", advice="Start one by the command run.")
    return max(found, key=_began)


def _runs_by_store(flow: type[FlowSpec], settings: Settings) -> Iterator[list[RunStore]]:
    for store in stores(flow, settings):
        ids = store.list_folders(f"{flow.__name__}/runs/")
        yield [RunStore(store, flow.__name__, run) for run in ids]


def _latest_in(runs: list[RunStore]) -> RunStore | None:
    is_shared = bool(runs) and runs[0].store.url.startswith("s3://")
    for run in sorted(runs, key=_began, reverse=True):
        if not is_shared or run.read().user == current_user():
            return run
    return None


def _began(run: RunStore) -> float:
    """When a run was started: most ids tell; the record of one with a name of the user's is read."""
    try:
        return started_at(run.run).timestamp()
    except ValueError:
        pass
    try:
        return run.read().created
    except (RunError, StorageError):  # told where it is the one that is meant
        return 0.0
