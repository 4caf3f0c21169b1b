"""Which run do you mean: answered here for the command line, the client, Runner, resume, attach and spin.

A name is a pathspec, ``flow/run/step/task/artifact``, or a part of one: a file's own flow may be left out, and so may
the run, where the latest one is meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from k8sflow.config import Settings
from k8sflow.errors import NotFoundError, RunError, StorageError
from k8sflow.flow.problems import did_you_mean
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.request import local_roots
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open_store import store_of
from k8sflow.storage.patience import Patience
from k8sflow.storage.records import started_at
from k8sflow.storage.run_index import RunFacts, read_index
from k8sflow.storage.run_store import RUNS, SPINS, RunStore
from k8sflow.user import current_user

_MOST_LISTED = 20
# Errors list no more runs and names: a flow has thousands of runs.
_MOST_RUNS = 5
_MOST_CLOSE = 3


@dataclass(frozen=True)
class RunReference:
    """A run, or a part of it.

    Args:
        run: The run.
        step: The name of one of its steps.
        task: The id of one of the step's tasks.
        artifact: The name of one of the task's artifacts.
    """

    run: RunStore
    step: str | None = None
    task: str | None = None
    artifact: str | None = None


class Runs:
    """The runs of one flow in several stores, the newest first.

    Args:
        flow: The flow's name.
        stores: The stores; where two have a run of the same id, the first one's counts.
        folder: The folder of the flow: RUNS, or SPINS for the trial tasks of ``spin``.
    """

    def __init__(self, flow: str, stores: Iterable[ObjectStore], folder: str = RUNS) -> None:
        self.flow = flow
        self.stores = tuple(stores)
        self._folder = folder

    def __getitem__(self, run: str) -> RunStore:
        for store in self.stores:
            found = RunStore(store, self.flow, run, self._folder)
            if run and store.exists(f"{found.prefix}/run.json"):
                return found
        if run in self._by_id:  # its record can't be read, and the error that says why comes from there
            return self._by_id[run]
        pathspec = f"{self.flow}/{run}" if self._folder == RUNS else f"{self.flow}/{self._folder}/{run}"
        newest = sorted(self._by_id, reverse=True)
        raise NotFoundError(f"there is no run {pathspec}.", advice=f"{_among_runs(run, newest)} {self._where}")

    def __contains__(self, run: str) -> bool:
        return run in self._by_id

    def __iter__(self) -> Iterator[RunStore]:
        return iter(self._newest_first)

    def __len__(self) -> int:
        return len(self._by_id)

    def named(self, text: str) -> RunStore:
        """The run that ``run`` or ``flow/run`` names.

        Raises:
            NotFoundError: There is none, or it is a run of another flow, or a part of a run.
        """
        words = self._without_flow(text)
        if len(words) == 1:
            return self[words[0]]
        if words and words[0] in self:
            raise NotFoundError(
                f"{text!r} is not a run, but a part of {self[words[0]].pathspec}.", advice="Name the run."
            )
        raise NotFoundError(
            f"{text!r} names no run of this file's flow, {self.flow}.",
            advice=f"Runs of {self.flow} are named by their id, or {self.flow}/ID.",
        )

    def resolve(self, text: str, latest: Callable[[], RunStore], steps: Sequence[str] = ()) -> RunReference:
        """The run, or the part of a run, that a person means; without a run's id, of the latest run.

        Args:
            text: ``step/task``, ``run/step``, ``flow/run/step/task/artifact``, …; empty for the latest run.
            latest: Finds the latest run.
            steps: The names of the steps, where not those of the run's record count.

        Raises:
            NotFoundError: There is no such run.
        """
        words = self._without_flow(text)
        run = self[words.pop(0)] if words and words[0] in self else None
        if run is None:
            run = latest()
            known = steps or run.read().steps
            if words and words[0] not in known:
                raise self._unknown(words, run, known)
        most = 3
        if len(words) > most:
            raise NotFoundError(f"{text!r} has too many parts.", advice="A pathspec is flow/run/step/task/artifact.")
        return RunReference(run, *words)

    def latest(self, is_wanted: Callable[[RunStore], bool] = lambda _: True) -> RunStore | None:
        """The run that was started last, of those that are wanted; None where there is none."""
        return next((run for run in self if is_wanted(run)), None)

    def latest_own(self) -> RunStore:
        """The run that was started last; in a bucket, which others use too, by this user.

        Raises:
            NotFoundError: There is none.
        """
        run = self.latest(lambda run: not run.store.is_shared or run.read().user == current_user())
        if run is None:
            raise NotFoundError(f"there is no run of {self.flow} yet.", advice="Start one by the command run.")
        return run

    def _without_flow(self, text: str) -> list[str]:
        words = [word for word in text.split("/") if word]
        return words[1:] if words[:1] == [self.flow] and self.flow not in self else words

    def _unknown(self, words: Sequence[str], latest: RunStore, steps: Sequence[str]) -> NotFoundError:
        ids = [run.run for run in self]
        if len(words) > 1 and words[1] in steps:
            return NotFoundError(f"there is no run {self.flow}/{words[0]}.", advice=_among_runs(words[0], ids))
        return NotFoundError(
            f"{words[0]!r} is neither a run of {self.flow} nor a step of its latest run, {latest.run}.",
            advice=_among_runs(words[0], ids, steps),
        )

    @cached_property
    def _by_id(self) -> dict[str, RunStore]:
        found: dict[str, RunStore] = {}
        for store in self.stores:
            for run in store.list_folders(f"{self.flow}/{self._folder}/"):
                found.setdefault(run, RunStore(store, self.flow, run, self._folder))
        return found

    @property
    def has_facts(self) -> bool:
        """True if ``facts`` were listed already."""
        return "facts" in vars(self)

    @cached_property
    def facts(self) -> Mapping[str, RunFacts]:
        """The facts of the runs in a bucket, as far as its index has them, from a listing."""
        if self._folder != RUNS:
            return {}
        indexes = {store.url: read_index(store, self.flow) for store in self.stores}
        found = ((run, indexes[each.store.url].get(run)) for run, each in self._by_id.items())
        return {run: facts for run, facts in found if facts is not None}

    @cached_property
    def _newest_first(self) -> list[RunStore]:
        return sorted(self._by_id.values(), key=self._started, reverse=True)

    def _started(self, run: RunStore) -> float:
        """The start time of a run: most ids have it; where the user chose the id, the index or the record."""
        try:
            return started_at(run.run).timestamp()
        except ValueError:
            facts = self.facts.get(run.run) if run.store.is_shared else None
            return started(run) if facts is None else facts.created

    @property
    def _where(self) -> str:
        return f"Looked in {' and '.join(store.url for store in self.stores)}."


def stores_in(settings: Settings, roots: Iterable[str], patience: Patience | None = None) -> list[ObjectStore]:
    """The stores with runs, each once: the roots, and the bucket where the settings name one.

    Args:
        settings: The settings.
        roots: Folders of this machine, or URLs of buckets.
        patience: How long calls wait for a bucket that can't be reached.
    """
    urls = [*roots, *([settings.bucket_url] if settings.bucket_url else [])]
    return [store_of(settings, url, patience) for url in dict.fromkeys(url.rstrip("/") or url for url in urls)]


def runs_of(flow: type[FlowSpec], settings: Settings) -> Runs:
    """The runs of a flow's file, in stores with the patience of a driver."""
    roots = local_roots(flow, settings)
    return Runs(flow.__name__, stores_in(settings, roots, Patience(settings.storage_patience)))


def flow_names(stores: Iterable[ObjectStore]) -> list[str]:
    """The names of the flows that have runs in a store."""
    names = {
        name
        for store in stores
        for name in store.list_folders("")
        if next(iter(store.list_folders(f"{name}/{RUNS}/")), None)
    }
    return sorted(names)


def run_of_any_flow(stores: Iterable[ObjectStore], run: str) -> RunStore | None:
    """The run with an id, whatever its flow is called; None where there is none."""
    found = (RunStore(store, flow, run) for store in stores for flow in store.list_folders(""))
    return next((each for each in found if each.store.exists(f"{each.prefix}/run.json")), None)


def split(pathspec: str, form: str) -> tuple[str, str]:
    """A full pathspec in two: all but its last part, and its last part.

    Args:
        pathspec: The pathspec.
        form: The form that it has to have: ``flow/run/step``.

    Raises:
        NotFoundError: It has another one.
    """
    pathspec = str(pathspec)  # a user may pass a number
    parts = pathspec.strip("/").split("/")
    depth = form.count("/") + 1 + (parts[1:2] == [SPINS])  # a trial task of spin is one folder deeper
    if len(parts) != depth or not all(parts):
        raise NotFoundError(
            f"{pathspec!r} names no {form.rpartition('/')[2]}.", advice=f"A pathspec of one has the form {form}."
        )
    return "/".join(parts[:-1]), parts[-1]


def among(word: str, words: Iterable[str], what: str) -> str:
    """The advice about a name that doesn't exist: the closest one, and those that do."""
    known = list(words)
    shown = ", ".join(known[:_MOST_LISTED]) + (", …" if len(known) > _MOST_LISTED else "")
    return " ".join(filter(None, [did_you_mean(word, known), f"{what} {shown or 'none'}."]))


def _among_runs(word: str, newest: Sequence[str], steps: Iterable[str] = ()) -> str:
    """The advice about a run that doesn't exist: the names that are close, and the runs that were started last.

    Args:
        word: The name.
        newest: The ids of the runs, the newest first.
        steps: The names of steps, if one may be meant.
    """
    known = [*steps]
    close = " or ".join(map(repr, difflib.get_close_matches(word, [*known, *newest], n=_MOST_CLOSE)))
    listed = ", ".join(newest[:_MOST_RUNS]) or "none"
    runs = "The runs are" if len(newest) <= _MOST_RUNS else f"The latest of its {len(newest):,} runs are"
    parts = (f"Did you mean {close}?" if close else "", f"Its steps are {', '.join(known)}." if known else "")
    return " ".join(filter(None, [*parts, f"{runs} {listed}."]))


def started(run: RunStore) -> float:
    """When a run was started: most ids say so; where the user chose the id, the record is read."""
    try:
        return started_at(run.run).timestamp()
    except ValueError:
        pass
    try:
        return run.read().created
    except (RunError, StorageError):  # raised again where more is read of this run
        return 0.0
